"""Single images to draw, as training and measuring need them: a scene, its dense prompt, and what the references show.

Three kinds, the paper's curriculum: `t2i` (words alone), `si2i` (one reference: the prompt does not say who the hero is)
and `mi2i` (two references, two heroes). Pure Python, deterministic in the generator.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .captions import dense_prompt
from .splits import sample_character, sample_scene
from .world import COLOURS, HEROES, PLACES, POSES, PROPS, TIMES, WEARABLES, Character, Scene

KINDS = ("t2i", "si2i", "mi2i")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotRecord:
    """One image to draw. `first` is the figure that the first reference shows."""

    kind: str
    scene: Scene
    prompt: str
    references: tuple[Scene, ...] = ()
    first: int = 0


def sample_shot(rng: random.Random, kind: str, *, split: str = "train", figures: int | None = None) -> ShotRecord:
    """A random image of one kind. References show the same heroes elsewhere, at another time, doing something else.

    figures: how many a text-to-image scene holds; None = as the world has it.
    """
    if kind == "t2i":
        scene = sample_scene(rng, split=split, figures=figures)
        return ShotRecord(kind=kind, scene=scene, prompt=dense_prompt(scene, rng))
    if kind == "si2i":
        hero = sample_character(rng, split=split)
        scene = sample_scene(rng, split=split, figures=1, character=hero)
        return ShotRecord(kind=kind, scene=scene, prompt=dense_prompt(scene, rng, hide="identity"),
                          references=(portrait(rng, hero, split=split, unlike=scene),))
    if kind == "mi2i":
        scene = sample_scene(rng, split=split, figures=2)
        first = rng.randrange(2)
        heroes = [scene.figures[first].character, scene.figures[1 - first].character]
        # People mostly tell of the first picture's hero first, wherever he stands.
        told_from = "right" if first == 1 and rng.random() < 0.6 else "left"
        prompt = dense_prompt(scene, rng, hide="identity", first=first, told_from=told_from)
        return ShotRecord(kind=kind, scene=scene, prompt=prompt, first=first,
                          references=tuple(portrait(rng, hero, split=split, unlike=scene) for hero in heroes))
    raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")


def portrait(rng: random.Random, hero: Character, *, split: str = "train", unlike: Scene | None = None) -> Scene:
    """A picture of one hero alone, in another place or at another time than `unlike`."""
    # Held-out heroes need a scene of their own split; a common hero's portrait may always be a training scene.
    for wanted in (("train", "any") if split == "train" else ("any",)):
        for _ in range(50):
            try:
                scene = sample_scene(rng, split=wanted, figures=1, character=hero)
            except ValueError:
                break
            if unlike is None or (scene.place, scene.time) != (unlike.place, unlike.time):
                return scene
    raise ValueError(f"no picture of {hero} could be found; ask for split='any'")


def with_wrong_word(rng: random.Random, scene: Scene, attribute: str) -> Scene | None:
    """The scene with one attribute of its first figure (or the scene itself) made wrong; None where it has none.

    A prompt written for the result should raise the error of drawing the original: how much, is the wrong-word gap.
    """
    def other(value, values):
        return rng.choice([v for v in values if v != value])

    if attribute in ("place", "time"):
        return replace(scene, **{attribute: other(getattr(scene, attribute), PLACES if attribute == "place" else TIMES)})
    if attribute == "prop":
        return None if scene.prop is None else replace(scene, prop=other(scene.prop, PROPS))
    if not scene.figures:
        return None
    figure, rest = scene.figures[0], scene.figures[1:]
    if attribute == "position":
        if rest:
            return replace(scene, figures=(replace(figure, character=rest[0].character), replace(rest[0], character=figure.character)))
        changed = replace(figure, position=other(figure.position, ("left", "centre", "right")))
    elif attribute == "pose":
        changed = replace(figure, pose=other(figure.pose, POSES))
    else:
        values = {"species": HEROES, "colour": COLOURS, "wearable": (*WEARABLES, None)}[attribute]
        hero = replace(figure.character, **{attribute: other(getattr(figure.character, attribute), values)})
        changed = replace(figure, character=hero)
    return replace(scene, figures=(changed, *rest))
