"""Edit Plan in a real ComfyUI on the embedded default: what is edited is drawn, and nothing else; what waits is not drawn."""

from __future__ import annotations

import json

import pytest
from comfy_process import HttpError
from graphs import ran

MARKUP = """# Pip at the beach
Pip runs. <imagine references="none">A small red fox stands on the left, at the beach by day.</imagine>
Pip sits. <imagine references="none">A small red fox sits on the right, at the beach by day.</imagine>
"""


def graph(seed: int, **inputs) -> dict:
    return {
        "1": {"class_type": "WeaverLoadModel", "inputs": {"model": "picture-book (embedded)", "dtype": "auto", "device": "cpu"}},
        "2": {"class_type": "WeaverWritePlan", "inputs": {"markup": MARKUP}},
        "3": {"class_type": "WeaverEditPlan", "inputs": {"plan": ["2", 0], **inputs}},
        "4": {"class_type": "WeaverVisualizePlan", "inputs": {
            "weaver_model": ["1", 0], "plan": ["3", 0], "seed": seed, "steps": 2, "guidance": 0, "reference_guidance": 0,
        }},
        "5": {"class_type": "WeaverPreviewStory", "inputs": {"story": ["4", 0]}},
    }  # fmt: skip


def drawn(comfy) -> set:
    return set((comfy.output / "weaver-drafts").glob("*/images/*.png"))


def told(run) -> dict:
    (message,) = run.output("3")["weaver_edit_plan"]
    return message


def edits(message: dict, **prompts) -> str:
    """What the page keeps when these prompts are changed in the plan that it was shown."""
    plan = json.loads(json.dumps(message["plan"]))
    for segment in plan["segments"]:
        if segment["id"] in prompts:
            segment["prompt"] = prompts[segment["id"]]
    return json.dumps({"format": "weaver-plan-edits", "version": 1, "base": message["key"], "plan": plan})


def test_a_plan_waits_then_is_drawn_then_only_the_changed_page(comfy):
    before = drawn(comfy)
    waiting = ran(comfy, graph(401, review_first=True))
    shown = [data["node"] for kind, data in waiting.messages if kind == "executed"]
    assert told(waiting)["waits"] and drawn(comfy) == before and "5" not in shown
    again = ran(comfy, graph(401, review_first=True))  # a page that was loaded anew must hear of the plan, though all is cached
    assert told(again) == told(waiting)
    ran(comfy, graph(401, review_first=True, edits=edits(told(again))))
    first = drawn(comfy) - before
    assert sorted(path.name[:2] for path in first) == ["p1", "p2"]
    changed = edits(told(waiting), p2="A small blue cat sits on the right, at the beach by day.")
    run = ran(comfy, graph(401, review_first=True, edits=changed))
    assert [path.name[:2] for path in drawn(comfy) - before - first] == ["p2"]
    (book,) = run.output("5")["weaver_story"]
    assert book["pages"][1]["prompt"] == "A small blue cat sits on the right, at the beach by day."


def test_edits_that_cannot_be_read_are_refused_before_anything_runs(comfy):
    with pytest.raises(HttpError) as caught:
        comfy.post("/prompt", {"prompt": graph(402, edits="{broken"), "client_id": "refused"})
    (error,) = caught.value.body["node_errors"]["3"]["errors"]
    assert "not JSON at line 1" in error["details"] and "Start over" in error["details"]
