"""The report and the vote page in a real Chromium: nothing is asked for outside, nothing of foreign text runs, it looks right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from eval_records import document, hostile_run, judged, picture, prompt, run

from weaver_core.evaluation.records import Block, MetricRecord
from weaver_core.evaluation.report import Verdict, write_report
from weaver_core.evaluation.report.vote import read_votes, write_vote

SCREENSHOTS = Path(__file__).resolve().parents[2] / ".cache" / "screenshots"
COLOURS = ("#d1603d", "#33658a", "#86bbd8", "#f6ae2d", "#758e4f")


class Watched:
    """A page with all that it asked for, said and threw."""

    def __init__(self, browser, path, **settings):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **settings)
        self.page = self.context.new_page()
        self.requests, self.console, self.errors = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        self.page.goto(path.as_uri())
        self.path = path

    def outside(self):
        return [url for url in self.requests if not url.startswith(("data:", "blob:")) and url != self.path.as_uri()]


@pytest.fixture
def open_file(chromium):
    pages = []

    def open_one(path, **settings):
        pages.append(Watched(chromium, path, **settings))
        return pages[-1]

    yield open_one
    for one in pages:
        one.context.close()


def story_run(folder, name, base):
    """A run that has all that a report shows."""
    for number, colour in enumerate(COLOURS):
        picture(folder / f"{number}.png", colour, (256, 256))
    ids = [f"ws-{n:02d}" for n in range(24)]
    scores = {one: tuple(min(10, max(0, base + (n * k) % 5 - 2)) for k in (1, 2, 3, 4, 6)) for n, one in enumerate(ids)}
    documents = [
        document(one, *(
            part for k in range(1 + n % 5) for part in (
                Block(type="text", text=f"Page {k + 1}: Robin climbs the hill and waves."),
                Block(type="image", path=f"{(n + k) % 5}.png", dense_prompt="A small orange fox waves on a green hill.", seed=k),
            )
        ), system=name) for n, one in enumerate(ids)
    ]  # fmt: skip
    metrics = [MetricRecord(prompt_id=one, system=name, metric="anchor", value=0.8, by_image=tuple(0.9 - 0.03 * k - 0.01 * (n % 3) for k in range(1 + n % 5)),
                            flags=("near_duplicate:1",) * (n % 7 == 0)) for n, one in enumerate(ids)]  # fmt: skip
    given = run(folder, name=name, scores=scores, documents=documents, metrics=metrics,
                prompts=[prompt(one, category=("recipe", "travel", "craft")[n % 3]) for n, one in enumerate(ids)])  # fmt: skip
    return dataclasses.replace(given, judge_records=(*given.judge_records, *judged(ids[0], (base,) * 5, system=name, rep=1)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_readable_and_asks_for_nothing(open_file, tmp_path, scheme):
    runs = [story_run(tmp_path, "picture-book", 7), story_run(tmp_path, "baseline", 6)]
    files = write_report(runs, tmp_path / "r", verdicts=[Verdict(name="shuffle", text="NC falls.", passed=True)], command="weaver eval report")
    shown = open_file(files.html, color_scheme=scheme)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    shown.page.screenshot(path=SCREENSHOTS / f"report-{scheme}.png", full_page=True)
    assert shown.outside() == [] and shown.console == [] and shown.errors == []
    facts = shown.page.evaluate("""() => {
      const box = (element) => element.getBoundingClientRect()
      const luminance = (colour) => { const [r, g, b] = colour.match(/[0-9.]+/g).map((v) => v / 255).map((v) => v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
      const [a, b] = ['color', 'backgroundColor'].map((name) => luminance(getComputedStyle(document.documentElement)[name])).sort((x, y) => y - x)
      return {
        images: [...document.images].length,
        loaded: [...document.images].filter((image) => image.complete && image.naturalWidth > 0).length,
        wide: document.documentElement.scrollWidth > innerWidth,
        contrast: (a + 0.05) / (b + 0.05),
        bars: [...document.querySelectorAll('.forest .dot')].map((dot) => box(dot).x),
        fill: getComputedStyle(document.querySelector('.forest .dot')).fill,
        dark: luminance(getComputedStyle(document.documentElement).backgroundColor) < 0.2,
      }
    }""")
    assert facts["images"] == facts["loaded"] > 10 and not facts["wide"] and facts["contrast"] > 7
    assert len(facts["bars"]) == 12 and facts["bars"][0] > facts["bars"][1], "the better system stands further right"
    assert facts["fill"] not in ("rgb(0, 0, 0)", "none") and facts["dark"] == (scheme == "dark")


def test_the_report_fits_a_telephone(open_file, tmp_path):
    files = write_report([story_run(tmp_path, "picture-book", 7), story_run(tmp_path, "baseline", 6)], tmp_path / "r")
    shown = open_file(files.html)
    shown.page.set_viewport_size({"width": 390, "height": 800})
    assert not shown.page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_nothing_of_hostile_text_runs_in_the_report(open_file, tmp_path):
    other = dataclasses.replace(hostile_run(tmp_path), name="other")
    files = write_report([hostile_run(tmp_path), other], tmp_path / "r", title=hostile_run(tmp_path).name, command="x")
    shown = open_file(files.html)
    shown.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    shown.page.wait_for_timeout(300)
    assert shown.page.evaluate("window.hacked") is None and shown.page.locator("script").count() == 0
    assert shown.outside() == [] and shown.errors == [] and shown.console == []


def test_the_policy_stops_what_would_slip_in(open_file, tmp_path):
    """Even markup that someone writes into the file by hand neither runs nor loads."""
    files = write_report([run(tmp_path)], tmp_path / "r")
    page = files.html.read_text(encoding="utf-8")
    slipped = '<script>window.hacked = 1</script><img src="http://127.0.0.1:9/x.png" onerror="window.hacked = 2"><p style="color: red" id="red">x</p>'
    files.html.write_text(page.replace("<main>", "<main>" + slipped), encoding="utf-8")
    shown = open_file(files.html)
    shown.page.wait_for_timeout(300)
    assert shown.page.evaluate("window.hacked") is None
    assert shown.page.evaluate("getComputedStyle(document.getElementById('red')).color") != "rgb(255, 0, 0)"
    assert len(shown.console) >= 3, "the browser says what it refused"


def test_votes_are_cast_kept_and_downloaded(open_file, tmp_path):
    page, key = write_vote(story_run(tmp_path, "ours", 7), story_run(tmp_path, "rival", 6), tmp_path / "v", pairs=3, seed=2)
    shown = open_file(page, color_scheme="light")
    secret = json.loads(key.read_text(encoding="utf-8"))
    shown.page.wait_for_timeout(200)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    shown.page.screenshot(path=SCREENSHOTS / "vote.png")

    def visible():
        return shown.page.evaluate("[...document.querySelectorAll('article')].filter((one) => !one.hidden).map((one) => one.dataset.pair)")

    assert visible() == ["1"]
    shown.page.get_by_role("button", name="Left is better").click()
    shown.page.locator("article[data-pair='2']").wait_for(state="visible")
    shown.page.keyboard.press("2")
    shown.page.locator("article[data-pair='3']").wait_for(state="visible")
    shown.page.reload()
    assert visible() == ["3"], "votes are kept when the page is opened again"
    shown.page.keyboard.press("3")
    with shown.page.expect_download() as download:
        shown.page.get_by_role("button", name="Download votes").click()
    download.value.save_as(tmp_path / "votes.json")
    result = read_votes(tmp_path / "votes.json", key)
    side = {item["pair"]: item["left"] for item in secret["pairs"]}
    right = {"ours": "rival", "rival": "ours"}
    assert [outcome.winner for outcome in result.outcomes] == [side["1"], None, right[side["3"]]] and result.open == 0
    assert shown.outside() == [] and shown.errors == [] and shown.console == []


def test_nothing_of_hostile_text_runs_on_the_vote_page(open_file, tmp_path):
    page, _ = write_vote(hostile_run(tmp_path), dataclasses.replace(hostile_run(tmp_path), name="b"), tmp_path / "v")
    shown = open_file(page)
    shown.page.get_by_role("button", name="Equal").click()
    shown.page.wait_for_timeout(400)
    assert shown.page.evaluate("window.hacked") is None and shown.outside() == [] and shown.errors == []
