"""Changes to a finished story: one page becomes another, everything else stays where it is, and stale pages are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image
from small_pair import ShapeVisualizer

from weaver_core.changes import ChangedStory, put_picture, users_of, with_seed
from weaver_core.errors import InputError, StoryError
from weaver_core.plan import parse_markup
from weaver_core.request import Request
from weaver_core.story import StoryFolder
from weaver_core.weave import ImageReady, weave_plan

REQUEST = Request(prompt="a fox", seed=7)
CHAIN = parse_markup(
    "Robin wakes. <imagine>A fox wakes.</imagine> He runs. <imagine references='p1'>A fox runs.</imagine>"
    "He rests. <imagine references='p2'>A fox rests.</imagine> The end. <imagine references='none'>A moon.</imagine>"
)[0]
PAINTED = Image.new("RGB", (50, 20), "teal")


@pytest.fixture
def drawn(tmp_path):
    """A finished story of four pages: p2 is drawn from p1, p3 from p2, p4 from none."""
    with StoryFolder.create(tmp_path / "before", REQUEST) as story:
        list(weave_plan(CHAIN, ShapeVisualizer(), story=story))
        yield story


@pytest.fixture
def keep_in(tmp_path):
    with StoryFolder.create(tmp_path / "changes", REQUEST) as folder:
        yield folder


def changed(drawn, keep_in) -> ChangedStory:
    files = {image_id: (rendering, drawn.path(image_id)) for image_id, rendering in drawn.renderings.items()}
    return ChangedStory(drawn.plan, REQUEST, files, keep_in)


def pixels(story) -> dict[str, bytes]:
    return {image.id: story.image(image.id).tobytes() for image in story.plan.images}


def stale(story) -> list[str]:
    return [mark.segment_id for mark in story.stale()]


def redraw(story, segment_id, seed, visualizer, **how):
    plan = with_seed(story.plan, segment_id, seed)
    return list(weave_plan(plan, visualizer, request=REQUEST, story=story, only={segment_id}, **how))


def test_a_picture_put_in_is_the_page_and_the_others_stay(drawn, keep_in):
    before, story = pixels(drawn), changed(drawn, keep_in)
    put_picture(story, "p2", PAINTED)
    assert pixels(story) == before | {"p2": PAINTED.tobytes()}
    assert story.renderings["p2"].size == (50, 20)


def test_the_story_that_was_there_is_not_touched(drawn, keep_in):
    before, files = pixels(drawn), sorted(drawn.folder.rglob("*"))
    story = changed(drawn, keep_in)
    put_picture(story, "p1", PAINTED)
    redraw(story, "p4", 99, ShapeVisualizer())
    assert pixels(drawn) == before and sorted(drawn.folder.rglob("*")) == files


def test_exactly_the_pages_that_used_the_old_picture_are_stale(drawn, keep_in):
    story = changed(drawn, keep_in)
    put_picture(story, "p1", PAINTED)
    assert stale(story) == ["p2", "p3"] == list(users_of(story, "p1"))
    assert story.stale()[1].through == ("p2",)


def test_the_same_pixels_again_make_nothing_stale(drawn, keep_in):
    story = changed(drawn, keep_in)
    put_picture(story, "p1", drawn.image("p1"))
    assert stale(story) == []


def test_a_picture_put_in_is_not_drawn_over(drawn, keep_in):
    story, visualizer = changed(drawn, keep_in), ShapeVisualizer()
    put_picture(story, "p4", PAINTED)
    list(weave_plan(story.plan, visualizer, request=REQUEST, story=story, redraw_stale=True))
    assert story.image("p4").tobytes() == PAINTED.tobytes() and visualizer.shots == []


def test_a_picture_put_into_a_story_folder_is_there_when_it_is_opened_again(tmp_path, drawn):
    put_picture(drawn, "p3", PAINTED)
    drawn.close()
    with StoryFolder.open(drawn.folder) as again:
        assert again.image("p3").tobytes() == PAINTED.tobytes() and again.plan.segment("p3").locked and again.warnings == []


def test_another_seed_draws_that_page_only(drawn, keep_in):
    before, story, visualizer = pixels(drawn), changed(drawn, keep_in), ShapeVisualizer()
    events = redraw(story, "p1", 99, visualizer)
    assert [shot.prompt for shot in visualizer.shots] == ["A fox wakes."] and visualizer.shots[0].seed == 99
    after = pixels(story)
    assert after["p1"] != before["p1"] and {**after, "p1": b""} == {**before, "p1": b""}
    assert [event.segment_id for event in events if isinstance(event, ImageReady) and not event.cached] == ["p1"]


def test_a_page_is_drawn_from_the_picture_that_was_put_in(drawn, keep_in):
    story, visualizer = changed(drawn, keep_in), ShapeVisualizer()
    put_picture(story, "p1", PAINTED)
    redraw(story, "p2", 99, visualizer)
    assert [reference.tobytes() for reference in visualizer.shots[0].references] == [PAINTED.tobytes()]
    assert stale(story) == ["p3"]


def test_a_change_that_was_made_before_is_found_again(tmp_path, drawn, keep_in):
    redraw(changed(drawn, keep_in), "p1", 99, ShapeVisualizer())
    keep_in.close()
    visualizer = ShapeVisualizer()
    with StoryFolder.open(keep_in.folder) as again:
        story = changed(drawn, again)
        redraw(story, "p1", 99, visualizer)
        assert visualizer.shots == [] and story.image("p1").tobytes() == again.image("p1").tobytes()
        assert story.path("p1").parent.parent == again.folder


def test_a_locked_page_gets_no_other_seed():
    plan = CHAIN.replace_segment(replace(CHAIN.segment("p2"), locked=True))
    with pytest.raises(InputError, match="p2 is locked"):
        with_seed(plan, "p2", 3)


def test_a_text_is_no_page(drawn):
    with pytest.raises(InputError, match="'t1' is a text"):
        put_picture(drawn, "t1", PAINTED)


def test_a_page_whose_file_is_gone_is_named(drawn, keep_in):
    story = changed(drawn, keep_in)
    drawn.path("p1").unlink()
    with pytest.raises(StoryError, match="p1-.*no longer"):
        story.image("p1")
