"""How people ask: the request frames of the story grammar, training and held out, and the phrases that fill them.

A frame is a sentence with slots; `[...]` is left out where its slot was not asked for, and what was asked for but has no
slot in the frame follows as a sentence of its own. Slots: {hero}; {at}, {to} or {place}; {prop}; {time}; {count}.
Frames h.. are held out (splits.json lists them) and never used in training. Pure Python.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache

from .captions import article
from .vocabulary import (
    COLOUR_SYNONYMS, PLACE_SYNONYMS, PROP_SYNONYMS, SPECIES_SYNONYMS, TIME_SYNONYMS, UNKNOWN_COLOURS, WEARABLE_SYNONYMS)
from .world import COLOURS, Character

_OPENERS = (
    "Tell me a story about {hero}", "Write a story about {hero}", "Please tell a story about {hero}", "I want a story about {hero}",
    "Make a picture book about {hero}", "Create an illustrated story about {hero}", "Can you write a story about {hero}",
    "Could you tell us a tale of {hero}", "A story about {hero}", "Make up a little story about {hero}", "I would like a tale about {hero}",
    "Write me a short picture story with {hero}", "Tell us about {hero}", "Show me a story with {hero}", "We want to read about {hero}",
    "Give me a children's book about {hero}", "A picture book about {hero}", "My child loves {hero}, write about that",
    "Let us hear about {hero}", "Invent an adventure of {hero}", "An adventure with {hero}", "Story: {hero}", "Tell the story of {hero}",
    "Please make a book for children about {hero}", "Meet {hero}", "Today's story belongs to {hero}", "Our next book follows {hero}",
    "I am thinking of {hero}", "The main part goes to {hero}", "How about {hero}", "My nephew drew {hero}, make a book of that",
    "In my head there is {hero}", "The whole class wants {hero}", "For bedtime we picked {hero}", "Start a series about {hero}",
    "Everyone at home knows {hero}", "You will like {hero}", "Somewhere lives {hero}", "A present for my aunt: a book about {hero}",
    "My two sisters want {hero}", "Both my parents like {hero}, so write about that", "A tale for two sleepy kids: {hero}",
    "My friends and I love {hero}", "This book is for twins and is about {hero}")
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
    "The hero is {hero}. [The place is {place}. ][There are {count}. ][Use {prop}.]",
    "Hero: {hero}. [Place: {place}. ][Pictures: {count}. ][Thing: {prop}.]",
    "[{count}. ]Hero: {hero}. [Time: {time}. ][Place: {place}.]", "My story is about {hero}[. It happens {at}][. It is {time}][. It has {count}].",
    "{hero} is my favourite. Write a story[ {at}][ with {count}][ and {prop}].", "A day with {hero}[ {at}][, in {count}][, with {prop}].",
    "[{At}, ]there is {hero}[ with {prop}]. Tell me more[ in {count}].", "I dreamed of {hero}[ {at}][ {time}]. [Make {count} of it.]",
    "Can we have {count} with {hero}[ {at}][ and {prop}]?", "Please illustrate {hero}[ {at}][ {time}] [in {count}].",
    "Think of {hero}[ {at}][ with {prop}]. Now tell the story[ in {count}].", "Make it {count}: {hero}[ {at}][ {time}][ with {prop}].",
    "Let {hero} go {to}[ {time}][ and meet {prop}]. [{count}.]", "The title is up to you. {hero}[ {at}][, {count}].",
    "[Make {count}. ][The place is {place}. ]The hero is {hero}.", "[I want {count}. ][It plays {at}. ]It is about {hero}[ and {prop}].",
    "Please, a story! {hero}[ {at}], please[ with {count}].", "[It is {time}. ]{hero} is {at}. What comes next? [Tell it with {count}.]",
    "This is {hero}. [They like {prop}. ][Show them {at}. ][Take {count}.]", "Who is {hero}? [You find them {at}. ][Explain it with {count}.]",
    "Take {hero}[, put them {at}][, add {prop}] and write. [{count}.]", "Guess what: {hero} is here[, {at}][, {time}]. [I want it as {count}.]",
    "The lead is {hero}. [All of it happens {at}. ][Length: {count}.]", "[Where? {At}. ][When? {time}. ]Who? {hero}. [How long? {count}.]",
    "Only {hero}, nobody else[, {at}][, in {count}].", "{hero} again! [This time {at}][, with {prop}][, {count}].",
    "Chapter one: {hero}[ {at}]. [{count}.]", "Dear writer, {hero} is waiting[ {at}]. [Bring {count}.]",
    "Please plan {count}. [Put them {at}. ]The one that matters is {hero}.", "For my blog: {hero}[ {at}][ {time}][, {count}][, {prop}].",
    "[{count}! ]{hero}[ {at}]!", "Try this: {hero}[ {at}][ looks for {prop}][, {count}].", "An easy one for you, {hero}[ {at}][ and {count}].",
    "I have {count} to fill and {hero} to put there[, all {at}].", "Say hello to {hero}. [Home is {place}. ][We print {count}.]",
    "What would {hero} see[ {at}][ {time}]? [Show {count}.]", "Show how {hero} gets {to}[ {time}][ with {prop}]. [{count} are enough.]",
    "{hero} wants to go {to}. [It takes {count}.]", "Picture this: {hero}[ {at}][, {time}][, {prop} nearby]. [{count}.]",
    "A bedtime thing with {hero} in the lead[, {at}][, {time}][, {count}].", "No long talk: {hero}[, {place}][, {count}].",
    "I need a gift, a story whose hero is {hero}[, and it is all {at}][. It should have {count}].",
    "Please do something[ of {count}] on {hero}[ {at}].",
    "Have you heard of {hero}? [Their home is {at}. ][Tell me everything in {count}.]", "[{At} ]one can see {hero}. [Their story has {count}.]",
    "I know {hero}. [They once were {at}. ][They had {prop}. ][Make {count} for me.]",
    "My booklet has {hero} on the cover[ and plays {at}]. [Fill {count}.]",
    "Be so kind and write down how {hero} came {to}[ {time}][, with {count}].", "Kids at school talk of {hero}[ {at}]. [Give them {count}.]",
)
# Requests of several sentences: who it is about, then where, when, with what and how many, in any order. Most say "they", "it" or
# "everything" of one hero, or go on with "and": who is to be drawn is only said where the heroes are.
_LEADS = (
    "Our hero is {hero}", "I have a puppet, {hero}", "The play is about {hero}", "You remember {hero}, right", "Did you ever meet {hero}",
    "Have you seen {hero}", "Look, {hero}", "There comes {hero}", "Everybody should meet {hero}", "Think about {hero}",
    "Write down what {hero} did", "We keep thinking of {hero}", "On the cover there is {hero}", "I painted {hero}", "The lead part is for {hero}",
    "A card for my uncle should show {hero}", "Our wall calendar is about {hero}", "Nothing but {hero} today", "The poster needs {hero}",
    "Let it be about {hero}", "This time it is {hero}", "I miss {hero}", "Say we meet {hero}", "Suppose there were {hero}",
    "He wants to hear of {hero}", "She asks for {hero}", "They ask for {hero}", "The twins chose {hero}", "My two sons chose {hero}",
    "Our family likes {hero}", "Let us talk about {hero}", "Go on with {hero}", "It begins with {hero}", "It all turns around {hero}",
    "Is there a story about {hero}", "Could it be {hero}", "Would {hero} do", "Why not {hero}", "And now {hero}", "Well, {hero}",
    "The name of the book says it: {hero}", "For the wall of our room: {hero}", "Wanted: {hero}", "As always, {hero}", "Right, so {hero}",
    "I found a stone that looks like {hero}", "Our teacher speaks of {hero}", "In the old song there was {hero}", "I will be {hero} at the party",
    "We wrote a letter to {hero}", "My sister wants to be {hero}", "It should be {hero} who does it", "Guess who, it is {hero}")
_JOINED = (" and the place is {place}", " and it begins {at}", " and all is {at}", " and you choose the rest", " and I love it", " and we go {to}",
           " and it is {time}", " and everything is {time}", " and nothing else", " and not much more", " and that is all", " and the end is happy",
           " and there is {prop}", " and some day {prop} is found", " and it comes in {count}", " and we want {count}", " and you make {count}",
           " and it gets {count}")
_WHERE = ("They stay {at}.", "They are seen {at}.", "They went {to}.", "He lives {at}.", "She lives {at}.", "It lives {at}.", "Its house is {at}.",
          "Their nest is {at}.", "Everything is {at}.", "All happens {at}.", "We see it {at}.", "We start {at}.", "One meets them {at}.",
          "You see them {at}.", "Days are spent {at}.", "Home means {at}.", "{At} it is nice.", "{At} they feel well.", "Go {to}.",
          "For the place take this: {place}.", "Everyone knows the place: {place}.", "The scenery is easy: {place}.", "Where? {At}.")
_WHEN = ("It is {time}.", "They come {time}.", "Everything is {time}.", "We are there {time}.", "The light is as {time}.", "Make it {time}.",
         "When? {Time}.", "Each picture is {time}.")
_WHICH = ("They have {prop}.", "They found {prop}.", "There is {prop}, too.", "With {prop}.", "Do not forget {prop}.", "It plays with {prop}.",
          "He has {prop}.", "She loves {prop}.", "{prop} would be nice.", "Give them {prop}.", "Let {prop} be in it.")
_HOW_MANY = ("We have room for {count}.", "{count}.", "{count}, please.", "{count}, not more.", "I pay for {count}.", "It takes {count}.",
             "It is to have {count}.", "Please give us {count}.", "Do it in {count}.", "I would like {count}.", "We hang up {count}.",
             "They get {count}.", "Show everything in {count}.", "{count} and that is it.", "How much? {count}.", "The size is {count}.")


def _composed(number: int) -> str:
    """One frame of several sentences; the same for the same number."""
    rng = random.Random(f"frame/{number}")
    lead = _LEADS[number % len(_LEADS)]
    groups = rng.sample((_WHERE, _WHEN, _WHICH, _HOW_MANY), 4)
    sentences = [f"[{rng.choice(group)} ]" for group in groups]
    before = rng.choices((0, 1, 2), (75, 20, 5))[0]
    joined = rng.choice(_JOINED) if rng.random() < 0.5 else ""
    ending = "? " if lead.startswith(("Did", "Have", "Is", "Could", "Would", "Why", "You")) else rng.choice((". ", ". ", "! ", "... "))
    return "".join(sentences[:before]) + lead + (f"[{joined}]" if "{" in joined else joined) + ending + "".join(sentences[before:])


TRAIN_FRAMES = {f"t{o + 1:02d}{'abcde'[t]}": opener + tail for o, opener in enumerate(_OPENERS) for t, tail in enumerate(_TAILS)} | {
    f"w{i + 1:02d}": frame for i, frame in enumerate(_WHOLE)} | {f"s{number:03d}": _composed(number) for number in range(8 * len(_LEADS))}
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
    "train": {"place": ("It happens {at}.", "The place is {place}.", "They are {at}."),
              "prop": ("There is {prop} in it.", "It has {prop} in it.", "Put {prop} in it."),
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
# Numbers and company that are not in the story: who is to be drawn is only said where the heroes are.
TRAIN_FILLERS = (
    "My two boys will read it.", "We are three teachers.", "Both grandparents will listen.", "There are four of us.", "It is for my twins.",
    "My friends and I want to read it.", "Five kids are waiting here.", "I have read two stories already.", "They are all very excited.",
    "We are a big family.", "My cousins will love them.", "She reads with her friend.", "Ours is a class of twenty.", "They sleep in the same room.")
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
_COUNTED = (("picture", "pictures"), ("image", "images"), ("page", "pages"),
            ("illustration", "illustrations"), ("drawing", "drawings"), ("scene", "scenes"))
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


def hero_phrase(rng: random.Random, *, name: str | None, colour: str | None, species: str | None, wearable: str | None,
                thing_words: str = "") -> str:
    """A noun phrase for a hero out of what is told about it; `species` and `colour` may be words the world does not know.

    `thing_words` go before what is worn: "red ".
    """
    size = rng.choice(("", "", "", "little ", "small ", "brave ", "tiny ", "friendly "))
    if species is None and colour is None and wearable is None:
        if name is None:
            return rng.choice(_VAGUE_HEROES)
        return rng.choice((name, name, f"a hero named {name}", f"someone called {name}"))
    kind = species or rng.choice(("hero", "friend", "animal"))
    worn = ""
    if wearable is not None:
        thing = say_word(rng, wearable, WEARABLE_SYNONYMS, 0.12)
        thing = thing_words + thing if thing in ("glasses", "spectacles") else f"{article(thing_words + thing)} {thing_words}{thing}"
        worn = " " + rng.choice(("with {}", "wearing {}", "in {}" if wearable in ("hat", "scarf") else "with {}", "who wears {}")).format(thing)
    told = colour is not None and rng.random() < 0.08     # "a fox who is blue"
    noun = size + ("" if colour is None or told else say_word(rng, colour, COLOUR_SYNONYMS, 0.05) + " ") + kind
    told_colour = f" who is {colour}" if told else ""
    a = f"{article(noun)} {noun}"
    if name is None:
        return a + worn + told_colour
    return rng.choice((
        f"{a} named {name}{worn}{told_colour}", f"{a} called {name}{worn}{told_colour}",
        f"{name} the {noun}{worn}{told_colour}", f"{name}, {a}{worn}{told_colour}",
        f"{name} ({a}{worn}{told_colour})", f"the {noun} {name}{worn}{told_colour}"))


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


def prop_phrase(rng: random.Random, prop: str, thing_words: str = "") -> str:
    word = thing_words + say_word(rng, prop, PROP_SYNONYMS)
    return f"{article(word)} {word}"


def thing_words(rng: random.Random) -> str:
    """What people say of things: mostly nothing, else a colour or a size. The world's things have neither, and heroes do not get it."""
    draw = rng.random()
    if draw < 0.7:
        return ""
    if draw < 0.92:
        return rng.choice((*COLOURS, *COLOURS, *UNKNOWN_COLOURS)) + " "
    return rng.choice(("big ", "old ", "shiny ", "new ", "very large ", "broken ", "lovely ", "round ", "magic "))


def side_phrase(rng: random.Random, side: str) -> str:
    return rng.choice(_SIDES[side])


def fill(rng: random.Random, frame: str, slots: dict[str, str], *, split: str) -> str:
    """The request of a frame: optional groups without a value go, values without a slot follow as sentences."""
    groups = {"at": "place", "to": "place", "place": "place", "At": "place", "Time": "time"}
    given = {groups.get(name, name) for name in slots}
    if "at" in slots:
        slots = slots | {"At": slots["at"][0].upper() + slots["at"][1:]}
    if "time" in slots:
        slots = slots | {"Time": slots["time"][0].upper() + slots["time"][1:]}
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


@lru_cache(maxsize=None)
def frames_need(frame: str) -> frozenset[str]:
    """Slots that a frame shows outside brackets (besides the hero), by what is asked for."""
    bare = re.findall(r"\{(\w+)\}", re.sub(r"\[[^\]]*\]", "", frame))
    return frozenset({{"at": "place", "to": "place", "At": "place"}.get(b, b) for b in bare} - {"hero"})


def character_words(rng: random.Random, character: Character) -> tuple[str, str]:
    """Colour and species of a character, the species sometimes by a synonym."""
    return character.colour, say_word(rng, character.species, SPECIES_SYNONYMS)
