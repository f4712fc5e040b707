"""Edit Plan in ComfyUI's real page, in the canvas and in Nodes 2.0: a plan is looked over, drawn, edited, drawn again, reloaded."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from plan_editor_page import Editor, edits_of, plan_of

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "edit_plan_then_render.json"
EDITOR = "(window.app.graph.nodes ?? window.app.graph._nodes).find((node) => node.type === 'WeaverEditPlan')"
SAVED = f"() => {EDITOR}.serialize().widgets_values[0]"


def workflow(edits="", seed: int = 7) -> dict:
    """The shipped workflow, drawn in few steps, with this in the editor; its own id, so that ComfyUI brings no book of another test back."""
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8")) | {"id": str(uuid.uuid4())}
    for node in graph["nodes"]:
        if node["type"] == "WeaverVisualizePlan":
            node["widgets_values"] = [seed, "fixed", 2, 0, 0, *node["widgets_values"][5:]]
        elif node["type"] == "WeaverPlan":  # as ComfyUI adds it: another plan comes with every run
            node["widgets_values"] = ["randomize" if value == "fixed" else value for value in node["widgets_values"]]
        elif node["type"] == "WeaverEditPlan":
            node["widgets_values"][0] = edits
    return graph


def opened(open_page, nodes2: bool, graph: dict):
    page = open_page()
    page.set("Comfy.VueNodes.Enabled", nodes2)
    page.set("Comfy.ColorPalette", "light" if nodes2 else "dark")
    page.open(graph)
    page.page.locator(".weaver-edit").wait_for(state="visible")
    return page, Editor(page.page)


def drawn(comfy) -> set[Path]:
    return set((comfy.output / "weaver-drafts").glob("*/images/*.png"))


@pytest.mark.parametrize("nodes2", [False, True], ids=["canvas", "nodes2"])
def test_a_plan_is_looked_over_drawn_edited_and_only_the_changed_page_is_drawn_again(open_page, comfy, nodes2):
    page, editor = opened(open_page, nodes2, workflow(seed=310 + nodes2))
    browser, before = editor.browser, drawn(comfy)
    page.click_run()
    editor.button("Accept and run").wait_for(state="visible", timeout=400_000)
    assert len(editor.order()) == 8 and drawn(comfy) == before, "something was drawn before the plan was accepted"
    page.screenshot(f"plan-waits-{'nodes2' if nodes2 else 'canvas'}")

    editor.button("Accept and run").click()
    page.wait_for_pages(4)
    first = drawn(comfy) - before
    assert sorted(path.name.split("-")[0] for path in first) == ["p1", "p2", "p3", "p4"]

    prompt = editor.prompt(2).input_value()
    editor.prompt(2).fill(prompt + " A red kite is in the sky.")
    editor.text(1).press("Alt+ArrowDown")
    assert editor.order()[:2] == ["p1", "t1"]
    # No key that is typed here may reach ComfyUI: its undo, its deleting of nodes, its shortcuts.
    nodes = browser.evaluate("window.app.graph.serialize().nodes.length")
    editor.handle("p3").focus()
    for key in ("r", "q", "Delete", "Control+z", "Control+z"):
        browser.keyboard.press(key)
    browser.wait_for_timeout(300)
    assert browser.evaluate("window.app.graph.serialize().nodes.length") == nodes
    assert editor.order()[:2] == ["t1", "p1"] and editor.prompt(2).input_value().endswith("kite is in the sky.")
    page.click_run()
    browser.wait_for_function("(prompt) => [...document.querySelectorAll('.weaver-book img')].some((image) => image.alt.endsWith(prompt))",
                              arg="kite is in the sky.", timeout=400_000)
    page.wait_for_pages(4)
    assert [path.name.split("-")[0] for path in drawn(comfy) - before - first] == ["p2"]
    page.screenshot(f"plan-edited-{'nodes2' if nodes2 else 'canvas'}")

    browser.wait_for_timeout(1500)  # ComfyUI keeps its copy half a second after the last change
    browser.reload(wait_until="domcontentloaded")
    editor.prompt(2).wait_for(state="visible", timeout=120_000)
    assert editor.prompt(2).input_value() == prompt + " A red kite is in the sky." and editor.order()[:2] == ["t1", "p1"]


@pytest.mark.parametrize("nodes2", [False, True], ids=["canvas", "nodes2"])
def test_a_workflow_with_edits_shows_them_and_comfyuis_own_undo_keeps_what_came_in(open_page, nodes2):
    page, editor = opened(open_page, nodes2, workflow(edits_of(plan_of(20), "a" * 16)))
    browser = page.page
    box = browser.locator(".weaver-edit").bounding_box()
    assert len(editor.order()) == 40 and box["height"] <= 900, "the editor has grown out of its node instead of scrolling"
    page.screenshot(f"plan-40-{'nodes2' if nodes2 else 'canvas'}")
    message = {"plan": plan_of(3), "key": "b" * 16, "pictures": [], "waits": False, "notes": []}
    browser.evaluate(f"(message) => {EDITOR}.onExecuted({{ weaver_edit_plan: [message] }})", message)
    for pause in (700, 900):  # twice in a row: what the page does late for the first node must not reach the second
        browser.evaluate("() => window.app.loadGraphData(window.app.graph.serialize(), false, false)")
        browser.wait_for_timeout(pause)
    editor.button("Keep mine").click()
    assert len(editor.order()) == 40 and json.loads(browser.evaluate(SAVED))["base"] == "b" * 16
    copies = f"""() => {{
      const histories = [1, 2].map(() => window.app.graph.add({EDITOR}.clone()).weaverPlan.editor.history)
      return histories[0] !== histories[1]
    }}"""
    assert browser.evaluate(copies), "two copies of the node share their steps"
    page.open(workflow("{not json"))
    browser.get_by_text("cannot be shown").wait_for(state="visible")
    assert browser.evaluate(SAVED) == "{not json"
