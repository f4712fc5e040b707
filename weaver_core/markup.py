"""The plan's spelling for planners and people: a parser that never fails (`spelling.py` prints what it reads).

    # Robin's day
    <cast name="Robin" look="a small orange fox with a blue scarf" references="robin.png">
    In the morning Robin peeks out of his den.
    <imagine id="p1" cast="Robin" aspect="4:3">A small orange fox peeks out of a den, soft light.</imagine>

The parser is incremental (pieces in, events out; where the stream is cut makes no difference) and total (any text gives
segments and located warnings). The paper's bare `<imagine>...</imagine><BOI>` needs no attributes. A tag ends at its
first `>`; a `<` before that means the tag was left open. Text that looks like a tag is spelled with the entities
`&lt; &gt; &amp; &quot; &#NN;`; an ordinary `<` or `&` needs none.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches

from .segments import ILLEGAL, SEGMENT_ID, CastMember, ImageSegment, Segment, TextSegment, check_language
from .spelling import decode, read_flag, read_names, read_references, read_seed, read_size

MAX_SEGMENTS = 10_000  # bounds memory for hostile input; far above any book
MAX_TAGS = 200_000
MAX_WARNINGS = 1_000
MAX_TAG = 16_384

_NAMES = "imagine|boi|eos|cast|story|text"
# ASCII, so that a long s or a dotless i never counts as part of a tag's name.
_TAG_IN_TEXT = re.compile(rf"<(/?)({_NAMES})(?=[\s/>])", re.IGNORECASE | re.ASCII)
_TAG_IN_PROMPT = re.compile(r"<(/?)(imagine|boi|eos)(?=[\s/>])", re.IGNORECASE | re.ASCII)
_NO_TAG = re.compile(r"(?!)")
_TAG_END = re.compile(r"[<>]")
_UNDECIDED = re.compile(r"(?:</?[A-Za-z]{0,7}|&#?[A-Za-z0-9]{0,7})\Z")  # may still grow into a tag or an entity
_UNDECIDED_LENGTH = 9
_TORN_TAG = re.compile(r"<(?:im|ima|imag|imagi|imagin|imagine|/im?|/ima|/imag|/imagi|/imagin|/imagine|BO|BOI)\Z")
_ATTRIBUTE = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'=]+)))?")
_ANY_ID = re.compile(r"<(?:imagine|text)\s[^<>]*?\bid\s*=\s*[\"']?([A-Za-z0-9][A-Za-z0-9_-]{0,63})", re.IGNORECASE)

IMAGE_ATTRIBUTES = ("id", "cast", "aspect", "size", "seed", "references", "locked")
CAST_ATTRIBUTES = ("name", "kind", "look", "outfits", "references")


@dataclass(frozen=True, slots=True)
class PlanWarning:
    """Something in the markup that was not as expected, and what was done about it. Line and column count from 1."""

    message: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


@dataclass(frozen=True, slots=True)
class TitleParsed:
    title: str


@dataclass(frozen=True, slots=True)
class CastParsed:
    member: CastMember


@dataclass(frozen=True, slots=True)
class TextPiece:
    """More text of the segment; the pieces of one segment joined are its text."""

    segment_id: str
    text: str


@dataclass(frozen=True, slots=True)
class PromptPiece:
    """More of a dense prompt; the pieces of one segment joined are its prompt."""

    segment_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ImageParsed:
    """A dense prompt is complete."""

    segment: ImageSegment


ParseEvent = TitleParsed | CastParsed | TextPiece | PromptPiece | ImageParsed | PlanWarning


class MarkupParser:
    """Reads markup piece by piece; `title`, `language`, `cast`, `segments`, `warnings` grow as it goes.

    `reserved_ids` are kept from being given to segments without an id: a whole text is looked through for them first
    (`ids_in`), a stream cannot be.
    """

    def __init__(self, *, reserved_ids: Collection[str] = ()):
        self.title = ""
        self.language: str | None = None
        self.cast: list[CastMember] = []
        self.segments: list[Segment] = []
        self.warnings: list[PlanWarning] = []
        self._events: list[ParseEvent] = []
        self._reserved = frozenset(reserved_ids)
        self._used: set[str] = set()
        self._next_number = {"t": 1, "p": 1}
        self._count = {"t": 0, "p": 0}
        self._buffer = ""
        self._state = "start"  # start -> title -> text <-> prompt
        self._title: list[str] = []
        self._content = _Content()
        self._text_id: str | None = None  # given by a <text id=...> tag
        self._image: dict[str, object] = {}
        self._image_at = (1, 1)
        self._line, self._column = 1, 1
        self._num_tags = 0
        self._full = False
        self._closed = False

    def feed(self, piece: str) -> list[ParseEvent]:
        """The events that this piece completes."""
        if self._closed:
            raise RuntimeError("the parser is closed; make a new one")
        if not isinstance(piece, str):
            raise TypeError(f"expected a piece of text, got {type(piece).__name__}")
        # One character for one, so that positions stay those of the text as it came.
        self._buffer += ILLEGAL.sub("\ufffd", piece)
        self._scan(final=False)
        return self._take_events()

    def close(self) -> list[ParseEvent]:
        """Ends the text; the last events."""
        if self._closed:
            return []
        self._scan(final=True)
        if self._state == "title":
            self._end_title()
        elif self._state == "prompt":
            self._warn("<imagine> is not closed at the end of the text; the rest is taken as its dense prompt")
            self._end_prompt()
        self._end_text()
        self._closed = True
        return self._take_events()

    # ---- the scanner

    def _scan(self, *, final: bool) -> None:
        buffer, position = self._buffer, 0
        while True:
            found = self._tags().search(buffer, position)
            if found is None:
                break
            start, end = found.span()
            closing, name = found[1] == "/", found[2].lower()
            self._num_tags += 1
            if self._num_tags > MAX_TAGS:
                self._warn(f"the text has more than {MAX_TAGS} tags; what follows is left out")
                self._full = True
                break
            limit = end + MAX_TAG
            stop = _TAG_END.search(buffer, end, limit)
            if stop is None and not final and len(buffer) < limit:
                # The tag is not complete yet. What stands before it is.
                self._body(buffer[position:start])
                self._buffer = buffer[start:]
                return
            self._body(buffer[position:start])
            if stop is not None and stop.group() == ">":
                self._tag(name, closing, buffer[end : stop.start()])
                position = stop.end()
            else:
                literal = self._broken_tag(name, closing)
                if literal:
                    self._body(buffer[start:end])
                position = end
                if not literal:
                    self._advance(buffer[start:end])
                continue
            self._advance(buffer[start:position])
        hold = len(buffer)
        if not final:
            undecided = _UNDECIDED.search(buffer, max(position, hold - _UNDECIDED_LENGTH))
            hold = undecided.start() if undecided else hold
        elif torn := _TORN_TAG.search(buffer, max(position, hold - _UNDECIDED_LENGTH)):
            hold = torn.start()
        self._body(buffer[position:hold])
        if final and hold < len(buffer):
            self._warn(f"the text ends inside a tag, {buffer[hold:]!r}; left out")
        self._buffer = "" if final else buffer[hold:]

    def _tags(self) -> re.Pattern[str]:
        if self._full:
            return _NO_TAG
        return _TAG_IN_PROMPT if self._state == "prompt" else _TAG_IN_TEXT

    def _advance(self, consumed: str) -> None:
        lines = consumed.count("\n")
        if lines:
            self._line += lines
            self._column = len(consumed) - consumed.rfind("\n")
        else:
            self._column += len(consumed)

    def _body(self, raw: str) -> None:
        """Everything that is not a tag."""
        if not raw:
            return
        rest = raw
        if self._state == "start":
            rest = rest.lstrip()
            if rest:
                self._state = "title" if rest[0] == "#" else "text"
        if self._state == "title":
            line, newline, after = rest.partition("\n")
            self._title.append(line)
            rest = after
            if newline:
                self._end_title()
        if rest and self._state == "text":
            self._add_content("t", rest)
        elif rest and self._state == "prompt":
            self._add_content("p", rest)
        self._advance(raw)

    # ---- tags

    def _tag(self, name: str, closing: bool, attributes: str) -> None:
        if self._state == "title":
            self._end_title()
        if name in ("boi", "eos"):
            if self._state == "prompt":
                self._warn(f"<{name.upper()}> before </imagine>; the dense prompt ends here")
                self._end_prompt()
            return
        if name == "imagine":
            if closing:
                self._close_imagine()
            else:
                self._open_imagine(attributes)
            return
        if closing:
            return  # </cast>, </story>, </text>: harmless, and people write them
        if name == "text":
            self._end_text()
            self._state = "text"
            self._text_id = self._explicit_id(self._attributes(name, attributes, ("id",)).get("id"))
        elif name == "story":
            self._read_language(self._attributes(name, attributes, ("language",)).get("language"))
        elif name == "cast":
            self._read_cast(self._attributes(name, attributes, CAST_ATTRIBUTES))

    def _broken_tag(self, name: str, closing: bool) -> bool:
        """Handles a tag without its `>`; true when it is to be kept as text."""
        shown = f"<{'/' if closing else ''}{name}"
        if name in ("cast", "story", "text"):
            self._warn(f"{shown} has no '>'; kept as text")
            return True
        self._warn(f"{shown} has no '>'; read as {shown}>")
        self._tag(name, closing, "")
        return False

    def _open_imagine(self, attributes: str) -> None:
        if self._state == "prompt":
            self._warn("<imagine> inside <imagine>; the first dense prompt ends here")
            self._end_prompt()
        self._end_text()
        if self._full:
            return
        self._state = "prompt"
        self._image_at = (self._line, self._column)
        self._image = self._read_image(self._attributes("imagine", attributes, IMAGE_ATTRIBUTES))

    def _close_imagine(self) -> None:
        if self._state == "prompt":
            self._end_prompt()
        else:
            self._warn("</imagine> without <imagine>; left out")

    # ---- content

    def _add_content(self, prefix: str, raw: str) -> None:
        if self._full:
            return
        content = self._content
        text = content.trim(decode(raw))
        if not text:
            return
        if content.id is None:
            given = self._text_id if prefix == "t" else self._image.pop("id", None)
            self._text_id = None
            content.id = given or self._automatic_id(prefix)
        content.parts.append(text)
        self._emit(TextPiece(content.id, text) if prefix == "t" else PromptPiece(content.id, text))

    def _end_title(self) -> None:
        # A run of '#' counts as one, as planners that know Markdown write '##' too.
        self.title = " ".join(decode("".join(self._title).lstrip("#")).split())
        if self.title:
            self._emit(TitleParsed(self.title))
        self._state = "text"

    def _end_text(self) -> None:
        content, self._content = self._content, _Content()
        if content.id is None:
            self._used.discard(self._text_id)  # <text id=...> without any text
            self._text_id = None
            return
        self._append(TextSegment(id=content.id, text="".join(content.parts)))
        self._count["t"] += 1

    def _end_prompt(self) -> None:
        content, self._content = self._content, _Content()
        self._state = "text"
        if content.id is None:
            self._warn("<imagine> without a dense prompt; left out", self._image_at)
            given = self._image.get("id")
            if given:
                self._used.discard(given)
            return
        segment = ImageSegment(id=content.id, prompt="".join(content.parts), **self._image)
        self._append(segment)
        self._count["p"] += 1
        self._emit(ImageParsed(segment))

    def _append(self, segment: Segment) -> None:
        self.segments.append(segment)
        if len(self.segments) == MAX_SEGMENTS:
            self._warn(f"a plan holds {MAX_SEGMENTS} segments; what follows is left out")
            self._full = True

    # ---- ids

    def _explicit_id(self, value: str | None) -> str | None:
        if value is None:
            return None
        if not SEGMENT_ID.match(value):
            self._warn(
                f"id {value[:40]!r} is not usable (1 to 64 letters, digits, '-' or '_'); the segment gets another one"
            )
            return None
        if value in self._used:
            number = 2
            while f"{value[:56]}-{number}" in self._used or f"{value[:56]}-{number}" in self._reserved:
                number += 1
            renamed = f"{value[:56]}-{number}"
            self._warn(f"id {value!r} is used twice; the second is called {renamed!r}")
            value = renamed
        self._used.add(value)
        return value

    def _automatic_id(self, prefix: str) -> str:
        """p1, p2, ... and t1, t2, ... by their place, passing over ids that are taken."""
        number = max(self._next_number[prefix], self._count[prefix] + 1)
        while f"{prefix}{number}" in self._used or f"{prefix}{number}" in self._reserved:
            number += 1
        self._next_number[prefix] = number + 1
        self._used.add(f"{prefix}{number}")
        return f"{prefix}{number}"

    # ---- attributes

    def _attributes(self, tag: str, raw: str, known: tuple[str, ...]) -> dict[str, str]:
        """Attribute name -> raw value (entities not yet decoded); an attribute without value is "true"."""
        values: dict[str, str] = {}
        position, reported = 0, False
        while position < len(raw):
            if raw[position].isspace() or raw[position] == "/":
                position += 1
                continue
            found = _ATTRIBUTE.match(raw, position)
            if not found:
                if not reported:
                    self._warn(f"<{tag}>: {raw[position : position + 20]!r} is no attribute; left out")
                    reported = True
                position += 1
                continue
            position = found.end()
            name = found[1].lower()
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
                self._warn(f"<{tag}>: unknown attribute {name[:40]!r}, {hint} Left out")
            elif name in values:
                self._warn(f"<{tag}>: {name} is given twice; the first counts")
            else:
                values[name] = next((value for value in found.groups()[1:] if value is not None), "true")
        return values

    def _read_image(self, raw: dict[str, str]) -> dict[str, object]:
        values: dict[str, object] = {}
        if (given := self._explicit_id(raw.get("id"))) is not None:
            values["id"] = given
        readers = {
            "cast": lambda text: read_names(text, ","),
            "aspect": decode,
            "size": read_size,
            "seed": read_seed,
            "references": read_references,
            "locked": read_flag,
        }
        for name, read in readers.items():
            if name in raw:
                self._try("imagine", name, raw[name], read, values)
        return values

    def _read_cast(self, raw: dict[str, str]) -> None:
        values: dict[str, object] = {}
        readers = {
            "name": decode,
            "kind": decode,
            "look": decode,
            "outfits": lambda text: read_names(text, "|"),
            "references": lambda text: read_names(text, ","),
        }
        for name, read in readers.items():
            if name in raw:
                self._try("cast", name, raw[name], read, values, probe={"name": "probe"})
        if "name" not in values:
            self._warn("<cast> without a name; left out")
            return
        member = CastMember(**values)
        if any(member.name == other.name for other in self.cast):
            self._warn(f"<cast>: {member.name!r} is in the cast already; left out")
            return
        self.cast.append(member)
        self._emit(CastParsed(member))

    def _try(self, tag, name, text, read, values, *, probe=None) -> None:
        """Stores the attribute if a segment accepts it, warns if not."""
        try:
            value = read(text)
            if tag == "imagine":
                ImageSegment(**{"id": "probe", "prompt": "probe", name: value})
            else:
                CastMember(**{**(probe or {}), name: value})
        except ValueError as error:
            self._warn(f"<{tag}>: {error}. Left out")
            return
        values[name] = value

    def _read_language(self, raw: str | None) -> None:
        if raw is None:
            return
        try:
            self.language = check_language("language", raw)
        except ValueError as error:
            self._warn(f"<story>: {error}. Left out")

    # ---- events

    def _emit(self, event: ParseEvent) -> None:
        self._events.append(event)

    def _warn(self, message: str, at: tuple[int, int] | None = None) -> None:
        if len(self.warnings) >= MAX_WARNINGS:
            return
        line, column = at or (self._line, self._column)
        if len(self.warnings) == MAX_WARNINGS - 1:
            message = "more warnings follow; they are not listed"
        warning = PlanWarning(message, line, column)
        self.warnings.append(warning)
        self._emit(warning)

    def _take_events(self) -> list[ParseEvent]:
        events, self._events = self._events, []
        return events


class _Content:
    """Text of the segment being read, without outer white space, whatever way it is cut into pieces."""

    def __init__(self):
        self.id: str | None = None
        self.parts: list[str] = []
        self._space: list[str] = []

    def trim(self, text: str) -> str:
        """The part of the text that is certain to be inside; trailing white space waits for what follows."""
        if self.id is None:
            text = text.lstrip()
        body = text.rstrip()
        space = text[len(body) :]
        if body and self._space:
            body = "".join(self._space) + body
            self._space = []
        if space and (body or self.id is not None):
            self._space.append(space)
        return body


def ids_in(text: str) -> frozenset[str]:
    """The ids that a whole text gives to its segments, to be reserved before it is parsed."""
    return frozenset(_ANY_ID.findall(text))
