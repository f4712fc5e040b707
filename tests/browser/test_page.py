"""The shipped workflow in ComfyUI's real page, in the canvas and in Nodes 2.0: loaded, run by its button, and looked at."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
HOSTILE = '<img src="x" onerror="window.hacked = true"><script>window.hacked = true</script>'

BOOK = """() => {
  const book = document.querySelector('.weaver-book')
  const box = (element) => { const { x, y, width, height } = element.getBoundingClientRect(); return { x, y, width, height } }
  return {
    title: book.querySelector('h2').textContent,
    box: box(book),
    pages: [...book.querySelectorAll('.weaver-page')].map((page) => ({
      text: [...page.querySelectorAll('p')].map((part) => part.textContent),
      words: box(page.querySelector('.weaver-words')),
      picture: box(page.querySelector('img')),
      pixels: [page.querySelector('img').naturalWidth, page.querySelector('img').naturalHeight],
      alt: page.querySelector('img').alt,
    })),
  }
}"""

CONTRAST = """() => {
  const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true })
  const luminance = (colour, under) => {
    context.fillStyle = under; context.fillRect(0, 0, 1, 1)
    context.fillStyle = colour; context.fillRect(0, 0, 1, 1)
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((v) => v / 255).map((v) => v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const paper = getComputedStyle(document.querySelector('.weaver-page')).backgroundColor
  const ink = getComputedStyle(document.querySelector('.weaver-page p')).color
  const [a, b] = [luminance(ink, paper), luminance(paper, '#000')].sort((x, y) => y - x)
  return (a + 0.05) / (b + 0.05)
}"""


@pytest.fixture(scope="module")
def workflow() -> dict:
    return json.loads((WORKFLOWS / "prompt_to_story.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("nodes2", [False, True], ids=["canvas", "nodes2"])
def test_the_workflow_opens_runs_and_shows_text_and_pictures_side_by_side(open_page, comfy, workflow, nodes2):
    page = open_page()
    page.set("Comfy.VueNodes.Enabled", nodes2)
    page.set("Comfy.ColorPalette", "light" if nodes2 else "dark")
    page.open(workflow)
    page.click_run()
    page.wait_for_pages(4)
    page.page.wait_for_timeout(800)
    path = page.screenshot(f"story-{'nodes2-light' if nodes2 else 'canvas-dark'}")
    print(f"screenshot: {path}")

    book = page.page.evaluate(BOOK)
    assert book["title"] and len(book["pages"]) == 4
    assert book["box"]["width"] >= 400 and book["box"]["height"] >= 400, "the book has collapsed"
    assert book["box"]["height"] <= 1000, "the book has grown out of its node instead of scrolling"
    for number, shown in enumerate(book["pages"]):
        picture, words = shown["picture"], shown["words"]
        assert shown["text"] and all(shown["text"]) and shown["alt"]
        assert shown["pixels"] == [128, 128] and picture["width"] >= 150
        left, right = (picture, words) if number % 2 == 0 else (words, picture)
        assert left["x"] + left["width"] <= right["x"] + 1, "text and picture overlap"
    assert page.page.evaluate(CONTRAST) >= 4.5


@pytest.mark.parametrize("nodes2", [False, True], ids=["canvas", "nodes2"])
def test_notes_about_the_run_stand_in_the_node(open_page, workflow, nodes2):
    page = open_page()
    page.set("Comfy.VueNodes.Enabled", nodes2)
    graph = copy.deepcopy(workflow)
    plan = next(node for node in graph["nodes"] if node["type"] == "WeaverPlan")
    # Another seed for each page: a graph that is cached as a whole has nothing to tell.
    plan["widgets_values"][:3] = ["A story about a dragon on a volcano.", 2, 20 + nodes2]
    page.open(graph)
    page.click_run()
    note = page.page.locator(".weaver-notes li")
    note.first.wait_for(state="visible", timeout=400_000)
    assert "dragon" in note.first.text_content()
    page.wait_for_pages(2)
    page.screenshot(f"notes-{'nodes2' if nodes2 else 'canvas'}")


def test_every_node_that_has_something_to_tell_shows_it(open_page, workflow):
    page = open_page()
    page.open(workflow)
    names = ["WeaverPlanWithClip", "WeaverRequest", "WeaverMakeCharacter", "WeaverJudgeStory"]
    shown = page.page.evaluate(
        """(names) => names.map((name) => {
          const node = window.LiteGraph.createNode(name)
          window.app.graph.add(node)
          node.onExecuted({ weaver_notes: [name] })
          return node.weaverNotes?.textContent
        })""",
        names,
    )
    assert shown == names


def test_text_that_looks_like_markup_is_shown_as_text(open_page, workflow):
    page = open_page()
    page.open(workflow)
    shown = page.page.evaluate(
        """(hostile) => {
          const nodes = window.app.graph.nodes ?? window.app.graph._nodes
          const page = { id: 'p1', texts: [hostile], prompt: hostile, picture: null }
          nodes.find((node) => node.type === 'WeaverPreviewStory').onExecuted({ weaver_story: [{ title: hostile, language: 'en', pages: [page] }] })
          nodes.find((node) => node.type === 'WeaverPlan').onExecuted({ weaver_notes: [hostile] })
          return [document.querySelector('.weaver-book h2').textContent, document.querySelector('.weaver-book p').textContent]
        }""",
        HOSTILE,
    )
    page.page.wait_for_timeout(500)
    assert shown == [HOSTILE, HOSTILE]
    assert page.page.evaluate("window.hacked") is None
    assert page.page.locator(".weaver-book script, .weaver-notes script, .weaver-notes img").count() == 0


def test_the_saved_graph_is_the_one_that_was_opened(open_page, workflow):
    page = open_page()
    page.open(workflow)
    saved = page.page.evaluate("window.app.graph.serialize()")
    opened = {node["id"]: node for node in workflow["nodes"]}
    assert {node["id"] for node in saved["nodes"]} == set(opened)
    for node in saved["nodes"]:
        assert (node.get("widgets_values") or []) == opened[node["id"]]["widgets_values"], node["type"]
