"""What the book view hears of a real ComfyUI: text and pictures while they are made, each run by itself; and what changes it."""

from __future__ import annotations

import copy
import io
import json
import time

import pytest
import websocket
from comfy_process import HttpError
from graphs import ran
from PIL import Image

MARKUP = """# Pip at the beach
<cast name="Pip">
Pip runs. <imagine cast="Pip">A small red fox stands on the left, at the beach by day.</imagine>
Pip sits. <imagine cast="Pip">A small red fox sits on the right, at the beach by day.</imagine>
Good night. <imagine references="none">A small blue cat sits in the middle, in the forest at night.</imagine>
"""
PROMPTS = [
    "A small red fox stands on the left, at the beach by day.", "A small red fox sits on the right, at the beach by day.",
    "A small blue cat sits in the middle, in the forest at night.",
]  # fmt: skip
MODEL = {"class_type": "WeaverLoadModel", "inputs": {"model": "picture-book (embedded)", "dtype": "auto", "device": "cpu"}}
WORKFLOW = {"id": "a-workflow", "nodes": [], "links": []}


def drawn_graph(**inputs) -> dict:
    """A written plan, drawn with few steps and shown."""
    inputs = {"weaver_model": ["1", 0], "plan": ["2", 0], "seed": 31, "steps": 2, "guidance": 0, "reference_guidance": 0} | inputs
    return {
        "1": MODEL,
        "2": {"class_type": "WeaverWritePlan", "inputs": {"markup": MARKUP}},
        "3": {"class_type": "WeaverVisualizePlan", "inputs": inputs},
        "4": {"class_type": "WeaverPreviewStory", "inputs": {"story": ["3", 0]}},
    }


def woven_graph(**inputs) -> dict:
    """A story in the closed loop, with few steps, and shown."""
    inputs = {
        "weaver_model": ["1", 0], "prompt": "A story about a blue frog in the forest.", "num_images": 2, "seed": 8, "temperature": 0.7,
        "steps": 2, "guidance": 0, "reference_guidance": 0,
    } | inputs  # fmt: skip
    return {
        "1": MODEL,
        "3": {"class_type": "WeaverInterleave", "inputs": inputs},
        "4": {"class_type": "WeaverPreviewStory", "inputs": {"story": ["3", 0]}},
    }


def change(number: int, **fields) -> dict:
    return {"page": f"p{number}", "of": PROMPTS[number - 1], **fields}


def book(run) -> dict:
    (story,) = run.output("4")["weaver_story"]
    return story


def heard(run, node: str = "3") -> list[dict]:
    """What the book view was told about the story that a node makes."""
    return [data for kind, data in run.messages if kind == "weaver.book" and data["node"] == node]


def told_together(messages: list[dict]) -> list[dict]:
    """The pages that are known after all these messages."""
    pages = {}
    for message in messages:
        pages |= {int(number): page for number, page in message["pages"].items()}
    return [pages[number] for number in range(messages[-1]["count"])]


def drawn_files(comfy) -> set:
    return {(path, path.stat().st_mtime_ns) for path in (comfy.output / "weaver-drafts").glob("*/images/*.png")}


def new_pages(comfy, before: set) -> list[str]:
    return sorted(path.name.split("-")[0] for path, _ in drawn_files(comfy) - before)


def pixels(comfy, run) -> list[bytes]:
    return [Image.open(io.BytesIO(comfy.view(page["picture"]))).tobytes() for page in book(run)["pages"] if page["picture"]]


# ---- what is told


def test_text_comes_before_the_first_picture_and_pictures_one_by_one(comfy, prompt):
    (plan,) = [node_id for node_id, node in prompt.items() if node["class_type"] == "WeaverPlan"]
    (visualize,) = [node_id for node_id, node in prompt.items() if node["class_type"] == "WeaverVisualizePlan"]
    graph = copy.deepcopy(prompt)
    graph[plan]["inputs"]["seed"] = graph[visualize]["inputs"]["seed"] = 33  # nobody has written or drawn this one yet
    run = ran(comfy, graph, WORKFLOW)
    written, drawn = heard(run, plan), heard(run, visualize)
    lengths = [sum(len(text) for page in told_together(written[: number + 1]) for text in page["texts"]) for number in range(len(written))]
    assert len(written) >= 2 and lengths[0] < lengths[-1] and written[0]["fresh"]
    assert not any(page["picture"] for page in told_together(written))
    counts = [sum(bool(page["picture"]) for page in told_together(drawn[: number + 1])) for number in range(len(drawn))]
    assert counts[0] == 0 and counts == sorted(counts) and counts[-1] == 4 and len(set(counts)) >= 3
    assert any(page["progress"] for message in drawn for page in message["pages"].values())


def test_every_message_names_run_node_and_workflow_and_holds_no_path_of_this_computer(comfy, workflow, first_run):
    messages = [data for kind, data in first_run.messages if kind == "weaver.book"]
    assert {(data["prompt_id"], data["workflow"]) for data in messages} == {(first_run.prompt_id, workflow["id"])}
    assert str(comfy.folder) not in json.dumps(messages)


def test_what_was_told_is_what_the_preview_shows_at_the_end(comfy):
    run = ran(comfy, drawn_graph(), WORKFLOW)
    told, shown = told_together(heard(run)), book(run)["pages"]
    assert [{name: page[name] for name in shown[0]} for page in told] == shown
    assert [page["prompt"] for page in shown] == PROMPTS and book(run)["seeds"] == [["3", "seed", 31]]
    assert shown[1]["picture"]["references"] == [{"name": "p1", "picture": None}]


def test_there_are_at_most_five_messages_in_a_second(comfy):
    times = []

    def note(kind, data):
        if kind == "weaver.book":
            times.append(time.monotonic())

    run = comfy.run(drawn_graph(steps=30, seed=32), WORKFLOW, on_message=note)
    assert run.ended == "execution_success" and len(times) >= 4
    busiest = max(sum(start <= other < start + 2 for other in times) for start in times)
    assert busiest <= 2 * 5 + 2  # the first and the last one are sent at once


def test_two_runs_in_the_queue_do_not_mix(comfy):
    """One page has queued both; what it hears of each belongs to that one, and comes in one piece."""
    line = websocket.create_connection(f"ws://127.0.0.1:{comfy.port}/ws?clientId=one-page", timeout=300)
    try:
        runs = [
            comfy.post("/prompt", {
                "prompt": drawn_graph(seed=seed, steps=4), "client_id": "one-page",
                "extra_data": {"extra_pnginfo": {"workflow": WORKFLOW | {"id": f"workflow {seed}"}}},
            })["prompt_id"]
            for seed in (41, 42)
        ]  # fmt: skip
        told, shown = {}, {}
        while len(shown) < 2:
            message = line.recv()
            kind, data = ("", {}) if isinstance(message, bytes) else json.loads(message).values()
            if kind == "weaver.book":
                assert list(told)[-1:] in ([], [data["prompt_id"]]) or data["prompt_id"] not in told, "the first run goes on after the second"
                told.setdefault(data["prompt_id"], []).append(data)
            elif kind == "executed" and "weaver_story" in data["output"]:
                shown[data["prompt_id"]] = data["output"]["weaver_story"][0]["pages"]
    finally:
        line.close()
    assert list(told) == runs
    for prompt_id, seed in zip(runs, (41, 42), strict=True):
        assert {message["workflow"] for message in told[prompt_id]} == {f"workflow {seed}"}
        assert [page["picture"] for page in told_together(told[prompt_id])] == [page["picture"] for page in shown[prompt_id]]
    first, second = ({page["picture"]["seed"] for page in shown[prompt_id]} for prompt_id in runs)
    assert not first & second


# ---- what changes do


def test_only_the_changed_page_is_drawn_also_after_comfyui_has_forgotten_everything(comfy):
    before = pixels(comfy, ran(comfy, drawn_graph(), WORKFLOW))
    files = drawn_files(comfy)
    changes = json.dumps([change(3, seed=1234)])
    after = pixels(comfy, ran(comfy, drawn_graph(page_changes=changes), WORKFLOW))
    assert new_pages(comfy, files) == ["p3"] and [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]
    comfy.post("/free", {"unload_models": True, "free_memory": True})
    files = drawn_files(comfy)
    assert pixels(comfy, ran(comfy, drawn_graph(page_changes=changes), WORKFLOW)) == after
    assert pixels(comfy, ran(comfy, drawn_graph(), WORKFLOW)) == before and new_pages(comfy, files) == []


def test_a_locked_page_keeps_its_picture_under_another_seed(comfy):
    first = ran(comfy, drawn_graph(), WORKFLOW)
    kept = book(first)["pages"][2]["picture"]["kept"]
    again = ran(comfy, drawn_graph(seed=77, page_changes=json.dumps([change(3, locked=True, kept=kept)])), WORKFLOW)
    assert [a == b for a, b in zip(pixels(comfy, first), pixels(comfy, again), strict=True)] == [False, False, True]


@pytest.mark.parametrize(
    ("changes", "message"), [("{", "not JSON"), ('[{"page": "../x", "of": "y"}]', "no segment id"), ("[1, 2]", "expected an object")]
)
def test_bad_changes_are_refused_before_anything_runs(comfy, changes, message):
    with pytest.raises(HttpError) as caught:
        comfy.post("/prompt", {"prompt": drawn_graph(page_changes=changes), "client_id": "refused"})
    assert message in json.dumps(caught.value.body["node_errors"])


# ---- the closed loop


@pytest.fixture(scope="module")
def woven(comfy):
    return ran(comfy, woven_graph(steps=20), WORKFLOW)  # drawing lasts longer than the pause between two messages


def test_the_loop_writes_draws_and_writes_on(comfy, woven):
    pages = book(woven)["pages"]
    assert sum(bool(page["picture"]) for page in pages) == 2 and any(page["texts"] for page in pages)
    drawing = next(number for number, data in enumerate(heard(woven)) if any(p["progress"] for p in data["pages"].values()))
    known = told_together(heard(woven)[: drawing + 1])
    assert not any(page["picture"] for page in known)
    assert sum(bool(page["prompt"]) for page in known) == 1, "the whole plan was there before the first picture"


def test_a_woven_story_is_not_woven_again_and_one_page_of_it_changes_alone(comfy, woven):
    comfy.post("/free", {"unload_models": True, "free_memory": True})
    files = drawn_files(comfy)
    again = ran(comfy, woven_graph(steps=20), WORKFLOW)
    assert pixels(comfy, again) == pixels(comfy, woven) and new_pages(comfy, files) == []
    page = next(page for page in book(woven)["pages"] if page["id"] == "p2")
    changed = ran(comfy, woven_graph(steps=20, page_changes=json.dumps([{"page": "p2", "of": page["prompt"], "seed": 99}])), WORKFLOW)
    assert [a == b for a, b in zip(pixels(comfy, woven), pixels(comfy, changed), strict=True)] == [True, False]
    assert [page["texts"] for page in book(changed)["pages"]] == [page["texts"] for page in book(woven)["pages"]]


def test_an_interrupt_stops_the_loop_within_a_step_and_the_next_run_goes_on(comfy):
    graph, values, before = woven_graph(steps=20, seed=9), [], drawn_files(comfy)

    def stop_on_page_two(kind, data):
        if kind == "progress" and data["node"] == "3":
            values.append(data["value"])
            if data["value"] > 22 and not any(value > 22 for value in values[:-1]):
                comfy.post("/interrupt", {})

    run = comfy.run(graph, WORKFLOW, on_message=stop_on_page_two)
    assert run.ended == "execution_interrupted" and max(values) < 40
    kept = drawn_files(comfy)
    assert new_pages(comfy, before) == ["p1"] and heard(run)
    run = ran(comfy, graph, WORKFLOW)
    assert new_pages(comfy, kept) == ["p2"] and kept <= drawn_files(comfy)
    assert sum(bool(page["picture"]) for page in book(run)["pages"]) == 2
