"""The ComfyUI nodes: schema in, `weaver_core`, result out. Imported by ComfyUI only, through the root `comfy_entrypoint`."""

from __future__ import annotations

import logging
from importlib import import_module

# One module per node. A node whose schema this host cannot build is left out with a message; the others stay.
_NODES = (
    (".load_model", "WeaverLoadModel"),
    (".load_diffusers", "WeaverLoadDiffusers"),
    (".load_lora", "WeaverLoadLora"),
    (".request", "WeaverRequest"),
    (".make_character", "WeaverMakeCharacter"),
    (".load_cast", "WeaverLoadCast"),
    (".save_cast", "WeaverSaveCast"),
    (".character_from_story", "WeaverCharacterFromStory"),
    (".plan", "WeaverPlan"),
    (".write_plan", "WeaverWritePlan"),
    (".edit_plan", "WeaverEditPlan"),
    (".plan_with_server", "WeaverPlanWithServer"),
    (".plan_with_local_model", "WeaverPlanWithLocalModel"),
    (".plan_with_clip", "WeaverPlanWithClip"),
    (".critic", "WeaverCritic"),
    (".split_plan", "WeaverSplitPlan"),
    (".references", "WeaverReferences"),
    (".visualize", "WeaverVisualizePlan"),
    (".visualize_with_model", "WeaverVisualizeWithModel"),
    (".keep_page", "WeaverKeepPage"),
    (".interleave", "WeaverInterleave"),
    (".preview", "WeaverPreviewStory"),
    (".save", "WeaverSaveStory"),
    (".export", "WeaverExportStory"),
    (".load_story", "WeaverLoadStory"),
    (".pick_image", "WeaverPickImage"),
    (".story_parts", "WeaverStoryParts"),
    (".reroll_image", "WeaverRerollImage"),
    (".replace_image", "WeaverReplaceImage"),
    (".evaluate_story", "WeaverEvaluateStory"),
    (".judge_story", "WeaverJudgeStory"),
    (".compare_stories", "WeaverCompareStories"),
)


def build_extension():
    """The extension object that ComfyUI asks for its nodes."""
    from comfy_api.latest import ComfyExtension

    from . import host

    host.register_model_folders()

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
