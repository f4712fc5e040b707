"""What training never sees: held-out combinations of known words, and the sampler of scenes that respects them.

`splits.json` was fixed and committed before any training. Every single word (species, colour, place, time, prop) and every
place x time pair stays in training; only the listed *combinations* are unseen. Pure Python.
"""

from __future__ import annotations

import json
import random
from functools import lru_cache
from pathlib import Path

from .world import COLOURS, HEROES, PLACES, POSES, POSITIONS, PROPS, TIMES, WEARABLES, Character, Figure, Scene

SPLITS = ("train", "held_out", "any")
ANY = ...                                                # "choose for me", where None already means "none at all"


@lru_cache(maxsize=1)
def load_splits() -> dict[str, frozenset]:
    """The committed lists as sets: species_colour, species_place, place_time_prop (tuples) and request_frames (ids)."""
    record = json.loads(Path(__file__).with_name("splits.json").read_text(encoding="utf-8"))
    sets = {name: frozenset(map(tuple, record[name])) for name in ("species_colour", "species_place", "place_time_prop")}
    return sets | {"request_frames": frozenset(record["request_frames"])}


def held_out_character(character: Character) -> bool:
    """Whether this species never wears this colour in training (what is worn does not matter)."""
    return (character.species, character.colour) in load_splits()["species_colour"]


def held_out_place(species: str, place: str) -> bool:
    """Whether this species never visits this place in training."""
    return (species, place) in load_splits()["species_place"]


def held_out_prop(place: str, time: str, prop: str | None) -> bool:
    """Whether this prop is never at this place at this time in training."""
    return (place, time, prop) in load_splits()["place_time_prop"]


def held_out_reasons(scene: Scene) -> tuple[str, ...]:
    """Names of the held-out combinations a scene contains; empty for a training scene."""
    reasons = []
    for figure in scene.figures:
        character = figure.character
        if held_out_character(character):
            reasons.append(f"{character.colour} {character.species}")
        if held_out_place(character.species, scene.place):
            reasons.append(f"{character.species} in {scene.place}")
    if held_out_prop(scene.place, scene.time, scene.prop):
        reasons.append(f"{scene.prop} in {scene.place} at {scene.time}")
    return tuple(reasons)


def is_train(scene: Scene) -> bool:
    """Whether training may show this scene: it holds no held-out combination at all."""
    return not held_out_reasons(scene)


def sample_character(rng: random.Random, *, split: str = "train", unlike: Character | None = None,
                     place: str | None = None) -> Character:
    """A random character of a split, clearly different from `unlike` (other species and other colour).

    `split="held_out"` asks for a held-out species/colour pair, `"train"` for one of the others which also may visit `place`.
    """
    pool = [(s, c) for s in HEROES for c in COLOURS
            if (unlike is None or (s != unlike.species and c != unlike.colour))
            and (split == "any" or ((s, c) in load_splits()["species_colour"]) == (split == "held_out"))
            and not (split == "train" and place is not None and held_out_place(s, place))]
    species, colour = rng.choice(pool)
    return Character(species=species, colour=colour, wearable=sample_wearable(rng))


def sample_wearable(rng: random.Random) -> str | None:
    return None if rng.random() < 0.25 else rng.choice(WEARABLES)


def sample_scene(rng: random.Random, *, split: str = "train", figures: int | None = None,
                 character: Character | None = None, second: Character | None = None, place: str | None = None,
                 time: str | None = None, prop=ANY) -> Scene:
    """A random scene; what is given is kept, the rest is drawn.

    `split="train"`: no held-out combination at all. `"held_out"`: at least one held-out character or species/place pair.
    `"any"`: no restriction. Without wishes 72 % of the scenes hold one figure, 25 % two and 3 % none; a quarter of the
    figures wear nothing and a quarter of the scenes have no prop. `prop=None` asks for none. Raises ValueError where the
    wishes leave nothing to draw (say, a held-out character in a training scene).
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; choose one of {', '.join(SPLITS)}")
    if character is not None and second is not None and (character.species == second.species
                                                         or character.colour == second.colour):
        raise ValueError(f"two figures differ in species and colour; got {character} and {second}")
    for _ in range(200):
        scene = _draw(rng, split, figures, character, second, place, time, prop)
        if scene is not None and _fits(scene, split):
            return scene
    raise ValueError(f"no {split} scene has character={character}, second={second}, place={place}, time={time}, "
                     f"prop={prop}, figures={figures}; ask for split='any' or leave something open")


def _fits(scene: Scene, split: str) -> bool:
    if split == "train":
        return is_train(scene)
    return split == "any" or any(held_out_character(f.character) or held_out_place(f.character.species, scene.place)
                                 for f in scene.figures)


def _draw(rng, split, figures, character, second, place, time, prop) -> Scene | None:
    count = figures
    if count is None:
        if second is not None:
            count = 2
        else:
            draw = rng.random()
            count = 0 if draw < 0.03 and character is None and split != "held_out" and prop in (ANY, None) else 2 if draw < 0.28 else 1
    wanted_place = place
    place = place or rng.choice(PLACES)
    cast: list[Character] = []
    if count >= 1:
        first = character
        if first is None:
            kind = split
            if split == "held_out":                       # half by the colour, half by the place
                kind = rng.choice(("held_out", "train"))
                if kind == "train" and wanted_place is None:
                    species, place = rng.choice(sorted(load_splits()["species_place"]))
                    colours = [c for c in COLOURS if second is None or c != second.colour]
                    first = Character(species=species, colour=rng.choice(colours), wearable=sample_wearable(rng))
                    if second is not None and second.species == species:
                        return None
            first = first or sample_character(rng, split=kind, unlike=second, place=place)
        cast.append(first)
    if count == 2:
        cast.append(second or sample_character(rng, split="any" if split == "held_out" and rng.random() < 0.3 else
                                               "train" if split == "held_out" else split, unlike=cast[0], place=place))
    if count == 2 and character is None and second is None and rng.random() < 0.5:
        cast.reverse()                                    # the held-out one may stand on either side
    time = time or rng.choice(TIMES)
    if count == 0:
        prop = None
    elif prop is ANY:
        allowed = [p for p in PROPS if split != "train" or not held_out_prop(place, time, p)]
        prop = None if rng.random() < 0.25 else rng.choice(allowed)
    positions = ("left", "right") if count == 2 else (rng.choice(POSITIONS),)
    return Scene(place=place, time=time, prop=prop, seed=rng.randrange(2 ** 31),
                 figures=tuple(Figure(character=c, position=p, pose=rng.choice(POSES)) for c, p in zip(cast, positions)))
