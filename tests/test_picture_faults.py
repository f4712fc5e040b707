"""Pages that are blank, a grid or a copy are drawn once more and marked; good ones are left alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from PIL import Image
from small_pair import ShapeVisualizer, TellingPlanner

from weaver_core.errors import Cancelled
from weaver_core.export.html import write_html
from weaver_core.picture_faults import find_fault, is_better, print_of
from weaver_core.picturebook.compose import render
from weaver_core.picturebook.grammar import sample_story
from weaver_core.plan import image_seed
from weaver_core.rendering import rendering_from_json, rendering_to_json
from weaver_core.request import RenderSettings, Request
from weaver_core.story import StoryFolder
from weaver_core.weave import Finished, ImageReady, Warning, weave

REQUEST = Request(prompt="a fox", num_images=3, seed=7)
BLANK = Image.new("RGB", (32, 32), "white")


class ScriptedVisualizer(ShapeVisualizer):
    """Draws the picture that stands for a dense prompt in its first (or also its second) drawing, shapes otherwise."""

    def __init__(self, first: dict[str, Image.Image], *, stubborn: bool = False):
        super().__init__()
        self.first, self.stubborn = first, stubborn
        self.draws: dict[str, int] = {}

    def render(self, shot, *, on_step, cancel):
        image = super().render(shot, on_step=on_step, cancel=cancel)
        word = next((word for word in self.first if word in shot.prompt), None)
        self.draws[shot.prompt] = self.draws.get(shot.prompt, 0) + 1
        return self.first[word] if word and (self.stubborn or self.draws[shot.prompt] == 1) else image


def woven(visualizer, **how):
    events = list(weave(REQUEST, TellingPlanner(), visualizer, **how))
    images = {event.segment_id: event for event in events if isinstance(event, ImageReady)}
    return images, [event.message for event in events if isinstance(event, Warning)], events[-1]


def panels() -> Image.Image:
    """2 x 2 panels of one drawing."""
    panel = render(sample_story(random.Random(3), num_images=1).scenes[0], 64)
    sheet = Image.new("RGB", (128, 128))
    for place in ((0, 0), (64, 0), (0, 64), (64, 64)):
        sheet.paste(panel, place)
    return sheet.resize((32, 32))


def test_good_pages_are_drawn_once_and_carry_no_mark():
    visualizer = ShapeVisualizer()
    images, warnings, _ = woven(visualizer)
    assert len(visualizer.shots) == 3 and warnings == []
    assert all((e.rendering.fault, e.rendering.redrawn, e.rendering.drawn_seed) == ("", "", None) for e in images.values())


def test_a_blank_page_is_drawn_once_more_with_a_seed_that_follows_from_its_own():
    visualizer = ScriptedVisualizer({"river": BLANK})
    images, warnings, _ = woven(visualizer)
    rendering = images["p2"].rendering
    assert len(visualizer.shots) == 4
    assert visualizer.shots[2].seed == rendering.drawn_seed == image_seed(rendering.seed, "redraw") != rendering.seed
    assert (rendering.fault, rendering.redrawn) == ("", "blank") and images["p2"].image.tobytes() != BLANK.tobytes()
    assert warnings == ["p2 looks blank; it is drawn once more with another seed"]


def test_a_page_that_stays_blank_is_kept_and_marked():
    visualizer = ScriptedVisualizer({"river": BLANK}, stubborn=True)
    images, warnings, end = woven(visualizer)
    assert len(visualizer.shots) == 4 and isinstance(end, Finished) and end.missing == ()
    assert images["p2"].rendering.fault == "blank" and images["p2"].rendering.drawn_seed is None
    assert "p2 looks blank in both drawings; it is kept and marked" in warnings[-1]


def test_a_second_drawing_that_fails_leaves_the_first():
    class FailsTheSecondTime(ScriptedVisualizer):
        def render(self, shot, *, on_step, cancel):
            if shot.prompt in self.draws:
                raise RuntimeError("the device went away")
            return super().render(shot, on_step=on_step, cancel=cancel)

    images, warnings, end = woven(FailsTheSecondTime({"river": BLANK}))
    assert end.missing == () and images["p2"].image.tobytes() == BLANK.tobytes()
    assert (images["p2"].rendering.fault, images["p2"].rendering.drawn_seed) == ("blank", None)
    assert "p2 could not be drawn once more" in warnings[1] and warnings[2].startswith("p2 looks blank; it is kept and marked")


def test_a_copy_of_an_earlier_page_is_a_fault_where_another_picture_was_asked_for():
    scene = render(sample_story(random.Random(1), num_images=1).scenes[0], 32)
    visualizer = ScriptedVisualizer({"den": scene, "tree": scene})
    images, warnings, _ = woven(visualizer)
    assert images["p3"].rendering.redrawn == "copy of p1" and images["p1"].rendering.redrawn == ""
    assert "p3 looks like a copy of p1" in warnings[0]


@pytest.mark.parametrize(("prompt", "other", "fault"), [
    ("A red fox waves.", "a red  FOX waves.", ""),
    ("A red fox jumps on the left side, near the old castle in the dark of night.",
     "On a calm night, a red fox is jumping on the left at the castle.", ""),
    ("A red fox jumps on the left, at the castle at night.", "A red fox waves on the left, at the castle at night.", "copy of p1"),
    ("A man reads a letter.", "A man burns a letter.", "copy of p1"),
])  # fmt: skip
def test_two_pages_may_look_the_same_where_both_ask_for_it(prompt, other, fault):
    scene = render(sample_story(random.Random(1), num_images=1).scenes[0], 128)
    assert find_fault(scene, prompt, [("p1", other, print_of(scene))]) == fault


def test_a_grid_is_a_fault():
    assert find_fault(panels(), "A fox.", []) == "grid"


def test_of_two_faulty_drawings_the_less_bad_one_is_kept():
    assert is_better("", "copy of p1") and is_better("copy of p1", "grid") and is_better("grid", "blank")
    assert not is_better("blank", "blank") and not is_better("copy of p1", "copy of p2")


def test_checks_can_be_turned_off_and_then_a_second_drawing_does_not_count():
    off = RenderSettings(check_images=False)
    visualizer = ScriptedVisualizer({"river": BLANK})
    images, warnings, _ = woven(visualizer, settings=off)
    assert len(visualizer.shots) == 3 and warnings == [] and images["p2"].image.tobytes() == BLANK.tobytes()


def test_the_mark_survives_in_the_folder_and_on_the_page(tmp_path):
    visualizer = ScriptedVisualizer({"river": BLANK}, stubborn=True)
    with StoryFolder.create(tmp_path / "s", REQUEST) as folder:
        woven(visualizer, story=folder)
        page = write_html(folder, tmp_path / "s" / "story.html").read_text(encoding="utf-8")
    assert '<p class="fault">The picture looks blank</p>' in page
    with StoryFolder.open(tmp_path / "s") as folder:
        assert folder.renderings["p2"].fault == "blank" and folder.renderings["p1"].fault == ""
        shots = len(visualizer.shots)
        images, warnings, _ = woven(visualizer, story=folder)
        assert images["p2"].cached and len(visualizer.shots) == shots, "a marked page is not tried again and again"
        images, _, _ = woven(ScriptedVisualizer({}), story=folder, settings=RenderSettings(check_images=False))
        assert images["p2"].cached, "the first drawing was kept, so turning checks off changes nothing"


def test_a_run_that_stops_between_the_two_drawings_keeps_the_first_and_goes_on_with_the_second(tmp_path):
    whole, warnings, _ = woven(ScriptedVisualizer({"river": BLANK}))
    stops = ScriptedVisualizer({"river": BLANK})
    with StoryFolder.create(tmp_path / "s", REQUEST) as folder, pytest.raises(Cancelled):
        woven(stops, story=folder, cancel=lambda: len(stops.shots) == 3)
    goes_on = ScriptedVisualizer({"river": BLANK}, stubborn=False)
    goes_on.draws = dict(stops.draws)
    with StoryFolder.open(tmp_path / "s") as folder:
        assert list(folder.renderings) == ["p1", "p2"] and folder.image("p2").tobytes() == BLANK.tobytes()
        images, told, _ = woven(goes_on, story=folder)
    assert told == warnings and len(goes_on.shots) == 2
    assert {name: event.image.tobytes() for name, event in images.items()} == {name: event.image.tobytes() for name, event in whole.items()}
    assert [replace(images[n].rendering, file="", file_hash="") for n in images] == [whole[n].rendering for n in whole]


def test_a_page_that_was_kept_from_its_second_drawing_is_drawn_as_planned_without_checks(tmp_path):
    with StoryFolder.create(tmp_path / "s", REQUEST) as folder:
        woven(ScriptedVisualizer({"river": BLANK}), story=folder)
        images, _, _ = woven(ScriptedVisualizer({"river": BLANK}), story=folder, settings=RenderSettings(check_images=False))
    assert not images["p2"].cached and images["p2"].image.tobytes() == BLANK.tobytes() and images["p1"].cached


@pytest.mark.parametrize(("field", "value"), [("fault", "<script>"), ("redrawn", 7), ("drawn_seed", -1), ("drawn_seed", 0.5)])
def test_marks_of_a_stranger_s_journal_are_checked(field, value):
    images, _, _ = woven(ShapeVisualizer())
    record = rendering_to_json(replace(images["p1"].rendering, file=f"images/p1-{'0' * 12}.png", file_hash="0" * 64, fault="copy of p1"))
    record = record | {"size": list(record["size"]), "references": []}
    assert rendering_from_json(record).fault == "copy of p1"
    with pytest.raises(ValueError):
        rendering_from_json(record | {field: value})
    for name in ("fault", "redrawn", "drawn_seed"):
        del record[name]
    assert rendering_from_json(record).fault == "", "stories of earlier versions have no marks"
