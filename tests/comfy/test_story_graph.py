"""The shipped workflow, run over HTTP and websocket on the embedded default; pictures are judged by the oracle reader."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path

import pytest
from graphs import node_of
from PIL import Image

from weaver_core.picturebook.compose import render
from weaver_core.picturebook.reader import read
from weaver_core.picturebook.world import Character, Figure, Scene
from weaver_core.plan import Plan, parse_markup


def pictures(comfy, run, node_id: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(comfy.view(item))) for item in run.output(node_id)["images"]]


def colours_of(reading) -> set[str]:
    return {figure.colour for figure in reading.figures}


def drawn_files(comfy) -> dict[Path, int]:
    """The drawn pages that are kept, with the time of each file."""
    return {path: path.stat().st_mtime_ns for path in (comfy.output / "weaver-drafts").glob("*/images/*.png")}


def test_the_story_shows_the_hero_and_the_place_that_were_asked_for(comfy, prompt, first_run):
    images = pictures(comfy, first_run, node_of(prompt, "WeaverSaveStory"))
    assert len(images) == 4
    readings = [read(image) for image in images]
    assert sum(reading.place == "beach" for reading in readings) >= 3, readings
    assert sum("red" in colours_of(reading) for reading in readings) >= 3, readings
    assert sum("fox" in {figure.species for figure in reading.figures} for reading in readings) >= 3, readings


def test_the_preview_gets_text_and_pictures_and_no_path_of_this_computer(comfy, prompt, first_run):
    (story,) = first_run.output(node_of(prompt, "WeaverPreviewStory"))["weaver_story"]
    assert story["title"] and len(story["pages"]) == 4
    for page in story["pages"]:
        assert page["texts"] and all(page["texts"]) and page["prompt"]
        assert Image.open(io.BytesIO(comfy.view(page["picture"]))).size == tuple(page["picture"]["size"])
    assert str(comfy.folder) not in json.dumps(story)


def test_progress_covers_the_whole_story_and_previews_are_shown(prompt, first_run):
    node = node_of(prompt, "WeaverVisualizePlan")
    steps = [data for kind, data in first_run.messages if kind == "progress" and data["node"] == node]
    assert steps[-1]["value"] == steps[-1]["max"] and steps[-1]["max"] % 4 == 0
    assert [step["value"] for step in steps] == sorted(step["value"] for step in steps)
    assert len(first_run.binaries(4)) + len(first_run.binaries(1)) >= 4


def test_the_text_is_shown_while_it_is_written(prompt, first_run):
    node = node_of(prompt, "WeaverPlan").encode()
    told = [data[4 + len(node):].decode() for data in first_run.binaries(3) if data[4:4 + len(node)] == node]
    assert len(told) >= 3 and len(told[0]) < len(told[-1])


def test_the_saved_story_is_a_book_a_plan_and_pictures_that_open_the_workflow(comfy, workflow, prompt, first_run):
    saved = first_run.output(node_of(prompt, "WeaverSaveStory"))["images"]
    folder = comfy.output / Path(saved[0]["subfolder"]).parent
    assert re.fullmatch(r"story_\d{5}_", folder.name)
    plan = Plan.loads((folder / "plan.json").read_text())
    book = html.unescape((folder / "story.html").read_text())
    assert len(plan.images) == 4 and plan.title in book and book.count("data:image/") == 4
    for item in saved:
        with Image.open(comfy.output / item["subfolder"] / item["filename"]) as image:
            assert json.loads(image.text["workflow"]) == workflow
            embedded = json.loads(image.text["prompt"])
            assert {node: embedded[node]["inputs"] for node in embedded} == {node: prompt[node]["inputs"] for node in prompt}


def test_the_same_graph_again_runs_nothing(comfy, workflow, prompt, first_run):
    comfy.run(prompt, workflow)
    again = comfy.run(prompt, workflow)
    assert again.ended == "execution_success" and again.executed() == set()


def test_pages_are_not_drawn_again_when_comfyui_has_forgotten_them(comfy, prompt, first_run):
    before = drawn_files(comfy)
    comfy.post("/free", {"unload_models": True, "free_memory": True})
    run = comfy.run(prompt)
    assert run.ended == "execution_success" and node_of(prompt, "WeaverVisualizePlan") in run.executed()
    assert drawn_files(comfy) == before


def test_an_interrupt_stops_soon_keeps_finished_pages_and_the_next_run_goes_on(comfy, prompt, first_run):
    visualize = node_of(prompt, "WeaverVisualizePlan")
    steps = 40
    prompt[visualize]["inputs"] |= {"steps": steps, "seed": 4711}
    before, values = drawn_files(comfy), []

    def stop_on_page_two(kind, data):
        if kind == "progress" and data["node"] == visualize:
            values.append(data["value"])
            if data["value"] > 1.2 * steps and not any(value > 1.2 * steps for value in values[:-1]):
                comfy.post("/interrupt", {})

    run = comfy.run(prompt, on_message=stop_on_page_two)
    assert run.ended == "execution_interrupted"
    assert max(values) < 2 * steps
    kept = {path: time for path, time in drawn_files(comfy).items() if path not in before}
    assert [path.name.split("-")[0] for path in kept] == ["p1"]

    run = comfy.run(prompt)
    assert run.ended == "execution_success", run.end
    after = {path: time for path, time in drawn_files(comfy).items() if path not in before}
    assert len(after) == 4 and after.items() >= kept.items()


def test_the_hero_of_a_reference_picture_lends_the_story_its_colour(comfy, prompt):
    hero = Character(species="cat", colour="purple", wearable=None)
    scene = Scene(place="meadow", time="day", figures=(Figure(character=hero, position="centre", pose="standing"),), prop=None, seed=3)
    render(scene, 256).save(comfy.folder / "input" / "hero.png")
    plan = node_of(prompt, "WeaverPlan")
    prompt["20"] = {"class_type": "LoadImage", "inputs": {"image": "hero.png"}}
    prompt[plan]["inputs"] |= {"images": ["20", 0], "prompt": "Tell a story about this hero at the beach in four pictures."}
    run = comfy.run(prompt)
    assert run.ended == "execution_success", run.end
    readings = [read(image) for image in pictures(comfy, run, node_of(prompt, "WeaverSaveStory"))]
    assert len(readings) == 4 and sum(reading.place == "beach" for reading in readings) >= 3, readings
    assert sum("purple" in colours_of(reading) for reading in readings) >= 3, readings


def test_split_plan_feeds_core_nodes(comfy, prompt):
    plan = node_of(prompt, "WeaverPlan")
    graph = {node_id: prompt[node_id] for node_id in (node_of(prompt, "WeaverLoadModel"), plan)}
    graph |= {
        "30": {"class_type": "WeaverSplitPlan", "inputs": {"plan": [plan, 0], "width": 320, "height": 192}},
        "31": {"class_type": "PreviewAny", "inputs": {"source": ["30", 1]}},
        "32": {"class_type": "PreviewAny", "inputs": {"source": ["30", 0]}},
        "33": {"class_type": "EmptyImage", "inputs": {"width": ["30", 2], "height": ["30", 3], "batch_size": 1, "color": ["30", 4]}},
        "34": {"class_type": "PreviewImage", "inputs": {"images": ["33", 0]}},
        "35": {"class_type": "PreviewAny", "inputs": {"source": [plan, 1]}},
        "36": {"class_type": "PreviewAny", "inputs": {"source": ["30", 5]}},
    }
    run = comfy.run(graph)
    assert run.ended == "execution_success", run.end
    written, warnings = parse_markup(run.output("35")["text"][0])
    assert warnings == []
    assert run.output("31")["text"] == [image.prompt for image in written.images]
    assert len(run.output("32")["text"]) == len(written.images) == int(run.output("36")["text"][0])
    assert [image.size for image in pictures(comfy, run, "34")] == [(320, 192)] * len(written.images)


@pytest.mark.parametrize("count", [1, 3])
def test_the_story_has_as_many_images_as_the_node_says(comfy, prompt, count):
    prompt[node_of(prompt, "WeaverPlan")]["inputs"] |= {"num_images": count, "prompt": "A story about a blue frog in the forest."}
    run = comfy.run(prompt)
    assert run.ended == "execution_success", run.end
    assert len(run.output(node_of(prompt, "WeaverSaveStory"))["images"]) == count


def test_words_that_the_small_world_does_not_know_are_named_and_a_story_is_told(comfy, prompt):
    plan = node_of(prompt, "WeaverPlan")
    prompt[plan]["inputs"] |= {"prompt": "A story about a dragon on a volcano in two pictures."}
    run = comfy.run(prompt)
    assert run.ended == "execution_success", run.end
    notes = " ".join(run.output(plan)["weaver_notes"])
    assert "dragon" in notes and "fox" in notes
