"""Records in shards: parquet files, and tar files as webdataset writes them, in place of a .jsonl file and pictures beside it.

    stories.parquet    columns as the keys of a record (file_name may be called image); a picture is bytes, a path, or {bytes, path} as
                       Hugging Face datasets keep it
    stories.tar        0001.json and, beside it, 0001.jpg (file_name), 0001.ref0.jpg ... (references), 0001.image0.jpg ... (images),
                       0001.drawn0.jpg ... (drawn); what has no ending of a picture (0001.txt, 0001.cls) is passed over

Pictures are written once into `<shard>.pictures/` beside the shard, under names of their bytes, and read from there as any others:
records, errors (`stories.parquet:4`), tables and resume are the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image

from weaver_core.durable import write_whole
from weaver_core.errors import InputError
from weaver_core.pictures import FORMATS

ENDINGS = (".parquet", ".tar")
PICTURES = ("file_name", "references", "images", "drawn")  # keys that name pictures
_MEMBERS = {"ref": "references", "image": "images", "drawn": "drawn"}
_NUMBERED = re.compile(r"(ref|image|drawn)(\d+)\.\w+")


def shards_of(source: Path) -> list[Path]:
    """The shards that a file, a folder or a pattern (`data/*.parquet`) names, in order; none if it names other things."""
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.suffix in ENDINGS)
    if "*" in source.name:
        return sorted(path for path in source.parent.glob(source.name) if path.suffix in ENDINGS)
    return [source] if source.suffix in ENDINGS and source.is_file() else []


def shard_objects(path: Path, keys: tuple[str, ...], problems: list[str]) -> Iterator[tuple[int, dict]]:
    """The objects of a shard, each with its row (from 1); pictures are paths that count from the shard's folder.

    keys      of a record: with `file_name` among them, every sample must have its picture
    problems  get what is wrong with samples that are no objects
    Raises   InputError for a file that is damaged, or whose package is missing
    """
    yield from _parquet(path) if path.suffix == ".parquet" else _tar(path, "file_name" in keys, problems)


def _parquet(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(f"{path} is a parquet file, which needs pyarrow: pip install \"wan-weaver[parquet]\"") from None
    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    number += 1
                    # Parquet has no missing keys, and `image` is what Hugging Face datasets call a picture.
                    kept = {"file_name" if key == "image" else key: value for key, value in row.items() if value is not None}
                    yield number, {key: _unpacked(path, value) if key in PICTURES else value for key, value in kept.items()}
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read after row {number} ({error}); write or download it again") from None


def _tar(path: Path, needs_picture: bool, problems: list[str]) -> Iterator[tuple[int, dict]]:
    samples: dict[str, dict[str, bytes | str]] = {}
    try:
        with tarfile.open(path) as file:
            for member in file:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    key, _, part = name.partition(".")
                    if part == "json" or _is_picture(part):
                        content = file.extractfile(member).read()
                        samples.setdefault(f"{folder}/{key}", {})[part] = content if part == "json" else _store(path, content)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error}); write or download it again") from None
    for number, (key, parts) in enumerate(samples.items(), 1):
        try:
            data = _sample(path, key.lstrip("/"), parts, needs_picture)
        except InputError as error:
            problems.append(str(error))
        else:
            yield number, data


def _sample(path: Path, key: str, parts: dict, needs_picture: bool) -> dict:
    try:
        data = json.loads(parts.pop("json"))
    except (KeyError, ValueError):
        raise InputError(f"{path}: {key}.json is missing or no valid JSON; every sample needs one beside its pictures") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: {key}.json holds no object; write a record's keys into it")
    found: dict[str, list] = {}
    for part, name in parts.items():
        kind = _NUMBERED.fullmatch(part)
        found.setdefault(_MEMBERS[kind[1]] if kind else "file_name", []).append((int(kind[2]) if kind else 0, name))
    own = [part for part in parts if not _NUMBERED.fullmatch(part)]
    if len(own) > 1:
        raise InputError(f"{path}: {key} has {len(own)} pictures, {', '.join(f'{key}.{part}' for part in own)}; leave one, and call others "
                         f"{key}.ref0, {key}.image0 or {key}.drawn0")
    if needs_picture and not own and "file_name" not in data:
        raise InputError(f"{path}: {key} has no picture; put one beside {key}.json, such as {key}.jpg")
    for name, pictures in found.items():
        ordered = [picture for _, picture in sorted(pictures)]
        data[name] = ordered[0] if name == "file_name" else ordered
    return data


def _is_picture(part: str) -> bool:
    """Whether a member of a sample is a picture by its ending, or by its number claims to be one."""
    return f".{part.rpartition('.')[2].lower()}" in _picture_endings() or _NUMBERED.fullmatch(part) is not None


@lru_cache(maxsize=1)
def _picture_endings() -> frozenset[str]:
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in FORMATS)


def _unpacked(path: Path, value):
    """Bytes become paths of files; paths stay."""
    if isinstance(value, list):
        return [_unpacked(path, item) for item in value]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return _store(path, value) if isinstance(value, bytes) else value


def _store(path: Path, content: bytes) -> str:
    """A picture in the folder beside its shard; returns its path from the shard's folder. Equal pictures are one file."""
    target = path.with_name(f"{path.name}.pictures") / hashlib.sha256(content).hexdigest()[:32]
    if not target.is_file():
        try:
            target.parent.mkdir(exist_ok=True)
            write_whole(target, content)
        except OSError as error:
            raise InputError(f"the pictures of {path} cannot be written to {target.parent} ({error}); put the shard where there is room") from None
    return f"{target.parent.name}/{target.name}"
