"""Heroes keep the names that the request gives them, also those that the planner's training lacked.

Measured: of names in its training the planner copied 6 of 6 out of "a story about Zoe the blue cat", of others ("Amelia") none: it wrote
of a Jack. At the start of a request even known names were lost in 4 of 8. So it is told such heroes under a name that it knows, and
that name is translated back in what it writes. Pure Python.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

from .request_frames import TRAIN_FRAMES
from .story_words import MORE_NAMES, NAMES
from .vocabulary import COLOUR_OF, SPECIES_OF, any_of

_KNOWN = {*NAMES, *MORE_NAMES}
_LOOK = any_of((*COLOUR_OF, *SPECIES_OF))
_NO_NAMES = {word for frame in TRAIN_FRAMES.values() for word in re.findall(r"[a-z]+", frame.lower())} | set(_LOOK.split("|")) | {
    "after", "again", "also", "because", "before", "but", "dear", "during", "every", "hello", "hey", "hi", "if", "later", "maybe", "mr", "mrs", "ms",
    "never", "no", "now", "only", "sometimes", "soon", "still", "suddenly", "then", "there", "though", "today", "tomorrow", "tonight", "until",
    "whenever", "while", "yes", "yesterday", "captain", "doctor", "king", "queen", "prince", "princess", "sir", "lady", "uncle", "aunt",
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
    "paint", "sketch", "illustrate", "describe", "imagine", "follow", "help", "watch", "see", "send", "bring", "feature", "render", "depict",
    "include", "use", "keep", "compose", "generate", "design", "get", "find", "visit", "join"}  # fmt: skip
_TITLES = "Captain|Doctor|Dr\\.?|Mr\\.?|Mrs\\.?|Ms\\.?|King|Queen|Prince|Princess|Sir|Lady|Uncle|Aunt|Little|Old|Big"
_NAME = rf"(?:(?:{_TITLES}) )?[A-ZÀ-ÖØ-Þ][^\W\d_]+(?:-[^\W\d_]+)?"
_HERO = rf"(?:\w+ ){{0,3}}(?:{_LOOK}|hero)\b"
_TOLD = tuple(map(re.compile, (
    rf"\b(?:named|called) (?P<a>{_NAME})(?: and (?P<b>{_NAME}))?",
    rf"\b(?P<a>{_NAME})(?:,? the | (?:is|was) (?:the|an?|my|our) |, (?:an?|my|our) | \((?:the|an?) |, ){_HERO}",
    rf"\b(?i:the|an?|my|our) (?:\w+ ){{0,3}}(?:{_LOOK}) (?P<a>{_NAME})",
    rf"\b(?P<a>{_NAME}) and (?P<b>{_NAME}),? (?:are )?(?:the |my |our )?two ",
)))  # fmt: skip


class Names:
    """Names of a request's heroes, and the ones under which the planner is told of them (`stand_ins`)."""

    def __init__(self, request: str, given: Iterable[str] = ()):
        """request: the words of the user; given: names that are known to be names, such as those of a cast."""
        self.all = found = tuple(dict.fromkeys([*given, *_told(request)]))
        self.stand_ins: dict[str, str] = {}
        for name in found:
            if name not in _KNOWN:
                free = [known for known in NAMES if known not in request and known not in found and known not in self.stand_ins.values()]
                if not free:  # more names than the planner knows: the others are told as they are
                    break
                self.stand_ins[name] = free[zlib.crc32(name.encode()) % len(free)]
        self._known = _pattern(self.stand_ins)
        self._users = {known: name for name, known in self.stand_ins.items()}
        self._back = _pattern(self._users)

    def told(self, request: str) -> str:
        """The request in names that the planner knows. At its very start it does not see a name as one, so something stands before it."""
        return self.known(f"Story: {request}" if self.all and _pattern(self.all).match(request) else request)

    def known(self, text: str) -> str:
        """A text of the story in names that the planner knows."""
        return self._known.sub(lambda found: self.stand_ins[found[0]], text) if self.stand_ins else text

    def back(self, text: str) -> str:
        """A text of the planner in the user's names."""
        return self._back.sub(lambda found: self._users[found[0]], text) if self.stand_ins else text

    def streamed(self, pieces: Iterable[str]) -> Iterator[str]:
        """`back` of a text that comes in pieces; the last word waits for its end."""
        waiting = ""
        for piece in pieces:
            if not self.stand_ins:
                yield piece
                continue
            waiting += piece
            end = re.search(r"[^\W\d_]*\Z", waiting).start()
            if end:
                yield self.back(waiting[:end])
                waiting = waiting[end:]
        if waiting:
            yield self.back(waiting)


def _told(request: str) -> Iterator[str]:
    for pattern in _TOLD:
        for found in pattern.finditer(request):
            for name in found.groupdict().values():
                if name and not all(word.lower().strip(".") in _NO_NAMES for word in name.split()):
                    yield name if name.split()[0].lower().strip(".") not in _NO_NAMES or len(name.split()) > 1 else name.split(" ", 1)[1]


def _pattern(names) -> re.Pattern:
    return re.compile(rf"(?<!\w)(?:{any_of(names)})(?!\w)")
