"""The HTML page: everything of the story is in it, and nothing of the story is more than text."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

from PIL import Image
from small_pair import FOX, ShapeVisualizer, TellingPlanner

from weaver_core.export.html import html_page, write_html
from weaver_core.plan import ImageSegment, Plan, TextSegment, parse_markup
from weaver_core.request import Request
from weaver_core.story import StoryFolder
from weaver_core.weave import weave

DATA = {"type": "application/json", "id": "weaver-plan"}  # the one script element: data, which browsers do not run
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)><style>*{}</style>{{ 7*7 }}{% raw %}</title>'


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.attributes if name == tag]


def test_a_story_folder_becomes_one_page(tmp_path):
    request = Request(prompt="a fox", num_images=3)
    with StoryFolder.create(tmp_path / "s", request) as folder:
        list(weave(request, TellingPlanner(), ShapeVisualizer(), story=folder))
        path = write_html(folder, tmp_path / "s" / "story.html")
        page = Elements(path.read_text(encoding="utf-8"))
        plan, first = folder.plan, folder.image("p1")
    assert all(segment.text in page.text for segment in plan.texts) and plan.title in page.text
    images = page.all("img")
    assert [image["alt"] for image in images] == [segment.prompt for segment in plan.images]
    data = base64.b64decode(images[0]["src"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(data)).tobytes() == first.tobytes()
    assert page.all("html") == [{"lang": "en"}]


def test_text_never_becomes_markup():
    plan = Plan(title=EVIL, segments=(TextSegment(id="t1", text=EVIL), ImageSegment(id="p1", prompt=EVIL)))
    for images in ({}, {"p1": Image.new("RGB", (8, 8))}):
        page = Elements(html_page(plan, images))
        assert page.all("script") == [DATA] and page.tags.count("style") == 1
        assert page.tags.count("img") == len(images)
        assert not [name for _, attributes in page.attributes for name in attributes if name.startswith("on")]
        assert page.text.count(EVIL) == (3 if images else 4)  # title twice, text, and the prompt where the image is missing


def test_the_policy_allows_our_style_and_our_pictures_only():
    page = html_page(parse_markup(FOX)[0], {})
    policy = Elements(page).all("meta")[1]["content"]
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'")
    assert "style=" not in page.replace("<style>", "") and Elements(page).all("script") == [DATA]
    assert "url(" not in style and "http" not in style


def test_a_missing_picture_shows_what_it_was_to_show():
    page = html_page(parse_markup(FOX)[0], {"p1": Image.new("RGB", (8, 8))})
    assert page.count('<figure class="missing">') == 2
    assert '<figure class="missing">The fox walks along a river.</figure>' in page


def test_paragraphs_and_pages():
    plan, _ = parse_markup("One.\n\nTwo.\nThree. <imagine>a</imagine> <imagine>b</imagine> The end.")
    page = html_page(plan, {})
    assert re.findall(r'<p dir="auto">([^<]*)</p>', page) == ["One.", "Two.\nThree.", "The end."]
    assert re.findall(r'class="page([^"]*)"', page) == ["", " turned alone", " alone"]


def test_large_pictures_are_made_light():
    plan, _ = parse_markup("<imagine>a</imagine>")
    noise = Image.effect_noise((1024, 1024), 60).convert("RGB")
    page = html_page(plan, {"p1": noise})
    assert "data:image/jpeg;base64," in page and len(page) < 1_500_000


def test_an_untitled_empty_plan_is_a_page_too():
    assert "<h1 dir=\"auto\">A story</h1>" in html_page(Plan(language="ar"), {})
