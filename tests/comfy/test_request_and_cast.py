"""Request, cast, references, a story that goes on, and the workflows that use them, in a real ComfyUI on the embedded default."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from comfy_process import REPOSITORY, ComfyProcess, HttpError
from graphs import api_prompt, node_of, ran
from PIL import Image

from weaver_core.picturebook.reader import read
from weaver_core.plan import parse_markup

STAND_IN = Path(__file__).parent / "stand_in_pack"
HERO = "# Robin\nThis is Robin. <imagine>A small blue frog with a crown stands in the middle, in the meadow by day.</imagine>"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A ComfyUI with this pack and the stand-ins for core models."""
    with ComfyProcess(tmp_path_factory.mktemp("cast"), extra_packs=(STAND_IN,)) as process:
        yield process


@pytest.fixture(scope="module")
def info(host):
    return host.get("/object_info")


def shipped(info, name: str) -> dict:
    return api_prompt(json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text(encoding="utf-8")), info)


def pages(host, run, node: str) -> list[Image.Image]:
    (story,) = run.output(node)["weaver_story"]
    return [Image.open(io.BytesIO(host.view(page["picture"]))).convert("RGB") for page in story["pages"]]


def model() -> dict:
    return {"1": {"class_type": "WeaverLoadModel", "inputs": {"model": "picture-book (embedded)", "dtype": "auto", "device": "cpu"}}}


def visualize(plan: list, **more) -> dict:
    inputs = {"weaver_model": ["1", 0], "plan": plan, "seed": 5, "steps": 0, "guidance": 0, "reference_guidance": 0}
    return {"class_type": "WeaverVisualizePlan", "inputs": inputs | more}


def test_the_nodes_are_there(host, info):
    ours = {"WeaverRequest", "WeaverMakeCharacter", "WeaverLoadCast", "WeaverSaveCast", "WeaverCharacterFromStory", "WeaverReferences"}
    assert ours <= set(info) and host.trouble() == []


def test_a_saved_character_is_the_hero_of_another_story(host):
    """The picture decides: neither the request nor any dense prompt says what Robin looks like."""
    first = ran(host, model() | {
        "2": {"class_type": "WeaverWritePlan", "inputs": {"markup": HERO}},
        "3": visualize(["2", 0]),
        "4": {"class_type": "WeaverCharacterFromStory", "inputs": {"story": ["3", 0], "character": "Robin", "page": 1, "look": ""}},
        "5": {"class_type": "WeaverSaveCast", "inputs": {"cast": ["4", 0], "filename_prefix": "weaver/casts/robin"}},
    })  # fmt: skip
    folder = first.output("5")["images"][0]["subfolder"]
    run = ran(host, model() | {
        "2": {"class_type": "WeaverLoadCast", "inputs": {"cast_folder": folder}},
        "3": {"class_type": "WeaverRequest", "inputs": {
            "prompt": "Tell a story about Robin at the beach.", "num_images": 3, "language": "de", "aspect": "as the planner likes",
            "style": "ink", "cast": ["2", 0],
        }},
        "4": {"class_type": "WeaverPlan", "inputs": {
            "weaver_model": ["1", 0], "prompt": "", "num_images": 7, "seed": 3, "temperature": 0.7, "request": ["3", 0],
        }},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["4", 1]}},
        "6": visualize(["4", 0]),
        "7": {"class_type": "WeaverPreviewStory", "inputs": {"story": ["6", 0]}},
    })  # fmt: skip
    plan, _ = parse_markup(run.output("5")["text"][0])
    assert len(plan.images) == 3 and plan.cast[0].name == "Robin" and plan.language == "en"
    assert "Robin" in " ".join(text.text for text in plan.texts)
    assert not any(word in image.prompt for image in plan.images for word in ("frog", "blue", "crown"))
    told = " ".join(run.output("4")["weaver_notes"])
    assert "cannot be told to write in 'de'" in told and "cannot be told a style" in told
    seen = [read(image) for image in pages(host, run, "7")]
    assert sum(any(f.species == "frog" and f.colour == "blue" for f in reading.figures) for reading in seen) >= 2, seen
    assert sum(reading.place == "beach" for reading in seen) >= 2, seen


def test_references_node_decides_what_pages_are_drawn_from(host):
    markup = "# A\n" + "\n".join(f"{n}. <imagine>A small red cat {what}, in the forest by day.</imagine>"
                                   for n, what in enumerate(("sits on the left", "waves on the right", "jumps in the middle")))  # fmt: skip
    prompt = model() | {
        "2": {"class_type": "WeaverWritePlan", "inputs": {"markup": markup}},
        "3": {"class_type": "WeaverReferences", "inputs": {"policy": "previous", "max_pictures": 1, "max_tokens": 0}},
        "4": visualize(["2", 0], reference_choice=["3", 0], steps=2),
        "5": {"class_type": "WeaverPreviewStory", "inputs": {"story": ["4", 0]}},
    }
    (story,) = ran(host, prompt).output("5")["weaver_story"]
    assert [[used["name"] for used in page["picture"]["references"]] for page in story["pages"]] == [[], ["p1"], ["p2"]]


@pytest.mark.parametrize("name", ["../outside", "C:\\x", "a\x00b", "x" * 300, "nothing"])
def test_names_that_are_no_cast_of_the_output_folder_are_refused(host, name):
    prompt = {"1": {"class_type": "WeaverLoadCast", "inputs": {"cast_folder": name}},
              "2": {"class_type": "WeaverSaveCast", "inputs": {"cast": ["1", 0], "filename_prefix": "weaver/casts/x"}}}  # fmt: skip
    with pytest.raises(HttpError) as caught:
        host.post("/prompt", {"prompt": prompt, "client_id": "refused"})
    (errors,) = caught.value.body["node_errors"].values()
    assert "cast" in errors["errors"][0]["details"] and str(host.folder) not in str(caught.value)


# ---- workflows


def test_story_about_my_character_runs_as_it_is_shipped(host, info):
    prompt = shipped(info, "story_about_my_character")
    run = ran(host, prompt)
    seen = [read(image) for image in pages(host, run, node_of(prompt, "WeaverPreviewStory"))]
    assert len(seen) == 4 and sum(any(f.species == "fox" for f in reading.figures) for reading in seen) >= 3, seen


def test_a_story_that_was_saved_goes_on_and_export_a_book_writes_it(host, info):
    prompt = shipped(info, "export_a_book")
    export = node_of(prompt, "WeaverExportStory")
    prompt[export]["inputs"]["filename_prefix"] = "books/pip"
    prompt["90"] = {"class_type": "WeaverSaveStory", "inputs": {"story": prompt[export]["inputs"]["story"], "filename_prefix": "books/story"}}
    run = ran(host, prompt)
    assert len(list((host.output / "books").glob("pip_*.epub"))) == 1
    before = pages(host, run, node_of(prompt, "WeaverPreviewStory"))
    longer = shipped(info, "continue_a_story")
    longer[node_of(longer, "WeaverLoadStory")]["inputs"]["story_folder"] = Path(run.output("90")["images"][0]["subfolder"]).parent.as_posix()
    after = pages(host, ran(host, longer), node_of(longer, "WeaverPreviewStory"))
    assert len(after) == len(before) + 3
    assert [a.tobytes() for a in after[: len(before)]] == [b.tobytes() for b in before], "drawn pages stay"


def test_a_plan_goes_through_core_nodes_page_by_page(host, info):
    """The workflow with a tiny model of ComfyUI's own classes in the place of the checkpoint, which tests do not have."""
    prompt = shipped(info, "plan_into_core_sampler")
    loader, split = node_of(prompt, "CheckpointLoaderSimple"), node_of(prompt, "WeaverSplitPlan")
    prompt[loader] = {"class_type": "StandInModel", "inputs": {"kind": "sdxl", "weights": "sd_xl_base_1.0.safetensors"}}
    prompt[split]["inputs"] |= {"width": 128, "height": 64}
    prompt[node_of(prompt, "KSampler")]["inputs"]["steps"] = 1
    run = ran(host, prompt)
    saved = run.output(node_of(prompt, "SaveImage"))["images"]
    pictures = [Image.open(io.BytesIO(host.view(item))) for item in saved]
    assert [picture.size for picture in pictures] == [(128, 64)] * 4 and len({picture.tobytes() for picture in pictures}) == 4
