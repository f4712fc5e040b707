"""The story grammar: random requests and the picture-book stories that answer them, with exact markup and exact scenes.

Every page is a text of one to three short sentences, a dense prompt and the Scene it describes; text and prompt agree by
construction (see story_words.py). Counting is local: page k opens with a connective of class k, the last of two or more
pages with one of the final class, and a single page with one of class 1. Pure Python; deterministic in its generator.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import request_frames as ask
from . import story_words as words
from .captions import article, dense_prompt
from .splits import (held_out_place, held_out_prop, sample_scene, sample_wearable)
from .vocabulary import UNKNOWN_COLOURS, UNKNOWN_HEROES, UNKNOWN_PLACES, UNKNOWN_PROPS
from .world import PLACES, POSES, POSITIONS, PROPS, TIMES, Character, Figure, Scene

DEFAULT_COUNT = 4
_COUNT_WEIGHTS = (12, 12, 15, 16, 12, 11, 11, 11)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryRecord:
    """One training story: the request, the planner's exact answer (without the end-of-sequence token) and its scenes.

    `known` is what the request fixed: num_images, heroes (dicts with name, species, colour, wearable; None = free), places,
    time and prop. `first_hero` gives per page the index of the figure that is the first hero (the first reference).
    """

    request: str
    num_images: int
    title: str
    cast: tuple[str, ...]
    characters: tuple[Character, ...]
    markup: str
    texts: tuple[str, ...]
    prompts: tuple[str, ...]
    scenes: tuple[Scene, ...]
    first_hero: tuple[int, ...]
    known: dict
    frame: str
    with_reference: bool = False
    language: str = "en"


@dataclass(slots=True, kw_only=True)
class _Facts:
    """What is true in the story, and which of it the request tells."""

    count: int
    cast: list[Character]
    names: list[str]
    places: tuple[str, ...]
    time: str
    prop: str | None
    told: set[str]
    unknown: dict[str, str]
    with_reference: bool
    drawing: bool = False
    pose: str = "standing"
    side: str = "centre"


def sample_story(rng: random.Random, *, split: str = "train", num_images: int | None = None, two_heroes: bool | None = None,
                 with_reference: bool = False) -> StoryRecord:
    """A random request and its story.

    `split="train"` uses training frames and training scenes only; `"held_out"` uses held-out frames, and in half of the
    stories held-out characters or species/place pairs as well. `num_images` 1 to 8, `two_heroes` and `with_reference` fix
    what is otherwise drawn. With references the story and its prompts never tell species, colour or wearable.
    """
    if split not in ("train", "held_out"):
        raise ValueError(f"split is {split!r}; choose train or held_out")
    if num_images is not None and not 1 <= num_images <= 8:
        raise ValueError(f"num_images is {num_images}; a picture-book story has 1 to 8 images")
    facts = _sample_facts(rng, split, num_images, two_heroes, with_reference)
    frame, request = _request(rng, facts, split)
    pages = [_drawing(rng, facts)] if facts.drawing else _pages(rng, facts, split)
    title = _title(rng, facts, [scene.prop for _, scene in pages])
    first_hero = tuple(0 if len(s.figures) < 2 or s.figures[0].character == facts.cast[0] else 1 for _, s in pages)
    hide = "identity" if with_reference else "none"
    prompts = tuple(dense_prompt(scene, rng, hide=hide, first=first) for (_, scene), first in zip(pages, first_hero))
    markup = markup_of(title, [text for text, _ in pages], prompts)
    if not facts.drawing and rng.random() < 0.2:
        markup += "\nThe end."
    heroes = [{"name": facts.names[i] if f"name{i}" in facts.told else None,
               "species": c.species if f"species{i}" in facts.told else None,
               "colour": c.colour if f"colour{i}" in facts.told else None,
               "wearable": c.wearable if f"wearable{i}" in facts.told else None} for i, c in enumerate(facts.cast)]
    known = {"num_images": facts.count if "count" in facts.told else None, "heroes": heroes,
             "places": list(facts.places) if "place" in facts.told else [], "time": facts.time if "time" in facts.told else None,
             "prop": facts.prop if "prop" in facts.told else None}
    return StoryRecord(request=request, num_images=facts.count, title=title, cast=tuple(facts.names), characters=tuple(facts.cast),
                       markup=markup, texts=tuple(t for t, _ in pages), prompts=prompts, scenes=tuple(s for _, s in pages),
                       first_hero=first_hero, known=known, frame=frame, with_reference=with_reference)


def markup_of(title: str, texts, prompts) -> str:
    """The exact markup the native planner writes, without the end-of-sequence token."""
    return f"# {title}\n" + "\n".join(f"{text} <imagine>{prompt}</imagine><BOI>" for text, prompt in zip(texts, prompts))


# ---------------------------------------------------------------------------------------------------------- the facts

def _sample_facts(rng, split, num_images, two_heroes, with_reference) -> _Facts:
    count = num_images or rng.choices(range(1, 9), _COUNT_WEIGHTS)[0]
    pair = rng.random() < 0.2 if two_heroes is None else two_heroes
    cast, places = _cast_and_places(rng, split, count, pair)
    time = rng.choices(TIMES, (60, 18, 22))[0]
    prop = _free_prop(rng, split, places, time)
    told = set()
    name_pool = words.NAMES
    for i, character in enumerate(cast):
        if with_reference:
            told |= {f"name{i}"} if rng.random() < 0.4 else set()
            continue
        told |= {f"{kind}{i}" for kind, share in (("name", 0.6), ("species", 0.92), ("colour", 0.8)) if rng.random() < share}
        if character.wearable is not None and rng.random() < 0.7:
            told.add(f"wearable{i}")
    told |= {kind for kind, share in (("place", 0.85), ("time", 0.28)) if rng.random() < share}
    if prop is not None and rng.random() < 0.5:
        told.add("prop")
    if count != DEFAULT_COUNT or rng.random() < 0.7:
        told.add("count")
    names = []
    for i in range(len(cast)):
        names.append(_name(rng, name_pool, names, given=f"name{i}" in told))
    if len(places) == 2:
        told.add("place")
    if time != "day" and "time" not in told and rng.random() < 0.7:
        time = "day"
        if prop and split == "train" and any(held_out_prop(p, time, prop) for p in places):
            prop = None
            told.discard("prop")
    facts = _Facts(count=count, cast=cast, names=names, places=places, time=time, prop=prop, told=told, unknown={},
                   with_reference=with_reference)
    facts.drawing = count == 1 and not pair and not with_reference and rng.random() < 0.5
    facts.pose, facts.side = rng.choice(POSES), rng.choice(POSITIONS)
    _ask_the_unknown(rng, facts)
    return facts


def _cast_and_places(rng, split, count, pair) -> tuple[list[Character], tuple[str, ...]]:
    unseen = split == "held_out" and rng.random() < 0.5
    base = sample_scene(rng, split="held_out" if unseen else "train", figures=2 if pair else 1)
    cast = [replace(f.character, wearable=sample_wearable(rng)) for f in base.figures]
    if pair and rng.random() < 0.5:
        cast.reverse()
    places = (base.place,)
    if count >= 3 and rng.random() < 0.1:
        others = [p for p in PLACES if p != base.place and not any(held_out_place(c.species, p) for c in cast)]
        places = (base.place, rng.choice(others))
    return cast, places


def _free_prop(rng, split, places, time) -> str | None:
    if rng.random() < 0.12:
        return None
    return rng.choice([p for p in PROPS if split == "held_out" or not any(held_out_prop(place, time, p) for place in places)])


def _name(rng, pool, taken, *, given: bool) -> str:
    """A name from the list; given names are often others, some made of syllables, so that copying a name is learnt."""
    while True:
        draw = rng.random()
        if not given or draw < 0.4:
            name = rng.choice(pool)
        elif draw < 0.75:
            name = rng.choice(words.MORE_NAMES)
        else:
            name = "".join(rng.choice(words.SYLLABLES) for _ in range(rng.choice((2, 2, 3)))).capitalize()
        if name not in taken:
            return name


def _ask_the_unknown(rng, facts: _Facts) -> None:
    """Let a twelfth of the requests ask for things that this world lacks; the story then uses what it has."""
    if facts.with_reference or rng.random() > 0.08:
        return
    kind = rng.choice(("species0", "species0", "place", "prop", "colour0"))
    if kind in facts.told or kind == "prop":
        facts.told.discard(kind)
        if kind == "place" and len(facts.places) == 2:
            facts.places = facts.places[:1]
        nouns = {"species0": UNKNOWN_HEROES, "place": UNKNOWN_PLACES, "prop": UNKNOWN_PROPS, "colour0": UNKNOWN_COLOURS}[kind]
        facts.unknown[kind] = rng.choice(nouns)


# -------------------------------------------------------------------------------------------------------- the request

def _request(rng, facts: _Facts, split: str) -> tuple[str, str]:
    """A request that tells exactly the told facts, and the id of its frame."""
    slots = {"hero": _hero_words(rng, facts, split)}
    if "place" in facts.told:
        slots |= ask.place_phrases(rng, facts.places, words.AT_PLACE)
    elif "place" in facts.unknown:
        slots |= ask.place_phrases(rng, (facts.unknown["place"],), {})
    if "prop" in facts.told:
        slots["prop"] = ask.prop_phrase(rng, facts.prop, ask.thing_words(rng) if split == "train" and not facts.with_reference else "")
    elif "prop" in facts.unknown:
        noun = facts.unknown["prop"]
        slots["prop"] = f"{article(noun)} {noun}"
    if "time" in facts.told:
        slots["time"] = ask.time_phrase(rng, facts.time)
    frames = ask.HELD_OUT_FRAMES if split == "held_out" else ask.TRAIN_FRAMES
    if facts.drawing:
        frames = {k: f for k, f in frames.items() if "story" not in f and "tale" not in f} if split == "held_out" else ask.DRAW_FRAMES
        facts.told |= {"count"}
        if split == "held_out" or rng.random() < 0.1:
            slots["count"] = ask.count_phrase(rng, 1)
        slots["pose"], slots["side"] = facts.pose, ask.side_phrase(rng, facts.side)
    elif "count" in facts.told:
        slots["count"] = ask.count_phrase(rng, facts.count)
    given = {"place" if k == "at" else k for k in slots}
    usable = [k for k, f in frames.items() if ask.frames_need(f) <= given]
    frame = rng.choice(usable)
    if facts.drawing and "{pose}" not in frames[frame]:
        facts.pose = rng.choice(POSES)
    text = ask.fill(rng, frames[frame], slots, split=split)
    for _ in range(0 if facts.drawing else rng.choices((0, 1, 2, 4), (76, 16, 5, 3))[0]):
        filler = rng.choice(ask.FILLERS if split == "held_out" else ask.FILLERS + ask.TRAIN_FILLERS)
        text = f"{filler} {text}" if rng.random() < 0.4 else text + ("" if text[-1] in ".?!" else ".") + f" {filler}"
    return frame, _noise(rng, text)


def _hero_words(rng, facts: _Facts, split: str) -> str:
    if facts.with_reference:
        return _reference_words(rng, facts)
    phrases = []
    for i, character in enumerate(facts.cast):
        colour, species = ask.character_words(rng, character)
        phrases.append(ask.hero_phrase(
            rng, name=facts.names[i] if f"name{i}" in facts.told else None,
            colour=colour if f"colour{i}" in facts.told else facts.unknown.get(f"colour{i}"),
            species=species if f"species{i}" in facts.told else facts.unknown.get(f"species{i}"),
            wearable=character.wearable if f"wearable{i}" in facts.told else None,
            thing_words=ask.thing_words(rng) if split == "train" and f"wearable{i}" in facts.told else ""))
    if len(phrases) == 1:
        return phrases[0]
    if not any(t[-1] in "01" for t in facts.told) and not facts.unknown:
        return ask.vague_pair(rng)
    return rng.choice(("{} and {}", "{} and {}", "{} together with {}", "two friends, {} and {}", "{} and the friend {}")).format(*phrases)


def _reference_words(rng, facts: _Facts) -> str:
    names = [n if f"name{i}" in facts.told else None for i, n in enumerate(facts.names)]
    if len(names) == 1:
        phrase = rng.choice(ask.REFERENCE_HEROES)
        return phrase if names[0] is None else rng.choice((f"{names[0]}, {phrase}", f"{phrase} named {names[0]}", f"{phrase} called {names[0]}"))
    phrase = rng.choice(ask.REFERENCE_PAIRS)
    if all(names):
        return rng.choice((f"{phrase}, {names[0]} and {names[1]}", f"{names[0]} and {names[1]}, {phrase}"))
    facts.told -= {"name0", "name1"}
    return phrase


def _noise(rng, text: str) -> str:
    """Lower and upper case, lost or loud punctuation: how people really type."""
    draw = rng.random()
    if draw < 0.14:
        text = text.lower()
    elif draw < 0.16:
        text = text.upper()
    draw = rng.random()
    if draw < 0.12:
        return text.rstrip(".!")
    return text.rstrip(".") + "!" if draw < 0.17 and text[-1] != "?" else text


# ---------------------------------------------------------------------------------------------------------- the story

def _title(rng, facts: _Facts, props: list[str | None]) -> str:
    if facts.drawing and "name0" not in facts.told:
        return f"{article(facts.cast[0].colour).capitalize()} {facts.cast[0].colour.capitalize()} {facts.cast[0].species.capitalize()}"
    at = words.TITLE_PLACE[facts.places[0]]
    names = " and ".join(facts.names)
    options = [f"{names} {at}", f"{names} {at}", f"The Story of {names}", f"An Adventure of {names}"]
    if facts.prop in props and facts.prop is not None:
        options += [f"{', '.join(facts.names)} and the {facts.prop.capitalize()}"] * 2
    if len(facts.cast) == 1:
        options += [f"{names}'s Adventure"]
        if not facts.with_reference:
            options += [f"{names} the {facts.cast[0].colour.capitalize()} {facts.cast[0].species.capitalize()}"] * 2
    return rng.choice(options)


def _drawing(rng, facts: _Facts) -> tuple[str, Scene]:
    """The one page that answers "Draw a blue fox at the beach at night."."""
    c = facts.cast[0]
    told = "name0" in facts.told
    prop = facts.prop if "prop" in facts.told or rng.random() < 0.5 else None
    who = f"{facts.names[0]} the {c.colour} {c.species}" if told else f"{article(c.colour)} {c.colour} {c.species}"
    worn = "" if c.wearable is None else f" with {c.wearable if c.wearable == 'glasses' else 'a ' + c.wearable}"
    time = {"day": "by day", "sunset": "at sunset", "night": "at night"}[facts.time]
    held = f", with {article(prop)} {prop}" if prop else ""
    text = f"{rng.choice(words.LOOKING)} {who}{worn}, {facts.pose} {words.AT_PLACE[facts.places[0]]} {time}{held}."
    return text, _scene(rng, facts, facts.places[0], facts.time, [0], [facts.pose], prop, side=facts.side)


def _scene(rng, facts: _Facts, place, time, present, poses, prop, side=None) -> Scene:
    figures = [Figure(character=facts.cast[i], pose=p) for i, p in zip(present, poses)]
    if len(figures) == 2:
        if rng.random() < 0.25:
            figures.reverse()
        figures = [replace(f, position=p) for f, p in zip(figures, ("left", "right"))]
    else:
        figures = [replace(figures[0], position=side or rng.choice(POSITIONS))]
    return Scene(place=place, time=time, figures=tuple(figures), prop=prop, seed=rng.randrange(2 ** 31))


def _pages(rng, facts: _Facts, split: str) -> list[tuple[str, Scene]]:
    n = facts.count
    times, places = _course(rng, facts)
    props = _props(rng, facts, split, places, times)
    alone_until = 1 if len(facts.cast) == 2 and n >= 3 and rng.random() < 0.2 else 0
    pages, seen, used = [], set(), set()
    for k in range(1, n + 1):
        place, time, prop = places[k - 1], times[k - 1], props[k - 1]
        present = [0] if k <= alone_until else list(range(len(facts.cast)))
        poses = [rng.choices(POSES, (34, 22, 22, 22))[0] for _ in present]
        if len(poses) == 2 and rng.random() < 0.5:
            poses[1] = poses[0]
        page = _Page(rng, facts, k, place, time, prop, present, poses, known_prop=prop in seen,
                     moved=k > 1 and place != places[k - 2], new_time=k > 1 and time != times[k - 2],
                     meets=alone_until > 0 and k == alone_until + 1, used=used)
        pages.append((page.text(), _scene(rng, facts, place, time, present, poses, prop)))
        seen.add(prop)
    return pages


def _course(rng, facts: _Facts) -> tuple[list[str], list[str]]:
    """Time and place of every page: time may move on, the place changes where the request asks for a way."""
    n = facts.count
    times = [facts.time] * n
    if n >= 3 and "time" not in facts.told and rng.random() < 0.4:
        start = TIMES.index(facts.time)
        for cut in sorted(rng.sample(range(1, n), min(2 - start, 2, n - 1, rng.choice((1, 1, 2)))) if start < 2 else []):
            times[cut:] = [TIMES[TIMES.index(times[cut - 1]) + 1]] * (n - cut)
    places = [facts.places[0]] * n
    if len(facts.places) == 2:
        cut = rng.randrange(1, n)
        places[cut:] = [facts.places[1]] * (n - cut)
    return times, places


def _props(rng, facts: _Facts, split: str, places, times) -> list[str | None]:
    """The prop of every page: the story's own from where it is found, sometimes another one, sometimes none."""
    n, told = facts.count, "prop" in facts.told
    start = 0 if told or n == 1 else rng.choice((0, 1, 1, 2)) % n
    props: list[str | None] = []
    for k in range(n):
        prop = None
        if facts.prop is not None and k >= start:
            prop = facts.prop if rng.random() < (0.85 if told else 0.65) or k == start else None
        if prop is None and not told and k > 0 and rng.random() < 0.3:
            prop = rng.choice(PROPS)
        if prop and split == "train" and held_out_prop(places[k], times[k], prop):
            prop = None
        props.append(prop)
    return props


class _Page:
    """The words of one page. Each sentence names only what the page's picture shows."""

    def __init__(self, rng, facts, k, place, time, prop, present, poses, *, known_prop, moved, new_time, meets, used):
        self.rng, self.facts, self.k, self.place, self.time, self.prop = rng, facts, k, place, time, prop
        self.poses, self.pair, self.known_prop = poses, len(present) == 2, known_prop
        self.moved, self.new_time, self.meets, self.used = moved, new_time, meets, used
        self.N = facts.names[0]
        self.names = f"{facts.names[0]} and {facts.names[1]}" if self.pair else self.N

    def text(self) -> str:
        rng, last = self.rng, self.k == self.facts.count and self.k > 1
        if self.k == 1:
            sentences = self.opening()
        else:
            sentences = self.middle(last)
        if last or self.k == self.facts.count:
            if rng.random() < 0.35 and len(sentences) < 3:
                sentences.append(rng.choice(words.CLOSERS[self.time] + words.CLOSERS_ANY))
        elif rng.random() < 0.3 and len(sentences) < 3:
            mood = self.choose(words.MOODS_TWO if self.pair else words.MOODS)
            sentences.append(mood.format(T=self.other_name()))
        return " ".join(sentences)

    def opening(self) -> list[str]:
        rng, c = self.rng, self.facts.cast[0]
        opening = rng.choice(words.OPENINGS[self.time])
        hidden = self.facts.with_reference
        if self.pair:
            who = self.names if hidden or rng.random() < 0.4 else " and ".join(
                f"{n} the {c.colour} {c.species}" for n, c in zip(self.facts.names, self.facts.cast))
            first = self.say(words.WENT_TWO, who)
        elif not hidden and rng.random() < 0.3:
            kind = f"{c.colour} {c.species}"
            first = self.say(words.LIVED, self.N, A=f"{article(kind)} {kind}" if rng.random() < 0.5 else f"a little {kind}")
        else:
            who = self.N if hidden or rng.random() < 0.3 else f"{self.N} the {c.colour} {c.species}"
            first = self.say(words.WENT, who)
        act = self.act("They" if self.pair else self.other_name())
        return [f"{opening}, {first}.", *act]

    def middle(self, last: bool) -> list[str]:
        rng = self.rng
        connective = rng.choice(words.FINAL if last else words.CONNECTIVES[self.k])
        lead = []
        if self.meets:
            friend = self.facts.cast[1]
            who = self.facts.names[1] if self.facts.with_reference else f"{self.facts.names[1]} the {friend.colour} {friend.species}"
            lead = [f"{self.N} met {who}"]
        elif self.moved:
            lead = [self.say(words.MOVED, self.names)]
        if self.new_time:
            lead = [self.choose(words.TIME_CAME[self.time])] + [_upper(sentence) for sentence in lead]
        subject = self.names if not lead else ("They" if self.pair else self.other_name())
        act = self.end(subject) if last and not (self.pair and len(set(self.poses)) == 2) else self.act(subject)
        if lead:
            return [f"{connective}, {lead[0]}.", *(f"{sentence}." for sentence in lead[1:]), *act]
        head = act[0]
        if head.startswith(("The ", "They ", "It ")):
            head = head[0].lower() + head[1:]
        return [f"{connective}, {head}", *act[1:]]

    def act(self, subject: str) -> list[str]:
        """What happens, as whole sentences: it tells the prop and every pose that is not standing."""
        rng, prop = self.rng, self.prop
        if self.pair and len(set(self.poses)) == 2:
            a, b = (rng.choice(words.POSE_CLAUSES[p]) for p in self.poses)
            poses = f"{self.facts.names[0]} {a} and {self.facts.names[1]} {b}."
            if prop is None:
                return [poses]
            verb = "played with" if self.known_prop else "found"
            return [f"{subject} {verb} {self.P()}.", poses]
        pose = self.poses[0]
        if prop is None:
            return [f"{subject} {self.choose(words.ALONE_ANY[pose] + words.ALONE[pose][self.place] * 2)}."]
        if not self.known_prop:
            return [self.say(words.FOUND[pose], subject) + "."]
        own = words.PLAYED[prop].get(pose, ())
        options = own * 2 + tuple(o.format(prop=prop) for o in words.PLAYED_ANY[pose])
        return [f"{subject} {self.choose(options)}."]

    def end(self, subject: str) -> list[str]:
        if self.prop is None:
            return [_upper(self.say(words.ENDED[self.poses[0]], subject)) + "."]
        if not self.known_prop:
            return self.act(subject)
        return [_upper(self.say(words.ENDED_WITH[self.poses[0]], subject)) + "."]

    def say(self, options, subject: str, **more) -> str:
        return self.choose(options).format(
            S=subject, was="were" if self.pair else "was", N=self.N, P=self.P(),
            at=words.AT_PLACE[self.place], to=words.TO_PLACE[self.place], **more)

    def choose(self, options) -> str:
        """One of the options, preferably one that this story has not used yet."""
        text = self.rng.choice([o for o in options if o not in self.used] or options)
        self.used.add(text)
        return text

    def P(self) -> str:
        if self.prop is None:
            return ""
        return f"the {self.prop}" if self.known_prop else f"{article(self.prop)} {self.prop}"

    def other_name(self) -> str:
        """The hero again: by name, or as "the little fox"."""
        if self.facts.with_reference:
            return self.N if self.rng.random() < 0.7 else "The little hero"
        return self.N if self.rng.random() < 0.5 else f"The little {self.facts.cast[0].species}"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


# --------------------------------------------------------------------------------------------- understanding, samples

def sample_understanding(rng: random.Random, *, split: str = "train") -> tuple[Scene, str, str]:
    """A scene, a question about its picture and the answer: what the planner's eyes are trained with."""
    scene = sample_scene(rng, split=split)
    at = words.AT_PLACE[scene.place]
    time = {"day": "day", "sunset": "sunset", "night": "night"}[scene.time]
    asks = [(("Where is this?", "What place is this?", "Where does this happen?"), f"{at[0].upper()}{at[1:]}."),
            (("What time is it?", "Is it day, sunset or night?", "When is this?"), f"It is {time}."),
            (("How many heroes are there?", "How many heroes do you see?"), ("None.", "One.", "Two.")[len(scene.figures)]),
            (("Describe the picture.", "What do you see?", "Write a dense prompt for this picture."), dense_prompt(scene))]
    if scene.figures:
        asks.append((("What thing is there?", "What does the hero hold?", "Which thing do you see?"),
                     f"{article(scene.prop).capitalize()} {scene.prop}." if scene.prop else "Nothing."))
    for figure in scene.figures:
        c = figure.character
        who = "the hero" if len(scene.figures) == 1 else f"the hero on the {figure.position}"
        worn = "Nothing." if c.wearable is None else "Glasses." if c.wearable == "glasses" else f"A {c.wearable}."
        asks += [((f"Who is {who}?", f"What animal is {who}?"),
                  f"A {c.species}." if rng.random() < 0.5 else f"{article(c.colour).capitalize()} {c.colour} {c.species}."),
                 ((f"What colour is {who}?", f"Which colour has {who}?"), f"{c.colour.capitalize()}."),
                 ((f"What does {who} wear?", f"What is {who} wearing?"), worn),
                 ((f"What is {who} doing?",), f"{figure.pose.capitalize()}."), ]
        if len(scene.figures) == 1:
            side = "In the centre." if figure.position == "centre" else f"On the {figure.position}."
            asks.append(((f"Where does {who} stand?", f"On which side is {who}?"), side))
    questions, answer = rng.choice(asks)
    return scene, rng.choice(questions), answer


def tokenizer_texts(seed: int = 0, count: int = 20_000) -> Iterator[str]:
    """Texts for training the tokenizer: requests, stories, prompts, questions and answers, all from the training split."""
    rng = random.Random(seed)
    for i in range(count):
        if i % 6 == 5:
            _, question, answer = sample_understanding(rng)
            yield f"{question} {answer}"
        else:
            story = sample_story(rng, with_reference=i % 6 == 4)
            yield story.request
            yield story.markup.replace("<imagine>", " ").replace("</imagine><BOI>", " ")
