"""The plan editor of Edit Plan as a user meets it: in ComfyUI's page, or alone in an empty one, which is there at once."""

from __future__ import annotations

import json
from pathlib import Path

WEB = Path(__file__).resolve().parents[2] / "web"
ORIGIN = "http://weaver.test"
ALONE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/css/plan_editor.css">
<body style="margin: 0; background: #111"><div id="place" style="position: relative; width: 640px; height: 780px"></div>
<script type="module">
  import { PlanEditor } from "/js/plan_editor_view.js"
  window.kept = ""
  window.accepted = 0
  window.held = []
  window.editor = new PlanEditor({
    save: (text) => { window.kept = text }, holdSeeds: (seeds) => window.held.push(seeds), accept: () => { window.accepted += 1 },
  })
  document.querySelector("#place").append(window.editor.root)
</script>"""
KINDS = {".js": "text/javascript", ".css": "text/css"}


def plan_of(num_pages: int, words: str = "") -> dict:
    """A plan with so many texts and images, as the node hands it to the page."""
    segments = []
    for number in range(1, num_pages + 1):
        segments += [
            {"type": "text", "id": f"t{number}", "text": f"On day {number} Pip runs down to the beach, where nobody is yet. {words}"},
            {"type": "image", "id": f"p{number}", "prompt": f"A small red fox beside ball number {number}, at the beach by day. {words}",
             "cast": ["Pip"], "references": "auto", "size": None, "aspect": None, "seed": "auto", "locked": False},
        ]  # fmt: skip
    cast = [{"name": "Pip", "kind": "character", "look": "a small red fox", "outfits": [], "references": []}]
    return {"format": "weaver-plan", "version": 1, "title": "Pip at the beach", "language": "en", "cast": cast, "segments": segments}


def edits_of(plan: dict, base: str | None = None) -> str:
    """What the editor keeps in the workflow."""
    return json.dumps({"format": "weaver-plan-edits", "version": 1, "base": base, "plan": plan}, separators=(",", ":"))


class Editor:
    """The editor on a page of Playwright's."""

    def __init__(self, browser):
        self.browser = browser

    def prompt(self, number: int):
        return self.browser.get_by_label(f"Dense prompt of image {number}", exact=True)

    def text(self, number: int):
        return self.browser.get_by_label(f"Text {number}", exact=True)

    def button(self, name: str):
        return self.browser.locator(".weaver-edit").get_by_role("button", name=name, exact=True)

    def handle(self, segment_id: str):
        return self.browser.locator(f".weaver-edit-item[data-id={segment_id}] .weaver-edit-icon-handle")

    def order(self) -> list[str]:
        return self.browser.eval_on_selector_all(".weaver-edit-item", "(items) => items.map((item) => item.dataset.id)")

    def banner(self) -> str:
        found = self.browser.locator(".weaver-edit-banner")
        return found.text_content() if found.is_visible() else ""

    def said(self) -> str:
        return self.browser.locator(".weaver-edit-said").text_content()


class EditorAlone(Editor):
    """The editor without ComfyUI."""

    def __init__(self, chromium):
        super().__init__(chromium.new_page(viewport={"width": 660, "height": 800}))
        self.errors: list[str] = []
        self.browser.on("pageerror", lambda error: self.errors.append(str(error)))
        self.browser.route(f"{ORIGIN}/**", _serve)
        self.browser.goto(ORIGIN)
        self.browser.wait_for_function("window.editor !== undefined")

    def receive(self, plan: dict, key: str, **told) -> None:
        """What the node tells when it has run."""
        told = {"plan": plan, "key": key, "pictures": [], "waits": False, "notes": [], "seeds": []} | told
        self.browser.evaluate("(told) => window.editor.receive(told)", told)

    def read(self, text) -> None:
        """A workflow with this in the node's widget is opened."""
        self.browser.evaluate("(text) => { window.kept = text; window.editor.read(text) }", text)

    def edits(self) -> dict | None:
        text = self.browser.evaluate("window.kept")
        return json.loads(text) if text else None


def _serve(route) -> None:
    path = route.request.url.removeprefix(ORIGIN)
    if path in ("", "/"):
        route.fulfill(body=ALONE, content_type="text/html")
    elif (file := WEB / path.lstrip("/")).is_file():
        route.fulfill(body=file.read_text(encoding="utf-8"), content_type=KINDS[file.suffix])
    else:
        route.fulfill(status=404)
