"""The book view in ComfyUI's real page, in the canvas and in Nodes 2.0: it streams, opens pages, and changes them one by one."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
HOSTILE = '<img src="x" onerror="window.hacked = true"><script>window.hacked = true</script>'
MODES = pytest.mark.parametrize("nodes2", [False, True], ids=["canvas", "nodes2"])

# Notes down every state of the book in which more was to be read or seen than before.
WATCH = """() => {
  window.seen = []
  const look = () => {
    const pages = [...document.querySelectorAll('.weaver-page')]
    const letters = pages.reduce((sum, page) => sum + [...page.querySelectorAll('p')].reduce((n, p) => n + p.textContent.length, 0), 0)
    const pictures = document.querySelectorAll('.weaver-picture:not(.weaver-earlier) .weaver-look img').length
    const steps = document.querySelectorAll('.weaver-progress').length
    const key = [letters, pictures, steps].join()
    if (key !== window.seen.at(-1)?.key) window.seen.push({ key, letters, pictures, steps, live: !!document.querySelector('.weaver-live') })
  }
  new MutationObserver(look).observe(document.querySelector('.weaver-frame'), { childList: true, subtree: true, characterData: true })
}"""

PREVIEW = "(window.app.graph.nodes ?? window.app.graph._nodes).find((node) => node.type === 'WeaverPreviewStory')"
BOOK = f"() => {PREVIEW}.weaverBook.book"

WIDGETS = """() => {
  const node = (window.app.graph.nodes ?? window.app.graph._nodes).find((node) => node.type === 'WeaverVisualizePlan')
  return Object.fromEntries(node.widgets.map((widget) => [widget.name, widget.value]))
}"""


def load(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def few_steps(graph: dict, seed: int) -> dict:
    """The workflow with few steps, and a seed that no other test has drawn with."""
    graph = copy.deepcopy(graph)
    for node in graph["nodes"]:
        if node["type"] == "WeaverVisualizePlan":
            node["widgets_values"][:3] = [seed, "fixed", 4]
    return graph


def wait_until_done(page, timeout_s: int = 900) -> None:
    page.page.locator(".weaver-tools").first.wait_for(state="attached", timeout=timeout_s * 1000)
    page.page.wait_for_function("!document.querySelector('.weaver-live')", timeout=timeout_s * 1000)


def press(page, number: int, icon: str) -> None:
    """Presses a button of a page, counted from 1."""
    article = page.page.locator(".weaver-page").nth(number - 1)
    article.scroll_into_view_if_needed()
    article.hover()
    article.locator(f".weaver-tools .pi-{icon}").click()


def run_again(page, action) -> dict:
    """The book after what `action` has queued has been drawn."""
    page.page.evaluate(f"window.bookBefore = ({BOOK})()")
    action()
    page.page.wait_for_function(f"() => {{ const book = ({BOOK})(); return book.seeds && book !== window.bookBefore }}", timeout=900_000)
    wait_until_done(page)
    return page.page.evaluate(BOOK)


def drawn_files(comfy) -> set:
    return {(path, path.stat().st_mtime_ns) for path in (comfy.output / "weaver-drafts").glob("*/images/*.png")}


def new_pages(comfy, before: set) -> list[str]:
    return sorted(path.name.split("-")[0] for path, _ in drawn_files(comfy) - before)


@MODES
def test_a_story_streams_in_and_page_3_of_5_changes_alone(open_page, comfy, nodes2):
    mode = "nodes2" if nodes2 else "canvas"
    page = open_page()
    page.set("Comfy.VueNodes.Enabled", nodes2)
    page.set("Comfy.ColorPalette", "light" if nodes2 else "dark")
    page.open(few_steps(load("reroll_a_page"), 100 + nodes2))
    page.page.evaluate(WATCH)
    page.click_run()
    page.page.locator(".weaver-look img").first.wait_for(state="visible", timeout=900_000)
    page.screenshot(f"book-live-{mode}")
    wait_until_done(page)

    seen = page.page.evaluate("window.seen")
    assert next(state["pictures"] for state in seen if state["letters"]) == 0, "a picture was there before the text"
    assert {state["pictures"] for state in seen if state["live"]} >= {0, 1, 2}, "pictures did not come one by one"
    assert any(state["steps"] for state in seen)
    page.page.locator(".weaver-page").nth(0).hover()
    page.page.wait_for_timeout(400)
    page.screenshot(f"book-done-{mode}")

    # Re-roll page 3: pages 1, 2, 4 and 5 are not drawn again. Nothing is saved or run besides the book.
    files, before = drawn_files(comfy), page.page.evaluate(BOOK)
    after = run_again(page, lambda: press(page, 3, "refresh"))
    assert new_pages(comfy, files) == ["p3"]
    keys = [[shown["picture"]["kept"]["key"] for shown in book["pages"]] for book in (before, after)]
    assert [old == new for old, new in zip(*keys, strict=True)] == [True, True, False, True, True]
    assert page.page.locator(".weaver-changed").count() == 1 and "1 page changed" in page.page.locator(".weaver-status").inner_text()
    page.screenshot(f"book-rerolled-{mode}")

    # After a reload of the page, workflow, changes and book are there.
    page.page.wait_for_timeout(1500)  # ComfyUI keeps the workflow a moment after the last change
    page.page.reload(wait_until="domcontentloaded")
    page.page.wait_for_function("document.querySelectorAll('.weaver-page img').length === 5", timeout=300_000)
    assert page.page.evaluate(BOOK) == after
    changes = json.loads(page.page.evaluate(f"({WIDGETS})().page_changes"))
    assert [change["page"] for change in changes] == ["p3"] and page.page.locator(".weaver-changed").count() == 1

    # Cleared, the first picture is back, and nothing was drawn for it.
    files = drawn_files(comfy)
    cleared = run_again(page, lambda: page.page.locator(".weaver-status button", has_text="Clear changes").click())
    assert [shown["picture"]["kept"]["key"] for shown in cleared["pages"]] == keys[0] and new_pages(comfy, files) == []


@MODES
def test_a_run_that_was_stopped_goes_on_with_its_own_story_though_the_seeds_have_rolled(open_page, comfy, nodes2):
    graph = few_steps(load("reroll_a_page"), 150 + nodes2)
    for node in graph["nodes"]:
        if node["type"] in ("WeaverPlan", "WeaverVisualizePlan"):
            node["widgets_values"] = ["randomize" if value == "fixed" else 20 if value == 4 else value for value in node["widgets_values"]]
    page = open_page()
    page.set("Comfy.VueNodes.Enabled", nodes2)
    page.open(graph | {"id": f"3b1f2c0e-5a5e-4a57-9a60-0c8f2a9b7d5{int(nodes2)}"})
    page.click_run()
    page.page.locator(".weaver-look img").first.wait_for(state="visible", timeout=900_000)
    page.page.evaluate("window.app.api.interrupt()")
    go_on = page.page.locator(".weaver-status button", has_text="Go on")
    go_on.wait_for(state="visible", timeout=900_000)
    page.page.locator(".weaver-page").first.hover()
    page.screenshot(f"book-stopped-{'nodes2' if nodes2 else 'canvas'}")
    stopped, files = page.page.evaluate(BOOK), drawn_files(comfy)
    kept = [shown["picture"]["kept"]["key"] for shown in stopped["pages"] if shown["picture"]]
    assert 1 <= len(kept) < len(stopped["pages"]) and "Stopped. Finished pages are kept." in page.page.locator(".weaver-status").inner_text()
    go_on.click()
    page.wait_for_pages(len(stopped["pages"]))
    finished = page.page.evaluate(BOOK)
    assert [shown["prompt"] for shown in finished["pages"]] == [shown["prompt"] for shown in stopped["pages"]], "another plan was written"
    assert [shown["picture"]["kept"]["key"] for shown in finished["pages"]][: len(kept)] == kept
    assert new_pages(comfy, files) == [shown["id"] for shown in finished["pages"]][len(kept) :]


@MODES
def test_a_page_opens_turns_and_closes_by_keyboard_and_its_prompt_is_edited(open_page, comfy, nodes2):
    mode = "nodes2" if nodes2 else "canvas"
    page = open_page()
    page.set("Comfy.VueNodes.Enabled", nodes2)
    page.set("Comfy.ColorPalette", "dark" if nodes2 else "light")
    graph = few_steps(load("reroll_a_page"), 110 + nodes2)  # ComfyUI is shared: pages that the other mode drew would be found
    graph["nodes"][2]["widgets_values"][1] = "randomize"  # the page rolls the seed after every run; the book must not follow
    page.open(graph)
    page.click_run()
    wait_until_done(page)
    page.page.locator(".weaver-look").nth(1).focus()
    page.page.keyboard.press("Enter")
    dialog = page.page.locator("dialog.weaver-zoom[open]")
    dialog.wait_for(state="visible")
    told = dialog.inner_text()
    second = page.page.evaluate(BOOK)["pages"][1]
    assert all(word in told for word in (second["texts"][0], second["prompt"], second["picture"]["seed"], "128 × 128", "page 1"))
    page.page.wait_for_timeout(400)
    page.screenshot(f"book-page-{mode}")
    page.page.keyboard.press("ArrowRight")
    assert "3 / 5" in dialog.inner_text()
    page.page.keyboard.press("Escape")
    page.page.wait_for_function("!document.querySelector('dialog.weaver-zoom')")
    assert page.page.evaluate("document.activeElement.closest('.weaver-page')?.dataset.page") == "p2", "the focus is lost"

    files = drawn_files(comfy)

    def edit():
        press(page, 4, "pencil")
        area = page.page.locator("dialog.weaver-zoom textarea")
        area.fill("A small red fox with a scarf sits in the middle, in the snow by day.")
        page.screenshot(f"book-edit-{mode}")
        area.press("Control+Enter")

    after = run_again(page, edit)
    assert new_pages(comfy, files) == ["p4"] and "in the snow" in after["pages"][3]["prompt"]
    files = drawn_files(comfy)
    locked = run_again(page, lambda: press(page, 4, "lock-open"))
    assert locked["pages"][3]["locked"] and new_pages(comfy, files) == []

    # Page 5 shall be drawn from page 4.
    def choose():
        article = page.page.locator(".weaver-page").nth(3)
        article.hover()
        article.locator("select").select_option("p5")

    chosen = run_again(page, choose)
    assert [used["name"] for used in chosen["pages"][4]["picture"]["references"]] == ["p4"] and new_pages(comfy, files) == ["p5"]


@MODES
def test_after_comfyuis_own_undo_the_book_still_shows_what_is_made(open_page, nodes2):
    page = open_page()
    page.set("Comfy.VueNodes.Enabled", nodes2)
    page.open(load("reroll_a_page") | {"id": "4b1f6c7e-2f6f-4d0e-8b43-5d1c9d0a7e21"})
    browser, title = page.page, page.page.locator(".weaver-book h2")
    # A node that was put there by hand: no workflow has ever been loaded into it.
    browser.evaluate(f"() => {{ const node = {PREVIEW}; window.app.graph.remove(node)\n"
                     "window.app.graph.add(window.LiteGraph.createNode('WeaverPreviewStory')) }")
    show = f"""(title) => {PREVIEW}.onExecuted({{ weaver_story: [{{ title, language: 'en', seeds: [], pages: [
      {{ id: 'p1', texts: ['A page.'], prompt: null, picture: null }}] }}] }})"""
    browser.wait_for_timeout(500)
    browser.evaluate(show, "before")
    assert title.all_text_contents() == ["before"]
    for _ in range(2):
        browser.evaluate("() => window.app.loadGraphData(window.app.graph.serialize(), false, false)")
        browser.wait_for_timeout(700)
    browser.evaluate(show, "after")
    for pause in (0, 900, 1500):  # also while the page still settles
        browser.wait_for_timeout(pause)
        assert title.all_text_contents() == ["after"]


@MODES
def test_text_that_looks_like_markup_stays_text_everywhere_in_the_book(open_page, nodes2):
    page = open_page()
    page.set("Comfy.VueNodes.Enabled", nodes2)
    page.open(load("reroll_a_page"))
    page.page.evaluate(
        """(hostile) => {
          const nodes = window.app.graph.nodes ?? window.app.graph._nodes
          const preview = nodes.find((node) => node.type === 'WeaverPreviewStory')
          const picture = { filename: hostile, subfolder: hostile, type: 'output', size: [8, 8], seed: hostile, fault: hostile, kept: null,
            references: [{ name: hostile, picture: null }] }
          const facts = { id: 'p1', texts: [hostile], prompt: hostile, stale: [hostile], locked: false }
          window.app.api.dispatchEvent(new CustomEvent('weaver.book', { detail: { prompt_id: 'x', node: '3', workflow: null, fresh: true,
            title: hostile, language: 'en', count: 1, pages: { 0: { ...facts, picture: null, progress: [1, 2], now: true } } } }))
          window.heardTitle = document.querySelector('.weaver-book h2').textContent
          preview.onExecuted({ weaver_story: [{ title: hostile, language: 'en', seeds: [], pages: [{ ...facts, picture }] }] })
          preview.weaverActions.look(0)
        }""",
        HOSTILE,
    )
    page.page.wait_for_timeout(800)
    assert page.page.evaluate("window.heardTitle") == HOSTILE
    assert page.page.locator(".weaver-book p").first.text_content() == HOSTILE
    assert page.page.locator("dialog.weaver-zoom .weaver-prompt").text_content() == HOSTILE
    assert page.page.evaluate("window.hacked") is None
    assert page.page.locator(".weaver-book script, dialog script, dialog img[onerror], .weaver-book img[onerror]").count() == 0


def test_messages_of_another_run_or_workflow_do_not_get_in(open_page):
    page = open_page()
    page.open(load("reroll_a_page") | {"id": "8d0c3c0e-5a5e-4a57-9a60-0c8f2a9b7d11"})  # of its own: no earlier run of it is shown
    titles = page.page.evaluate(
        """() => {
          const nodes = window.app.graph.nodes ?? window.app.graph._nodes
          const preview = nodes.find((node) => node.type === 'WeaverPreviewStory')
          const page = { id: null, texts: ['text'], prompt: null, picture: null }
          const send = (title, prompt_id, more = {}) => window.app.api.dispatchEvent(new CustomEvent('weaver.book', { detail: {
            prompt_id, node: '3', workflow: null, fresh: true, title, language: 'en', count: 1, pages: { 0: page }, ...more } }))
          const titles = []
          const note = () => titles.push(preview.weaverBook.book?.title)
          send('of another workflow', 'a', { workflow: 'another' }); note()
          send('of a node beside', 'a', { node: '5' }); note()
          send('the first run', 'a'); note()
          preview.onExecuted({ weaver_story: [{ title: 'the first run, finished', language: 'en', seeds: [], pages: [page] }] }); note()
          send('the first run, late', 'a'); note()
          send('the second run', 'b'); note()
          send('the first run, very late', 'a'); note()
          send('whose first page was missed', 'c', { count: 2, pages: { 1: page } }); note()
          preview.weaverActions.look(1)
          return titles
        }"""
    )
    finished = "the first run, finished"
    second = "the second run"
    assert titles == [None, None, "the first run", finished, finished, second, second, "whose first page was missed"]
    page.page.keyboard.press("ArrowLeft")
    assert "1 / 2" in page.page.locator("dialog.weaver-zoom[open]").inner_text()


def test_a_workflow_that_was_saved_before_the_node_could_change_pages_still_loads(open_page):
    page = open_page()
    graph = load("prompt_to_story")
    visualize = next(node for node in graph["nodes"] if node["type"] == "WeaverVisualizePlan")
    visualize["widgets_values"] = [7, "fixed", 0, 0, 0, True]
    page.open(graph)
    values = page.page.evaluate(WIDGETS)
    assert values["redraw_stale"] is True and values["page_changes"] == "" and values["seed"] == 7


def test_a_book_of_32_pages_loads_pictures_only_when_they_are_near(open_page):
    page = open_page()
    page.open(load("reroll_a_page"))
    asked = []
    page.page.on("request", lambda request: asked.append(request.url) if "/view?" in request.url and "book-" in request.url else None)
    seconds = page.page.evaluate(
        """() => {
          const preview = (window.app.graph.nodes ?? window.app.graph._nodes).find((node) => node.type === 'WeaverPreviewStory')
          const pages = Array.from({ length: 32 }, (_, n) => ({ id: `p${n + 1}`, texts: ['Some text. '.repeat(30)], prompt: 'A fox.', picture: {
            filename: `book-${n}.png`, subfolder: '', type: 'output', size: [1024, 1024], seed: '1', references: [], kept: null } }))
          const start = performance.now()
          preview.onExecuted({ weaver_story: [{ title: 'Long', language: 'en', seeds: [], pages }] })
          return (performance.now() - start) / 1000
        }"""
    )
    page.page.wait_for_timeout(1500)
    assert page.page.locator(".weaver-page").count() == 32 and 0 < len(set(asked)) < 32
    assert seconds < 1.5
