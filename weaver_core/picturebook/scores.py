"""What the shipped weights can do, measured through the same planner, visualizer and loop that users run (`weaver scores`).

Everything is asked in held-out phrasings about held-out combinations (splits.json); pictures are judged by the oracle
reader alone. A benchmark, not a test: about half an hour on two cores, `quick` for a rough look in two.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import grammar, reader
from .captions import parse_dense_prompt
from .compose import render
from .shots import sample_shot

SEED = 90_125  # of requests and scenes; never used in training


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much is measured."""

    plans: int = 200
    captions: int = 300
    identities: int = 300
    stories: int = 100
    scenes: int = 2000
    timings: int = 5


QUICK = Counts(plans=24, captions=24, identities=16, stories=6, scenes=100, timings=1)

# key, what the table says, the least that it should be (for a ratio: the most)
ROWS = (
    ("plan_parse", "plans parse", 1.0),
    ("plan_count", "plans hold as many images as asked for (1-8)", 0.97),
    ("plan_hero_place", "plans show the right hero and place", 0.95),
    ("t2i_place_time", "text to image: place and time", 0.95),
    ("t2i_hero_colour", "text to image: hero and colour", 0.90),
    ("t2i_wearable_prop", "text to image: wearable and prop", 0.80),
    ("identity_one_ref", "identity from one reference", 0.85),
    ("identity_two_refs", "two heroes from two references", 0.70),
    ("shapes_place_time", "wide and tall pages: place and time", 0.95),
    ("shapes_hero_colour", "wide and tall pages: hero and colour", 0.90),
    ("shapes_wearable_prop", "wide and tall pages: wearable and prop", 0.80),
    ("shapes_one_ref", "wide and tall pages: identity from a square reference", 0.85),
    ("story_consistency", "one hero through four images, all right", 0.80),
    ("reader_min", "oracle reader on true scenes, worst attribute", 0.98),
    ("step_ratio_8_refs", "step with 8 cached references / none, 1B shapes", 1.5),
    ("step_ratio_8_refs_tiny", "the same, this model", None),
    ("story_seconds", "seconds for a 4-image story, model loaded", None),
)

Progress = Callable[[str, int, int], None]


def measure(model, *, quick: bool = False, on_progress: Progress = lambda what, done, total: None) -> dict[str, float]:
    """All scores of a native pair, in the order of ROWS. Fractions, but for the ratios and the seconds.

    A visualizer that draws squares only has no scores of wide and tall pages.
    """
    from ..planners.native import NativePlanner
    from ..visualizers.native import NativeVisualizer

    counts = QUICK if quick else Counts()
    planner, visualizer = NativePlanner(model), NativeVisualizer(model)
    scores = _plans(planner, counts.plans, on_progress)
    scores |= _text_to_image(planner, visualizer, counts.captions, on_progress)
    scores["identity_one_ref"] = _identity(planner, visualizer, "si2i", counts.identities, on_progress)
    scores["identity_two_refs"] = _identity(planner, visualizer, "mi2i", counts.identities, on_progress)
    if shapes := [size for size in visualizer.capabilities.sizes if size[0] != size[1]]:
        scores |= _text_to_image(planner, visualizer, counts.captions, on_progress, "shapes", shapes)
        scores["shapes_one_ref"] = _identity(planner, visualizer, "si2i", counts.identities, on_progress, shapes)
    scores["story_consistency"], seconds = _stories(planner, visualizer, counts.stories, on_progress)
    on_progress("oracle reader", 0, 1)
    scores["reader_min"] = min(value for name, value in reader.measure(counts.scenes).items() if name != "scene")
    on_progress("step times", 0, 1)
    scores["step_ratio_8_refs"] = step_ratio_1b()
    scores["step_ratio_8_refs_tiny"] = step_ratio(model.visualizer)
    scores["story_seconds"] = statistics.median(seconds[:counts.timings])
    return {key: round(scores[key], 4) for key, _, _ in ROWS if key in scores}


def table(scores: dict[str, float]) -> str:
    """The scores for reading, with what they should reach."""
    lines = []
    for key, what, wanted in ROWS:
        if key not in scores:
            continue
        value = scores[key]
        if key.startswith("step_ratio"):
            text, bound = f"{value:.2f} x", f"at most {wanted:.2f} x" if wanted else ""
            good = wanted is None or value <= wanted
        elif key == "story_seconds":
            text, bound, good = f"{value:.1f} s", "", True
        else:
            text, bound, good = f"{100 * value:.1f} %", f"at least {100 * wanted:.0f} %", value >= wanted
        lines.append(f"{what:54}{text:>10}   {bound:18}{'' if good else 'below'}".rstrip())
    return "\n".join(lines)


# ---- plans


def _plans(planner, count: int, on_progress: Progress) -> dict[str, float]:
    rng = random.Random(SEED)
    parsed = counted = right = 0
    for index in range(count):
        story = _told_story(rng, num_images=1 + index % 8)
        plan, warnings = _written(planner, story.request, seed=index)
        parsed += not warnings and bool(plan.images)
        counted += len(plan.images) == story.num_images
        right += bool(plan.images) and all(_shows(parse_dense_prompt(image.prompt), story) for image in plan.images)
        on_progress("plans", index + 1, count)
    return {"plan_parse": parsed / count, "plan_count": counted / count, "plan_hero_place": right / count}


def _told_story(rng: random.Random, num_images: int, **wishes):
    """A held-out request that says how many pictures it wants, who the hero is, and where."""
    while True:
        story = grammar.sample_story(rng, split="held_out", num_images=num_images, **wishes)
        told = story.known
        if told["num_images"] and told["places"] and all(hero["species"] and hero["colour"] for hero in told["heroes"]):
            return story


def _written(planner, request: str, seed: int):
    """The plan of a request, and what the parser had to mend in it."""
    from ..request import Request
    from ..weave import PlanReady, Warning, write_plan

    events = list(write_plan(Request(prompt=request, seed=seed), planner))
    return (next(event.plan for event in events if isinstance(event, PlanReady)),
            [event for event in events if isinstance(event, Warning) and event.line is not None])


def _shows(found: dict, story) -> bool:
    """Whether a dense prompt shows the first asked hero (or, on a page of his own, the second) in an asked place."""
    told = [(hero["species"], hero["colour"]) for hero in story.known["heroes"]]
    heroes = [(found[f"{which}species"], found[f"{which}colour"]) for which in ("", "second_")[:found["figures"]]]
    return found["place"] in story.known["places"] and bool(heroes) and all(hero in told for hero in heroes)


# ---- pictures


def draw_prompt(planner, visualizer, prompt: str, references=(), seed: int = 0, size: tuple[int, int] | None = None):
    """One picture the way a plan of one image is drawn."""
    from ..plan import ImageSegment, Plan
    from ..request import ReferenceImage, Request
    from ..weave import ImageReady, weave_plan

    pictures = tuple(ReferenceImage.read(image, f"reference-{i + 1}")[0] for i, image in enumerate(references))
    segment = ImageSegment(id="p1", prompt=prompt, references=tuple(p.name for p in pictures) or "auto", size=size)
    request = Request(prompt=prompt, images=pictures, seed=seed)
    for event in weave_plan(Plan(segments=(segment,)), visualizer, planner=planner, request=request):
        if isinstance(event, ImageReady):
            return event.image
    raise RuntimeError(f"no picture was drawn of {prompt!r}")


def _text_to_image(planner, visualizer, count: int, on_progress: Progress, name: str = "t2i", sizes=(None,)) -> dict[str, float]:
    """Shares of pictures with the right place and time, hero and colour, wearable and prop; the sizes take turns, None = the default."""
    rng = random.Random(SEED + 1)
    hits = dict.fromkeys(("place_time", "hero_colour", "wearable_prop"), 0)
    for index in range(count):
        shot = sample_shot(rng, "t2i", split="held_out")
        seen = reader.compare(reader.read(draw_prompt(planner, visualizer, shot.prompt, seed=index, size=sizes[index % len(sizes)])), shot.scene)
        hits["place_time"] += seen["place"] and seen["time"]
        hits["hero_colour"] += seen["species"] and seen["colour"]
        hits["wearable_prop"] += seen["wearable"] and seen["prop"]
        on_progress("text to image" if name == "t2i" else "wide and tall", index + 1, count)
    return {f"{name}_{what}": value / count for what, value in hits.items()}


def _identity(planner, visualizer, kind: str, count: int, on_progress: Progress, sizes=(None,)) -> float:
    """Share of pictures whose heroes have the species, colour and wearable of the references; the prompt names none of them.

    References are squares; the sizes of the pictures take turns, None = the default.
    """
    rng = random.Random(SEED + 2)
    hits = 0
    for index in range(count):
        shot = sample_shot(rng, kind, split="held_out")
        image = draw_prompt(planner, visualizer, shot.prompt, [render(scene) for scene in shot.references], seed=index,
                            size=sizes[index % len(sizes)])
        seen = reader.compare(reader.read(image), shot.scene)
        hits += seen["species"] and seen["colour"] and seen["wearable"]
        on_progress("one reference" if kind == "si2i" else "two references", index + 1, count)
    return hits / count


def _stories(planner, visualizer, count: int, on_progress: Progress) -> tuple[float, list[float]]:
    """Share of 4-image stories with one hero whose species, colour and wearable are right in every picture; seconds of each."""
    from ..request import Request
    from ..weave import ImageReady, weave

    rng = random.Random(SEED + 3)
    hits, seconds = 0, []
    for index in range(count):
        story = _told_story(rng, num_images=4, two_heroes=False)
        told = story.known["heroes"][0]
        started = time.perf_counter()
        images = [event.image for event in weave(Request(prompt=story.request, seed=index), planner, visualizer) if isinstance(event, ImageReady)]
        seconds.append(time.perf_counter() - started)
        hits += len(images) == 4 and all(_is_hero(reader.read(image), told) for image in images)
        on_progress("stories", index + 1, count)
    return hits / count, seconds


def _is_hero(reading, told: dict) -> bool:
    if reading.count != 1:
        return False
    hero = reading.figures[0]
    same = hero.species == told["species"] and hero.colour == told["colour"]
    return same and (told["wearable"] is None or hero.wearable == told["wearable"])


# ---- step times


def step_ratio_1b(pairs: int = 9) -> float:
    """Median over pairs of (step with 8 cached references) / (step with none) at 1B-shaped layers: width 2048, two layers,
    256 target tokens and 256 of each reference, in the dtype that this machine samples in."""
    import torch

    from ..model.checkpoint import default_device, default_dtype
    from ..model.twin_dit import TwinDiT

    torch.manual_seed(0)
    twin = TwinDiT(num_layers=2, num_heads=16, num_kv_heads=8, head_dim=128, width=2048, mlp_width=8192, latent_channels=16, patch=2,
                   planner_rope_theta=1e6, planner_mrope_sections=(16, 24, 24), pooled_layers=(0, 1))
    device = default_device()
    twin = torch.nn.Module.to(twin, device=device, dtype=default_dtype(device)).eval()
    return step_ratio(twin, side=32, pairs=pairs)


def step_ratio(twin, *, side: int = 16, num_references: int = 8, pairs: int = 15) -> float:
    """Median over pairs of a denoising step with cached references against one without, guidance batch 2.

    `side` is that of the latents, of target and references alike.
    """
    import torch

    from ..model.dpcw import DensePromptContext
    from ..model.twin_dit import TwinDiT

    config, device, dtype = twin.config, twin.device, twin.dtype
    if 0 < config.reference_slots < num_references:  # time does not depend on the weights, so fresh ones with enough slots will do
        fresh = TwinDiT.from_config(dict(config) | {"reference_slots": num_references})
        twin = torch.nn.Module.to(fresh, device=device, dtype=dtype).eval()
    new = lambda *shape: torch.randn(*shape, device=device, dtype=dtype)  # noqa: E731
    layers = range(config.num_layers)
    words = DensePromptContext(tuple(new(2, config.num_kv_heads, 40, config.head_dim) for _ in layers),
                               tuple(new(2, config.num_kv_heads, 40, config.head_dim) for _ in layers),
                               torch.ones(2, 40, dtype=torch.bool, device=device), torch.arange(40, device=device).expand(3, 2, 40))
    with torch.inference_mode():
        window = twin.read_window(words)
        cache = twin.encode_references(new(1, config.latent_channels, side, side))
        bare, full = twin.assemble(window), twin.assemble(window, [cache] * num_references)
        noisy, noise_time = new(2, config.latent_channels, side, side), torch.full((2,), 0.5, device=device)

        def timed(context) -> float:
            started = time.perf_counter()
            twin(noisy, noise_time, context)
            if device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - started

        for context in (bare, full, bare, full):
            timed(context)
        return statistics.median(_ratios(timed, full, bare, pairs))


def _ratios(timed, full, bare, pairs: int) -> Iterator[float]:
    for _ in range(pairs):
        without = timed(bare)
        yield timed(full) / without
