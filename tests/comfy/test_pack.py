"""The pack inside a real ComfyUI: it loads, quickly and whole, and tells users what its nodes are."""

from __future__ import annotations

import urllib.request

import pytest
from comfy_process import ComfyProcess

NODES = {
    "WeaverLoadModel", "WeaverLoadDiffusers", "WeaverLoadLora", "WeaverPlan", "WeaverSplitPlan", "WeaverVisualizePlan",
    "WeaverPreviewStory", "WeaverSaveStory", "WeaverVisualizeWithModel", "WeaverKeepPage", "WeaverExportStory",
    "WeaverPlanWithServer", "WeaverPlanWithLocalModel", "WeaverWritePlan", "WeaverEditPlan", "WeaverLoadStory", "WeaverPickImage",
    "WeaverStoryParts", "WeaverRerollImage", "WeaverReplaceImage", "WeaverInterleave", "WeaverPlanWithClip", "WeaverCritic",
    "WeaverEvaluateStory", "WeaverJudgeStory", "WeaverCompareStories", "WeaverRequest", "WeaverMakeCharacter", "WeaverLoadCast",
    "WeaverSaveCast", "WeaverCharacterFromStory", "WeaverReferences",
}  # fmt: skip


def inputs_of(info: dict) -> dict:
    return {name: spec for group in ("required", "optional") for name, spec in info["input"].get(group, {}).items()}


def test_all_nodes_are_there_and_the_log_tells_of_no_trouble(comfy, object_info):
    assert {name for name in object_info if name.startswith("Weaver")} == NODES
    assert comfy.trouble() == []


def test_the_import_is_quick(comfy, tmp_path):
    """What ComfyUI prints. That is time on the wall; where other programs had the processor, a start that counts ours alone decides."""
    seconds = comfy.import_seconds()
    if seconds > 0.2:
        with ComfyProcess(tmp_path, counts_processor_time=True) as another:
            seconds = another.import_seconds()
    print(f"import of the pack: {seconds} s")
    assert seconds <= 0.2


@pytest.mark.parametrize("node", sorted(NODES))
def test_every_input_and_output_explains_itself(object_info, node):
    info = object_info[node]
    assert info["category"] == "Weaver" and info["description"]
    assert [name for name, spec in inputs_of(info).items() if not (len(spec) > 1 and spec[1].get("tooltip"))] == []
    assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])


@pytest.mark.parametrize("node", sorted(NODES))
def test_the_help_page_is_served_and_names_every_input(comfy, object_info, node):
    with urllib.request.urlopen(f"{comfy.url}/extensions/ComfyUI-Weaver/docs/{node}.md", timeout=10) as answer:
        page = answer.read().decode()
    assert page.startswith(f"# {object_info[node]['display_name']}")
    assert [name for name in inputs_of(object_info[node]) if name not in page] == []
    assert "**Example.**" in page


def test_the_workflow_is_offered_as_a_template(comfy):
    assert "prompt_to_story" in comfy.get("/workflow_templates")["ComfyUI-Weaver"]


def test_models_are_offered_by_name_and_only_folders_that_hold_one(comfy):
    models = comfy.folder / "models" / "weaver"
    for name in ("mine", "something-else"):
        (models / name).mkdir(parents=True, exist_ok=True)
    (models / "mine" / "model_index.json").write_text("{}")
    try:
        spec = comfy.get("/object_info/WeaverLoadModel")["WeaverLoadModel"]["input"]["required"]["model"]
        assert (spec[1].get("options") or spec[0]) == ["picture-book (embedded)", "mine"]
    finally:
        (models / "mine" / "model_index.json").unlink()
