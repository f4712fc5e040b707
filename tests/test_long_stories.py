"""Stories with more images than the planner learned, and than a model's memory would hold: chapters, and bounded references."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from PIL import Image
from small_pair import ShapeVisualizer, TellingPlanner
from tiny_pair import tiny_pair

from weaver_core.image_count import asked_images, recounted
from weaver_core.plan import CastMember, parse_markup
from weaver_core.planners import PlannerOptions
from weaver_core.planners.chapters import chapter_of, read_from
from weaver_core.planners.native import NativePlanner
from weaver_core.planners.native_prompt import cannot_follow, prompt_for, shown_pictures
from weaver_core.request import ReferenceImage, RenderSettings, Request
from weaver_core.story import StoryFolder
from weaver_core.visualizers.native import NativeVisualizer
from weaver_core.weave import ImageReady, PlanReady, weave, weave_plan, write_plan

PAGE = "Page {0}. <imagine>A fox on page {0}.</imagine><BOI>"
MANY = "# Long\n" + "\n".join(PAGE.format(n) for n in range(1, 33))


def picture(name: str, colour: str = "orange") -> ReferenceImage:
    return ReferenceImage.read(Image.new("RGB", (32, 32), colour), name)[0]


# ---- chapters


@pytest.mark.parametrize("most", [3, 4, 8])
def test_chapters_cover_every_page_once_and_never_tell_of_more_than_was_learned(most):
    for total in range(1, 65):
        index = 0
        while index < total:
            chapter = chapter_of(index, total, most)
            assert index < chapter.stop <= total and 1 <= chapter.told <= most
            assert all(chapter_of(other, total, most) == chapter for other in range(index, chapter.stop))
            seen = chapter.stop - chapter.start + bool(chapter.start)
            assert seen <= most and (chapter.told == seen) == (chapter.stop == total), "only the last chapter comes to its end"
            index = chapter.stop


def test_a_story_that_had_ended_goes_on_in_a_chapter_of_its_own():
    assert [chapter_of(index, 16, 8, ended=4).start for index in range(4, 16)] == [4] * 6 + [10] * 6
    assert chapter_of(4, 6, 8, ended=4).told == 3 and chapter_of(4, 16, 8, ended=4).told == 8


def test_a_chapter_is_read_with_the_opening_page_before_it():
    one = "# T\na <imagine>p0</imagine><BOI>"
    rest = [f"\n{n} <imagine>p{n}</imagine><BOI>" for n in range(1, 5)]
    assert read_from(("".join([one, *rest, "\nlast"]),), 3) == (one, rest[2], rest[3], "\nlast")
    images = [Image.new("RGB", (8, 8)) for _ in range(5)]
    history = [item for pair in zip([one, *rest], images, strict=True) for item in pair]
    assert read_from(history, 3) == (one, images[0], rest[2], images[3], rest[3], images[4])
    assert read_from(history, 0) == tuple(history)


def test_the_number_in_a_request_gives_way_to_that_of_the_chapter():
    for prompt in ("A story in 32 pictures about Pip.", "length: 32 pages", "画一个故事，要32张图", "thirty stories, 32 images"):
        assert asked_images(recounted(prompt, 8)) == 8 and "32" not in recounted(prompt, 8)
    request = Request(prompt="Pip at the beach", num_images=32)
    assert prompt_for(request, chapter_of(31, 32, 8)) == "Pip at the beach Please make 2 pictures."


# ---- what the native planner is told of a cast


def robin(*references: str, look: str = "") -> CastMember:
    return CastMember(name="Robin", look=look, references=references)


@pytest.mark.parametrize(("prompt", "member", "told"), [
    ("Robin at the castle", robin("r"), "Story: Robin, the hero in the picture, at the castle"),
    ("A walk with robin.", robin("r"), "A walk with robin, the hero in the picture."),
    ("At the castle!", robin("r"), "At the castle! The hero is Robin, the hero in the picture."),
    ("At the castle", robin(look="a small orange fox."), "At the castle. The hero is Robin, a small orange fox."),
    ("Robin at the castle", robin(look="an orange fox"), "Story: Robin, an orange fox, at the castle"),
    ("Robin, an orange fox, naps", robin(look="an orange fox"), "Story: Robin, an orange fox, naps"),
    ("Robins everywhere", robin(), "Robins everywhere. The hero is Robin."),
])  # fmt: skip
def test_the_hero_is_told_in_the_words_of_the_request(prompt, member, told):
    assert prompt_for(Request(prompt=prompt, images=(picture("r"),), cast=(member,)), None) == told


def test_the_planner_sees_one_picture_of_every_hero_and_those_of_nobody():
    mia = CastMember(name="Mia", references=("m",))
    request = Request(prompt="x", images=(picture("m"), picture("r1"), picture("r2"), picture("sea")), cast=(robin("r1", "r2"), mia))
    assert [shown.name for shown in shown_pictures(request)] == ["r1", "m", "sea"]
    assert prompt_for(request, None) == "x. The heroes are Robin and Mia, the two heroes in the pictures."


def test_what_the_planner_cannot_be_told_is_said():
    cast = (robin(), CastMember(name="Mia", outfits=("coat",)), CastMember(name="Bo"), CastMember(name="Inn", kind="place"))
    told = list(cannot_follow(Request(prompt="x", language="de", style="ink", cast=cast)))
    assert len(told) == 4 and "'de'" in told[0] and "style" in told[1] and "Bo, Inn" in told[2] and "outfits (Mia)" in told[3]
    assert list(cannot_follow(Request(prompt="x", language="en-GB", cast=(robin(),)))) == []


# ---- 32 pages


@pytest.fixture(scope="module")
def pair():
    return tiny_pair(seed=1)


def test_the_native_planner_writes_32_pages_and_never_reads_more_than_its_8(pair, monkeypatch):
    planner = NativePlanner(pair)
    tokens = planner.tokens
    word = pair.tokenizer("fox", add_special_tokens=False)["input_ids"][-1]
    longest = 0

    def choose(logits, answer, num_images, options, generator):
        """In the place of random weights: one word, a dense prompt of one word, over and over. Counting stays the planner's."""
        nonlocal longest
        longest = max(longest, len(planner._memory._marks))
        if options.num_images is not None and num_images >= options.num_images and answer and answer[-1] == tokens.begin_of_image:
            return tokens.eos
        last = answer[-1] if answer else None
        return {tokens.imagine: word, tokens.end_imagine: tokens.begin_of_image}.get(
            last, tokens.end_imagine if len(answer) > 1 and answer[-2] == tokens.imagine else tokens.imagine if last == word else word)

    monkeypatch.setattr(planner, "_choose", choose)
    events = list(write_plan(Request(prompt="A fox", num_images=32), planner))
    plan = next(event.plan for event in events if isinstance(event, PlanReady))
    assert len(plan.images) == 32
    eight = NativePlanner(pair)
    monkeypatch.setattr(eight, "_choose", choose)
    list(write_plan(Request(prompt="A fox", num_images=8), eight))
    assert longest <= len(eight._memory._marks) + 2
    for index in (0, 15, 31):
        context = planner.context(plan, plan.images[index], Request(prompt="A fox", num_images=32))
        assert context.mask.shape[1] == 1 and len(planner._memory._marks) <= len(eight._memory._marks) + 2


def test_32_pages_are_drawn_at_constant_memory(pair, tmp_path):
    """Planner cache, references and Python's own memory: what pages 9 to 32 add is nothing but their fingerprints."""
    plan, _ = parse_markup(MANY)
    request = Request(prompt="a fox", num_images=32, images=(picture("robin"),))
    planner, visualizer = NativePlanner(pair), NativeVisualizer(pair)
    caches, sizes, traced = [], [], []
    tracemalloc.start()
    with StoryFolder.create(tmp_path / "s", request) as folder:
        events = weave_plan(plan, visualizer, planner=planner, request=request, story=folder,
                            settings=RenderSettings(steps=1, max_references=2))  # fmt: skip
        for event in events:
            if isinstance(event, ImageReady):
                assert len(event.rendering.references) == 1
                caches.append(len(planner._memory._marks))
                sizes.append(sum(cache.num_bytes for cache in visualizer._references.values()))
                event = None
                gc.collect()
                traced.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert len(traced) == 32
    assert max(caches[20:]) <= max(caches[8:20]) and sizes[-1] == sizes[7]
    assert traced[-1] - traced[8] < 24 * 16_000, "a page leaves a picture or a cache behind"


@pytest.mark.parametrize("policy", ["auto", "first", "previous", "cast"])
def test_references_never_exceed_the_budget_however_long_the_story_is(policy):
    visualizer = ShapeVisualizer(max_references=4)
    request = Request(prompt="a fox", num_images=32, images=tuple(picture(f"x{n}", (n, 0, 0)) for n in range(6)))
    list(weave(request, TellingPlanner(MANY), visualizer, policy=policy, settings=RenderSettings(max_references=3)))
    assert len(visualizer.shots) == 32 and max(len(shot.references) for shot in visualizer.shots) <= 3
    visualizer.shots.clear()
    side = visualizer.capabilities.reference_tokens((32, 32))
    list(weave(request, TellingPlanner(MANY), visualizer, policy=policy, settings=RenderSettings(max_reference_tokens=2 * side)))
    assert max(len(shot.references) for shot in visualizer.shots) <= 2


# ---- going on with a story


class GoingOn(TellingPlanner):
    def write(self, request, history, *, options, cancel):
        self.calls.append((history, options))
        yield "Then he ran. <imagine>A fox runs.</imagine><BOI>"


def test_a_story_goes_on_with_its_own_pages_as_they_were():
    before, _ = parse_markup('# Robin\n<cast name="Robin">\nHe woke. <imagine cast="Robin" locked="true">A fox wakes.</imagine>\nGood night.')
    planner = GoingOn()
    (ready,) = [event for event in write_plan(Request(prompt="x", num_images=1), planner, before=before) if isinstance(event, PlanReady)]
    plan = ready.plan
    assert plan.segments[:2] == before.segments[:2] and plan.cast == before.cast and plan.title == "Robin"
    assert [image.id for image in plan.images] == ["p1", "p2"] and plan.texts[-1].text == "Good night.\nThen he ran."
    ((history, options),) = planner.calls
    assert 'cast="Robin"' in history[0] and options.num_images == 1 and options.continued


def test_the_native_planner_goes_on_behind_the_opening_page(pair):
    before, _ = parse_markup("\n".join(["# T", *(PAGE.format(n) for n in range(1, 5))]))
    planner = NativePlanner(pair)
    shown = []
    read = planner._sequence

    def sequence(request, history, chapter, **how):
        shown.append((chapter, history))
        return read(request, history, chapter, **how)

    planner._sequence = sequence
    options = PlannerOptions(num_images=2, continued=True, max_tokens=1)
    list(planner.write(Request(prompt="x"), (before.to_bare_markup(),), options=options, cancel=lambda: False))
    chapter, history = shown[0]
    seen = "".join(read_from(history, chapter.start))
    assert "page 1" in seen and "page 2" not in seen and "page 4" not in seen and chapter.told == 3
