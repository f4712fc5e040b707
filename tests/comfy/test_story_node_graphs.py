"""Plans written by hand, stories taken apart, opened and changed, in a real ComfyUI on the embedded default."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from comfy_process import HttpError
from graphs import ran
from PIL import Image

MARKUP = """# Pip at the beach
<cast name="Pip">
Pip runs. <imagine cast="Pip">A small red fox stands on the left, at the beach by day.</imagine>
Pip sits. <imagine cast="Pip">A small red fox sits on the right, at the beach by day.</imagine>
Good night. <imagine references="none">A small blue cat sits in the middle, in the forest at night.</imagine>
"""


def graph(markup: str = MARKUP) -> dict:
    """A written plan, drawn with few steps: 3 gives the story."""
    return {
        "1": {"class_type": "WeaverLoadModel", "inputs": {"model": "picture-book (embedded)", "dtype": "auto", "device": "cpu"}},
        "2": {"class_type": "WeaverWritePlan", "inputs": {"markup": markup}},
        "3": {"class_type": "WeaverVisualizePlan", "inputs": {
            "weaver_model": ["1", 0], "plan": ["2", 0], "seed": 5, "steps": 2, "guidance": 0, "reference_guidance": 0,
        }},
    }  # fmt: skip


def reroll(story: list, **inputs) -> dict:
    wanted = {"page": 1, "seed": 99, "redraw_stale": False} | inputs
    return {"class_type": "WeaverRerollImage", "inputs": {"weaver_model": ["1", 0], "story": story, **wanted}}


def preview(story: list) -> dict:
    return {"class_type": "WeaverPreviewStory", "inputs": {"story": story}}


def drawn_files(comfy) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (comfy.output / "weaver-drafts").glob("*/images/*.png")}


def shown(comfy, run, node: str) -> list[bytes]:
    """The pixels of every page that Preview Story shows."""
    (story,) = run.output(node)["weaver_story"]
    return [Image.open(io.BytesIO(comfy.view(page["picture"]))).tobytes() for page in story["pages"]]


def sizes(comfy, run, node: str) -> list[tuple[int, int]]:
    return [Image.open(io.BytesIO(comfy.view(item))).size for item in run.output(node)["images"]]


def refusal(comfy, prompt: dict) -> str:
    with pytest.raises(HttpError) as caught:
        comfy.post("/prompt", {"prompt": prompt, "client_id": "refused"})
    (errors,) = caught.value.body["node_errors"].values()
    return " ".join(error["details"] for error in errors["errors"])


def test_images_and_texts_of_a_written_story_feed_core_nodes(comfy):
    run = ran(comfy, graph() | {
        "10": {"class_type": "WeaverStoryParts", "inputs": {"story": ["3", 0]}},
        "11": {"class_type": "PreviewImage", "inputs": {"images": ["10", 0]}},
        "12": {"class_type": "PreviewImage", "inputs": {"images": ["10", 1]}},
        "13": {"class_type": "PreviewAny", "inputs": {"source": ["10", 3]}},
        "14": {"class_type": "WeaverPickImage", "inputs": {"story": ["3", 0], "page": 2}},
        "15": {"class_type": "PreviewImage", "inputs": {"images": ["14", 0]}},
        "16": {"class_type": "PreviewAny", "inputs": {"source": ["14", 2]}},
        "18": {"class_type": "PreviewAny", "inputs": {"source": ["14", 3]}},
    })  # fmt: skip
    assert sizes(comfy, run, "11") == sizes(comfy, run, "12") == [(128, 128)] * 3 and sizes(comfy, run, "15") == [(128, 128)]
    assert run.output("13")["text"] == ["Pip at the beach\n\nPip runs.\n\nPip sits.\n\nGood night."]
    assert run.output("16")["text"] == ["A small red fox sits on the right, at the beach by day."]
    assert int(run.output("18")["text"][0]) > 0


def test_one_page_is_drawn_anew_and_only_once(comfy):
    before = ran(comfy, graph() | {"10": preview(["3", 0])})
    files = drawn_files(comfy)
    prompt = graph() | {"10": reroll(["3", 0], page=2, seed=4242), "11": preview(["10", 0])}
    run = ran(comfy, prompt)
    new = drawn_files(comfy).items() - files.items()
    assert [path.name.split("-")[0] for path, _ in new] == ["p2"]
    old_pages, pages = shown(comfy, before, "10"), shown(comfy, run, "11")
    assert [old == page for old, page in zip(old_pages, pages, strict=True)] == [True, False, True]
    comfy.post("/free", {"unload_models": True, "free_memory": True})
    files = drawn_files(comfy)
    assert shown(comfy, ran(comfy, prompt), "11") == pages and drawn_files(comfy) == files


def test_stale_pages_are_told_and_follow_when_asked(comfy):
    prompt = graph() | {
        "9": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 255}},
        "10": {"class_type": "WeaverReplaceImage", "inputs": {"story": ["3", 0], "image": ["9", 0], "page": 1}},
        "11": {"class_type": "PreviewAny", "inputs": {"source": ["10", 1]}},
        "12": reroll(["10", 0], page=0, redraw_stale=True),
        "13": preview(["12", 0]),
    }
    files = drawn_files(comfy)
    run = ran(comfy, prompt)
    assert run.output("11")["text"] == ["2"] and "p2 is stale" in run.output("10")["weaver_notes"][0]
    new = drawn_files(comfy).keys() - files.keys()
    assert {"p1", "p2"} <= {path.name.split("-")[0] for path in new}
    (book,) = run.output("13")["weaver_story"]
    assert [page["picture"]["size"] for page in book["pages"]] == [[96, 64], [128, 128], [128, 128]]


def test_a_saved_story_is_opened_changed_and_saved_again(comfy):
    run = ran(comfy, graph() | {"10": {"class_type": "WeaverSaveStory", "inputs": {"story": ["3", 0], "filename_prefix": "books/pip"}}})
    name = Path(run.output("10")["images"][0]["subfolder"]).parent.as_posix()
    assert re.fullmatch(r"books/pip_\d{5}_", name)
    spec = comfy.get("/object_info/WeaverLoadStory")["WeaverLoadStory"]["input"]["required"]["story_folder"]
    assert (spec[1].get("options") or spec[0])[0] == name
    run = ran(comfy, {
        "20": {"class_type": "WeaverLoadStory", "inputs": {"story_folder": name}},
        "21": {"class_type": "WeaverPickImage", "inputs": {"story": ["20", 0], "page": 3}},
        "22": {"class_type": "ImageScale", "inputs": {
            "image": ["21", 0], "upscale_method": "lanczos", "width": 256, "height": 256, "crop": "disabled",
        }},
        "23": {"class_type": "WeaverReplaceImage", "inputs": {"story": ["20", 0], "image": ["22", 0], "page": 3}},
        "24": {"class_type": "WeaverSaveStory", "inputs": {"story": ["23", 0], "filename_prefix": "books/larger"}},
    })  # fmt: skip
    saved = [Image.open(comfy.output / item["subfolder"] / item["filename"]).size for item in run.output("24")["images"]]
    assert saved == [(128, 128), (128, 128), (256, 256)]


@pytest.mark.parametrize("name", ["../outside", "/etc", "C:\\x", "a/../../b", "a\x00b", "x" * 300, "", "weaver-drafts"])
def test_names_that_are_no_story_of_the_output_folder_are_refused(comfy, name):
    prompt = {"20": {"class_type": "WeaverLoadStory", "inputs": {"story_folder": name}}, "21": preview(["20", 0])}
    message = refusal(comfy, prompt)
    assert "story" in message and str(comfy.folder) not in message


def test_empty_markup_is_refused_before_anything_runs(comfy):
    assert "the markup is empty" in refusal(comfy, graph(" \n") | {"10": preview(["3", 0])})
