"""What cannot be used comes back as a sentence that says what was got and what to do, and nothing is lost."""

from __future__ import annotations

import copy

import pytest
from comfy_process import HttpError
from graphs import node_of


def refusal(comfy, prompt: dict, node_id: str) -> str:
    """What ComfyUI answers when it refuses the prompt because of a node."""
    with pytest.raises(HttpError) as caught:
        comfy.post("/prompt", {"prompt": prompt, "client_id": "refused"})
    assert caught.value.status == 400
    return " ".join(f"{error['message']} {error['details']}" for error in caught.value.body["node_errors"][node_id]["errors"])


def failure(comfy, prompt: dict, node_id: str) -> str:
    """The message with which a node ends a run."""
    run = comfy.run(prompt)
    assert run.ended == "execution_error" and run.end["node_id"] == node_id, (run.ended, run.end)
    return run.end["exception_message"]


def test_an_empty_prompt_is_refused_before_anything_runs(comfy, prompt):
    plan = node_of(prompt, "WeaverPlan")
    prompt[plan]["inputs"]["prompt"] = "  \n "
    assert "the prompt is empty; say what the story is about" in refusal(comfy, prompt, plan)


def test_an_empty_prompt_from_another_node_is_refused_as_well(comfy, prompt):
    plan = node_of(prompt, "WeaverPlan")
    prompt["20"] = {"class_type": "StringConcatenate", "inputs": {"string_a": " ", "string_b": "", "delimiter": " "}}
    prompt[plan]["inputs"]["prompt"] = ["20", 0]
    assert "the prompt is empty" in failure(comfy, prompt, plan)


def test_a_prompt_of_ten_thousand_words_is_refused_with_its_length(comfy, prompt):
    plan = node_of(prompt, "WeaverPlan")
    prompt[plan]["inputs"]["prompt"] = "fox " * 10_000
    message = failure(comfy, prompt, plan)
    assert "10,000 words" in message and "2,000" in message


@pytest.mark.parametrize("count", [500, -3])
def test_an_impossible_number_of_images_is_refused(comfy, prompt, count):
    plan = node_of(prompt, "WeaverPlan")
    prompt[plan]["inputs"]["num_images"] = count
    message = refusal(comfy, prompt, plan)
    assert str(count) in message and "num_images" in message


def test_an_impossible_number_of_images_from_another_node_is_refused(comfy, prompt):
    plan = node_of(prompt, "WeaverPlan")
    prompt["20"] = {"class_type": "PrimitiveInt", "inputs": {"value": 500}}
    prompt[plan]["inputs"]["num_images"] = ["20", 0]
    assert "500 were asked for; 1 to 64 can be" in failure(comfy, prompt, plan)


@pytest.mark.parametrize(
    "kind, name, source",
    [
        ("WeaverPlan", "weaver_model", "Load Weaver Model"),
        ("WeaverVisualizePlan", "plan", "Weaver Plan"),
        ("WeaverSaveStory", "story", "Visualize Plan"),
    ],
)
def test_a_word_where_a_wire_belongs_is_named(comfy, prompt, kind, name, source):
    graph = copy.deepcopy(prompt)
    node_id = node_of(graph, kind)
    graph[node_id]["inputs"][name] = "something"
    if kind != "WeaverSaveStory":
        del graph[node_of(graph, "WeaverSaveStory")]
    else:
        del graph[node_of(graph, "WeaverPreviewStory")]
    message = failure(comfy, graph, node_id)
    assert "got str" in message and source in message


def test_a_picture_that_is_too_small_is_refused(comfy, prompt):
    plan = node_of(prompt, "WeaverPlan")
    prompt["20"] = {"class_type": "EmptyImage", "inputs": {"width": 4, "height": 4, "batch_size": 1, "color": 0}}
    prompt[plan]["inputs"]["images"] = ["20", 0]
    assert "4 x 4 pixels; at least 8" in failure(comfy, prompt, plan)


@pytest.mark.parametrize("prefix", ["../outside", "/tmp/outside", "a/../../b", "a\x00b", "x" * 300, "", "../"])
def test_names_that_lead_out_of_the_output_folder_are_refused(comfy, prompt, first_run, prefix):
    save = node_of(prompt, "WeaverSaveStory")
    prompt[save]["inputs"]["filename_prefix"] = prefix
    before = sorted(path for path in comfy.folder.parent.rglob("*outside*"))
    message = failure(comfy, prompt, save)
    assert "filename_prefix" in message and str(comfy.folder) not in message
    assert sorted(path for path in comfy.folder.parent.rglob("*outside*")) == before


def test_a_model_folder_that_is_not_ours_is_named(comfy, prompt):
    load = node_of(prompt, "WeaverLoadModel")
    foreign = comfy.folder / "models" / "weaver" / "foreign"
    foreign.mkdir(parents=True, exist_ok=True)
    (foreign / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    prompt[load]["inputs"]["model"] = "foreign"
    try:
        message = failure(comfy, prompt, load)
        assert "StableDiffusionPipeline" in message and "WeaverModel" in message
    finally:
        (foreign / "model_index.json").unlink()
