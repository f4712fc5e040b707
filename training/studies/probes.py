"""What is drawn with a trained pair and read by the oracle: stories under their right plans, and heroes carried by references.

Every arm of a study draws the same scenes with the same seeds, through the planner, visualizer and loop that users run. Pages that
look wrong are kept as they come. Nothing is judged here that `picturebook.reader` or `evaluation.metrics` does not judge.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch

from weaver_core.evaluation.metrics.consistency import diversity
from weaver_core.evaluation.metrics.oracle import reader_likeness, reading_of
from weaver_core.evaluation.metrics.own_prompt import retrieval
from weaver_core.model.checkpoint import SamplingDefaults, WeaverModel, default_device, default_dtype, load_autoencoder, load_planner, load_twin
from weaver_core.picture_checks import fingerprint
from weaver_core.picturebook import grammar, reader
from weaver_core.picturebook.captions import dense_prompt
from weaver_core.picturebook.compose import render
from weaver_core.picturebook.scores import draw_prompt
from weaver_core.picturebook.shots import portrait, sample_shot
from weaver_core.picturebook.splits import sample_scene
from weaver_core.plan import Plan, parse_markup
from weaver_core.planners.native import NativePlanner
from weaver_core.request import RenderSettings, Request
from weaver_core.visualizers.native import NativeVisualizer
from weaver_core.weave import ImageReady, weave_plan

SEED = 271_828  # of what is drawn; never used in training
PAGES = 4
IDENTITY = ("species", "colour")
WORDS = ("place", "time", "species", "colour", "position", "pose", "prop", "wearable")


def pair_of(planner: Path, visualizer: Path, autoencoder: Path, *, side: int, steps: int) -> tuple[NativePlanner, NativeVisualizer]:
    """The exports of two runs as a native pair that draws squares of `side` pixels in so many steps. Raises CheckpointError."""
    device = default_device()
    dtype = default_dtype(device)
    language, tokenizer = load_planner(planner, device=device, dtype=dtype)
    model = WeaverModel(language, tokenizer, load_twin(visualizer, device=device, dtype=dtype).eval(),
                        load_autoencoder(autoencoder, device=device, dtype=dtype),
                        SamplingDefaults(steps=steps, image_size=side, sizes=((side, side),), size_multiple=16))
    return NativePlanner(model), NativeVisualizer(model)


def story_scores(pair, species: Sequence[str], *, count: int, side: int) -> dict[str, float]:
    """Four-page stories about one hero, drawn under the true plans; fractions in [0, 1].

    story_read       mean over pages and attributes of what the oracle reader sees right
    own_prompt       share of the pages that fit their own dense prompt best among their story's
    repeats          share of a story's pairs of pages that are near-duplicates
    true_own_prompt  the same two of the true scenes: what a perfect visualizer would get
    true_repeats
    """
    planner, visualizer = pair
    found: dict[str, list[float]] = {name: [] for name in ("story_read", "own_prompt", "repeats", "true_own_prompt", "true_repeats")}
    for number, story in enumerate(told_stories(species, count)):
        plan = parse_markup(story.markup)[0]
        images = _drawn(plan, Request(prompt=story.request, seed=number, size=(side, side)), planner, visualizer)
        rights = [reader.compare(reading_of(image), scene) for image, scene in zip(images, story.scenes, strict=True)]
        found["story_read"].append(fmean(right[word] for right in rights for word in WORDS))
        for prefix, pages in (("", images), ("true_", [render(scene, (side, side)) for scene in story.scenes])):
            found[f"{prefix}own_prompt"].append(fmean(retrieval(reader_likeness(pages, story.prompts))[1]))
            found[f"{prefix}repeats"].append(1 - diversity([fingerprint(page) for page in pages])[0])
    return {name: fmean(values) for name, values in found.items()}


def told_stories(species: Sequence[str], count: int) -> list[grammar.StoryRecord]:
    """Held-out stories of four pages about one hero of some species, always the same."""
    rng = random.Random(SEED)
    stories: list[grammar.StoryRecord] = []
    while len(stories) < count:
        story = grammar.sample_story(rng, split="held_out", num_images=PAGES, two_heroes=False)
        if all(character.species in species for character in story.characters):
            stories.append(story)
    return stories


def _drawn(plan: Plan, request: Request, planner, visualizer) -> list:
    events = weave_plan(plan, visualizer, planner=planner, request=request, settings=RenderSettings(check_images=False))
    return [event.image for event in events if isinstance(event, ImageReady)]


def identity_scores(pair, species: Sequence[str], *, chains: int, pairs: int, side: int) -> dict[str, float]:
    """Whether heroes keep species and colour that only references tell; fractions in [0, 1].

    identity_1..4      one hero over the images of a chain: the first is drawn from a true portrait, every later one from the image
                       before it, so that faults add up
    identity_one       their mean
    identity_two       two heroes from two true portraits, both right and on their right sides
    """
    planner, visualizer = pair
    rng = random.Random(SEED + 1)
    rights: list[list[bool]] = [[] for _ in range(PAGES)]
    for number in range(chains):
        shot = _shot(rng, "si2i", species)
        hero = shot.scene.figures[0].character
        seen = render(portrait(rng, hero, split="any"), (side, side))
        for index in range(PAGES):
            scene = sample_scene(rng, split="any", figures=1, character=hero)
            prompt = dense_prompt(scene, rng, hide="identity")
            seen = draw_prompt(planner, visualizer, prompt, [seen], seed=number * PAGES + index)
            rights[index].append(_is_same(seen, scene))
    both = []
    for number in range(pairs):
        shot = _shot(rng, "mi2i", species)
        references = [render(scene, (side, side)) for scene in shot.references]
        both.append(_is_same(draw_prompt(planner, visualizer, shot.prompt, references, seed=number), shot.scene))
    by_index = {f"identity_{index + 1}": fmean(right) for index, right in enumerate(rights)}
    return by_index | {"identity_one": fmean(by_index.values()), "identity_two": fmean(both)}


def _shot(rng: random.Random, kind: str, species: Sequence[str]):
    while True:
        shot = sample_shot(rng, kind, split="any")
        if all(figure.character.species in species for figure in shot.scene.figures):
            return shot


def _is_same(image, scene) -> bool:
    seen = reader.compare(reading_of(image), scene)
    return all(seen[name] for name in IDENTITY)


@torch.no_grad()
def measured(probe: str, *, planner: Path, visualizer: Path, autoencoder: Path, species: Sequence[str], side: int, steps: int,
             counts: dict[str, int]) -> dict[str, float]:
    """The numbers of one probe, "stories" or "identity"; `counts` are its keyword arguments. Raises ValueError for another probe."""
    pair = pair_of(planner, visualizer, autoencoder, side=side, steps=steps)
    if probe == "stories":
        return story_scores(pair, species, side=side, count=counts["stories"])
    if probe == "identity":
        return identity_scores(pair, species, side=side, chains=counts["chains"], pairs=counts["pairs"])
    raise ValueError(f"probe is {probe!r}; it must be stories or identity")
