"""The plan and its two spellings: markup that never fails and always round-trips, JSON that says where it is wrong."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weaver_core.errors import PlanError
from weaver_core.plan import (
    CastMember,
    CastParsed,
    ImageParsed,
    ImageSegment,
    IncrementalParser,
    Plan,
    PlanWarning,
    PromptPiece,
    TextPiece,
    TextSegment,
    TitleParsed,
    image_seed,
    parse_markup,
)
from weaver_core.segments import ILLEGAL

# Pieces that matter to the parser, so that random texts run into them all the time.
SNIPPETS = [
    "<imagine>", "</imagine>", "<BOI>", "<boi >", "<eos>", "<imagine", "</imagine", "<imagine id=\"p1\" cast='A, B'>",
    '<imagine id="p1">', '<imagine id="p2" size="4x4" size="64x64" aspect="4:3">', "<imagine id=>", '<text id="t2">',
    "<text", '<cast name="A">', '<cast name="B" look="x" kind="place">', "<cast>", '<story language="de">', "<story/>",
    "# ", "#", "\n", " ", "\t", "a fox", "<", ">", "&", "&lt;", "&#35;", "&#0;", "&#1114112;", "&amp;lt;", "\"", "=", "'",
    "\x00", "\x1b[2J", "\ud800", "\r\n", "é", "狐狸", "<im", "</", "<imagination>", "\u2028", 'references="none"',
]  # fmt: skip
any_text = st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=8), max_size=30).map("".join)

plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(lambda text: ILLEGAL.sub("", text))
tricky = st.lists(st.sampled_from([s for s in SNIPPETS if not ILLEGAL.search(s)]), max_size=6).map("".join)
filled = (plain | tricky).filter(lambda text: text.strip())
name = filled.map(lambda text: " ".join(text.split())[:40].strip()).filter(bool) | st.sampled_from(["auto", "none", "A, B", "x|y"])
names = st.lists(name, max_size=3, unique=True).map(tuple)
segment_id = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True) | st.sampled_from(["p1", "p2", "t1", "t2"])
members = st.builds(
    CastMember,
    name=name,
    kind=st.sampled_from(["character", "place"]),
    look=plain | tricky,
    outfits=names,
    references=names,
)
text_segments = st.builds(TextSegment, id=segment_id, text=filled)
image_segments = st.builds(
    ImageSegment,
    id=segment_id,
    prompt=filled,
    cast=names,
    references=st.just("auto") | names,
    size=st.none() | st.tuples(st.integers(16, 4096), st.integers(16, 4096)),
    aspect=st.none() | st.sampled_from(["1:1", "4:3", "9:16"]),
    seed=st.just("auto") | st.integers(0, 2**64 - 1),
    locked=st.booleans(),
)


@st.composite
def plans(draw):
    segments = draw(st.lists(text_segments | image_segments, max_size=6, unique_by=lambda segment: segment.id))
    cast = draw(st.lists(members, max_size=3, unique_by=lambda member: member.name))
    return Plan(
        title=draw(plain | tricky),
        language=draw(st.sampled_from(["en", "de", "zh-Hant"])),
        cast=tuple(cast),
        segments=tuple(segments),
    )


def events_of(pieces, **kwargs):
    """All events, with neighbouring pieces of one segment joined."""
    parser = IncrementalParser(**kwargs)
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.close()
    joined = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, (TextPiece, PromptPiece)) and type(event) is type(last) and last.segment_id == event.segment_id:
            joined[-1] = replace(last, text=last.text + event.text)
        else:
            joined.append(event)
    return joined, parser.plan()


# ---- markup


def test_the_design_s_example_parses():
    plan, warnings = parse_markup(
        "# Robin's day\nIn the morning Robin peeks out of his den.\n"
        '<imagine id="p1" cast="Robin" aspect="4:3">A small orange fox.</imagine>\nAt noon he walks.'
    )
    assert warnings == []
    assert plan == Plan(
        title="Robin's day",
        segments=(
            TextSegment(id="t1", text="In the morning Robin peeks out of his den."),
            ImageSegment(id="p1", prompt="A small orange fox.", cast=("Robin",), aspect="4:3"),
            TextSegment(id="t2", text="At noon he walks."),
        ),
    )


def test_the_paper_s_bare_form_parses():
    plan, warnings = parse_markup("# T\nOne. <imagine>a</imagine><BOI>\nTwo. <imagine>b</imagine><BOI><eos>")
    assert warnings == []
    assert [segment.id for segment in plan.segments] == ["t1", "p1", "t2", "p2"]
    assert [segment.prompt for segment in plan.images] == ["a", "b"]


def test_bare_markup_prints_as_the_native_planner_writes_it():
    markup = "# T\nOne. <imagine>a</imagine><BOI>\nTwo. <imagine>b</imagine><BOI>\nThe end."
    assert parse_markup(markup)[0].to_bare_markup() == markup


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_grammar_s_stories_parse_without_warnings_and_print_back_exactly(split):
    import random

    from weaver_core.picturebook.grammar import sample_story

    rng = random.Random(5)
    for _ in range(40):
        record = sample_story(rng, split=split)
        plan, warnings = parse_markup(record.markup)
        assert warnings == []
        assert (plan.title, len(plan.images)) == (record.title, record.num_images)
        assert [segment.prompt for segment in plan.images] == list(record.prompts)
        assert plan.to_bare_markup() == record.markup.strip()


def test_every_attribute_is_read():
    plan, warnings = parse_markup(
        '<story language="fr"><cast name="Mia" kind="place" look="a &lt;big&gt; house" outfits="red | blue, white" '
        'references="mia.png">\n'
        "<imagine id=x-1 cast='Mia, Robin' aspect=\"16:9\" size='640x480' seed=\"12\" references=\"a, p1\" locked>Hi</imagine>"
    )
    assert warnings == []
    assert plan.language == "fr"
    assert plan.cast == (
        CastMember(
            name="Mia", kind="place", look="a <big> house", outfits=("red", "blue, white"), references=("mia.png",)
        ),
    )
    assert plan.images[0] == ImageSegment(
        id="x-1", prompt="Hi", cast=("Mia", "Robin"), aspect="16:9", size=(640, 480), seed=12, references=("a", "p1"),
        locked=True,
    )  # fmt: skip


@given(plans())
def test_a_plan_printed_and_parsed_is_the_same_plan(plan):
    assert parse_markup(plan.to_markup()) == (plan, [])


@given(any_text)
def test_any_text_gives_a_plan_that_round_trips(text):
    plan, warnings = parse_markup(text)
    assert parse_markup(plan.to_markup()) == (plan, [])
    assert Plan.loads(plan.dumps()) == plan
    lines = text.count("\n") + 1
    assert all(1 <= warning.line <= lines and warning.column >= 1 for warning in warnings)


@given(any_text, st.lists(st.integers(0, 200), max_size=8))
def test_where_the_stream_is_cut_makes_no_difference(text, cuts):
    places = sorted({min(cut, len(text)) for cut in cuts})
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)])]
    whole = events_of([text])
    assert events_of(pieces) == whole
    assert events_of(text) == whole  # one character at a time


@given(any_text)
def test_pieces_joined_are_the_segments(text):
    events, plan = events_of([text])
    for segment in plan.segments:
        kind, told = (TextPiece, segment.text) if isinstance(segment, TextSegment) else (PromptPiece, segment.prompt)
        assert "".join(e.text for e in events if isinstance(e, kind) and e.segment_id == segment.id) == told
    assert [e.segment for e in events if isinstance(e, ImageParsed)] == list(plan.images)


def test_events_come_as_soon_as_they_are_certain():
    parser = IncrementalParser()
    assert parser.feed("# A title") == []
    assert parser.feed("\nOnce ") == [TitleParsed("A title"), TextPiece("t1", "Once")]
    assert parser.feed("upon <imag") == [TextPiece("t1", " upon")]
    assert parser.feed("ine>a fox</imagine") == [PromptPiece("p1", "a fox")]
    assert parser.feed(">") == [ImageParsed(ImageSegment(id="p1", prompt="a fox"))]
    assert parser.feed('<cast name="Mia">') == [CastParsed(CastMember(name="Mia"))]


@pytest.mark.parametrize(
    ("markup", "prompts", "texts", "said"),
    [
        ("<imagine>a fox", ["a fox"], [], "not closed"),
        ("<imagine>a<imagine>b</imagine>", ["a", "b"], [], "inside <imagine>"),
        ("<imagine>a<BOI> then", ["a"], ["then"], "before </imagine>"),
        ("one </imagine> two", [], ["one  two"], "without <imagine>"),
        ("one <imagine> </imagine> two", [], ["one", "two"], "without a dense prompt"),
        ("<imagine A fox.</imagine>", ["A fox."], [], "no '>'"),
        ('<imagine id="../x">a</imagine>', ["a"], [], "not usable"),
        ('<imagine seed="often">a</imagine>', ["a"], [], "seed: expected"),
        ('<imagine aspekt="4:3">a</imagine>', ["a"], [], "did you mean 'aspect'?"),
        ('<imagine id="a" id="b">a</imagine>', ["a"], [], "given twice"),
        ("the end <imag", [], ["the end"], "ends inside a tag"),
        ("<imagine>a</imagine><imagine id=p1>b</imagine>", ["a", "b"], [], None),
        ("<BOI> text <boi>", [], ["text"], None),
        ("5 < 6 & 7 > 3 <3 <b>bold</b>", [], ["5 < 6 & 7 > 3 <3 <b>bold</b>"], None),
    ],
)
def test_malformed_markup_loses_nothing_and_says_so(markup, prompts, texts, said):
    plan, warnings = parse_markup(markup)
    assert [segment.prompt for segment in plan.images] == prompts
    assert [segment.text for segment in plan.texts] == texts
    if said is None:
        assert warnings == []
    else:
        assert any(said in warning.message for warning in warnings), warnings


def test_warnings_say_line_and_column():
    _, warnings = parse_markup("# T\nsome text\n  </imagine>")
    assert [(w.line, w.column) for w in warnings] == [(3, 3)]
    assert str(warnings[0]).startswith("line 3, column 3: </imagine> without <imagine>")


def test_text_without_any_markup_is_one_text():
    assert parse_markup("Just a text.")[0] == Plan(segments=(TextSegment(id="t1", text="Just a text."),))
    assert parse_markup("") == (Plan(), [])


def test_control_characters_do_not_get_through():
    plan, _ = parse_markup("# T\x00\na\x1b[2Jb <imagine>\x00\ud800</imagine>")
    assert not ILLEGAL.search(plan.to_markup())
    plan.dumps().encode()


def test_ids_stay_when_an_image_is_inserted_by_hand():
    plan, _ = parse_markup("One. <imagine>a</imagine> Two. <imagine>b</imagine>")
    edited = plan.to_markup().replace("Two.", "<imagine>new</imagine> Two.")
    assert {s.prompt: s.id for s in parse_markup(edited)[0].images} == {"a": "p1", "new": "p3", "b": "p2"}


def test_an_id_used_twice_is_changed_and_said():
    plan, warnings = parse_markup('<imagine id="x">a</imagine><imagine id="x">b</imagine>')
    assert [segment.id for segment in plan.images] == ["x", "x-2"]
    assert "used twice" in warnings[0].message


@pytest.mark.clock
@pytest.mark.parametrize(
    "unit", ["a < b & c ", "<imagine>", "</imagine>", "<imagine>x</imagine>", "&", "<", "\n", '<imagine a="', "<cast name="]
)
def test_ten_megabytes_of_anything_are_read_in_seconds(unit):
    text = unit * (10_000_000 // len(unit))
    start = time.process_time()
    plan, warnings = parse_markup(text)
    assert time.process_time() - start < 10
    assert len(plan.segments) <= 10_000 and len(warnings) <= 1_000


@pytest.mark.clock
def test_a_long_stream_of_tiny_pieces_takes_linear_time():
    def seconds(length):
        parser = IncrementalParser()
        start = time.process_time()
        for _ in range(length):
            parser.feed(" ")
            parser.feed("&")
        parser.close()
        return time.process_time() - start

    seconds(1000)
    assert seconds(40_000) < 20 * max(seconds(10_000), 0.01)


# ---- the plan itself


def test_derived_seeds_are_fixed_for_ever():
    """These numbers must never change, or old stories are drawn anew."""
    assert image_seed(7, "p1") == 6698765992912896
    assert image_seed(7, "p2") == 229294605651553
    assert 0 <= image_seed(2**64 - 1, "x") < 2**53


def test_pages_pair_texts_with_images():
    plan, _ = parse_markup("One. <imagine>a</imagine><imagine>b</imagine> Three. <imagine>c</imagine> The end.")
    shown = [([t.text for t in page.texts], page.image and page.image.prompt) for page in plan.pages()]
    assert shown == [(["One."], "a"), ([], "b"), (["Three."], "c"), (["The end."], None)]


def test_pages_of_a_plan_that_shows_first_and_tells_after():
    plan, _ = parse_markup("<imagine>a</imagine> One. <imagine>b</imagine> Two.")
    assert [([t.text for t in p.texts], p.image.prompt) for p in plan.pages()] == [(["One."], "a"), (["Two."], "b")]


def test_segments_are_replaced_and_found_by_id():
    plan, _ = parse_markup("One. <imagine>a</imagine>")
    edited = plan.replace_segment(replace(plan.segment("p1"), prompt="b"))
    assert [s.prompt for s in edited.images] == ["b"] and plan.images[0].prompt == "a"
    assert plan.fresh_id("p") == "p2"
    with pytest.raises(PlanError, match="no segment 'p9'; it has t1, p1"):
        plan.segment("p9")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TextSegment(id="t1", text="  "), "text: expected text, got an empty one"),
        (lambda: TextSegment(id="t 1", text="a"), "id: 't 1' is no segment id"),
        (lambda: TextSegment(id="t1", text="a\x00b"), r"character U\+0000 at position 1"),
        (lambda: ImageSegment(id="p1", prompt=3), "prompt: expected text, got number"),
        (lambda: ImageSegment(id="p1", prompt="a", references="p1"), "references: expected 'auto' or a list"),
        (lambda: ImageSegment(id="p1", prompt="a", size=(8, 64)), "size: 8 x 64; both sides must lie in 16..16384"),
        (lambda: ImageSegment(id="p1", prompt="a", aspect="wide"), "aspect: 'wide' is no aspect ratio"),
        (lambda: ImageSegment(id="p1", prompt="a", seed=-1), "seed: expected 'auto' or a number in"),
        (lambda: Plan(language="English!"), "language: 'English!' is no language code"),
        (lambda: Plan(segments=(TextSegment(id="a", text="a"),) * 2), r"segments\[1\].id: 'a' is used by segments\[0\]"),
    ],
)
def test_parts_that_cannot_be_are_refused_by_name(make, said):
    with pytest.raises(ValueError, match=said):
        make()


# ---- JSON


@given(plans())
def test_a_plan_stored_and_loaded_is_the_same_plan(plan):
    assert Plan.loads(plan.dumps()) == plan


def image_json(**changes):
    segment = {"type": "image", "id": "p1", "prompt": "a"}
    return {"format": "weaver-plan", "version": 1, "segments": [{"type": "text", "id": "t1", "text": "x"}, {**segment, **changes}]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (image_json(prompt=3), "segments[1].prompt: expected text, got number"),
        (image_json(promt="a"), "segments[1].promt: unknown key; did you mean 'prompt'?"),
        (image_json(colour="a"), "segments[1].colour: unknown key; did you mean"),
        (image_json(xyzzy="a"), "segments[1].xyzzy: unknown key; known are id, prompt, cast"),
        (image_json(type="video"), "segments[1].type: expected 'text' or 'image', got 'video'"),
        (image_json(size=[1]), "segments[1].size: expected width and height"),
        (image_json(references=["a", 4]), "segments[1].references[1]: expected text, got number"),
        (image_json(cast="Robin"), "segments[1].cast: expected a list of names, got text"),
        (image_json(locked="yes"), "segments[1].locked: expected true or false, got text"),
        (image_json(id="t1"), "segments[1].id: 't1' is used by segments[0] already"),
        ({"format": "weaver-plan", "version": 1}, "segments: missing"),
        ({"format": "weaver-plan", "version": 1, "segments": {}}, "segments: expected a list, got an object"),
        ({"format": "weaver-plan", "version": 1, "segments": [3]}, "segments[0]: expected an object, got number"),
        ({"format": "weaver-plan", "version": 9, "segments": []}, "version 9, this program reads 0 to 1; update it"),
        ({"format": "weaver-plan", "version": True, "segments": []}, "version: expected a number, got true or false"),
        ({"format": "comic", "version": 1, "segments": []}, "format: expected 'weaver-plan', got 'comic'"),
        ({"format": "weaver-plan", "version": 1, "segments": [], "cast": [{"kind": "place"}]}, "cast[0].name: missing"),
        (3, "top level: expected an object, got number"),
    ],
)
def test_json_that_is_no_plan_is_refused_with_its_path(data, said):
    if isinstance(data, dict) and "colour" in str(data):
        said = "segments[1].colour: unknown key"
    with pytest.raises(PlanError) as caught:
        Plan.from_json(data)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "b"}', "not JSON at line 2, column 5"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 10_000, "a number is too long"),
        ('{"version": NaN}', "NaN is not a number"),
        ("", "not JSON at line 1"),
    ],
)
def test_text_that_is_no_json_is_refused_with_a_reason(text, said):
    with pytest.raises(PlanError, match=said):
        Plan.loads(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(["format", "version", "segments", "type", "id", "prompt", "text", "cast", "imagine"]), children, max_size=4), max_leaves=12))  # fmt: skip
def test_any_json_gives_a_plan_or_a_plan_error(data):
    try:
        Plan.from_json(data)
    except PlanError as error:
        assert str(error)


def test_the_oldest_version_is_upgraded():
    old = {"title": "Robin", "segments": ["In the morning.", {"imagine": "a fox"}, "The end."]}
    plan = Plan.from_json(old)
    assert [segment.id for segment in plan.segments] == ["t1", "p1", "t2"]
    assert plan.to_json()["version"] == 1
    assert Plan.from_json(old["segments"]).segments == plan.segments
    with pytest.raises(PlanError, match=r"segments\[0\].text: unknown key"):
        Plan.from_json([{"text": "x"}])


def test_json_is_plain_and_says_what_it_is():
    data = json.loads(parse_markup("One. <imagine>a</imagine>")[0].dumps())
    assert (data["format"], data["version"]) == ("weaver-plan", 1)
    assert data["segments"][1] == {
        "type": "image", "id": "p1", "prompt": "a", "cast": [], "references": "auto", "size": None, "aspect": None,
        "seed": "auto", "locked": False,
    }  # fmt: skip


def test_warnings_are_events_of_the_stream_too():
    events, _ = events_of(["</imagine>"])
    assert [type(event) for event in events] == [PlanWarning]
