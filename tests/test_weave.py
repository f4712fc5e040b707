"""The loop: requests that cannot be used are refused kindly, the rest becomes the same story every time."""

from __future__ import annotations

import io
import threading
from dataclasses import replace

import pytest
from PIL import Image
from small_pair import FOX, FeatureTellingPlanner, ShapeVisualizer, TellingPlanner

from weaver_core.errors import Cancelled, InputError, WeaverError
from weaver_core.plan import CastMember, parse_markup
from weaver_core.planners import FeaturePlanner, Planner, PlannerOptions
from weaver_core.request import MAX_IMAGES, ReferenceImage, RenderSettings, Request
from weaver_core.story import Story, StoryFolder
from weaver_core.turns import in_turns
from weaver_core.visualizers import Capabilities, Visualizer
from weaver_core.weave import (
    Finished,
    ImagePlanned,
    ImageReady,
    PlanReady,
    StepProgress,
    TextDelta,
    Warning,
    weave,
    weave_plan,
    write_plan,
)

REQUEST = Request(prompt="a fox", num_images=3, seed=7)


def picture(name="robin", colour="orange", size=(40, 30)):
    return ReferenceImage.read(Image.new("RGB", size, colour), name)[0]


def run(request=REQUEST, planner=None, visualizer=None, **kwargs):
    return list(weave(request, planner or TellingPlanner(), visualizer or ShapeVisualizer(), **kwargs))


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def drawn(events):
    return {event.segment_id: event.image.tobytes() for event in of(events, ImageReady)}


# ---- plan-first


def test_the_small_pair_follows_the_protocols():
    assert isinstance(TellingPlanner(), Planner) and not isinstance(TellingPlanner(), FeaturePlanner)
    assert isinstance(FeatureTellingPlanner(), FeaturePlanner)
    assert isinstance(ShapeVisualizer(), Visualizer)


def test_events_come_in_the_order_of_the_work():
    events = run()
    order = [type(event).__name__ for event in events if not isinstance(event, (TextDelta, StepProgress))]
    assert order == ["ImagePlanned"] * 3 + ["PlanReady"] + ["ImageReady"] * 3 + ["Finished"]
    assert [event.index for event in of(events, ImageReady)] == [0, 1, 2]
    assert [(e.segment_id, e.step, e.total) for e in of(events, StepProgress)][:4] == [
        ("p1", 1, 3), ("p1", 2, 3), ("p1", 3, 3), ("p2", 1, 3),
    ]  # fmt: skip
    assert of(events, Finished)[0].missing == ()


def test_text_is_told_as_it_is_written():
    events = run()
    plan = of(events, PlanReady)[0].plan
    for kind, segments in (("text", plan.texts), ("prompt", plan.images)):
        for segment in segments:
            told = "".join(e.text for e in of(events, TextDelta) if (e.kind, e.segment_id) == (kind, segment.id))
            assert told == (segment.text if kind == "text" else segment.prompt)
    assert [e.text for e in of(events, TextDelta) if e.kind == "title"] == ["Robin's day"]


def test_equal_requests_give_equal_stories_however_the_text_is_cut():
    assert drawn(run()) == drawn(run(planner=TellingPlanner(piece=1)))
    assert drawn(run()) != drawn(run(replace(REQUEST, seed=8)))


def test_nothing_runs_before_the_consumer_asks():
    planner, visualizer = TellingPlanner(), ShapeVisualizer()
    events = weave(REQUEST, planner, visualizer)
    assert planner.calls == []
    for event in events:
        if isinstance(event, StepProgress):
            break
    assert len(visualizer.shots) == 1  # the first step of the first image, and no further
    before = threading.active_count()
    events.close()
    assert threading.active_count() == before - 1 and len(visualizer.shots) == 1


def test_shots_carry_references_size_seed_and_settings():
    visualizer = ShapeVisualizer()
    request = replace(REQUEST, images=(picture(),), aspect="4:3")
    events = run(request, visualizer=visualizer, settings=RenderSettings(steps=2, guidance=4))
    shot = visualizer.shots[1]
    assert (shot.size, shot.steps, shot.guidance, shot.reference_guidance) == ((40, 30), 2, 4.0, 1.0)
    assert shot.seed == 229294605651553
    assert shot.reference_keys == (request.images[0].key,)
    assert shot.references[0].tobytes() == request.images[0].image.tobytes()
    rendering = of(events, ImageReady)[1].rendering
    assert [(used.source, used.key) for used in rendering.references] == [("robin", request.images[0].key)]


def test_later_images_look_at_the_first():
    visualizer = ShapeVisualizer()
    events = run(visualizer=visualizer)
    first = of(events, ImageReady)[0]
    assert [shot.reference_keys for shot in visualizer.shots] == [(), (first.rendering.image_key,), (first.rendering.image_key,)]


def test_the_planner_s_features_reach_the_visualizer():
    visualizer = ShapeVisualizer(needs_context=True)
    run(planner=FeatureTellingPlanner(), visualizer=visualizer)
    assert visualizer.shots[1].context == (["The", "fox", "walks", "along", "a", "river"], 0)


def test_a_visualizer_that_needs_features_refuses_a_planner_without():
    with pytest.raises(InputError, match="reads its planner's features"):
        run(visualizer=ShapeVisualizer(needs_context=True))
    with pytest.raises(InputError, match="reads its planner's features"):
        list(weave_plan(parse_markup(FOX)[0], ShapeVisualizer(needs_context=True)))


def test_an_image_that_fails_does_not_end_the_story(tmp_path):
    with StoryFolder.create(tmp_path / "s", REQUEST) as folder:
        events = run(visualizer=ShapeVisualizer(fails_on="walks"), story=folder)
        assert sorted(drawn(events)) == ["p1", "p3"]
        assert of(events, Finished)[0].missing == ("p2",)
        assert "p2 could not be drawn: RuntimeError: out of paint" in of(events, Warning)[0].message
    with StoryFolder.open(tmp_path / "s") as folder:
        assert "out of paint" in folder.failures["p2"] and not folder.finished
        again = run(story=folder)
    assert drawn(again) == drawn(run())


def test_a_wrong_size_counts_as_failed():
    class Crooked(ShapeVisualizer):
        def render(self, shot, **kwargs):
            return super().render(shot, **kwargs).resize((8, 8))

    events = run(visualizer=Crooked())
    assert of(events, Finished)[0].missing == ("p1", "p2", "p3")
    assert "drew (8, 8) pixels where (32, 32) were asked for" in of(events, Warning)[0].message


def test_sizes_that_cannot_be_drawn_are_said_once():
    events = run(replace(REQUEST, size=(1024, 640)))
    assert [event.message for event in of(events, Warning)] == [
        "1024 x 640 cannot be drawn; the nearest that this visualizer can is 40 x 30"
    ]
    assert of(run(replace(REQUEST, aspect="4:3")), Warning) == []


def test_the_request_s_cast_joins_the_plan():
    member = CastMember(name="Robin", look="a small fox", references=("robin",))
    plan = of(run(replace(REQUEST, cast=(member,), images=(picture(),), language="de")), PlanReady)[0].plan
    assert plan.cast == (member,) and plan.language == "de"


def test_oddities_of_the_plan_are_told_with_their_place():
    events = run(planner=TellingPlanner("Hi </imagine> <imagine>a fox</imagine>"))
    odd, count = of(events, Warning)
    assert (odd.line, odd.column) == (1, 4) and "without <imagine>" in odd.message
    assert count.message == "3 images were asked for, the plan has 1"


def test_a_planner_without_end_is_stopped():
    class Endless(TellingPlanner):
        def write(self, request, history, *, options, cancel):
            while True:
                yield "<imagine>a fox</imagine><BOI>"

    events = list(write_plan(replace(REQUEST, num_images=None), Endless()))
    assert len(events[-1].plan.images) == MAX_IMAGES
    assert f"reached {MAX_IMAGES} images" in of(events, Warning)[0].message


def test_a_planner_that_writes_nothing_is_an_error():
    with pytest.raises(WeaverError, match="the planner wrote nothing; try another seed"):
        run(planner=TellingPlanner(""))


def test_more_images_than_the_planner_was_made_for_are_warned_of():
    planner = TellingPlanner()
    planner.max_images = 8
    assert "made for stories of 1 to 8" in of(run(replace(REQUEST, num_images=9), planner), Warning)[0].message


def test_the_planner_is_told_seed_and_count():
    planner = TellingPlanner()
    run(planner=planner, options=PlannerOptions(temperature=0.2, seed=99, num_images=50))
    assert planner.calls[0] == ((), PlannerOptions(temperature=0.2, seed=7, num_images=3))


def test_answers_without_images_are_stories_too():
    events = run(Request(prompt="why?"), TellingPlanner("Because."))
    assert of(events, Finished)[0].missing == () and of(events, Warning) == []


# ---- drawing a plan


def test_only_the_images_named_are_drawn():
    plan, _ = parse_markup(FOX)
    visualizer = ShapeVisualizer()
    events = list(weave_plan(plan, visualizer, only=["p2"]))
    assert list(drawn(events)) == ["p2"] and of(events, Finished)[0].missing == ("p1", "p3")
    with pytest.raises(InputError, match="'t1' is a text"):
        list(weave_plan(plan, visualizer, only=["t1"]))
    with pytest.raises(InputError, match="no segment 'p9'"):
        list(weave_plan(plan, visualizer, only=["p9"]))


def test_a_locked_image_is_never_drawn_again():
    plan, _ = parse_markup(FOX)
    story, visualizer = Story(REQUEST), ShapeVisualizer()
    before = drawn(weave_plan(plan, visualizer, story=story))
    locked = plan.replace_segment(replace(plan.segment("p2"), seed=4711, locked=True))
    assert drawn(weave_plan(locked, visualizer, story=story)) == before
    unlocked = locked.replace_segment(replace(locked.segment("p2"), locked=False))
    after = drawn(weave_plan(unlocked, visualizer, story=story))
    assert [after[i] == before[i] for i in ("p1", "p2", "p3")] == [True, False, True]


def test_a_lock_never_puts_the_picture_of_another_dense_prompt_on_a_page():
    plan, _ = parse_markup(FOX)
    story, visualizer = Story(REQUEST), ShapeVisualizer()
    before = drawn(weave_plan(plan, visualizer, story=story))
    other = plan.replace_segment(replace(plan.segment("p2"), prompt="A whale at sea.", locked=True))
    assert drawn(weave_plan(other, visualizer, story=story))["p2"] != before["p2"]


def test_images_drawn_from_an_earlier_version_are_kept_and_said():
    plan, _ = parse_markup(FOX)
    story, visualizer = Story(REQUEST), ShapeVisualizer()
    before = drawn(weave_plan(plan, visualizer, story=story))
    edited = plan.replace_segment(replace(plan.segment("p1"), prompt="A blue fox."))
    events = list(weave_plan(edited, visualizer, story=story))
    after = drawn(events)
    assert [after[i] == before[i] for i in ("p1", "p2", "p3")] == [False, True, True]
    assert "p2 was drawn from an earlier p1; it is kept" in of(events, Warning)[0].message
    assert drawn(weave_plan(edited, visualizer, story=story, redraw_stale=True))["p2"] != before["p2"]


def test_a_page_that_is_changed_back_brings_the_pages_after_it_back_as_well():
    plan, _ = parse_markup(FOX)
    story, visualizer = Story(REQUEST), ShapeVisualizer()
    before = drawn(weave_plan(plan, visualizer, story=story))
    edited = plan.replace_segment(replace(plan.segment("p1"), prompt="A blue fox."))
    assert drawn(weave_plan(edited, visualizer, story=story, redraw_stale=True))["p2"] != before["p2"]
    shots = len(visualizer.shots)
    assert drawn(weave_plan(plan, visualizer, story=story)) == before and len(visualizer.shots) == shots and not story.stale()


def test_a_page_is_drawn_again_when_its_reference_stands_for_another(tmp_path):
    plan, _ = parse_markup('<imagine cast="Robin, Mia">Two.</imagine>\n<imagine cast="Robin">One at home.</imagine>')
    story, visualizer = Story(REQUEST), ShapeVisualizer()
    list(weave_plan(plan, visualizer, story=story))
    corrected = plan.replace_segment(replace(plan.segment("p2"), cast=("Mia",)))
    list(weave_plan(corrected, visualizer, story=story))
    assert [shot.prompt for shot in visualizer.shots] == ["Two.", "One at home.", "One at home."] and not story.stale()
    story, reads_no_words = Story(REQUEST), ShapeVisualizer(needs_context=True)
    for told in (plan, corrected):
        list(weave_plan(told, reads_no_words, planner=FeatureTellingPlanner(), story=story))
    assert len(reads_no_words.shots) == 2, "who reads no words is told nothing else"


def test_segments_decide_their_own_size_and_seed():
    plan, _ = parse_markup('<imagine seed="5" aspect="3:4">a</imagine><imagine size="40x30">b</imagine>')
    visualizer = ShapeVisualizer()
    list(weave_plan(plan, visualizer, request=replace(REQUEST, aspect="1:1")))
    assert [(shot.size, shot.seed) for shot in visualizer.shots][0] == ((30, 40), 5)
    assert visualizer.shots[1].size == (40, 30)


# ---- closed loop


def test_in_the_closed_loop_each_image_goes_back_to_the_planner():
    planner = TellingPlanner()
    events = run(planner=planner, mode="closed-loop")
    order = [type(event).__name__ for event in events if not isinstance(event, (TextDelta, StepProgress))]
    assert order == ["ImagePlanned", "ImageReady"] * 3 + ["PlanReady", "Finished"]
    ready = of(events, ImageReady)
    last = planner.calls[-1][0]
    assert [item if isinstance(item, str) else item.tobytes() for item in last[:4]] == [
        "# Robin's day\nIn the morning Robin peeks out of his den. <imagine>A small orange fox peeks out of a den.</imagine><BOI>",
        ready[0].image.tobytes(),
        "\nAt noon he walks to the river. <imagine>The fox walks along a river.</imagine><BOI>",
        ready[1].image.tobytes(),
    ]
    assert [options.num_images for _, options in planner.calls] == [3, 2, 1, 0]
    assert drawn(events) == drawn(run())


def test_in_the_closed_loop_what_was_written_blindly_is_not_used():
    """A piece may hold text after </imagine>; it was written without seeing the image, so the planner writes it anew."""
    planner = TellingPlanner(piece=10_000)
    events = run(planner=planner, mode="closed-loop")
    assert len(planner.calls) == 4 and of(events, PlanReady)[0].plan == of(run(), PlanReady)[0].plan


def test_in_the_closed_loop_features_know_the_images_before():
    visualizer = ShapeVisualizer(needs_context=True)
    run(planner=FeatureTellingPlanner(), visualizer=visualizer, mode="closed-loop")
    assert [shot.context[1] for shot in visualizer.shots] == [0, 1, 2]


def test_in_the_closed_loop_the_number_of_images_is_kept():
    events = run(replace(REQUEST, num_images=2), mode="closed-loop")
    assert sorted(drawn(events)) == ["p1", "p2"]
    plan = of(events, PlanReady)[0].plan
    assert plan.texts[-1].text == "In the evening he is tired."
    assert any("went on after 2 images" in event.message for event in of(events, Warning))


def test_a_failed_image_does_not_end_the_closed_loop():
    events = run(visualizer=ShapeVisualizer(fails_on="walks"), mode="closed-loop")
    assert sorted(drawn(events)) == ["p1", "p3"] and of(events, Finished)[0].missing == ("p2",)


@pytest.mark.parametrize("mode", ["plan-first", "closed-loop"])
def test_stopped_at_any_event_a_story_goes_on_to_the_same_end(tmp_path, mode):
    whole = run(mode=mode)
    wanted, plan = drawn(whole), of(whole, PlanReady)[0].plan
    for stop in range(0, len(whole), max(5, len(whole) // 16)):
        path = tmp_path / f"s{stop}"
        with StoryFolder.create(path, REQUEST, mode=mode) as folder:
            events = weave(REQUEST, TellingPlanner(), ShapeVisualizer(), story=folder)
            for _ in range(stop):
                next(events)
            events.close()
            finished = set(folder.renderings)
        with StoryFolder.open(path) as folder:
            planner, visualizer = TellingPlanner(), ShapeVisualizer()
            again = run(folder.request, planner, visualizer, story=folder)
            assert drawn(again) == wanted and folder.plan == plan
            assert len(visualizer.shots) == 3 - len(finished)


# ---- stopping


@pytest.mark.parametrize("mode", ["plan-first", "closed-loop"])
@pytest.mark.parametrize("after", [0, 3, 40, 60, 80])
def test_cancel_stops_at_once_and_keeps_what_is_finished(tmp_path, mode, after):
    asked = 0

    def cancel():
        nonlocal asked
        asked += 1
        return asked > after

    with StoryFolder.create(tmp_path / "s", REQUEST, mode=mode) as folder:
        visualizer = ShapeVisualizer()
        events = []
        with pytest.raises(Cancelled):
            for event in weave(REQUEST, TellingPlanner(), visualizer, story=folder, cancel=cancel):
                events.append(event)
        assert asked <= after + 4
    with StoryFolder.open(tmp_path / "s") as folder:
        assert set(folder.renderings) == set(drawn(events))
        assert drawn(run(folder.request, story=folder)) == drawn(run())
    assert not [thread for thread in threading.enumerate() if thread.name == "weaver-render"]


def test_what_cancel_raises_comes_out_and_is_no_failed_image():
    class Interrupted(Exception):
        pass

    def cancel():
        if visualizer.shots:
            raise Interrupted("by the host")
        return False

    visualizer, story = ShapeVisualizer(), Story(REQUEST)
    with pytest.raises(Interrupted):
        list(weave(REQUEST, TellingPlanner(), visualizer, story=story, cancel=cancel))
    assert story.failures == {} and story.renderings == {}


def test_a_consumer_that_is_interrupted_leaves_no_thread():
    events = weave(REQUEST, TellingPlanner(), ShapeVisualizer())
    with pytest.raises(KeyboardInterrupt):
        for event in events:
            if isinstance(event, StepProgress):
                events.throw(KeyboardInterrupt())
    assert not [thread for thread in threading.enumerate() if thread.name == "weaver-render"]


# ---- taking turns


def test_turns_are_taken():
    """Whatever one side does, the other waits: the log shows strict alternation."""
    log = []

    def work(emit):
        for number in range(3):
            log.append(f"make {number}")
            emit(number)
        return "result"

    turns = in_turns(work)
    try:
        while True:
            log.append(f"take {next(turns)}")
    except StopIteration as stop:
        assert stop.value == "result"
    assert log == ["make 0", "take 0", "make 1", "take 1", "make 2", "take 2"]


def test_what_the_call_raises_is_raised_to_the_consumer():
    def work(emit):
        emit(1)
        raise ValueError("inside")

    turns = in_turns(work)
    assert next(turns) == 1
    with pytest.raises(ValueError, match="inside"):
        next(turns)


# ---- requests


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "  \n"}, "the prompt is empty; say what the story is about"),
        ({"prompt": "fox " * 10_000}, r"the prompt has 10,000 words; at most 2,000 words .*weaver render PLAN.md"),
        ({"prompt": "狐" * 30_000}, "the prompt has 30,000 characters"),
        ({"prompt": None}, "prompt: expected text, got nothing"),
        ({"num_images": 0}, "0 were asked for; 1 to 64 can be. A story needs at least one"),
        ({"num_images": 500}, "500 were asked for; 1 to 64 can be"),
        ({"num_images": "four"}, "expected a whole number, got text"),
        ({"num_images": True}, "expected a whole number, got true or false"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"size": (0, 5)}, "size: 0 x 5"),
        ({"aspect": "wide"}, "'wide' is no aspect ratio"),
        ({"language": "../x"}, "is no language code"),
        ({"images": tuple(picture(f"i{n}") for n in range(17))}, "17 pictures were given; at most 16"),
    ],
)
def test_requests_that_cannot_be_used_say_why_and_what_to_do(changes, said):
    planner = TellingPlanner()
    with pytest.raises(InputError, match=said):
        run(replace(REQUEST, **changes), planner)
    assert planner.calls == []


def test_control_characters_in_the_prompt_become_spaces():
    request, notes = Request(prompt="a\x00fox\x1b").validated()
    assert request.prompt == "a fox" and "control characters" in notes[0]


def test_pictures_get_names_of_their_own():
    request, notes = Request(prompt="x", images=(picture("robin"), picture("robin", "red"), picture("p1"))).validated()
    assert [image.name for image in request.images] == ["robin", "robin-2", "image-p1"]
    assert "two pictures are named 'robin'" in notes[0]


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_pictures_are_brought_to_plain_rgb():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    image, notes = ReferenceImage.read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "dance")
    assert image.image.mode == "RGB" and "dance is animated; its first frame is used" in notes

    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert ReferenceImage.read(encoded(clear, "PNG"), "x")[0].image.getpixel((0, 0)) == (255, 255, 255)

    grey = Image.new("I;16", (16, 16), 0x8000)
    assert ReferenceImage.read(encoded(grey, "PNG"), "x")[0].image.getpixel((0, 0)) == (128, 128, 128)

    turned = Image.new("RGB", (16, 32))
    exif = turned.getexif()
    exif[0x0112] = 6
    assert ReferenceImage.read(encoded(turned, "JPEG", exif=exif), "x")[0].image.size == (32, 16)

    for mode in ("L", "1", "CMYK", "P", "LA"):
        format = "JPEG" if mode == "CMYK" else "PNG"
        assert ReferenceImage.read(encoded(Image.new(mode, (16, 16)), format), "x")[0].image.mode == "RGB"


def test_a_huge_picture_is_made_smaller():
    image, notes = ReferenceImage.read(encoded(Image.new("RGB", (5000, 1000), "red"), "PNG"), "wall")
    assert image.image.size == (2048, 410) and "5000 x 1000 pixels; it is used at 2048 x 410" in notes[0]


def bomb(width, height):
    """A PNG of a few hundred bytes that claims to be this large."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bomb(60_000, 60_000), "far too many pixels"),
        (bomb(11_000, 11_000), "at most 100 million are read"),
        (bomb(500, 500), "the picture is broken"),
        (encoded(Image.new("RGB", (64, 64), "red"), "JPEG")[:200], "the picture is broken"),
        (b"not a picture at all", "not a picture that can be read; use one of PNG"),
        (b"", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture"),
        (encoded(Image.new("RGB", (3, 3)), "PNG"), "3 x 3 pixels; at least 8"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused_by_name(data, said):
    with pytest.raises(InputError, match=f"robin.png: .*{said}"):
        ReferenceImage.read(data, "robin.png")


def test_files_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: no such file"):
        ReferenceImage.read(tmp_path / "x.png")
    with pytest.raises(InputError, match="is a folder"):
        ReferenceImage.read(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        ReferenceImage.read("a\x00b.png")


# ---- sizes


def test_sizes_are_fitted_to_what_can_be_drawn():
    few = Capabilities(max_references=1, default_size=(128, 128), sizes=((128, 128), (144, 112), (112, 144)))
    assert few.fit_size(None, "4:3") == (144, 112)
    assert few.fit_size((30, 20), None) == (144, 112)
    assert few.fit_size(None, None) == (128, 128)
    grid = Capabilities(max_references=1, default_size=(1024, 1024))
    assert grid.fit_size(None, "16:9") == (1360, 768)
    assert grid.fit_size((5000, 3000), None) == (2048, 1232)
    assert grid.fit_size((20, 20), None) == (64, 64)
    for aspect in ("1:1", "20:1", "1:20", "7:5"):
        assert all(side % 16 == 0 and 64 <= side <= 2048 for side in grid.fit_size(None, aspect))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": 10**6}, {"guidance": -1}, {"reference_guidance": 1e9}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match="it must"):
        RenderSettings(**settings)


def test_planned_images_are_announced_in_order():
    assert [(event.index, event.segment.id) for event in of(run(), ImagePlanned)] == [(0, "p1"), (1, "p2"), (2, "p3")]
