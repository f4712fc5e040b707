"""Which words of a request the picture-book world knows, under which names, and which nouns it does not know.

`known_words` is what the command line and the nodes use for the warning "This small world knows heroes: ...; places: ...".
The training requests of grammar.py use the same synonyms, so the planner has met them. Pure Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .world import COLOURS, HEROES, PLACES, PROPS, TIMES, WEARABLES

# Other words for what the world holds. Phrases of places carry their preposition, because "on the shore" is not "in the shore".
SPECIES_SYNONYMS = {
    "fox": ("fox cub", "foxy"), "cat": ("kitten", "kitty", "pussycat"), "rabbit": ("bunny", "bunny rabbit", "hare"),
    "bear": ("bear cub", "teddy bear", "teddy"), "dog": ("puppy", "doggy", "pup"), "frog": ("froggy", "toad"),
    "mouse": ("mousie",), "pig": ("piglet", "piggy"), "koala": ("koala bear",), "lion": ("lion cub",),
    "monkey": ("ape", "chimp"), "robot": ("android", "machine"),
}
COLOUR_SYNONYMS = {"red": ("scarlet",), "orange": ("ginger",), "yellow": ("golden",), "green": ("emerald",),
                   "blue": ("azure",), "purple": ("violet", "lilac"), "pink": ("rosy",)}
WEARABLE_SYNONYMS = {"scarf": ("shawl",), "hat": ("cap",), "glasses": ("spectacles",), "crown": ("tiara",), "bow": ("ribbon",)}
PROP_SYNONYMS = {"gift": ("present", "parcel"), "ball": ("toy ball",), "book": ("storybook",), "cake": ("birthday cake",),
                 "lollipop": ("lolly",), "umbrella": ("parasol",), "flower": ("blossom", "rose")}
PLACE_SYNONYMS = {
    "meadow": ("in a field", "on the grassland", "in the flower fields", "in the grass"),
    "beach": ("at the seaside", "on the shore", "by the sea", "at the coast"),
    "forest": ("in the woods", "in the jungle", "among the trees", "in the wood"),
    "snow": ("in winter", "in a winter land", "in the ice and snow", "in the snowy hills"),
    "desert": ("in the dunes", "in the hot sand dunes", "in the sandy desert"),
    "town": ("in the city", "in a village", "on the street", "downtown"),
    "castle": ("at the palace", "in the king's castle", "at the fortress"),
    "room": ("in the bedroom", "in the house", "at home", "in the playroom", "indoors"),
}
TIME_SYNONYMS = {
    "day": ("during the day", "in the daytime", "on a sunny day", "in the morning", "at noon"),
    "sunset": ("at sunset", "in the evening", "at dusk", "at sundown"),
    "night": ("at night", "after dark", "under the moon", "at midnight", "in the moonlight"),
}
# Nouns children ask for which this world cannot draw.
UNKNOWN_HEROES = ("dragon", "unicorn", "princess", "pirate", "dinosaur", "mermaid", "horse", "knight", "witch", "elephant",
                  "penguin", "fairy", "wizard", "shark", "hedgehog", "astronaut", "owl", "giraffe", "duck", "bee", "turtle", "wolf")
UNKNOWN_PLACES = ("on the moon", "in a spaceship", "under the sea", "on a pirate ship", "in space", "on an island",
                  "in a submarine", "on a volcano", "at the zoo", "in a supermarket", "on a farm", "in the circus", "on a train")
UNKNOWN_PROPS = ("sword", "pizza", "car", "castle cake", "magic wand", "bicycle", "drum", "treasure map", "rocket", "camera",
                 "skateboard", "ice cream", "telescope", "boat", "hammer", "teapot")
UNKNOWN_COLOURS = ("black", "white", "brown", "grey", "silver", "rainbow")

_PLACE_NOUNS = {
    "meadow": ("meadows", "field", "fields", "grassland", "grass"), "beach": ("seaside", "shore", "sea", "coast", "beaches"),
    "forest": ("woods", "wood", "jungle", "trees", "woodland", "forests"),
    "snow": ("winter", "snowy", "ice"), "desert": ("dunes", "dune"), "town": ("city", "village", "street", "downtown"),
    "castle": ("palace", "fortress"), "room": ("bedroom", "house", "home", "playroom", "indoors", "kitchen"),
}
_TIME_WORDS = {"day": ("daytime", "morning", "noon", "sunny", "daylight", "afternoon"), "sunset": ("evening", "dusk", "sundown"),
               "night": ("dark", "midnight", "moonlight", "nighttime")}


def _meanings(words, synonyms) -> dict[str, str]:
    return {form: word for word in words for form in (word, *synonyms.get(word, ()))}


# Every form that names a thing -> the world's own word for it.
SPECIES_OF, COLOUR_OF = _meanings(HEROES, SPECIES_SYNONYMS), _meanings(COLOURS, COLOUR_SYNONYMS)
WEARABLE_OF, PROP_OF = _meanings(WEARABLES, WEARABLE_SYNONYMS), _meanings(PROPS, PROP_SYNONYMS)


def any_of(words) -> str:
    """A regular expression for one of some words; the longest first, so that "teddy bear" is not read as "teddy"."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownWords:
    """What a request names, in the world's own words and in the order in which it is told; `unknown` keeps the user's words."""

    species: tuple[str, ...]
    colours: tuple[str, ...]
    wearables: tuple[str, ...]
    props: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]
    unknown: tuple[str, ...]

    def warning(self) -> str | None:
        """One line for the user, or None where the world knows all that was asked for."""
        if self.species and self.places and not self.unknown:
            return None
        reasons = []
        if self.unknown:
            reasons.append("does not know " + ", ".join(self.unknown))
        if not self.species:
            reasons.append("found no hero that it knows")
        if not self.places:
            reasons.append("found no place that it knows")
        return (f"This small world {' and '.join(reasons)}, and chooses something near. It knows heroes: {', '.join(HEROES)}; "
                f"colours: {', '.join(COLOURS)}; places: {', '.join(PLACES)}; things: {', '.join(PROPS)}; "
                f"worn: {', '.join(WEARABLES)}; times: {', '.join(TIMES)}.")


def _table() -> dict[str, tuple[str, str]]:
    """Every known word or phrase in lower case -> (kind, the world's word)."""
    table = {}
    for kind, words, synonyms in (("species", HEROES, SPECIES_SYNONYMS), ("colours", COLOURS, COLOUR_SYNONYMS),
                                  ("wearables", WEARABLES, WEARABLE_SYNONYMS), ("props", PROPS, PROP_SYNONYMS),
                                  ("places", PLACES, _PLACE_NOUNS), ("times", TIMES, _TIME_WORDS)):
        for word in words:
            for form in (word, *synonyms.get(word, ())):
                table[form] = (kind, word)
                if kind in ("species", "props"):
                    table[form[:-1] + "ies" if form.endswith("y") else form + "s"] = (kind, word)
    table["mice"] = ("species", "mouse")
    table["foxes"] = ("species", "fox")
    for phrase in (*UNKNOWN_HEROES, *UNKNOWN_PROPS, *UNKNOWN_COLOURS, *(re.sub(r"^\w+ (?:the|an?) ", "", p) for p in UNKNOWN_PLACES)):
        table.setdefault(phrase.removeprefix("in "), ("unknown", phrase.removeprefix("in ")))
    return table


_TABLE = _table()
_PATTERN = re.compile(rf"\b({any_of(_TABLE)})\b")


def known_words(request: str) -> KnownWords:
    """What of a request the picture-book world knows, and which nouns it is sure not to know.

    Longest phrase first, so "castle cake" is one unknown thing and "teddy bear" one bear. Only a list of usual nouns counts
    as unknown: a word that is not listed may be a name or a filler.
    """
    found: dict[str, list[str]] = {kind: [] for kind in KnownWords.__dataclass_fields__}
    for match in _PATTERN.finditer(request.lower()):
        kind, word = _TABLE[match[1]]
        if word not in found[kind]:
            found[kind].append(word)
    return KnownWords(**{kind: tuple(words) for kind, words in found.items()})
