"""The plan: title, cast, and an ordered list of text and image segments; with its two spellings, markup and JSON.

Markup (`markup.py`) is what planners write and people edit; JSON is what is stored. Both come back as an equal plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches

from .errors import PlanError
from .markup import (
    MAX_SEGMENTS,
    CastParsed,
    ImageParsed,
    MarkupParser,
    ParseEvent,
    PlanWarning,
    PromptPiece,
    TextPiece,
    TitleParsed,
    ids_in,
)
from .segments import CastMember, ImageSegment, Segment, TextSegment, check_language, check_text, kind_of
from .spelling import print_bare, print_markup

__all__ = [
    "CastMember", "CastParsed", "ImageParsed", "ImageSegment", "IncrementalParser", "Page", "ParseEvent", "Plan",
    "PlanWarning", "PromptPiece", "Segment", "TextPiece", "TextSegment", "TitleParsed", "image_seed", "parse_markup",
]  # fmt: skip

FORMAT = "weaver-plan"
VERSION = 1
MAX_JSON = 256 * 2**20  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What lies on one page of a book: some text, and an image or none."""

    texts: tuple[TextSegment, ...]
    image: ImageSegment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the story tells and shows. Segment ids are unique, and stay what they are when the plan is edited."""

    title: str = ""
    language: str = "en"
    cast: tuple[CastMember, ...] = ()
    segments: tuple[Segment, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "title", " ".join(check_text("title", self.title, empty=True).split()))
        check_language("language", self.language)
        if len(self.segments) > MAX_SEGMENTS:
            raise ValueError(f"segments: a plan holds {MAX_SEGMENTS} at most, got {len(self.segments)}; split it")
        _check_unique("cast", "name", [member.name for member in self.cast])
        _check_unique("segments", "id", [segment.id for segment in self.segments])

    # ---- looking at it

    @property
    def images(self) -> tuple[ImageSegment, ...]:
        return tuple(segment for segment in self.segments if isinstance(segment, ImageSegment))

    @property
    def texts(self) -> tuple[TextSegment, ...]:
        return tuple(segment for segment in self.segments if isinstance(segment, TextSegment))

    def segment(self, segment_id: str) -> Segment:
        """The segment with this id; InputError names the ids there are."""
        for segment in self.segments:
            if segment.id == segment_id:
                return segment
        known = ", ".join(segment.id for segment in self.segments[:20]) or "none"
        raise PlanError(f"the plan has no segment {segment_id!r}; it has {known}")

    def pages(self) -> tuple[Page, ...]:
        """The segments as a book lays them out: every image with the text before it.

        A plan that begins with an image and ends with text is read the other way round: every image with the text
        after it.
        """
        pages: list[Page] = []
        texts: list[TextSegment] = []
        image: ImageSegment | None = None
        image_first = (
            len(self.segments) > 1
            and isinstance(self.segments[0], ImageSegment)
            and isinstance(self.segments[-1], TextSegment)
        )
        for segment in self.segments:
            if isinstance(segment, TextSegment):
                texts.append(segment)
                continue
            if image_first:
                if image or texts:
                    pages.append(Page(texts=tuple(texts), image=image))
                texts, image = [], segment
            else:
                pages.append(Page(texts=tuple(texts), image=segment))
                texts = []
        if texts or image:
            pages.append(Page(texts=tuple(texts), image=image))
        return tuple(pages)

    # ---- changing it (a new plan is returned)

    def replace_segment(self, segment: Segment) -> Plan:
        """The plan with this segment in place of the one with the same id."""
        self.segment(segment.id)
        return replace(self, segments=tuple(segment if old.id == segment.id else old for old in self.segments))

    def fresh_id(self, prefix: str) -> str:
        """An id that no segment has yet: "p5" for images, "t5" for texts."""
        taken = {segment.id for segment in self.segments}
        number = 1
        while f"{prefix}{number}" in taken:
            number += 1
        return f"{prefix}{number}"

    # ---- spelling it

    def to_markup(self) -> str:
        """Markup that `parse_markup` reads back as an equal plan, without warnings."""
        return print_markup(self.title, self.language, self.cast, self.segments)

    def to_bare_markup(self) -> str:
        """The paper's form: title, texts and `<imagine>...</imagine><BOI>`, nothing else. What the native planner
        writes; ids, cast and other attributes are lost."""
        return print_bare(self.title, self.segments)

    def to_json(self) -> dict:
        """A plain dict for `json.dumps`; `Plan.from_json` undoes it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "title": self.title,
            "language": self.language,
            "cast": [
                {
                    "name": member.name,
                    "kind": member.kind,
                    "look": member.look,
                    "outfits": list(member.outfits),
                    "references": list(member.references),
                }
                for member in self.cast
            ],
            "segments": [_segment_to_json(segment) for segment in self.segments],
        }

    @classmethod
    def from_json(cls, data: object) -> Plan:
        """The plan in this (decoded) JSON; older versions are upgraded. PlanError names the path of what is wrong."""
        return _plan_from_json(data)

    def dumps(self) -> str:
        """The plan as JSON text."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def loads(cls, text: str) -> Plan:
        """The plan in this JSON text; PlanError says what is wrong and where."""
        return cls.from_json(load_json(text, "the plan"))


def image_seed(story_seed: int, segment_id: str) -> int:
    """The seed of an image whose own seed is "auto": a hash of the story's seed and the segment's id.

    Below 2**53, so that it passes through JSON and JavaScript unchanged (our choice). Deterministic everywhere.
    """
    digest = hashlib.sha256(f"{story_seed}/{segment_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11


# ---- markup


class IncrementalParser(MarkupParser):
    """`feed(piece)` and `close()` return events; `plan()` is the plan so far. Never raises on any text."""

    def plan(self) -> Plan:
        """What has been read completely so far (all of it, after `close`)."""
        return Plan(
            title=self.title,
            language=self.language or "en",
            cast=tuple(self.cast),
            segments=tuple(self.segments),
        )


def parse_markup(text: str, *, reserved_ids: Collection[str] = ()) -> tuple[Plan, list[PlanWarning]]:
    """The plan in a whole markup text, and what was odd about it. Any text gives a plan; none raises."""
    parser = IncrementalParser(reserved_ids=ids_in(text) | frozenset(reserved_ids))
    parser.feed(text)
    parser.close()
    return parser.plan(), parser.warnings


# ---- JSON


def load_json(text: str, what: str) -> object:
    """Decoded JSON; PlanError with line and column when it is none. NaN and infinities are refused."""
    if len(text) > MAX_JSON:
        raise PlanError(f"{what}: {len(text) / 2**20:.0f} MB of JSON; {MAX_JSON >> 20} MB is the most that is read")

    def refuse(constant: str) -> None:
        raise PlanError(f"{what}: {constant} is not a number that JSON has")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise PlanError(f"{what}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, PlanError):
            raise
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
        raise PlanError(f"{what}: not readable as JSON: {reason}") from None


def check_keys(path: str, data: object, *, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict:
    """The object itself, if its keys are the known ones; PlanError names the nearest valid key otherwise."""
    if not isinstance(data, dict):
        raise PlanError(f"{path or 'top level'}: expected an object, got {kind_of(data)}")
    prefix = f"{path}." if path else ""
    for key in data:
        if key not in required and key not in optional:
            near = get_close_matches(str(key), required + optional, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(required + optional)}"
            raise PlanError(f"{prefix}{str(key)[:60]}: unknown key; {hint}")
    for key in required:
        if key not in data:
            raise PlanError(f"{prefix}{key}: missing")
    return data


def _segment_to_json(segment: Segment) -> dict:
    if isinstance(segment, TextSegment):
        return {"type": "text", "id": segment.id, "text": segment.text}
    return {
        "type": "image",
        "id": segment.id,
        "prompt": segment.prompt,
        "cast": list(segment.cast),
        "references": segment.references if segment.references == "auto" else list(segment.references),
        "size": None if segment.size is None else list(segment.size),
        "aspect": segment.aspect,
        "seed": segment.seed,
        "locked": segment.locked,
    }


def _plan_from_json(data: object) -> Plan:
    data = _upgraded(data)
    check_keys("", data, required=("format", "version", "segments"), optional=("title", "language", "cast"))
    if data["format"] != FORMAT:
        raise PlanError(f"format: expected {FORMAT!r}, got {str(data['format'])[:40]!r}")
    cast = [
        build_checked(CastMember, f"cast[{i}]", member, ("name",), ("kind", "look", "outfits", "references"))
        for i, member in enumerate(_list("cast", data.get("cast", [])))
    ]
    segments = [_segment_from_json(f"segments[{i}]", item) for i, item in enumerate(_list("segments", data["segments"]))]
    try:
        return Plan(
            title=data.get("title", ""),
            language=data.get("language", "en"),
            cast=tuple(cast),
            segments=tuple(segments),
        )
    except ValueError as error:
        raise PlanError(str(error)) from None


def _segment_from_json(path: str, data: object) -> Segment:
    if not isinstance(data, dict):
        raise PlanError(f"{path}: expected an object, got {kind_of(data)}")
    if "type" not in data:
        raise PlanError(f"{path}.type: missing; it is 'text' or 'image'")
    fields = {key: value for key, value in data.items() if key != "type"}
    if data["type"] == "text":
        return build_checked(TextSegment, path, fields, ("id", "text"), ())
    if data["type"] == "image":
        optional = ("cast", "references", "size", "aspect", "seed", "locked")
        return build_checked(ImageSegment, path, fields, ("id", "prompt"), optional)
    raise PlanError(f"{path}.type: expected 'text' or 'image', got {str(data['type'])[:40]!r}")


def build_checked(kind: type, path: str, data: object, required: tuple[str, ...], optional: tuple[str, ...]):
    """A part of a plan from its JSON; PlanError begins with the path of what is wrong."""
    check_keys(path, data, required=required, optional=optional)
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})
    except ValueError as error:
        raise PlanError(f"{path}.{error}") from None


def _list(path: str, value: object) -> list:
    if not isinstance(value, list):
        raise PlanError(f"{path}: expected a list, got {kind_of(value)}")
    return value


def _check_unique(path: str, field: str, values: list[str]) -> None:
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        if value in seen:
            raise ValueError(
                f"{path}[{index}].{field}: {value!r} is used by {path}[{seen[value]}] already; every {field} is unique"
            )
        seen[value] = index


# ---- older versions


def _upgraded(data: object) -> object:
    """The same plan in the newest version's words."""
    if isinstance(data, list):
        data = {"segments": data}
    if not isinstance(data, dict):
        raise PlanError(f"top level: expected an object, got {kind_of(data)}")
    if "version" not in data:
        return _from_version_0(data)
    version = data["version"]
    if not isinstance(version, int) or isinstance(version, bool):
        raise PlanError(f"version: expected a number, got {kind_of(version)}")
    if version != VERSION:
        raise PlanError(f"version: this plan is of version {version}, this program reads 0 to {VERSION}; update it")
    return data


def _from_version_0(data: dict) -> dict:
    """Version 0 carries no version: texts are bare strings, images are {"imagine": dense prompt}."""
    check_keys("", data, required=("segments",), optional=("title", "language"))
    segments: list[dict] = []
    count = {"t": 0, "p": 0}
    for index, item in enumerate(_list("segments", data["segments"])):
        prefix = "t" if isinstance(item, str) else "p"
        count[prefix] += 1
        segment_id = f"{prefix}{count[prefix]}"
        if isinstance(item, str):
            segments.append({"type": "text", "id": segment_id, "text": item})
        else:
            item = check_keys(f"segments[{index}]", item, required=("imagine",))
            segments.append({"type": "image", "id": segment_id, "prompt": item["imagine"]})
    return {**data, "format": FORMAT, "version": VERSION, "segments": segments}
