"""A user's own data for a planner: one JSON object a line, checked before anything is trained.

    {"request": "A story about Robin, in two pictures", "plan": "# Robin\\n... <imagine>...</imagine>", "images": ["robin.png"]}
    {"request": "What does the fox wear?", "answer": "A blue scarf.", "images": ["robin.png"]}

`plan` makes a generation record, `answer` an understanding record. `images` are pictures of the user's in the request. `drawn` are
the pictures that the plan's dense prompts became, one each, for planners that see what was drawn (the closed loop). Paths count
from the file's folder.
"""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.record_shards import ENDINGS, shard_objects, shards_of
from weaver_core.errors import InputError
from weaver_core.pictures import FORMATS, MAX_PIXELS, MIN_PICTURE_SIDE
from weaver_core.plan import Plan, parse_markup
from weaver_core.request import Request

KEYS = ("request", "plan", "answer", "images", "drawn")
DROPPED = "dropped.jsonl"  # of the data engine, beside its stories: what it did not hand on
MOST_TOLD = 20  # problems that are told one by one
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: lies on its side


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerRecord:
    """One request and what is right to write. `where` is `stories.jsonl:4`; `plan` is None for an understanding record."""

    where: str
    request: str
    plan: Plan | None
    answer: str
    images: tuple[Path, ...] = ()
    drawn: tuple[Path, ...] = ()

    @property
    def kind(self) -> str:
        return "understanding" if self.plan is None else "generation"


def read_records(source: str | Path) -> list[PlannerRecord]:
    """The records of a .jsonl file or of shards (`record_shards.py`), or of all such files in a folder (.jsonl before shards).

    Raises   InputError with all that is wrong, each with file and line
    """
    source = Path(source)
    lines = sorted(path for path in source.glob("*.jsonl") if path.name != DROPPED) if source.is_dir() else []
    files = lines or shards_of(source) or ([] if source.is_dir() else [source])
    if not files:
        raise InputError(f"the folder {source} holds no .jsonl, .parquet or .tar file; write one record a line into {source / 'stories.jsonl'}")
    records, problems = [], []
    for path in files:
        for where, data in objects_of(path, KEYS, problems):
            record, wrong = _read(data, path.parent, where)
            problems += [f"{where}: {message}" for message in wrong]
            records += [] if wrong else [record]
    raise_all(problems)
    if not records:
        raise InputError(f"{source} holds no records; write one JSON object a line, with request and plan")
    return records


def split(records: list[PlannerRecord], held_out: float) -> tuple[list[PlannerRecord], list[PlannerRecord]]:
    """Records to train on and records only to measure with: of each kind every n-th is held out, the same in every sitting."""
    return split_evenly(records, held_out, kind=lambda record: record.kind)


def split_evenly(records: list, held_out: float, *, kind=lambda record: "") -> tuple[list, list]:
    """As `split`, for records of any sort."""
    if not held_out:
        return list(records), []
    every, seen, parts = round(1 / held_out), {}, ([], [])
    for record in records:
        seen[kind(record)] = seen.get(kind(record), 0) + 1
        parts[seen[kind(record)] % every == 0].append(record)
    return parts


def check_held_out(share: float) -> None:
    """ValueError for a share of records to hold out that would leave none to train on."""
    if not 0 <= share <= 0.5:
        raise ValueError(f"data.held_out is {share}; it must be in [0, 0.5]")


def objects_of(path: Path, keys: tuple[str, ...], problems: list[str]) -> Iterator[tuple[str, dict]]:
    """The objects of a .jsonl file or a shard, each with its place (`stories.jsonl:4`). What is none, and unknown keys, become problems."""
    for where, data in _shard_objects(path, keys, problems) if path.suffix in ENDINGS else _line_objects(path, keys, problems):
        for key in data:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, n=1)
                problems.append(f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(keys)}"))
        yield where, data


def _shard_objects(path: Path, keys: tuple[str, ...], problems: list[str]) -> Iterator[tuple[str, dict]]:
    try:
        for number, data in shard_objects(path, keys, problems):
            yield f"{path}:{number}", data
    except InputError as error:
        problems.append(str(error))


def _line_objects(path: Path, keys: tuple[str, ...], problems: list[str]) -> Iterator[tuple[str, dict]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: JSON may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path} cannot be read: {getattr(error, 'strerror', None) or f'{error}; save it as UTF-8'}")
        return
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"{where}: no valid JSON ({error}); a record is one object on one line")
            continue
        if not isinstance(data, dict):
            problems.append(f"{where}: expected an object with {keys[0]} and {keys[1]}, got {type(data).__name__}")
            continue
        yield where, data


def raise_all(problems: list[str]) -> None:
    """InputError with the problems, if there are any, a line each."""
    if problems:
        more = [f"... and {len(problems) - MOST_TOLD} more"] if len(problems) > MOST_TOLD else []
        raise InputError("\n".join(problems[:MOST_TOLD] + more))


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture held upright, by its header alone. InputError for one that `read_picture` would refuse."""
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning; the limit below is ours
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as picture:
                width, height = picture.size[::-1] if picture.getexif().get(_ORIENTATION) in _TURNED else picture.size
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path.name} is no picture that can be opened ({getattr(error, 'strerror', None) or 'unknown format'})") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path.name} has far too many pixels; at most {MAX_PIXELS // 10**6} million are read") from None
    if width * height > MAX_PIXELS or min(width, height) < MIN_PICTURE_SIDE:
        raise InputError(f"{path.name} is {width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are read, and at least "
                         f"{MIN_PICTURE_SIDE} on each side are needed")
    return width, height


def _read(data: dict, folder: Path, where: str) -> tuple[PlannerRecord | None, list[str]]:
    """A record, or what is wrong with its object."""
    wrong = []
    request = data.get("request")
    if not isinstance(request, str) or not request.strip():
        wrong.append("'request' must be a text that is not empty")
    else:
        try:
            Request(prompt=request).validated()
        except InputError as error:
            wrong.append(str(error))
    written = [key for key in ("plan", "answer") if key in data]
    if len(written) != 1 or not isinstance(data[written[0]], str) or not data[written[0]].strip():
        return None, [*wrong, "exactly one of 'plan' (markup) and 'answer' (text) must be there, and not be empty"]
    plan = None
    if "plan" in data:
        plan, warnings = parse_markup(data["plan"])
        wrong += [f"plan, {warning}" for warning in warnings]
    images, more = _pictures(data, "images", folder)
    drawn, most = _pictures(data, "drawn", folder)
    wrong += more + most
    if drawn and len(drawn) != (len(plan.images) if plan else 0):
        wrong.append(f"{len(drawn)} pictures in 'drawn', but the plan has {len(plan.images) if plan else 0} images; give one for each, or none")
    if wrong:
        return None, wrong
    return PlannerRecord(where=where, request=request.strip(), plan=plan, answer=data[written[0]].strip(),
                         images=tuple(images), drawn=tuple(drawn)), []


def _pictures(data: dict, key: str, folder: Path) -> tuple[list[Path], list[str]]:
    names = data.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return [], [f"{key!r} must be a list of paths"]
    wrong = []
    for name in names:
        try:
            picture_size(folder / name)
        except InputError as error:
            wrong.append(f"{key}: {error}")
    return [folder / name for name in names], wrong
