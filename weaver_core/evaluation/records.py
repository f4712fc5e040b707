"""What evaluation reads and writes: prompts, documents, judge records, metric records; one JSON object a line.

Every record has `to_json` and `from_json`; `from_json` refuses unknown keys and wrong types with a sentence for the user.
Files of records only grow (`weaver_core.durable.Journal`), so a run can be killed at any moment and goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError

DIMENSIONS = ("PA", "NC", "CC", "IC", "CP")
"""Prompt adherence, narrative coordination, content consistency, image consistency, completeness; 0-10 each."""

STATUSES = ("ok", "na", "refused", "parse_error", "timeout", "error", "missing_output")


class _Record:
    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any, where: str = ""):
        """A record from parsed JSON. InputError naming `where` for unknown or missing keys."""
        place = f"{where}: " if where else ""
        if not isinstance(value, dict):
            raise InputError(f"{place}expected a JSON object, got {type(value).__name__}")
        known = {item.name: item for item in dataclasses.fields(cls)}
        unknown = sorted(set(value) - set(known))
        if unknown:
            raise InputError(f"{place}unknown key {unknown[0]!r}; known are {', '.join(known)}")
        missing = [name for name, item in known.items() if name not in value
                   and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING]
        if missing:
            raise InputError(f"{place}the key {missing[0]!r} is missing")
        return cls(**{name: cls._read(name, item, f"{place}{name}") for name, item in value.items()})

    @classmethod
    def _read(cls, name: str, value: Any, where: str) -> Any:
        return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class InputBlock(_Record):
    """A part of what the user gives: type "text" (text) or "image" (path relative to the prompt file, sha256 of the file)."""

    type: str
    text: str = ""
    path: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """How many images are wanted; `explicit`: the request says the number."""

    images_min: int
    images_max: int
    explicit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """Someone or something in the story; `recurs`: expected in several images."""

    name: str
    recurs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A yes/no question about a document. scope "text", "images" or "both"; need: "yes" or "no" is the good answer."""

    q: str
    scope: str
    need: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt(_Record):
    """One prompt of a benchmark. `input` holds texts and images in order; `ref` is free room for importers and oracles."""

    id: str
    v: int
    category: str
    lang: str
    input: tuple[InputBlock, ...]
    want: Want
    entities: tuple[Entity, ...] = ()
    checks: tuple[Check, ...] = ()
    ref: dict = field(default_factory=dict)
    source: str = ""
    license: str = ""

    @property
    def text(self) -> str:
        """All texts of the input, in order."""
        return "\n".join(block.text for block in self.input if block.type == "text")

    @classmethod
    def _read(cls, name, value, where):
        kinds = {"input": InputBlock, "entities": Entity, "checks": Check}
        if name in kinds:
            return tuple(_build(kinds[name], item, f"{where}[{i}]") for i, item in enumerate(value))
        return _build(Want, value, where) if name == "want" else _Record._read.__func__(cls, name, value, where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of an answer: type "text" (text), or "image" (path relative to the run folder, sha256 of the file, and what is
    known of how it was drawn)."""

    type: str
    text: str = ""
    path: str = ""
    sha256: str = ""
    dense_prompt: str = ""
    width: int = 0
    height: int = 0
    seed: int | None = None
    refs: tuple[str, ...] = ()
    ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(_Record):
    """What a system answered to one prompt. finish: "stop", "length", "error", "interrupted"; `error` says why."""

    prompt_id: str
    system: str
    seed: int
    blocks: tuple[Block, ...]
    finish: str = "stop"
    error: str = ""
    timing: dict = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def images(self) -> tuple[Block, ...]:
        return tuple(block for block in self.blocks if block.type == "image")

    @property
    def texts(self) -> tuple[Block, ...]:
        return tuple(block for block in self.blocks if block.type == "text")

    @classmethod
    def _read(cls, name, value, where):
        if name == "blocks":
            return tuple(_build(Block, item, f"{where}[{i}]") for i, item in enumerate(value))
        return _Record._read.__func__(cls, name, value, where)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRecord(_Record):
    """One score of one judge: `dim` of DIMENSIONS (or a criterion of an imported benchmark), score 0-10 or None."""

    key: str
    prompt_id: str
    system: str
    rep: int
    dim: str
    score: float | None
    status: str
    rationale: str = ""
    raw: str = ""
    usage: dict = field(default_factory=dict)
    usd: float | None = None
    ms: float | None = None
    judge: str = ""
    rubric: dict = field(default_factory=dict)
    images_sent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRecord(_Record):
    """One judge-free number of one document. `by_image` holds per-image values where the metric has them; `flags` are named
    faults such as "grid:2" (fault and image index)."""

    prompt_id: str
    system: str
    metric: str
    value: float | None
    by_image: tuple[float | None, ...] = ()
    flags: tuple[str, ...] = ()


class Judge(Protocol):
    """Scores one document. `name` identifies model, parameters and rubric. Never raises for what a model answers."""

    name: str

    def score(self, prompt: Prompt, document: Document, folder: Path, *, dims: Sequence[str] = DIMENSIONS,
              rep: int = 0) -> list[JudgeRecord]: ...


class Metric(Protocol):
    """A judge-free measure. `measure` gets all documents of one system at once, since some numbers need a baseline over others."""

    name: str

    def measure(self, prompts: dict[str, Prompt], documents: Sequence[Document], folder: Path) -> list[MetricRecord]: ...


def read_jsonl(path: Path, cls) -> list:
    """All records of a JSONL file, strictly. InputError with file and line."""
    records = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{path}:{number}: no valid JSON ({error})") from None
                records.append(cls.from_json(value, f"{path}:{number}"))
    return records


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_hash(records: Iterable[_Record]) -> str:
    """Hash of a list of records: what "the same prompts" means."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record.to_json(), sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _build(cls, value: Any, where: str):
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(value).__name__}")
    known = [item.name for item in dataclasses.fields(cls)]
    for key in value:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")
    try:
        return cls(**{key: tuple(item) if isinstance(item, list) else item for key, item in value.items()})
    except TypeError as error:
        raise InputError(f"{where}: {error}") from None
