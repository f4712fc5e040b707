"""Forces a language model to write well-formed markup with exactly the wanted number of images.

A state machine reads the plan byte by byte and knows what may follow; before every token, those are masked that would
lead out of it. Bytes, because tokens of byte-level vocabularies may hold parts of a character. The grammar is a part of
what the parser reads, the part that it reads without any warning:

    # Title
    <story language="de">  <cast name=".." look=".." references="..">          each optional, before the first text
    text <imagine id="p1" cast=".." aspect="4:3">dense prompt</imagine> text ...    attributes optional, in this order

The end is allowed when all images are there. When the token budget runs low, the shortest way to a whole plan is forced,
counted at one byte per token; so a plan is whole whatever the model does (`_HURRY_SLACK`, `PlanGrammar.__init__`).
"""

from __future__ import annotations

import codecs
import json
import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError
from ..request import MAX_IMAGES
from ..segments import ILLEGAL
from .json_answer import ASPECTS

if TYPE_CHECKING:
    import torch

    from ..request import Request

LATIN_LANGUAGES = ("de", "fr", "es", "it", "pt", "nl", "pl", "tr", "vi", "id", "cs", "sv")
LANGUAGES = ("zh", "ja", "ko", "ru", "uk", "ar", "hi", *LATIN_LANGUAGES)
MAX_CAST = 8
ROOM = {"title": 120, "text": 2_400, "prompt": 1_600, "names": 120, "look": 300}  # bytes; models do not ramble on (our choice)
NAME_ROOM = 40  # and 8 more for each later name, so that a name can always be made different from those before it
PACE = 120  # tokens kept for the text and dense prompt of every image to come, where the budget has them (our choice)
MIN_PACE = 8
CACHED_MASKS = 512

_HURRY_SLACK = 48  # more than one token can add to the shortest way to the end
_BETWEEN_IMAGES = ("start", "header", "text")


class State(NamedTuple):
    """Where in a plan we are.

    mode       start, title, header, text, prompt, name, look, names, or choice (inside of a fixed spelling)
    options    in a choice: what may still be spelled, as (rest of the spelling, where it leads)
    run        white space just before
    partial    bytes of a character that is not complete
    room       bytes that may still come in this mode
    content    something other than white space is there
    required   images still to come; `allowed` the most that may come; `index` the number of the next one
    cast       names given so far (forgotten when the header ends); `typed` the name being written
    """

    mode: str
    options: tuple[tuple[bytes, str], ...] = ()
    run: int = 0
    partial: bytes = b""
    room: int = 0
    content: bool = False
    required: int = 0
    allowed: int = 0
    index: int = 1
    cast: tuple[bytes, ...] = ()
    typed: bytes = b""
    may_name_language: bool = True


class Machine:
    """The grammar: `step` says where a byte leads, None = it may not come here.

    pictures   names of the user's pictures, for `references` of the cast
    languages  what `<story language>` may say
    aspects    what `aspect` may say; () = no such attribute
    """

    def __init__(self, *, pictures: Sequence[str] = (), languages: Sequence[str] = LANGUAGES, aspects: Sequence[str] = ASPECTS):
        self.pictures = tuple(name.encode() for name in pictures)
        self.languages = tuple(code.encode() for code in languages)
        self.aspects = tuple(aspect.encode() for aspect in aspects)

    def start(self, num_images: int | None, *, num_written: int = 0, continued: bool = False) -> State:
        """The beginning; `continued` = of what follows a history with `num_written` images."""
        required, allowed = (0, MAX_IMAGES) if num_images is None else (num_images, num_images)
        state = State("start", required=required, allowed=allowed, index=num_written + 1)
        return state._replace(mode="text", room=ROOM["text"], content=True) if continued else state

    def may_end(self, state: State) -> bool:
        return state.mode in ("header", "text") and not state.partial and state.required == 0 and state.content

    # ---- transitions

    def step(self, state: State, byte: int) -> State | None:
        if state.mode == "choice":
            return self._choose(state, byte)
        if state.partial or byte >= 0x80:
            return self._multibyte(state, byte)
        if byte == 0x3C:  # <
            return self._open(state)
        if byte in b" \n":
            return self._space(state, byte)
        if byte < 0x20 or byte == 0x7F:
            return None
        if state.mode in ("name", "look", "names"):
            if byte == 0x22:  # "
                return self._end_value(state)
            if byte in b"&>" or (byte == 0x2C and state.mode == "name"):  # a comma would part it in two
                return None
        elif state.mode == "prompt" and byte == 0x26:
            return None  # an entity may be white space, and a dense prompt of that alone is none
        elif state.mode == "start":
            return state._replace(mode="title", room=ROOM["title"], run=0) if byte == 0x23 else None  # #
        return self._character(state, bytes([byte]))

    def walk(self, state: State | None, text: bytes) -> State | None:
        for byte in text:
            if state is None:
                return None
            state = self.step(state, byte)
        return state

    def _choose(self, state: State, byte: int) -> State | None:
        options = tuple((rest[1:], target) for rest, target in state.options if rest[0] == byte)
        if not options:
            return None
        if options[0][0]:
            return state._replace(options=options)
        return self.enter(state, options[0][1])

    def _multibyte(self, state: State, byte: int) -> State | None:
        if state.mode == "header":
            state = self.enter(state, "text")
        partial = state.partial + bytes([byte])
        length = _utf8_length(partial[0])
        if state.mode == "start" or not length or (len(partial) == 1 and length > state.room) or not _is_utf8_start(partial):
            return None
        if len(partial) < length:
            return state._replace(partial=partial)
        character = partial.decode()
        state = state._replace(partial=b"")
        if state.mode == "name" and (character.isspace() or ILLEGAL.match(character)):
            return None  # what the parser makes of it could equal another name
        if character.isspace():
            state = self._space_at(state)
            return state and state._replace(room=state.room - length)
        return self._character(state, partial)

    def _character(self, state: State, character: bytes) -> State | None:
        room = state.room - len(character)
        if state.mode == "header":
            state, room = self.enter(state, "text"), ROOM["text"] - len(character)
        if room < 0:
            return None
        typed = state.typed + character if state.mode == "name" else b""
        return state._replace(room=room, run=0, content=True, typed=typed)

    def _space(self, state: State, byte: int) -> State | None:
        if byte == 0x0A and state.mode == "title":
            return self.enter(state, "header") if state.content else None
        if byte == 0x0A and state.mode not in _BETWEEN_IMAGES:
            return None
        state = self._space_at(state)
        if state is None or state.mode in ("start", "header"):
            return state
        typed = state.typed + b" " if state.mode == "name" else b""
        return state._replace(room=state.room - 1, typed=typed) if state.room else None

    def _space_at(self, state: State) -> State | None:
        """One more white space, where not too many are there: so there is always content before the room is used up."""
        return state._replace(run=state.run + 1) if state.run < (2 if state.mode in _BETWEEN_IMAGES else 1) else None

    def _open(self, state: State) -> State | None:
        options: list[tuple[bytes, str]] = []
        if state.mode in ("header", "text") and state.allowed:
            options.append((b"imagine", "imagine"))
        if state.mode == "header" and len(state.cast) < MAX_CAST:
            options.append((b'cast name="', "name"))
        if state.mode == "header" and state.may_name_language and not state.cast:
            options += [(b'story language="' + code + b'">', "after language") for code in self.languages]
        if state.mode == "prompt" and state.content:
            options.append((b"/imagine>", "end of image"))
        return state._replace(mode="choice", options=tuple(options)) if options else None

    def _end_value(self, state: State) -> State | None:
        if state.mode == "names":
            return self.enter(state, "after names")
        if state.mode == "look":
            return self.enter(state, "after look")
        name = state.typed.strip()
        if not name or name in state.cast:
            return None
        return self.enter(state._replace(cast=(*state.cast, name)), "after name")

    def enter(self, state: State, target: str) -> State:
        """The state at a target: what the machine's parts are called that a spelling can lead to."""
        fresh = state._replace(mode=target, options=(), run=0, partial=b"", room=ROOM.get(target, 0), typed=b"")
        if target == "header":
            return fresh._replace(content=False)
        if target == "after language":
            return fresh._replace(mode="header", may_name_language=False, content=False)
        if target == "text":
            return fresh._replace(cast=(), may_name_language=False)
        if target == "name":
            # One space as if before it: a name does not begin with white space.
            return fresh._replace(room=NAME_ROOM + 8 * len(state.cast), run=1, content=False)
        if target in ("look", "names"):
            return fresh
        if target == "prompt":
            return fresh._replace(content=False, cast=(), may_name_language=False)
        if target == "end of image":
            required = max(0, state.required - 1)
            return fresh._replace(mode="text", room=ROOM["text"], content=True, required=required,
                                  allowed=state.allowed - 1, index=state.index + 1)  # fmt: skip
        return fresh._replace(mode="choice", options=self._options(state, target))

    def _options(self, state: State, target: str) -> tuple[tuple[bytes, str], ...]:
        references = [(b' references="' + name + b'"', "after references") for name in self.pictures]
        aspects = [(b' aspect="' + aspect + b'"', "after aspect") for aspect in self.aspects]
        close_cast, close_image, names = (b">", "header"), (b">", "prompt"), (b' cast="', "names")
        return tuple({
            "after name": [(b' look="', "look"), (b' kind="place" look="', "look"), *references, close_cast],
            "after look": [*references, close_cast],
            "after references": [close_cast],
            "imagine": [(b' id="p%d"' % state.index, "after id"), names, *aspects, close_image],
            "after id": [names, *aspects, close_image],
            "after names": [*aspects, close_image],
            "after aspect": [close_image],
        }[target])  # fmt: skip

    # ---- the shortest way to the end

    def next_forced(self, state: State) -> bytes:
        """The bytes of the next part of the shortest way to the end; b"" = the end itself may come."""
        if state.mode == "choice":
            return min(state.options, key=lambda option: self._distance_after(state, option))[0]
        if state.partial:
            return self._completed_character(state)
        if state.mode == "start":
            return b"#"
        if state.mode == "title":
            return b"\n" if state.content else b"."
        if state.mode == "prompt":
            return b"</imagine>" if state.content else b"."
        if state.mode == "name":
            taken = not state.typed.strip() or state.typed.strip() in state.cast
            return b'"' if not taken else next(bytes([c]) for c in b"xyzabcdefg" if state.typed + bytes([c]) not in state.cast)
        if state.mode in ("look", "names"):
            return b'"'
        if state.required:
            return b"<imagine>"
        return b"" if state.content else b"."

    def distance(self, state: State) -> int:
        """Bytes that the shortest way to the end is long (or one more, where a character is not complete)."""
        images = _IMAGE_LENGTH * state.required
        if state.mode == "choice":
            return min(self._distance_after(state, option) for option in state.options)
        missing = _utf8_length(state.partial[0]) - len(state.partial) if state.partial else 0
        if state.mode == "start":
            return 3 + (images or 1)
        if state.mode == "title":
            return missing + (1 if state.content else 2) + (images or 1)
        if state.mode in ("header", "text"):
            return missing + (images or int(not state.content))
        if state.mode == "prompt":
            return missing + len("</imagine>") + int(not state.content) + max(0, images - _IMAGE_LENGTH)
        if state.mode == "names":
            return missing + len('"></imagine>') + 1 + max(0, images - _IMAGE_LENGTH)
        return missing + len('">') + int(state.mode == "name") + (images or 1)

    def _distance_after(self, state: State, option: tuple[bytes, str]) -> int:
        return len(option[0]) + self.distance(self.enter(state, option[1]))

    def _completed_character(self, state: State) -> bytes:
        for byte in range(0xBF, 0x7F, -1):
            following = self.step(state, byte)
            if following is not None and (not following.partial or self._can_complete(following)):
                return bytes([byte])
        raise AssertionError(f"no character begins with {state.partial!r}")

    def _can_complete(self, state: State) -> bool:
        return any(
            following is not None and (not following.partial or self._can_complete(following))
            for following in (self.step(state, byte) for byte in range(0x80, 0xC0))
        )


_IMAGE_LENGTH = len(b"<imagine>.</imagine>")


def _utf8_length(first: int) -> int:
    """Bytes of a character by its first one; 0 where none begins so (RFC 3629)."""
    return 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4 if 0xF0 <= first <= 0xF4 else 0


def _is_utf8_start(partial: bytes) -> bool:
    """Whether some character begins with these bytes (no overlong forms, no surrogates)."""
    if any(not 0x80 <= byte <= 0xBF for byte in partial[1:]):
        return False
    low, high = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(partial[0], (0x80, 0xBF))
    return len(partial) < 2 or low <= partial[1] <= high


# ---- tokens


class Vocabulary:
    """The tokens of a tokenizer as bytes, and masks of them by state. Made once per model: about a second for 150,000.

    tokens   by id; None = may never be written (special tokens, unused rows)
    eos      ids that end the text
    """

    def __init__(self, tokens: Sequence[bytes | None], eos: Collection[int]):
        import numpy as np

        if not {bytes([byte]) for byte in range(0x80, 0xC0)} <= set(tokens):
            # Characters could be begun and not completed.
            tokens = [token if token and _Kind.of(token).cost == len(token) else None for token in tokens]
        self.tokens = tuple(tokens)
        self.eos = tuple(sorted({id for id in eos if 0 <= id < len(tokens)}))
        if not self.eos:
            raise InputError("the model has no token that ends a text; take the tokenizer and generation_config it came with")
        written = [(token, id) for id, token in enumerate(self.tokens) if token]
        self._sorted = sorted(written)
        self._texts = [token for token, _ in self._sorted]
        singles = {token[0] for token, _ in written if len(token) == 1}
        if missing := bytes(sorted(set(range(0x20, 0x7F)) | {0x0A})).translate(None, bytes(singles)):
            raise InputError(f"the tokenizer cannot spell {missing[-8:].decode()!r} as single characters, so markup cannot "
                             "be forced; use the planner without the grammar")
        kinds = [_Kind.of(token) if token else _NEVER for token in self.tokens]
        self._cost = np.array([kind.cost for kind in kinds])
        self._leads = np.array([kind.leads for kind in kinds])
        self._plain = {name: np.array([getattr(kind, name) for kind in kinds]) for name in ("text", "prompt", "value")}
        self._odd = {name: [(token, id) for token, id in written if not plain[id] and token[0] not in range(0x80, 0xC0)]
                     for name, plain in self._plain.items()}  # fmt: skip
        self._continuing = [(token, id) for token, id in written if 0x80 <= token[0] < 0xC0]
        self._commas = [(token, id) for token, id in written if self._plain["value"][id] and b"," in token]
        self._longest = max(kinds[id].cost for token, id in written if b"   " not in token)
        self._most_images = max(token.count(b"<i") for token, _ in written) + 1
        self._spells_ids = any(b' id="p' in token for token, _ in written)
        self._masks: OrderedDict[tuple, torch.Tensor] = OrderedDict()

    @classmethod
    def of(cls, tokenizer, *, eos: Iterable[int] = (), size: int | None = None) -> Vocabulary:
        """The vocabulary of a transformers tokenizer: byte-level BPE, or pieces with the SentencePiece space mark.

        `size` = number of logits, where the model has more of them than there are tokens. InputError for other kinds.
        """
        spell = _spelling_of(tokenizer)
        added = {id: token for id, token in tokenizer.added_tokens_decoder.items()}
        tokens: list[bytes | None] = []
        for id, piece in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
            if id in added:
                markup = re.fullmatch(r"</?imagine>", added[id].content)
                tokens.append(added[id].content.encode() if markup or not added[id].special else None)
            else:
                tokens.append(None if piece is None else spell(piece))
        for id in tokenizer.all_special_ids:
            if id not in added:
                tokens[id] = None
        size = size or len(tokens)
        tokens = (tokens + [None] * size)[:size]
        return cls(tokens, {*eos, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])})

    def mask(self, machine: Machine, state: State) -> torch.Tensor:
        """Which tokens may follow, the end not among them. Shape (vocabulary,), bool; do not change it."""
        key = self._key(state)
        mask = self._masks.get(key)
        if mask is None:
            mask = self._masks[key] = self._build(machine, state)
            if len(self._masks) > CACHED_MASKS:
                self._masks.popitem(last=False)
        else:
            self._masks.move_to_end(key)
        return mask

    def prefixes_of(self, text: bytes) -> list[int]:
        """Ids of the tokens that this text can begin with."""
        return [id for length in range(1, len(text) + 1) for id in self._equal_to(text[:length])]

    def _key(self, state: State) -> tuple:
        """What of a state decides its mask: states that differ in other things only share one."""
        if state.mode == "name" and state.typed and not any(name.startswith(state.typed.strip()) for name in state.cast):
            state = state._replace(typed=b"-", cast=())
        elif state.mode == "look":
            state = state._replace(cast=())
        return state._replace(required=0, allowed=min(state.allowed, self._most_images), room=min(state.room, self._longest),
                              content=state.content if state.mode in ("title", "prompt") else False,
                              index=state.index if self._spells_ids else 0)  # fmt: skip

    def _build(self, machine: Machine, state: State) -> torch.Tensor:
        import numpy as np
        import torch

        mask = np.zeros(len(self.tokens), dtype=bool)
        if state.mode == "choice":
            mask[list(self._spelling(machine, state))] = True
        elif state.partial:
            mask[[id for token, id in self._continuing if machine.walk(state, token) is not None]] = True
        else:
            kind = {"text": "text", "header": "text", "title": "text", "prompt": "prompt"}.get(state.mode, "value")
            if state.mode != "start":
                room = ROOM["text"] if state.mode == "header" else state.room
                limit = 2 if state.mode in _BETWEEN_IMAGES else 1
                mask = self._plain[kind] & (self._cost <= room)
                if state.run >= limit:
                    mask &= ~self._leads
            odd = self._odd[kind] if state.mode != "start" else self._sorted
            if state.mode == "name":
                odd = odd + self._commas
            for token, id in odd:
                mask[id] = machine.walk(state, token) is not None
        return torch.from_numpy(mask)

    def _spelling(self, machine: Machine, state: State) -> Iterable[int]:
        """Tokens that spell a part of an option, or all of it and go on from there."""
        for rest, target in state.options:
            yield from self.prefixes_of(rest)
            place = bisect_left(self._texts, rest)
            following = machine.enter(state, target)
            while place < len(self._texts) and self._texts[place].startswith(rest):
                token, id = self._sorted[place]
                if machine.walk(following, token[len(rest):]) is not None:
                    yield id
                place += 1

    def _equal_to(self, text: bytes) -> Iterable[int]:
        place = bisect_left(self._texts, text)
        while place < len(self._texts) and self._texts[place] == text:
            yield self._sorted[place][1]
            place += 1


class _Kind(NamedTuple):
    """Whether a token is plain (no byte of it can lead anywhere else) in text, in a dense prompt, in a value; its cost in
    bytes, with those that complete its last character; and whether it leads with white space."""

    text: bool
    prompt: bool
    value: bool
    cost: int
    leads: bool

    @classmethod
    def of(cls, token: bytes) -> _Kind:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            text, (partial, _) = decoder.decode(token), decoder.getstate()
        except UnicodeDecodeError:
            return _NEVER
        missing = _utf8_length(partial[0]) - len(partial) if partial else 0
        plain = not _ODD.search(text) and b"  " not in token
        return cls(plain, plain and "&" not in text, plain and not set(text) & set('&>"'), len(token) + missing,
                   token[:1] == b" ")  # fmt: skip


_NEVER = _Kind(False, False, False, 0, False)
_ODD = re.compile(rf"<|[\x00-\x1f\x7f]|{ILLEGAL.pattern}|(?! )\s")


def _spelling_of(tokenizer):
    """A function from a token's piece to its bytes."""
    kinds = set()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.decoder is not None:
        decoder = json.loads(backend.decoder.__getstate__())
        kinds = {part["type"] for part in decoder.get("decoders", [decoder])}
    if "ByteLevel" in kinds:
        table = {character: byte for byte, character in _byte_level_alphabet().items()}
        return lambda piece: bytes(table[character] for character in piece) if set(piece) <= table.keys() else None
    if kinds & {"Metaspace", "ByteFallback"} or hasattr(tokenizer, "sp_model"):
        def spell(piece: str) -> bytes:
            if found := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
                return bytes.fromhex(found[1])
            return piece.replace("\u2581", " ").encode()

        return spell
    shown = ", ".join(sorted(kinds)) or "none"
    raise InputError(f"the tokenizer's decoder is {shown}; markup can be forced with byte-level BPE and SentencePiece "
                     "vocabularies. Use the planner without the grammar")


def _byte_level_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


# ---- one text


def languages_for(request: Request) -> tuple[str, ...]:
    """What `<story language>` may say: the request's language; where it names none, those that its letters allow."""
    if request.language != "en":
        return (request.language,)
    return LATIN_LANGUAGES if request.prompt.isascii() else LANGUAGES


class PlanGrammar:
    """The grammar along one text: `allowed()` before every token, `accept(id)` after it.

    num_images   exactly so many; None = any number
    max_tokens   the text, its end included, is never longer. InputError when that is too short for `num_images`
    """

    def __init__(self, vocabulary: Vocabulary, machine: Machine, *, num_images: int | None, max_tokens: int,
                 num_written: int = 0, continued: bool = False):  # fmt: skip
        self.vocabulary, self.machine = vocabulary, machine
        self.state = machine.start(num_images, num_written=num_written, continued=continued)
        self.left = max_tokens
        shortest = machine.distance(self.state) + 1 + _HURRY_SLACK
        wanted = num_images or 0
        if max_tokens < shortest + MIN_PACE * wanted:
            raise InputError(f"max_tokens is {max_tokens}; a plan with {wanted} images needs {shortest + MIN_PACE * wanted} at "
                             "least, and several times as many to be good")
        self._pace = min(PACE, (max_tokens - shortest) // (2 * wanted)) if wanted else 0

    def allowed(self) -> torch.Tensor:
        """Which tokens may come next. Shape (vocabulary,), bool."""
        may_end = self.machine.may_end(self.state)
        if self._in_hurry():
            return self._only(self.vocabulary.prefixes_of(self.machine.next_forced(self.state)) or self.vocabulary.eos)
        mask = self.vocabulary.mask(self.machine, self.state)
        if may_end:
            mask = mask.clone()
            mask[list(self.vocabulary.eos)] = True
        return mask

    def accept(self, token: int) -> None:
        """Goes on by one token. ValueError when it was not allowed."""
        self.left -= 1
        if token in self.vocabulary.eos:
            return
        text = self.vocabulary.tokens[token]
        following = self.machine.walk(self.state, text) if text else None
        if following is None:
            raise ValueError(f"token {token} ({text!r}) may not follow in {self.state}")
        self.state = following

    def _in_hurry(self) -> bool:
        to_come = self.state.required - (self.state.mode == "prompt" and self.state.required > 0)
        at_most = 3 * _HURRY_SLACK + (_IMAGE_LENGTH + self._pace) * (self.state.required + 1)
        if self.left > at_most:
            return False  # far from it; the exact distance need not be computed
        return self.left <= self.machine.distance(self.state) + 1 + _HURRY_SLACK + self._pace * to_come

    def _only(self, ids: Iterable[int]) -> torch.Tensor:
        import torch

        mask = torch.zeros(len(self.vocabulary.tokens), dtype=torch.bool)
        mask[list(ids)] = True
        return mask


class GrammarLogits:
    """A transformers logits processor for one sequence: every token that the grammar does not allow gets minus infinity."""

    def __init__(self, grammar: PlanGrammar):
        self.grammar = grammar
        self._length: int | None = None

    def __call__(self, input_ids, scores):
        if scores.shape[0] != 1:
            raise ValueError(f"a plan is one sequence, got a batch of {scores.shape[0]}")
        if self._length is not None:
            for token in input_ids[0, self._length:].tolist():
                self.grammar.accept(token)
        self._length = input_ids.shape[1]
        return scores.masked_fill(~self.grammar.allowed().to(scores.device), float("-inf"))
