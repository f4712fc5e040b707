"""Exported stories: what is in each format, that it opens again as a plan, and that nothing of a story is more than text.

Judges from outside where there are some: EPUBCheck, poppler, a Markdown parser, pypdf.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import re
import shutil
import subprocess
import sys
import weakref
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageDraw

from weaver_core.errors import InputError, StoryError
from weaver_core.export import FORMATS, export_story
from weaver_core.export.command import add_export_arguments, run_export
from weaver_core.export.reading import read_plan
from weaver_core.export.typesetting import _no_font_for
from weaver_core.plan import CastMember, ImageSegment, Plan, TextSegment, parse_markup
from weaver_core.rendering import Rendering
from weaver_core.request import Request
from weaver_core.story import Story, StoryFolder

ROOT = Path(__file__).resolve().parents[1]
SIMPLE = """# Robin's day
<cast name="Robin" look="a small orange fox"><cast name="Mia &amp; Mo" look="two mice">
In the morning Robin peeks out of his den. <imagine id="p1">A small orange fox peeks out of a den.</imagine>
At noon he walks to the river. <imagine id="p2">The fox walks along a river.</imagine>
In the evening he is tired. <imagine id="p3">The fox sleeps under a tree.</imagine>
"""
EVIL = (
    '<script>alert(1)</script>"><img src=x onerror=alert(2)>\'--><!-- ]]> {{ 7*7 }} {% raw %} #eval("1") $x$ '
    "[a](javascript:b) `c` *d*"
)
RTL_EMOJI = "שלום abc \u202e\u05d0\u202c 🦊👋🏽 fin"
WORKFLOW = {
    "prompt": json.dumps({"1": {"class_type": "WeaverPlan", "inputs": {"prompt": "</script><b>"}}}),
    "workflow": json.dumps({"nodes": [{"id": 1, "title": "</script> ]]> -->"}], "links": []}),
}
SYSTEM = (
    "apt-get install -y --no-install-recommends epubcheck poppler-utils fonts-noto-cjk fonts-noto-color-emoji "
    "fonts-dejavu-core"
)


def picture(colour, size=(96, 96)):
    image = Image.new("RGB", size, colour)
    ImageDraw.Draw(image).ellipse((8, 8, size[0] // 2, size[1] // 2), fill="white")
    return image


def drawn(story, images):
    """The story with these images, by segment id."""
    for number, (segment_id, image) in enumerate(images.items()):
        rendering = Rendering(
            segment_id=segment_id, key=f"{number:032x}", image_key="0" * 32, size=image.size, seed=0, visualizer="shapes",
            steps=1, guidance=1.0, reference_guidance=1.0, prompt="x",
        )  # fmt: skip
        story.keep(rendering, image)
    return story


def story_of(plan, images=None):
    story = Story()
    story.set_plan(plan if isinstance(plan, Plan) else parse_markup(plan)[0])
    colours = ("#d04020", "#20a040", "#2040d0")
    return drawn(story, images if images is not None else {image.id: picture(c) for image, c in zip(story.plan.images, colours)})


def hostile_plan():
    title = (EVIL + " ") * 2 + "x" * 60 + RTL_EMOJI
    assert len(title) > 300
    segments = (
        TextSegment(id="t1", text=f"{EVIL}\n\n# {EVIL}\n- {RTL_EMOJI}\n1. one\n===\n{'Wort' * 120}"),
        ImageSegment(id="p1", prompt=EVIL),
        TextSegment(id="t2", text=RTL_EMOJI),
        ImageSegment(id="P1", prompt=f"Same id in capitals {EVIL}\nsecond line"),
        ImageSegment(id="p3", prompt=f"Never drawn. {EVIL}"),
    )
    return Plan(title=title, language="en", cast=(CastMember(name=f"{EVIL[:80]}"),), segments=segments)


class Page(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def program(name):
    path = shutil.which(name)
    assert path, f"{name} is missing; install what these tests judge with: {SYSTEM}"
    return path


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=500)


def check_epub(path):
    """EPUBCheck's complaints about a file; Debian's command is a jar that not every shell starts."""
    jar = Path("/usr/share/java/epubcheck.jar")
    command = ("java", "-jar", jar) if jar.is_file() and shutil.which("java") else (program("epubcheck"),)
    done = run(*command, path)
    return done.returncode, done.stdout + done.stderr


def entries(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pdf(path):
    import pypdf

    return pypdf.PdfReader(path)


def tree_nodes(node, kind):
    """All elements of a kind in a PDF's structure tree."""
    node = node.get_object()
    found = [node] if node.get("/S") == kind else []
    children = node.get("/K", [])
    for child in children if isinstance(children, list) else [children]:
        child = child.get_object()
        if isinstance(child, dict):
            found += tree_nodes(child, kind)
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The simple story in every format, with a workflow: format name -> path."""
    folder = tmp_path_factory.mktemp("export")
    story = story_of(SIMPLE)
    return {name: export_story(story, folder / f"robin{item.ending}", name, workflow=WORKFLOW) for name, item in FORMATS.items()}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    from typst import Fonts

    assert {"Noto Color Emoji", "DejaVu Sans"} <= set(Fonts().families()), f"no emoji or Hebrew letters; install: {SYSTEM}"
    folder = tmp_path_factory.mktemp("hostile")
    images = {"p1": picture("#102030"), "P1": Image.effect_noise((640, 360), 40).convert("RGB")}
    story = story_of(hostile_plan(), images)
    return {name: export_story(story, folder / f"evil book{item.ending}", name) for name, item in FORMATS.items()}


# ---- every format


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_opens_again_as_the_same_plan(exported, name):
    assert read_plan(exported[name]) == parse_markup(SIMPLE)[0]


@pytest.mark.parametrize("name", FORMATS)
def test_a_hostile_plan_comes_back_unharmed_from_every_format(hostile, name):
    assert read_plan(hostile[name]) == hostile_plan()


@pytest.mark.parametrize("name", FORMATS)
def test_equal_stories_give_equal_bytes(exported, name, tmp_path):
    again = export_story(story_of(SIMPLE), tmp_path / f"robin{FORMATS[name].ending}", name, workflow=WORKFLOW)
    assert again.read_bytes() == exported[name].read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_pictures_are_read_one_at_a_time(name, tmp_path):
    """A story of 32 pages never has more than two of its pictures in memory (as Python objects)."""

    class Counting(Story):
        given, most = (), 0

        def image(self, segment_id):
            image = picture("#808080", (64, 64))
            gc.collect()
            self.given = (*(reference for reference in self.given if reference() is not None), weakref.ref(image))
            self.most = max(self.most, len(self.given))
            return image

    story = Counting()
    num_pages = 32 if name != "cbz" else 6  # every page of a comic is set and drawn: seconds
    story.set_plan(parse_markup("# Long\n" + "a <imagine>b</imagine>\n" * num_pages)[0])
    drawn(story, {image.id: picture("#808080", (64, 64)) for image in story.plan.images})
    export_story(story, tmp_path / "long", name)
    assert 1 <= story.most <= 2


def test_unknown_formats_and_impossible_paths_are_refused(tmp_path):
    story = story_of(SIMPLE)
    with pytest.raises(InputError, match="must be one of html, pdf, epub, cbz, md"):
        export_story(story, tmp_path / "a.docx", "docx")
    with pytest.raises(InputError, match="NUL"):
        export_story(story, f"{tmp_path}/a\0b.html", "html")
    with pytest.raises(InputError, match="is a folder"):
        export_story(story, tmp_path, "html")
    with pytest.raises(InputError, match="no plan yet"):
        export_story(Story(), tmp_path / "a.html", "html")
    with pytest.raises(InputError, match="is no JSON text"):
        export_story(story, tmp_path / "a.html", "html", workflow={"workflow": "<script>"})
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoryError, match="cannot be written"):
        export_story(story, tmp_path / "file" / "a.html", "html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("name", ["html", "epub", "md"])
def test_a_damaged_picture_leaves_no_half_file(name, tmp_path):
    with drawn(StoryFolder.create(tmp_path / "s", Request(prompt="x")), {"p1": picture("red")}) as story:
        story.set_plan(parse_markup("<imagine id=\"p1\">a</imagine>")[0])
        story.path("p1").write_bytes(b"nothing")
        with pytest.raises(StoryError, match="is not the image that was drawn"):
            export_story(story, tmp_path / "out", name)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_nothing_heavy_is_loaded_before_a_format_needs_it():
    code = "import sys, weaver_core.export.command, weaver_core.export.reading; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split())
    assert not loaded & {"typst", "pypdf", "jinja2", "numpy", "torch", "weaver_core.export.pdf", "weaver_core.export.html"}


# ---- HTML


def test_the_page_carries_plan_and_workflow_as_data_that_is_not_run(exported):
    page = exported["html"].read_text(encoding="utf-8")
    parsed = Page(page)
    blocks = [attributes for tag, attributes in parsed.attributes if tag == "script"]
    assert blocks == [{"type": "application/json", "id": f"weaver-{name}"} for name in ("plan", "workflow")]
    workflow = re.search(r'id="weaver-workflow">([^<]*)</script>', page)[1]
    assert json.loads(workflow) == json.loads(WORKFLOW["workflow"])


def test_hostile_words_are_words_on_the_page(hostile):
    page = Page(hostile["html"].read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1 and page.tags.count("img") == 2 and "b" not in page.tags
    assert not [name for _, attributes in page.attributes for name in attributes if name.startswith("on")]
    assert EVIL in page.text


# ---- Markdown


def markdown_tokens(path):
    from markdown_it import MarkdownIt

    body = path.read_text(encoding="utf-8").split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    return [child for token in tokens for child in (token, *(token.children or ()))]


def test_markdown_tells_the_story_and_shows_its_pictures(exported):
    tokens = markdown_tokens(exported["md"])
    images = [token for token in tokens if token.type == "image"]
    assert [image.content for image in images] == [image.prompt for image in parse_markup(SIMPLE)[0].images]
    for image, colour in zip(images, ((208, 64, 32), (32, 160, 64), (32, 64, 208))):
        file = exported["md"].parent / image.attrs["src"]
        assert Image.open(file).getpixel((90, 90)) == colour
    assert [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"] == ["Robin's day"]


def test_hostile_words_are_words_in_markdown(hostile):
    tokens = markdown_tokens(hostile["md"])
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_inline", "link_open", "code_inline", "code_block", "bullet_list_open", "ordered_list_open"}
    blocks = [token.content for token in tokens if token.type == "html_block"]
    assert len(blocks) == 1 and blocks[0].startswith("<!-- weaver-plan\n") and blocks[0].count("-->") == 1
    assert sum(token.type == "heading_open" for token in tokens) == 1
    assert EVIL in "".join(token.content for token in tokens if token.type == "text")


def test_pictures_beside_the_markdown_carry_the_workflow_and_what_they_show(exported, hostile):
    info = Image.open(exported["md"].parent / "robin-images" / "01-p1.png").info
    assert {key: info[key] for key in WORKFLOW} == WORKFLOW
    assert info["Description"] == "A small orange fox peeks out of a den."
    assert sorted(path.name for path in (hostile["md"].parent / "evil book-images").iterdir()) == ["01-p1.png", "02-P1.png"]


def test_a_link_in_place_of_the_picture_folder_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a-images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoryError, match="is no folder"):
        export_story(story_of(SIMPLE), tmp_path / "a.md", "md")
    assert not list((tmp_path / "elsewhere").iterdir())


# ---- EPUB


@pytest.mark.parametrize("which", ["exported", "hostile"])
def test_epubcheck_finds_nothing(which, request):
    code, said = check_epub(request.getfixturevalue(which)["epub"])
    assert code == 0 and "0 fatals / 0 errors / 0 warnings" in said, said


def test_the_book_has_title_page_order_language_and_descriptions(exported):
    files = entries(exported["epub"])
    assert list(files)[0] == "mimetype"
    package = ElementTree.fromstring(files["EPUB/package.opf"])
    ns = {"o": "http://www.idpf.org/2007/opf", "dc": "http://purl.org/dc/elements/1.1/"}
    assert package.find(".//dc:language", ns).text == "en" and package.find(".//dc:title", ns).text == "Robin's day"
    order = [item.get("idref") for item in package.findall(".//o:itemref", ns)]
    assert order == ["title", "page-1", "page-2", "page-3"]
    features = {meta.text for meta in package.findall(".//o:meta", ns) if meta.get("property") == "schema:accessibilityFeature"}
    assert {"alternativeText", "readingOrder"} <= features
    covers = [item.get("href") for item in package.findall(".//o:item", ns) if item.get("properties") == "cover-image"]
    assert covers == ["images/001.png"]
    page = ElementTree.fromstring(files["EPUB/page-002.xhtml"])
    assert page.find(".//{*}img").get("alt") == "The fox walks along a river."
    assert json.loads(files["META-INF/workflow.json"]) == json.loads(WORKFLOW["workflow"])


def test_a_book_in_arabic_runs_from_right_to_left(tmp_path):
    path = export_story(story_of('# قصة\n<story language="ar">\nنص. <imagine>a</imagine>'), tmp_path / "a.epub", "epub")
    files = entries(path)
    assert b'page-progression-direction="rtl"' in files["EPUB/package.opf"]
    assert ElementTree.fromstring(files["EPUB/page-001.xhtml"]).get("dir") == "rtl"


# ---- PDF


def test_the_pdf_has_title_language_and_one_sheet_a_spread(exported):
    reader = pdf(exported["pdf"])
    assert reader.metadata.title == "Robin's day" and reader.trailer["/Root"]["/Lang"] == "en"
    assert len(reader.pages) == 4
    texts = [" ".join(page.extract_text().split()) for page in reader.pages]
    assert "Robin's day" in texts[0] and "At noon he walks to the river." in texts[2]


def test_the_pdf_is_tagged_and_its_pictures_are_described(exported):
    root = pdf(exported["pdf"]).trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"] and b"pdfuaid" in root["/Metadata"].get_data()
    alts = [node.get("/Alt") for node in tree_nodes(root["/StructTreeRoot"], "/Figure")]
    prompts = [image.prompt for image in parse_markup(SIMPLE)[0].images]
    assert alts == [prompts[0], *prompts], "the first one stands on the title page too"


def test_every_font_is_embedded(exported):
    listing = run(program("pdffonts"), exported["pdf"]).stdout.splitlines()[2:]
    assert listing and all(re.search(r"\syes\s+yes\s+yes\s", line) for line in listing), listing


def test_the_pdf_shows_text_beside_its_picture(exported, tmp_path):
    done = run(program("pdftoppm"), "-r", "30", "-png", exported["pdf"], tmp_path / "page")
    pages = [Image.open(path).convert("RGB") for path in sorted(tmp_path.glob("*.png"))]
    assert len(pages) == 4, done.stderr
    width, height = pages[1].size
    right, left = pages[1].getpixel((width * 3 // 4, height * 2 // 3)), pages[2].getpixel((width // 4, height * 2 // 3))
    assert max(abs(a - b) for a, b in zip(right, (208, 64, 32))) < 12
    assert max(abs(a - b) for a, b in zip(left, (32, 160, 64))) < 12
    told = pages[1].crop((0, height // 4, width // 3, height * 3 // 4)).convert("L").getextrema()
    assert told[0] < 120 and told[1] == 255, "dark letters on white"


def test_plan_and_workflow_are_attached_to_the_pdf(exported):
    attached = pdf(exported["pdf"]).attachments
    assert json.loads(attached["workflow.json"][0]) == json.loads(WORKFLOW["workflow"])
    assert Plan.loads(attached["plan.json"][0].decode()) == parse_markup(SIMPLE)[0]


def test_hostile_words_are_words_in_the_pdf(hostile):
    reader = pdf(hostile["pdf"])
    assert reader.metadata.title.startswith(EVIL)
    assert not {"/JavaScript", "/OpenAction", "/AA"} & set(reader.trailer["/Root"]) and reader.get_fields() is None
    assert not any("/Annots" in page for page in reader.pages), "no links, no forms"
    assert "{{ 7*7 }}" in " ".join(" ".join(page.extract_text() for page in reader.pages).split())


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Käthe aß süße Äpfel – „lecker“!"),
        ("fr", "« Où est-il ? » Le cœur de l’été."),
        ("zh", "小狐狸走出了洞穴。“那是什么？”"),
        ("ja", "きつねのロビンは巣穴から顔を出しました。"),
    ],
)
def test_the_pdf_speaks_many_languages(language, text, tmp_path):
    from typst import Fonts

    asian = language in ("zh", "ja")
    assert not asian or any("CJK" in family for family in Fonts().families()), f"no Chinese font; install: {SYSTEM}"
    path = export_story(story_of(Plan(language=language, segments=(TextSegment(id="t1", text=text),))), tmp_path / "a.pdf", "pdf")
    reader = pdf(path)
    assert reader.trailer["/Root"]["/Lang"].split("-")[0] == language
    assert text[:6] in reader.pages[1].extract_text()


def test_a_word_wider_than_its_column_stays_on_the_sheet(tmp_path):
    path = export_story(story_of(f"a <imagine>a</imagine> {'W' * 300} <imagine>b</imagine>"), tmp_path / "a.pdf", "pdf")
    run(program("pdftoppm"), "-r", "25.4", "-f", "3", "-l", "3", "-png", path, tmp_path / "page")
    sheet = Image.open(next(tmp_path.glob("*.png"))).convert("L")  # one pixel is one millimetre
    assert sheet.crop((sheet.width - 12, 0, sheet.width, sheet.height)).getextrema() == (255, 255)
    assert sheet.crop((sheet.width // 2 + 30, 0, sheet.width - 12, sheet.height)).getextrema()[0] < 160


@pytest.mark.parametrize("name", ["pdf", "cbz"])
def test_letters_that_no_font_has_are_named(name, tmp_path):
    plan = Plan(segments=(TextSegment(id="t1", text="a \U0010fff0 b"),))
    with pytest.raises(InputError, match=r"no font here has .* \(U\+10FFF0\); install one that has.*--fonts"):
        export_story(story_of(plan), tmp_path / "a", name)
    with pytest.raises(InputError, match="has no font that can be read"):
        export_story(story_of(SIMPLE), tmp_path / "a", name, fonts=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_message_says_what_to_install():
    said = _no_font_for(["小", "の", "🦊", "ก"])
    assert "fonts-noto-cjk fonts-noto-color-emoji fonts-noto-core)" in said and "U+5C0F, U+306E, U+1F98A, U+0E01)" in said


def test_fonts_of_a_folder_are_used_first(tmp_path):
    from typst import Fonts

    own = next((font for font in Fonts(include_embedded_fonts=False).fonts() if font.family == "DejaVu Sans Mono"), None)
    assert own, f"no DejaVu; install: {SYSTEM}"
    (tmp_path / "fonts").mkdir()
    shutil.copy(own.path, tmp_path / "fonts")
    path = export_story(story_of(SIMPLE), tmp_path / "a.pdf", "pdf", fonts=tmp_path / "fonts")
    assert "DejaVuSansMono" in run(program("pdffonts"), path).stdout


def test_text_that_is_too_long_for_a_sheet_goes_on_on_the_next(tmp_path):
    words = " ".join(f"word{i}" for i in range(1500))
    story = story_of(f"{words} <imagine>a</imagine>")
    sheets = pdf(export_story(story, tmp_path / "a.pdf", "pdf")).pages
    text = " ".join(sheet.extract_text() for sheet in sheets)
    assert len(sheets) > 3 and all(f"word{i}" in text for i in (0, 700, 1499))
    names = [name for name in entries(export_story(story, tmp_path / "a.cbz", "cbz")) if name.endswith(".png")]
    assert names == [f"{number:03}.png" for number in range(len(sheets))], "in the order of their names"


# ---- CBZ


def test_the_comic_archive_shows_and_tells_every_page(exported):
    files = entries(exported["cbz"])
    pages = sorted(name for name in files if name.endswith(".png"))
    assert pages == ["000.png", "001.png", "002.png", "003.png"]
    image = Image.open(io.BytesIO(files["001.png"])).convert("RGB")
    assert max(abs(a - b) for a, b in zip(image.getpixel((image.width * 3 // 4, image.height * 2 // 3)), (208, 64, 32))) < 12
    assert image.crop((0, image.height // 4, image.width // 3, image.height * 3 // 4)).convert("L").getextrema()[0] < 120
    info = ElementTree.fromstring(files["ComicInfo.xml"])
    assert (info.findtext("Title"), info.findtext("PageCount"), info.findtext("LanguageISO")) == ("Robin's day", "4", "en")
    assert "The fox sleeps under a tree." in info.findtext("Summary")
    assert [int(page.get("ImageSize")) for page in info.iter("Page")] == [len(files[name]) for name in pages]


def test_pages_of_the_comic_open_as_the_workflow(exported):
    files = entries(exported["cbz"])
    info = Image.open(io.BytesIO(files["002.png"])).info
    assert {key: info[key] for key in WORKFLOW} == WORKFLOW
    assert "The fox walks along a river." in info["Description"]
    assert json.loads(files["workflow.json"]) == json.loads(WORKFLOW["workflow"])


def test_archives_hold_no_names_that_lead_elsewhere(hostile):
    for name in ("epub", "cbz"):
        assert all(re.fullmatch(r"[A-Za-z0-9/.-]+", inside) and ".." not in inside for inside in entries(hostile[name]))


# ---- opening again


def archive_with(path, name, data):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return path


def lying_bomb(path):
    """An archive whose headers say that plan.json has 100 bytes, while 64 MB come out of it."""
    archive_with(path, "plan.json", b" " * (64 << 20))
    data = bytearray(path.read_bytes())
    real = (64 << 20).to_bytes(4, "little")
    for _ in range(data.count(real)):
        data[data.find(real) : data.find(real) + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    return path


def many_files(path, marker=b""):
    """An archive that says its list of files has 3 MB; or one with the marker of lists without any limit before its end."""
    data = bytearray(archive_with(path, "plan.json", "{}").read_bytes())
    end = data.rfind(b"PK\x05\x06")
    if marker:
        data[end:end] = marker + bytes(16)
    else:
        data[end + 12 : end + 16] = (3 << 20).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (many_files, "its list of files is longer"),
        (lambda path: many_files(path, b"PK\x06\x07"), "its list of files is longer"),
        (lambda path: archive_with(path, "other.json", "{}"), "no plan.json inside"),
        (lambda path: archive_with(path, "../plan.json", "{}"), "no plan.json inside"),
        (lambda path: archive_with(path, "plan.json", b" " * (64 << 20)), "its plan has 64 MB"),
        (lying_bomb, "damaged|not JSON"),
        (lambda path: archive_with(path, "plan.json", "[" * 100_000), "nested too deeply"),
        (lambda path: archive_with(path, "plan.json", b"\xff"), "not text in UTF-8"),
        (lambda path: archive_with(path, "plan.json", '{"format":"weaver-plan","version":1}'), "segments: missing"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + b"x" * 100), "damaged"),
        (lambda path: path.write_bytes(b"%PDF-1.7\nnothing"), "the PDF is damaged"),
        (lambda path: path.write_bytes(b""), "no plan in it"),
        (lambda path: path.write_text("<script>alert(1)</script>"), "no plan in it"),
        (lambda path: path.write_text('<script type="application/json" id="weaver-plan">{"a":1}</script>'), "a: unknown key"),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
)
def test_files_that_are_not_ours_are_refused_with_a_reason(make, said, tmp_path):
    path = tmp_path / "book"
    make(path)
    with pytest.raises(InputError, match=said):
        read_plan(path)


def test_a_pdf_without_a_plan_says_so(tmp_path):
    picture("red").save(tmp_path / "a.pdf")
    with pytest.raises(InputError, match="no plan.json attached"):
        read_plan(tmp_path / "a.pdf")


def test_a_plan_too_large_in_a_pdf_is_refused(tmp_path):
    import typst

    (tmp_path / "plan.json").write_bytes(b" " * (17 << 20))
    (tmp_path / "a.typ").write_text('#pdf.attach("plan.json")')
    typst.compile(tmp_path / "a.typ", output=tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").stat().st_size < 1 << 20
    with pytest.raises(InputError, match="its plan has 17 MB"):
        read_plan(tmp_path / "a.pdf")


def test_missing_files_and_impossible_names_are_said(tmp_path):
    for name in ("none.epub", "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            read_plan(tmp_path / name)


# ---- the command


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """A story folder `robin` whose last image is missing, and `weaver export` on it."""
    with StoryFolder.create(tmp_path / "robin", Request(prompt="x")) as folder:
        folder.set_plan(parse_markup(SIMPLE)[0])
        drawn(folder, {"p1": picture("red"), "p2": picture("green")})
    monkeypatch.chdir(tmp_path)

    def export(*arguments):
        parser = argparse.ArgumentParser()
        parser.add_argument("--quiet", action="store_true")
        parser.add_argument("--json", action="store_true")
        add_export_arguments(parser)
        return run_export(parser.parse_args(["robin", *arguments])), *capsys.readouterr()

    return export


def test_several_formats_at_once_and_missing_images_are_said(command):
    code, out, err = command("--format", "html,epub", "--format", "md", "--out", "books/my.book")
    assert out.splitlines() == ["books/my.book.html", "books/my.book.epub", "books/my.book.md"]
    assert all(read_plan(line).title == "Robin's day" for line in out.splitlines())
    assert code == 3 and "1 of 3 images are missing (p3)" in err
    assert "The fox sleeps under a tree." in entries("books/my.book.epub")["EPUB/page-003.xhtml"].decode()


def test_the_ending_says_the_format_and_the_folder_is_the_default_place(command, tmp_path):
    assert command("--out", "a.epub")[1] == "a.epub\n"
    assert command()[1] == "robin/story.html\n"
    code, out, _ = command("--json", "--format", "all", "--out", "b.pdf")
    assert json.loads(out) == {"files": {name: f"b{item.ending}" for name, item in FORMATS.items()}, "missing": ["p3"]}
    with pytest.raises(InputError, match="does not say which format"):
        command("--out", "a.docx")
    with pytest.raises(SystemExit):
        command("--format", "docx")
