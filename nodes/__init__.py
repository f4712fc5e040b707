"""The ComfyUI nodes: schema in, `weaver_core`, result out. Imported by ComfyUI only, through the root `comfy_entrypoint`."""

from __future__ import annotations

import logging
from importlib import import_module

# One module per node. A node whose schema this host cannot build is left out with a message; the others stay.
_NODES = (
    (".load_model", "WeaverLoadModel"),
    (".plan", "WeaverPlan"),
    (".split_plan", "WeaverSplitPlan"),
    (".visualize", "WeaverVisualizePlan"),
    (".preview", "WeaverPreviewStory"),
    (".save", "WeaverSaveStory"),
)


def build_extension():
    """The extension object that ComfyUI asks for its nodes."""
    from comfy_api.latest import ComfyExtension

    from . import host

    host.register_model_folder()

    class WeaverExtension(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return list(_usable_nodes())

    return WeaverExtension()


def _usable_nodes():
    for module, name in _NODES:
        try:
            node = getattr(import_module(module, __package__), name)
            node.GET_SCHEMA()
        except Exception:
            logging.exception("Weaver: the node %s cannot be used with this ComfyUI; the other nodes are not affected", name)
        else:
            yield node
