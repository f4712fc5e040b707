"""A request in the wordings that the picture-book planner was trained on: "Pink Rabbit in a castle" -> "A pink rabbit at a castle".

Its training knew heroes with an article and castles one is "at". Without, it takes another colour or another place, measured: "pink
rabbit in the forest" came out pink in 0 of 3 stories, "a pink rabbit in the forest" in 3 of 3. Pure Python.
"""

from __future__ import annotations

import re

from .captions import article
from .vocabulary import COLOUR_OF, PROP_OF, SPECIES_OF, WEARABLE_OF, any_of
from .world import HEROES

_LOOKS = "very|so|little|small|tiny|cute|sweet|big|young|old|happy|sad|brave|funny|lazy|sleepy|friendly|curious|clever|shy"

_COLOUR, _SPECIES = any_of(COLOUR_OF), any_of(SPECIES_OF)
_THING = any_of({*WEARABLE_OF, *PROP_OF} - {"glasses", "spectacles"})
# A hero without an article: at the start, behind a mark, or behind a word that names follow. Without a colour only the plain words
# count, because a Teddy or a Kitty may be a name.
_BARE_HERO = re.compile(
    rf"(?P<before>\A|[.,;:!?(\n]\s*|\s[-–—]\s+|\b(?:and|or|about|of|with|starring|featuring|meets?)\s+)"
    rf"(?P<named>(?:(?:{_LOOKS}) )*(?:(?:{_COLOUR}),? (?:{_SPECIES})|(?:{any_of(HEROES)})))(?![\w'’-])", re.IGNORECASE)
_BARE_THING = re.compile(
    rf"(?P<before>\b(?:wearing|wears|with|holding|holds|finds?|has|gets|carrying|carries)\s+)"
    rf"(?P<named>(?:(?:{_LOOKS}|{_COLOUR}) )*(?:{_THING}))(?![\w'’-])", re.IGNORECASE)
_ENUMERATED = re.compile(rf"\b(?:{_LOOKS}|{_COLOUR})\Z", re.IGNORECASE)  # "a small, red fox"
_REWORDED = (
    (re.compile(r"\bin(?=(?: (?:the|an?|my|his|her|their))?(?: \w+)? (?:castle|palace|fortress)\b)", re.IGNORECASE), "at"),
    (re.compile(r"\bin (?:my|our|your) (?=(?:bed|play)?room\b)", re.IGNORECASE), "in the "),
    (re.compile(r"\bin (?:the|an?|my|his|her|our|their) kitchen\b", re.IGNORECASE), "in the house"),
)


def as_trained(request: str) -> str:
    """The request, with what was never in the training's wordings said in those; all else stays as it is."""
    if request.isupper():
        return as_trained(request.lower()).upper()
    for wording, known in _REWORDED:
        request = wording.sub(known, request)
    return _BARE_THING.sub(_with_article, _BARE_HERO.sub(_with_article, request))


def _with_article(found: re.Match) -> str:
    named, before = found["named"].lower(), found["before"]
    if before.startswith(",") and _ENUMERATED.search(found.string, max(0, found.start() - 20), found.start()):
        return found[0]
    word = article(named)
    starts = not before or before.rstrip()[-1:] in ".!?\n"
    return f"{before}{word.capitalize() if starts else word} {named}"
