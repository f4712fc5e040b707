"""As much of ComfyUI as the nodes touch, so that they can be run in a test's own process. tests/comfy has the real one.

The pack is loaded under a package name of its own, as ComfyUI does it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

REPOSITORY = Path(__file__).resolve().parents[1]
PACK = "weaver_pack_of_the_tests"


class _Socket:
    def __init__(self, id, **options):
        self.id, self.options = id, options


class _Schema:
    def __init__(self, *, node_id, display_name, category, description, inputs, outputs, search_aliases=(), hidden=(),
                 is_input_list=False, is_output_node=False, enable_expand=False, is_dev_only=False):  # fmt: skip
        for name, value in list(locals().items()):
            setattr(self, name, value)


class _ComfyNode:
    hidden = SimpleNamespace(unique_id="7", prompt=None, extra_pnginfo={"workflow": {"id": "the-workflow"}}, dynprompt=None)

    @classmethod
    def GET_SCHEMA(cls):
        return cls.define_schema()


class _Server:
    """Keeps what is sent to the page."""

    client_id, last_prompt_id = "the-page", "run-1"

    def __init__(self):
        self.sent = []

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data, sid))

    def send_progress_text(self, text, node_id, sid=None):
        pass


class _NodeOutput:
    def __init__(self, *args, ui=None, expand=None):
        self.args, self.ui, self.expand = args, ui or {}, expand


def load_pack(output: Path):
    """Loads the pack afresh and returns `part(name)`, which imports a module of it; `output` is the output folder."""
    unload_pack()
    kind = SimpleNamespace(Input=_Socket, Output=_Socket)
    io = SimpleNamespace(
        Schema=_Schema, ComfyNode=_ComfyNode, NodeOutput=_NodeOutput, Custom=lambda name: kind,
        Hidden=SimpleNamespace(unique_id="unique_id", prompt="prompt", dynprompt="dynprompt", extra_pnginfo="extra_pnginfo"),
        **dict.fromkeys(("String", "Int", "Float", "Boolean", "Combo", "Image", "Model", "Clip", "Vae"), kind),
    )  # fmt: skip
    bar = SimpleNamespace(update_absolute=lambda *_, **__: None)
    _module("comfy_api")
    _module("comfy_api.latest", io=io, ComfyExtension=object)
    _module("comfy", model_management=_module(
        "comfy.model_management", processing_interrupted=lambda: False, load_models_gpu=lambda *_, **__: None,
        throw_exception_if_processing_interrupted=lambda: None,
    ), utils=_module("comfy.utils", ProgressBar=lambda _: bar))  # fmt: skip
    _module("server", PromptServer=SimpleNamespace(instance=_Server()))
    _module("folder_paths", get_output_directory=lambda: str(output), models_dir=str(output))
    spec = importlib.util.spec_from_file_location(PACK, REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)
    return lambda name: importlib.import_module(f"{PACK}.{name}")


def unload_pack() -> None:
    """Takes pack and stand-ins away, so that no other test meets them."""
    for name in list(sys.modules):
        if name.split(".")[0] in (PACK, "comfy", "comfy_api", "folder_paths", "server"):
            del sys.modules[name]


def _module(name: str, **contents) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module
    return module
