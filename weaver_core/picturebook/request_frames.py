"""How people ask: the request frames of the story grammar, training and held out, and the phrases that fill them.

A frame is a sentence with slots; `[...]` is left out where its slot was not asked for, and what was asked for but has no
slot in the frame follows as a sentence of its own. Slots: {hero}; {at}, {to} or {place}; {prop}; {time}; {count}.
Frames h.. are held out (splits.json lists them) and never used in training. Pure Python.
"""

from __future__ import annotations

import random
import re

from .captions import article
from .vocabulary import (COLOUR_SYNONYMS, PLACE_SYNONYMS, PROP_SYNONYMS, SPECIES_SYNONYMS, TIME_SYNONYMS, WEARABLE_SYNONYMS)
from .world import Character

_OPENERS = (
    "Tell me a story about {hero}", "Write a story about {hero}", "Please tell a story about {hero}", "I want a story about {hero}",
    "Make a picture book about {hero}", "Create an illustrated story about {hero}", "Can you write a story about {hero}",
    "Could you tell us a tale of {hero}", "A story about {hero}", "Make up a little story about {hero}", "I would like a tale about {hero}",
    "Write me a short picture story with {hero}", "Tell us about {hero}", "Show me a story with {hero}", "We want to read about {hero}",
    "Give me a children's book about {hero}", "A picture book about {hero}", "My child loves {hero}, write about that",
    "Let us hear about {hero}", "Invent an adventure of {hero}", "An adventure with {hero}", "Story: {hero}", "Tell the story of {hero}",
    "Please make a book for children about {hero}")
_TAILS = (
    "[ {at}][ with {prop}][ {time}][ in {count}].",
    "[ {time}][ {at}][, {count}][, with {prop}].",
    "[ finding {prop}][ {at}][ {time}]. [Use {count}.]",
    "[ with {count}][ {at}][. There should be {prop}][. It is {time}].",
    "[ going {to}][ {time}][ with {prop}][, told in {count}].",
)
_WHOLE = (
    "{count} about {hero}[ {at}][ with {prop}][ {time}].", "Make {count} of {hero}[ {at}][ and {prop}][ {time}].",
    "I need {count} for a story about {hero}[ {at}][ {time}][ with {prop}].", "Draw {count} of a story with {hero}[ {at}][ {time}].",
    "With {count}, tell a story about {hero}[ {at}].", "In {count}: {hero}[ {at}][ {time}][ with {prop}].",
    "{hero}[, {place}][, {prop}][, {time}][, {count}]", "{hero}[ {at}][, {count}][, {time}][, {prop}]", "{hero}; [{place}; ][{count}; ][{prop}]",
    "[{place}: ]{hero}[, {count}]", "[{count}, ]{hero}[, {place}][, {prop}]", "[{At}, ]{hero} has an adventure[ with {prop}][ {time}]. [{count}.]",
    "{hero} goes {to}[ {time}][ and finds {prop}]. [Show it in {count}.]", "{hero} finds {prop}[ {at}][ {time}]. [Make {count}.]",
    "What happens to {hero}[ {at}][ {time}]? [Tell it in {count}.]", "What does {hero} do[ {at}][ with {prop}]? [{count}, please.]",
    "Once there was {hero}[ {at}]. Tell what happened next[ in {count}].", "Story with {count}: {hero}[ {at}][, with {prop}].",
    "The hero is {hero}. [The place is {place}. ][There are {count}. ][Use {prop}.]", "Hero: {hero}. [Place: {place}. ][Pictures: {count}. ][Thing: {prop}.]",
    "[{count}. ]Hero: {hero}. [Time: {time}. ][Place: {place}.]", "My story is about {hero}[. It happens {at}][. It is {time}][. It has {count}].",
    "{hero} is my favourite. Write a story[ {at}][ with {count}][ and {prop}].", "A day with {hero}[ {at}][, in {count}][, with {prop}].",
    "[{At}, ]there is {hero}[ with {prop}]. Tell me more[ in {count}].", "I dreamed of {hero}[ {at}][ {time}]. [Make {count} of it.]",
    "Can we have {count} with {hero}[ {at}][ and {prop}]?", "Please illustrate {hero}[ {at}][ {time}] [in {count}].",
    "Think of {hero}[ {at}][ with {prop}]. Now tell the story[ in {count}].", "Make it {count}: {hero}[ {at}][ {time}][ with {prop}].",
    "Let {hero} go {to}[ {time}][ and meet {prop}]. [{count}.]", "The title is up to you. {hero}[ {at}][, {count}].",
    "[Make {count}. ][The place is {place}. ]The hero is {hero}.", "[I want {count}. ][It plays {at}. ]It is about {hero}[ and {prop}].",
    "Please, a story! {hero}[ {at}], please[ with {count}].", "[It is {time}. ]{hero} is {at}. What comes next? [Tell it with {count}.]",
)
TRAIN_FRAMES = {f"t{o + 1:02d}{'abcde'[t]}": opener + tail for o, opener in enumerate(_OPENERS) for t, tail in enumerate(_TAILS)} | {
    f"w{i + 1:02d}": frame for i, frame in enumerate(_WHOLE)}
HELD_OUT_FRAMES = {f"h{i + 1:02d}": frame for i, frame in enumerate((
    "Hello! Would you kindly come up with something involving {hero}[ {at}][ {time}]? [We were thinking of {count}.]",
    "My daughter can't sleep. She asks for {hero}[ {at}][ and {prop}]. [Please go for {count}.]",
    "Imagine {hero}[ {at}][, {time}][, holding {prop}]; [{count} would be great].",
    "Spin a yarn around {hero}[ {at}], [spread over {count}].",
    "[Exactly {count}, no more. ]Main character: {hero}. [Setting: {place}.]",
    "How would {hero} spend a day[ {at}]? [Answer with {count}.]",
    "I'm making a small booklet; its star is {hero}[ and everything takes place {at}][. It needs {count}].",
    "Once more, with feeling: {hero}[ {at}][, {count}][, plus {prop}].",
    "[{count} wanted: ]{hero} on a trip {to}[ {time}].",
    "Let's follow {hero} {to}[, {time}]. [Stop after {count}.]",
    "For the class newspaper we need {hero}[ {at}] [as {count}].",
    "Grandpa always talked about {hero}[ {at}]. Retell it[, using {count}].",
    "Surprise me with {hero}[, somewhere {at}][, across {count}].",
    "Do you know {hero}? [They live {at}. ]I'd love to see their adventures[ laid out as {count}].",
    "Comic strip, [{count}, ]starring {hero}[, {at}][, {time}].",
    "[Setting the scene {at}: ]{hero} discovers {prop}. [Needs {count}.]",
    "Please come up with {count} that show {hero}[ {at}][ {time}].",
    "Could {hero} be the main character? [Put them {at}. ][Split it into {count}.]",
    "It's raining outside, so let's read something with {hero}[ {at}] [- {count}, please].",
    "hey, quick one: {hero}[ + {place}][ + {prop}][ = {count}]",
    "We are looking for a gentle read-aloud on {hero}[ {at}][; length: {count}].",
    "A friend asked me for {count} where {hero} explores[ {at}][ {time}].",
    "Theme of the week is {hero}[, location {place}][. Deliver {count}].",
    "Somebody should draw {hero}[ {at}][, {time}]! [{count} sounds right.]",
    "No time to lose, {hero} must hurry {to}[ with {prop}]! [Show this through {count}.]",
    "What if {hero} woke up {at}[ {time}]? [Sketch that as {count}.]",
    "[Number of parts: {count}. ]Who: {hero}. [Where: {at}.] [When: {time}.]",
    "Kindly prepare a tiny tale in which {hero} appears[ {at}][ next to {prop}][, consisting of {count}].",
    "There's this character I like, {hero}. [Send them {to}. ][{count} will do.]",
    "Our kindergarten voted for {hero}[ {at}], [so please give us {count}].",
))}
_LEFTOVER = {
    "train": {"place": ("It happens {at}.", "The place is {place}.", "They are {at}."), "prop": ("There is {prop} in it.", "It has {prop} in it.", "Put {prop} in it."),
              "time": ("It is {time}.", "It happens {time}."), "count": ("Please make {count}.", "{count}.", "It needs {count}.", "Use {count}.")},
    "held_out": {"place": ("Set everything {at}.",), "prop": ("Work in {prop} somewhere.",), "time": ("All of it {time}.",),
                 "count": ("Aim for {count}.", "In total {count}.")},
}
DRAW_FRAMES = {f"d{i + 1:02d}": frame for i, frame in enumerate((
    "Draw {hero}[ {pose}][ {at}][ {time}][ with {prop}][, {side}].", "Paint {hero}[ {pose}][ {at}][ with {prop}][ {time}].",
    "A picture of {hero}[ {pose}][ {side}][ {at}][ {time}][ with {prop}].", "Please draw {hero}[ {at}][ {time}].",
    "Show me {hero}[ {pose}][ {at}][ {time}].", "One picture: {hero}[ {pose}][ {at}][, {time}][, with {prop}].",
    "I want to see {hero}[ {pose}][ {side}][ {at}][ {time}].", "Draw me one image of {hero}[ {at}][ with {prop}][ {time}].",
    "Make an image of {hero}[ {pose}][ {at}][ {time}][ holding {prop}].", "An illustration of {hero}[ {at}][ {time}].",
    "Can you draw {hero}[ {pose}][ {at}][ {time}]?", "Just one drawing: {hero}[ {side}][ {at}][ {time}][ with {prop}]."))}
FILLERS = (
    "It is for my son.", "It is for my daughter.", "We read it at bedtime.", "It is for school.", "Please make it funny.", "Thank you!",
    "Thanks.", "Please.", "It should be short.", "My kids love stories.", "Make it sweet and kind.", "It is a birthday surprise.",
    "For children of four years.", "Keep it simple.", "No scary parts, please.", "I will read it to my class.", "Make it exciting!",
    "He is three years old.", "She is five years old.", "We love your stories.", "Use easy words.", "Let it end well.", "Have fun!",
    "It is for our little book club.", "Grandma wants to read it.", "We had a long trip and need some rest.", "Hello!", "Hi there!",
    "Good morning!", "Dear story teller,", "I hope you like the idea.", "Surprise us!", "The kids are waiting.", "Be creative.",
    "It may be a bit silly.", "Friendship is important in it.", "It should teach sharing.", "I have to go to work soon.", "You are great at this.",
    "The last story was very good.", "My little brother cannot sleep.", "We are sitting on the sofa.", "In simple English, please.",
    "Do not make it too long.", "This is my first try.", "Can you do that?", "I am so curious!", "That would be great.", "Take your time.")
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
_COUNTED = (("picture", "pictures"), ("image", "images"), ("page", "pages"), ("illustration", "illustrations"), ("drawing", "drawings"), ("scene", "scenes"))
_VAGUE_HEROES = ("a hero", "someone", "an animal", "a little friend", "a brave hero", "somebody nice")
_VAGUE_PAIRS = ("two heroes", "two friends", "two animals")
REFERENCE_HEROES = ("the hero in the picture", "this little one", "the one in the image", "this hero", "my hero here", "the figure in the photo",
                    "the character shown here", "the little one in the picture")
REFERENCE_PAIRS = ("these two heroes", "the two heroes in the pictures", "these two friends", "the friends in the images", "these two")
_SIDES = {"left": ("on the left", "on the left side"), "centre": ("in the middle", "in the centre"), "right": ("on the right", "on the right side")}
_TO = {"in": "to", "on": "to", "at": "to", "by": "to", "among": "into", "under": "under"}


def count_phrase(rng: random.Random, count: int) -> str:
    """"4 pictures", "four pages", "a single image"."""
    one, many = rng.choice(_COUNTED[:4] if rng.random() < 0.85 else _COUNTED)
    if count == 1:
        return rng.choice((f"one {one}", f"1 {one}", f"a single {one}", f"only one {one}", f"just one {one}"))
    number = str(count) if rng.random() < 0.55 else NUMBER_WORDS[count]
    return f"{number} {rng.choice(('', '', '', '', 'nice ', 'colourful '))}{many}"


def say_word(rng: random.Random, word: str, synonyms: dict, share: float = 0.25) -> str:
    return rng.choice(synonyms[word]) if word in synonyms and rng.random() < share else word


def hero_phrase(rng: random.Random, *, name: str | None, colour: str | None, species: str | None, wearable: str | None) -> str:
    """A noun phrase for a hero out of what is told about it; `species` and `colour` may be words the world does not know."""
    size = rng.choice(("", "", "", "little ", "small ", "brave ", "tiny ", "friendly "))
    if species is None and colour is None and wearable is None:
        if name is None:
            return rng.choice(_VAGUE_HEROES)
        return rng.choice((name, name, f"a hero named {name}", f"someone called {name}"))
    kind = species or rng.choice(("hero", "friend", "animal"))
    worn = ""
    if wearable is not None:
        thing = say_word(rng, wearable, WEARABLE_SYNONYMS, 0.12)
        thing = thing if thing in ("glasses", "spectacles") else f"{article(thing)} {thing}"
        worn = " " + rng.choice(("with {}", "wearing {}", "in {}" if wearable in ("hat", "scarf") else "with {}", "who wears {}")).format(thing)
    told = colour is not None and rng.random() < 0.08     # "a fox who is blue"
    noun = size + ("" if colour is None or told else say_word(rng, colour, COLOUR_SYNONYMS, 0.05) + " ") + kind
    told_colour = f" who is {colour}" if told else ""
    a = f"{article(noun)} {noun}"
    if name is None:
        return a + worn + told_colour
    return rng.choice((
        f"{a} named {name}{worn}{told_colour}", f"{a} called {name}{worn}{told_colour}",
        f"{name} the {noun}{worn}{told_colour}", f"{name}, {a}{worn}{told_colour}", f"{name} ({a}{worn}{told_colour})", f"the {noun} {name}{worn}{told_colour}"))


def vague_pair(rng: random.Random) -> str:
    return rng.choice(_VAGUE_PAIRS)


def place_phrases(rng: random.Random, places: tuple[str, ...], at_place: dict[str, str]) -> dict[str, str]:
    """{at}, {to} and {place} for one place or a way from one place to another; a place outside the world keeps its own phrase."""
    share = 0.3 if len(places) == 1 else 0.0
    at = [rng.choice(PLACE_SYNONYMS[p]) if p in PLACE_SYNONYMS and rng.random() < share else at_place.get(p, p) for p in places]
    first, _, rest = at[0].partition(" ")
    to = f"{_TO[first]} {rest}" if first in _TO and at[0] not in ("in winter", "at home", "in space") else at[0]
    noun = rest if first in _TO and rng.random() < 0.5 else re.sub(r"^(?:\w+ )?(?:the|an?) ", "", at[0])
    if len(at) == 1:
        return {"at": at[0], "to": to, "place": noun}
    bare = [re.sub(r"^(?:in|on|at|by|among) ", "", a) for a in at]
    way = f"from {bare[0]} to {bare[1]}"
    return {"at": f"going {way}", "to": way, "place": f"first {at[0]}, then {at[1]}"}


def time_phrase(rng: random.Random, time: str) -> str:
    return rng.choice(TIME_SYNONYMS[time])


def prop_phrase(rng: random.Random, prop: str) -> str:
    word = say_word(rng, prop, PROP_SYNONYMS)
    return f"{article(word)} {word}"


def side_phrase(rng: random.Random, side: str) -> str:
    return rng.choice(_SIDES[side])


def fill(rng: random.Random, frame: str, slots: dict[str, str], *, split: str) -> str:
    """The request of a frame: optional groups without a value go, values without a slot follow as sentences."""
    groups = {"at": "place", "to": "place", "place": "place", "At": "place"}
    given = {groups.get(name, name) for name in slots}
    if "at" in slots:
        slots = slots | {"At": slots["at"][0].upper() + slots["at"][1:]}
    used: set[str] = set()

    def optional(match: re.Match) -> str:
        wanted = re.findall(r"\{(\w+)\}", match[1])
        if any(w not in slots or groups.get(w, w) in used for w in wanted):
            return ""
        used.update(groups.get(w, w) for w in wanted)
        return match[1]

    text = re.sub(r"\[([^\]]*)\]", optional, frame)
    bare = re.findall(r"\{(\w+)\}", text)
    for name in bare:                                     # a slot outside brackets that was not asked for
        used.add(groups.get(name, name))
    defaults = {"count": "a few pictures", "prop": "something", "place": "anywhere", "at": "somewhere", "to": "out", "time": "some day"}
    text = re.sub(r"\{(\w+)\}", lambda m: slots.get(m[1], defaults.get(m[1], "")), text)
    text = re.sub(r"\s+", " ", text).strip().rstrip(",; ")
    text = re.sub(r"[;,:]\.", ".", re.sub(r" ([.,;?!])", r"\1", re.sub(r"([.?!]) ?\.", r"\1", text)))
    rest = [g for g in ("place", "prop", "time", "count") if g in given and g not in used]
    rng.shuffle(rest)
    for group in rest:
        sentence = rng.choice(_LEFTOVER[split][group]).format(**slots)
        if group == "place" and slots["at"].startswith("going "):
            sentence = f"It goes {slots['to']}."
        text += ("" if text[-1] in ".?!" else ".") + " " + sentence
    return re.sub(r"(^|[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def frames_need(frame: str) -> set[str]:
    """Slots that a frame shows outside brackets (besides the hero), by what is asked for."""
    bare = re.findall(r"\{(\w+)\}", re.sub(r"\[[^\]]*\]", "", frame))
    return {{"at": "place", "to": "place", "At": "place"}.get(b, b) for b in bare} - {"hero"}


def character_words(rng: random.Random, character: Character) -> tuple[str, str]:
    """Colour and species of a character, the species sometimes by a synonym."""
    return character.colour, say_word(rng, character.species, SPECIES_SYNONYMS)
