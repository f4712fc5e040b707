"""What flows through the engine: records, a JSON object a line; and what a stage says about one that it does not hand on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One topic, picture, cluster or story. `id` is unique within a step and says where the record came from.

    fields   plain JSON; pictures are keys of the picture store, vectors are texts (`vectors.py`)
    """

    id: str
    fields: dict

    def with_fields(self, **fields) -> Record:
        return replace(self, fields=self.fields | fields)

    def without(self, *names: str) -> Record:
        return replace(self, fields={name: value for name, value in self.fields.items() if name not in names})

    def child(self, name: object, **fields) -> Record:
        """A record made out of this one."""
        return Record(id=f"{self.id}/{name}", fields=self.fields | fields)

    def line(self) -> str:
        return json.dumps({"id": self.id, **self.fields}, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_line(cls, line: str) -> Record:
        fields = json.loads(line)
        return cls(id=fields.pop("id"), fields=fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A record that is not handed on.

    reason   a short name that the report counts by, such as "blurred"
    detail   a sentence with the numbers
    failed   nothing is wrong with the record: the back end failed, and asking again may help
    """

    record: Record
    reason: str
    detail: str = ""
    failed: bool = False

    def line(self) -> str:
        about = {"id": self.record.id, "reason": self.reason, "detail": self.detail, "failed": self.failed}
        return json.dumps(about | {"fields": self.record.fields}, ensure_ascii=False, sort_keys=True)


Outcome = Record | Dropped


class Rejected(Exception):
    """Raised inside a stage: the record is dropped, for this reason."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def lines_of(items: Iterable[Outcome]) -> bytes:
    return utf8("".join(item.line() + "\n" for item in items))


def read_lines(data: bytes) -> list[Record]:
    return [Record.from_line(line) for line in data.decode().split("\n") if line]


def digest(*parts: object) -> str:
    """32 hex digits of anything that JSON can spell."""
    return hashlib.sha256(utf8(json.dumps(parts, sort_keys=True, ensure_ascii=False, default=list))).hexdigest()[:32]


def utf8(text: str) -> bytes:
    """Lone surrogates, which stand in names of files that are no UTF-8, become what JSON escapes them with."""
    return text.encode("utf-8", "backslashreplace")


def seed_of(*parts: object) -> int:
    """A seed for one record and one purpose: the same in every sitting, whatever was done before."""
    return int(digest(*parts)[:8], 16)
