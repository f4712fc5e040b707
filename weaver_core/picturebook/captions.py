"""Exact dense prompts for scenes, in a dozen wordings, and the parser that reads every one of them back.

`dense_prompt` states all a scene holds: species, colour, wearable, pose, position, prop, place and time. With
`hide="identity"` the heroes are only "the same hero" or "the first hero" and "the second hero": who they are must then come
from the reference images. Pure Python; deterministic in its random generator.
"""

from __future__ import annotations

import random
import re

from .world import COLOURS, HEROES, PLACES, POSES, POSITIONS, PROPS, TIMES, WEARABLES, Figure, Scene

PLACE_PHRASES = {
    "meadow": ("in a meadow", "in the grassy meadow", "in the meadow"),
    "beach": ("at the beach", "on the sandy beach", "on the beach"),
    "forest": ("in the forest", "in a quiet forest", "among the trees of the forest"),
    "snow": ("in the snow", "in the deep snow", "out in the snow"),
    "desert": ("in the desert", "in the dry desert", "out in the desert"),
    "town": ("in the town", "in a little town", "on a town street"),
    "castle": ("at the castle", "near the old castle", "by the castle"),
    "room": ("in a room", "in a cosy room", "in the room"),
}
TIME_PHRASES = {
    "day": ("by day", "during the day", "on a bright day"),
    "sunset": ("at sunset", "as the sun sets", "in the glow of sunset"),
    "night": ("at night", "in the dark of night", "on a calm night"),
}
SIDE_PHRASES = {
    "left": ("on the left", "on the left side"),
    "centre": ("in the centre", "in the middle"),
    "right": ("on the right", "on the right side"),
}
POSE_WORDS = {                                            # finite verb, -ing form
    "standing": ("stands", "standing"),
    "waving": ("waves", "waving"),
    "jumping": ("jumps", "jumping"),
    "sitting": ("sits", "sitting"),
}
PROP_PHRASES = ("with {a} {prop}", "holding {a} {prop}")
BETWEEN_PHRASES = ("with {a} {prop} between them", "and {a} {prop} is between them")


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def wearing(wearable: str, rng: random.Random | None = None) -> str:
    """"wearing a scarf" or "with glasses": one way to say what is worn."""
    thing = wearable if wearable == "glasses" else f"{article(wearable)} {wearable}"
    word = "wearing" if rng is None else rng.choice(("wearing", "wearing", "with"))
    return f"{word} {thing}"


def dense_prompt(scene: Scene, rng: random.Random | None = None, *, hide: str = "none", first: int = 0,
                 told_from: str = "left") -> str:
    """The dense prompt of a scene, at most 45 words; `rng=None` gives the one canonical wording.

    `hide="identity"` names no species, colour or wearable. Then figure number `first` is "the first hero" (the first
    reference), so heroes may change sides between pages. `told_from` is the side of the figure that is told first.
    Raises ValueError for an unknown `hide` or `told_from`.
    """
    if told_from not in ("left", "right"):
        raise ValueError(f"told_from is {told_from!r}; choose left or right")
    if hide not in ("none", "identity"):
        raise ValueError(f"hide is {hide!r}; choose none or identity")
    say = _Words(scene, rng)
    if not scene.figures:
        return _empty(say, rng)
    if len(scene.figures) == 1:
        return _one(say, scene.figures[0], rng, hide)
    if told_from == "right":
        return _two(say, scene.figures[::-1], rng, hide, 1 - first)
    return _two(say, scene.figures, rng, hide, first)


class _Words:
    """One choice of words for place, time and prop of a scene."""

    def __init__(self, scene: Scene, rng: random.Random | None):
        def pick(options):
            return options[0] if rng is None else rng.choice(options)
        self.place = pick(PLACE_PHRASES[scene.place])
        self.time = pick(TIME_PHRASES[scene.time])
        self.where = f"{self.place} {self.time}" if rng is None or rng.random() < 0.7 else f"{self.time}, {self.place}"
        options = BETWEEN_PHRASES if len(scene.figures) == 2 else PROP_PHRASES
        self.prop = pick(options).format(a=article(scene.prop), prop=scene.prop) if scene.prop else ""
        self.pick = pick


def _empty(say: _Words, rng: random.Random | None) -> str:
    pattern = 0 if rng is None else rng.randrange(3)
    if pattern == 0:
        return f"An empty place {say.place} {say.time}, nobody is there."
    if pattern == 1:
        return _capital(f"{say.time}, {say.place}, nobody is there.")
    return f"A quiet view {say.place} {say.time}, with no hero."


def _who(figure: Figure, rng: random.Random | None, hero: str | None) -> str:
    """"a small red fox wearing a scarf", or the given hero words where the identity is hidden."""
    if hero is not None:
        return hero
    character = figure.character
    size = "" if rng is None else rng.choice(("", "", "little ", "small "))
    noun = f"{size}{character.colour} {character.species}"
    worn = "" if character.wearable is None else " " + wearing(character.wearable, rng)
    return f"{article(noun)} {noun}{worn}"


def _one(say: _Words, figure: Figure, rng: random.Random | None, hide: str) -> str:
    who = _who(figure, rng, "the same hero" if hide == "identity" else None)
    verb, doing = POSE_WORDS[figure.pose]
    side = say.pick(SIDE_PHRASES[figure.position])
    holding = f" {say.prop}" if say.prop else ""
    comma_prop = f", {say.prop}" if say.prop else ""
    where, place, time = say.where, say.place, say.time
    patterns = (
        f"{who} {verb} {side}{holding}, {where}.",
        f"{who} is {doing} {side}{holding}, {where}.",
        f"{side}, {who} {verb}{holding}, {where}.",
        f"{place} {time}, {who} is {doing} {side}{comma_prop}.",
        f"{time}, {who} {verb} {side} {place}{comma_prop}.",
        f"{side}, {doing}{holding}: {who}, {where}.",
        f"{who}, {doing} {side}, {where}{comma_prop}.",
        f"{place}, {who} {verb} {side}{comma_prop}, {time}.",
        f"a story scene {place} {time}: {who} {doing} {side}{comma_prop}.",
        f"a children's picture, {who} {doing} {side}{holding}, {where}.",
        f"{who} {verb}{holding} {side} of the picture, {where}.",
        f"{time} {place}: {who} {verb} {side}{comma_prop}.",
    )
    return _capital(say.pick(patterns))


def _two(say: _Words, figures: tuple[Figure, Figure], rng: random.Random | None, hide: str, first: int) -> str:
    names = ("the first hero", "the second hero") if hide == "identity" else (None, None)
    heroes = (names[0], names[1]) if first == 0 else (names[1], names[0])
    (a, b) = (_who(f, rng, h) for f, h in zip(figures, heroes))
    (va, da), (vb, db) = (POSE_WORDS[f.pose] for f in figures)
    here, there = (say.pick(SIDE_PHRASES[f.position]) for f in figures)
    where, place, time = say.where, say.place, say.time
    prop = f", {say.prop}" if say.prop and not say.prop.startswith("and") else f" {say.prop}" if say.prop else ""
    patterns = (
        f"{a} {va} {here} and {b} {vb} {there}{prop}, {where}.",
        f"{a} is {da} {here} and {b} is {db} {there}{prop}, {where}.",
        f"{here}, {a} {va}; {there}, {b} {vb}{prop}, {where}.",
        f"{place} {time}, {a} is {da} {here} and {b} is {db} {there}{prop}.",
        f"{time}, {a} {va} {here} and {b} {vb} {there}{prop}, {place}.",
        f"{place}, {a} {va} {here}, {b} {vb} {there}{prop}, {time}.",
        f"two heroes {place} {time}: {a} {da} {here} and {b} {db} {there}{prop}.",
        f"a story scene {place} {time}: {a} {da} {here}, {b} {db} {there}{prop}.",
        f"{a} {va} {here}, and {there} {b} {vb}{prop}, {where}.",
        f"{a}, {da} {here}, and {b}, {db} {there}{prop}, {where}.",
    )
    return _capital(say.pick(patterns))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_POSE_FORMS = {form: pose for pose, forms in POSE_WORDS.items() for form in forms}
_SIDE_WORDS = {"left": "left", "centre": "centre", "center": "centre", "middle": "centre", "right": "right"}
_TIME_PATTERNS = (("sunset", r"sunset|sun sets|sunsets|evening|dusk"), ("night", r"nights?|dark"), ("day", r"days?|daytime|sunny|morning"))
_HERO = (r"\b(?:(?P<colour>" + "|".join(COLOURS) + r") )?(?P<species>" + "|".join(HEROES) + r")\b"
         r"|\b(?P<role>same|first|second) hero\b")


def parse_dense_prompt(text: str) -> dict:
    """What a dense prompt says, as a dict; attributes that it does not state are None.

    Keys: place, time, prop, figures (how many), roles, and for the figures in the order in which they are told: species,
    colour, wearable, pose, position, and second_species, second_colour, second_wearable, second_pose, second_position.
    `roles` holds "same", "first", "second" or None per figure. Any text gives a dict, never an exception.
    """
    low = re.sub(r"\s+", " ", text.lower())
    found = {"place": _first_word(low, PLACES), "time": None, "prop": _first_word(low, PROPS)}
    for time, pattern in _TIME_PATTERNS:
        if re.search(rf"\b(?:{pattern})\b", low):
            found["time"] = time
            break
    heroes = list(re.finditer(_HERO, low))[:2]
    found["figures"], found["roles"] = len(heroes), tuple(h["role"] for h in heroes)
    starts = _clause_starts(low, heroes)
    for i, prefix in enumerate(("", "second_")):
        hero = heroes[i] if i < len(heroes) else None
        clause = low[starts[i]:starts[i + 1]] if hero else ""
        after = low[hero.end():starts[i + 1]] if hero else ""
        found[prefix + "species"] = hero["species"] if hero else None
        found[prefix + "colour"] = hero["colour"] if hero else None
        found[prefix + "wearable"] = _first_word(after, WEARABLES) if hero else None
        pose = _first_word(clause, tuple(_POSE_FORMS))
        found[prefix + "pose"] = _POSE_FORMS[pose] if pose else None
        side = _first_word(clause, tuple(_SIDE_WORDS))
        found[prefix + "position"] = _SIDE_WORDS[side] if side else None
    return found


def _clause_starts(low: str, heroes: list[re.Match]) -> list[int]:
    """Where each figure's own words begin, with the end of the text last."""
    if len(heroes) < 2:
        return [0, len(low), len(low)]
    gap = low[heroes[0].end():heroes[1].start()]
    side = re.search(r"\bon the (?:left|right)(?: side)?,? (?:the |an? [a-z ]*)$", gap)   # "..., on the right a blue cat"
    told = side and re.search(r"\b(?:left|right)\b", low[:heroes[0].start()] + gap[:side.start()])
    start = heroes[0].end() + side.start() if told else heroes[1].start()
    return [0, start, len(low)]


def _first_word(text: str, words: tuple[str, ...]) -> str | None:
    match = re.search(r"\b(" + "|".join(words) + r")\b", text)
    return match[1] if match else None


def expected_parse(scene: Scene, *, hide: str = "none", first: int = 0, told_from: str = "left") -> dict:
    """What `parse_dense_prompt` must give for a dense prompt of this scene (the oracle of the tests and of the scores)."""
    hidden = hide == "identity"
    figures = scene.figures
    if told_from == "right" and len(figures) == 2:
        figures, first = figures[::-1], 1 - first
    roles = {0: (), 1: ("same",), 2: ("first", "second") if first == 0 else ("second", "first")}[len(figures)]
    found = {"place": scene.place, "time": scene.time, "prop": scene.prop, "figures": len(scene.figures),
             "roles": roles if hidden else (None,) * len(scene.figures)}
    for i, prefix in enumerate(("", "second_")):
        figure = figures[i] if i < len(figures) else None
        known = figure is not None and not hidden
        found[prefix + "species"] = figure.character.species if known else None
        found[prefix + "colour"] = figure.character.colour if known else None
        found[prefix + "wearable"] = figure.character.wearable if known else None
        found[prefix + "pose"] = figure.pose if figure else None
        found[prefix + "position"] = figure.position if figure else None
    return found


assert set(PLACE_PHRASES) == set(PLACES) and set(TIME_PHRASES) == set(TIMES)
assert set(POSE_WORDS) == set(POSES) and set(SIDE_PHRASES) == set(POSITIONS)
