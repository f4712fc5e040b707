"""The parts of a plan: text segments, image segments and members of the cast.

All are immutable and checked when made, so whoever holds one need not check again. A message begins with the name of
the field (`prompt: expected text, got number`), which lets the JSON reader put the path in front of it.

Outer white space is not part of a segment: `TextSegment(id="t1", text=" Hello ")` holds "Hello". So the markup, where
white space between segments means nothing, can spell every plan.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Control characters (a terminal would obey some of them, XML and PNG texts refuse others), lone halves of surrogate
# pairs (cannot be written as UTF-8) and the two non-characters. White space that people use is allowed.
ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
SEGMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")  # goes into file names, so it is narrow
LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}\Z")
ASPECT = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})\Z")
MIN_SIDE, MAX_SIDE = 16, 16384  # the upper bound is ComfyUI's own
MAX_SEED = 2**64 - 1
KINDS = ("character", "place")


def kind_of(value: object) -> str:
    """The everyday name of a JSON type, for error messages."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return type(value).__name__


def check_text(field: str, value: object, *, empty: bool = False) -> str:
    """The text without outer white space; ValueError when it is none, is empty, or holds control characters."""
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected text, got {kind_of(value)}")
    bad = ILLEGAL.search(value)
    if bad:
        raise ValueError(
            f"{field}: character U+{ord(bad.group()):04X} at position {bad.start()} cannot be stored; remove it"
        )
    value = value.strip()
    if not value and not empty:
        raise ValueError(f"{field}: expected text, got an empty one; write something or remove it")
    return value


def check_name(field: str, value: object) -> str:
    """A name on one line, inner white space collapsed."""
    name = " ".join(check_text(field, value).split())
    if len(name) > 200:
        raise ValueError(f"{field}: expected a name of at most 200 characters, got {len(name)}")
    return name


def check_names(field: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, tuple):
        raise ValueError(f"{field}: expected a list of names, got {kind_of(value)}")
    names = tuple(check_name(f"{field}[{i}]", name) for i, name in enumerate(value))
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{field}[{i}]: {name!r} is named twice; remove one")
    return names


def check_id(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected text, got {kind_of(value)}")
    if not SEGMENT_ID.match(value):
        raise ValueError(
            f"{field}: {value[:80]!r} is no segment id; use 1 to 64 letters, digits, '-' or '_', beginning with a "
            "letter or digit"
        )
    return value


def check_language(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected a language code such as 'en', got {kind_of(value)}")
    if not LANGUAGE.match(value):
        raise ValueError(f"{field}: {value[:40]!r} is no language code; use one such as 'en', 'de' or 'zh-Hant'")
    return value


def check_size(field: str, value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if (
        not isinstance(value, tuple)
        or len(value) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) for side in value)
    ):
        raise ValueError(f"{field}: expected width and height in pixels such as [1024, 768], got {kind_of(value)}")
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in value):
        raise ValueError(f"{field}: {value[0]} x {value[1]}; both sides must lie in {MIN_SIDE}..{MAX_SIDE} pixels")
    return value


def check_aspect(field: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected an aspect ratio such as '4:3', got {kind_of(value)}")
    found = ASPECT.match(value)
    if not found or not 1 / 20 <= int(found[1]) / int(found[2]) <= 20:
        raise ValueError(f"{field}: {value[:40]!r} is no aspect ratio; use width:height such as '4:3', up to 20:1")
    return value


def check_seed(field: str, value: object) -> int | str:
    if value == "auto" and isinstance(value, str):
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{field}: expected 'auto' or a whole number, got {kind_of(value)}")
    if not 0 <= value <= MAX_SEED:
        raise ValueError(f"{field}: expected 'auto' or a number in 0..2^64-1, got one outside")
    return value


def _store(record: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(record, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class CastMember:
    """A character or place of the story.

    `look` says once what it looks like, `outfits` name what it may wear, `references` name pictures of it: user's
    images or segment ids.
    """

    name: str
    kind: str = "character"
    look: str = ""
    outfits: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected 'character' or 'place', got {str(self.kind)[:40]!r}")
        _store(
            self,
            name=check_name("name", self.name),
            look=check_text("look", self.look, empty=True),
            outfits=check_names("outfits", self.outfits),
            references=check_names("references", self.references),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSegment:
    """A piece of the story's text."""

    id: str
    text: str

    def __post_init__(self):
        _store(self, id=check_id("id", self.id), text=check_text("text", self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSegment:
    """One image of the story.

    prompt       the dense prompt
    cast         names of those whom the image shows
    references   "auto", or the names (segment ids, user's images, cast members) to be consistent with; () = none
    size         (width, height) in pixels; wins over `aspect`
    aspect       "4:3"; the visualizer's grid decides the pixels
    seed         a number, or "auto" = derived from the story's seed and the id
    locked       the picture that was drawn for this dense prompt stays, whatever else changes
    """

    id: str
    prompt: str
    cast: tuple[str, ...] = ()
    references: str | tuple[str, ...] = "auto"
    size: tuple[int, int] | None = None
    aspect: str | None = None
    seed: int | str = "auto"
    locked: bool = False

    def __post_init__(self):
        if self.references != "auto" and not isinstance(self.references, tuple):
            got = repr(self.references[:40]) if isinstance(self.references, str) else kind_of(self.references)
            raise ValueError(f"references: expected 'auto' or a list of names, got {got}")
        if not isinstance(self.locked, bool):
            raise ValueError(f"locked: expected true or false, got {kind_of(self.locked)}")
        if self.references != "auto":
            _store(self, references=check_names("references", self.references))
        _store(
            self,
            id=check_id("id", self.id),
            prompt=check_text("prompt", self.prompt),
            cast=check_names("cast", self.cast),
            size=check_size("size", self.size),
            aspect=check_aspect("aspect", self.aspect),
            seed=check_seed("seed", self.seed),
        )


Segment = TextSegment | ImageSegment
