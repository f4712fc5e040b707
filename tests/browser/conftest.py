"""A real Chromium on the page of the running ComfyUI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SCREENSHOTS = Path(__file__).resolve().parents[2] / ".cache" / "screenshots"


@pytest.fixture(scope="session")
def chromium():
    """The browser; $WEAVER_CHROMIUM names another one than the first that is found."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = os.environ.get("WEAVER_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail("there is no Chromium; install it (Debian: apt-get install chromium) or name one in WEAVER_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Page:
    """ComfyUI's page, set up for a test. `errors` collects what its scripts throw."""

    def __init__(self, browser, url: str):
        self.page = browser.new_page(viewport={"width": 1700, "height": 1050})
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url, wait_until="domcontentloaded", timeout=120_000)
        self.page.wait_for_function("window.app?.graph && window.app?.extensionManager", timeout=120_000)
        self.page.wait_for_function("window.app.extensions?.some((extension) => extension.name === 'Weaver.StoryPreview')", timeout=60_000)
        self.page.wait_for_timeout(2500)
        self.set("Comfy.TutorialCompleted", True)
        self.page.keyboard.press("Escape")  # the welcome dialog

    def set(self, name: str, value) -> None:
        self.page.evaluate("([name, value]) => window.app.extensionManager.setting.set(name, value)", [name, value])

    def open(self, workflow: dict) -> None:
        self.page.evaluate("(workflow) => window.app.loadGraphData(workflow, true, true, 'weaver-test')", workflow)
        self.page.locator(".weaver-book").wait_for(state="visible", timeout=30_000)

    def click_run(self) -> None:
        button = self.page.get_by_test_id("queue-button").or_(self.page.locator(".comfyui-queue-button button"))
        button.first.click()

    def wait_for_pages(self, count: int, timeout_s: int = 400) -> None:
        """Until a finished run shows so many pictures, all of them loaded; while it runs, previews and earlier pictures stand in."""
        script = ("(count) => { const images = [...document.querySelectorAll('.weaver-book:not(.weaver-live) img')];"
                  " return images.length === count && images.every((image) => image.alt && image.complete && image.naturalWidth > 0) }")
        self.page.wait_for_function(script, arg=count, timeout=timeout_s * 1000)

    def screenshot(self, name: str) -> Path:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path


@pytest.fixture
def open_page(chromium, comfy):
    """`open_page()` gives a fresh page; after the test no script of it may have failed."""
    pages: list[Page] = []

    def open_one() -> Page:
        pages.append(Page(chromium, comfy.url))
        return pages[-1]

    yield open_one
    for page in pages:
        page.page.close()
    assert [error for page in pages for error in page.errors] == []
