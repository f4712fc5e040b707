"""A user's own pictures for the visualizer: a folder with captions, checked before anything is trained, and sorted into buckets.

    robin-1.jpg  robin-1.txt           a picture, and its caption beside it

or, in the same folder, `metadata.jsonl` with one object a line:

    {"file_name": "robin-2.jpg", "prompt": "A small fox in a blue scarf on a hill", "references": ["robin-1.jpg"]}

Paths count from the folder. A caption is a dense prompt: it says what the picture shows and nothing about other pictures.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import log
from pathlib import Path

from training.record_shards import shards_of
from training.records import objects_of, picture_size, raise_all
from weaver_core.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")
KEYS = ("file_name", "prompt", "references")
TAGS = ("<imagine", "</imagine", "<BOI>", "<|")  # they would end the prompt, or begin another


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRecord:
    """A picture, its dense prompt and its references. `where` is `metadata.jsonl:4` or the caption's file; sizes are (width, height)."""

    where: str
    path: Path
    prompt: str
    size: tuple[int, int]
    references: tuple[Path, ...] = ()
    reference_sizes: tuple[tuple[int, int], ...] = ()


def read_picture_folder(source: str | Path, *, most_references: int = 4) -> list[PictureRecord]:
    """The records of a folder: of its `metadata.jsonl`, of its shards (`record_shards.py`; also one file, or `folder/*.parquet`), or captions.

    Raises   InputError with all that is wrong, each with its file (and line)
    """
    shards = shards_of(Path(source))
    folder = shards[0].parent if shards else Path(source)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one with pictures, and a caption beside each (robin.jpg, robin.txt)")
    problems: list[str] = []
    lines = folder / "metadata.jsonl"
    if shards and not lines.is_file():
        found = [entry for shard in shards for entry in _from_lines(shard, problems)]
    else:
        found = _from_lines(lines, problems) if lines.is_file() else _from_captions(folder, problems)
    records = [record for entry in found if (record := _checked(folder, *entry, most_references, problems)) is not None]
    raise_all(problems)
    if not records:
        raise InputError(f"{folder} holds no pictures ({', '.join(ENDINGS)}); put some there, and a caption beside each (robin.jpg, robin.txt)")
    return records


def bucket_sizes(side: int, step: int, max_aspect: float) -> list[tuple[int, int]]:
    """(width, height) of all buckets: sides in steps of `step` pixels, as near to side x side pixels as that allows, not more."""
    sizes = set()
    for width in range(step, int(side * max_aspect**0.5) + step, step):
        height = int(side * side / width) // step * step
        if height >= step and max(width, height) / min(width, height) <= max_aspect:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def bucket_of(size: tuple[int, int], buckets: list[tuple[int, int]]) -> tuple[int, int]:
    """The bucket that cuts least off: the nearest aspect ratio, and of equals the one with the most pixels."""
    return min(buckets, key=lambda bucket: (round(abs(log(bucket[0] / bucket[1]) - log(size[0] / size[1])), 6), -bucket[0] * bucket[1]))


def bucket_table(records: list[PictureRecord], buckets: list[tuple[int, int]], batch_size: int) -> list[str]:
    """What goes where, a line each; nothing is ever dropped."""
    members = defaultdict(list)
    for record in records:
        members[bucket_of(record.size, buckets)].append(record)
    lines = [f"{len(records)} pictures in {len(members)} buckets, none left out:"]
    for (width, height), inside in sorted(members.items()):
        short = f", a batch is smaller than data.batch_size = {batch_size}" if len(inside) % batch_size else ""
        lines.append(f"  {width}x{height}: {len(inside)} picture{'s' * (len(inside) != 1)}{short}")
    grown = [record for record in records if any(have < want for have, want in zip(record.size, bucket_of(record.size, buckets)))]
    if grown:
        lines.append(f"{len(grown)} pictures are smaller than their bucket and get enlarged, such as {grown[0].path.name} "
                     f"({grown[0].size[0]}x{grown[0].size[1]}); larger ones train better")
    with_references = sum(bool(record.references) for record in records)
    return lines + ([f"{with_references} of them have references"] if with_references else [])


def _from_captions(folder: Path, problems: list[str]) -> list[tuple]:
    found = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS):
        caption = path.with_suffix(".txt")
        if not caption.is_file():
            problems.append(f"{path}: its caption {caption.name} is missing; write what the picture shows into it")
            continue
        try:
            found.append((str(caption), path.name, caption.read_text(encoding="utf-8-sig"), ()))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{caption} cannot be read ({error}); save it as UTF-8")
    return found


def _from_lines(path: Path, problems: list[str]) -> list[tuple]:
    found = []
    for where, data in objects_of(path, KEYS, problems):
        names = data.get("references", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            problems.append(f"{where}: 'references' must be a list of paths")
        elif not isinstance(data.get("file_name"), str) or not isinstance(data.get("prompt"), str):
            problems.append(f"{where}: 'file_name' and 'prompt' must be texts")
        else:
            found.append((where, data["file_name"], data["prompt"], tuple(names)))
    return found


def _checked(folder: Path, where: str, name: str, prompt: str, references: tuple, most: int, problems: list[str]) -> PictureRecord | None:
    before = len(problems)
    prompt = " ".join(prompt.split())
    if not prompt:
        problems.append(f"{where}: the caption is empty; write what the picture shows")
    if tag := next((tag for tag in TAGS if tag in prompt), None):
        problems.append(f"{where}: the caption holds {tag!r}, which is a mark of plans; take it out")
    if len(references) > most:
        problems.append(f"{where}: {len(references)} references, but this visualizer takes {most}; give fewer")
    sizes = [_size(folder / file, where, problems) for file in (name, *references)]
    if len(problems) > before:
        return None
    return PictureRecord(where=where, path=folder / name, prompt=prompt, size=sizes[0],
                         references=tuple(folder / file for file in references), reference_sizes=tuple(sizes[1:]))


def _size(path: Path, where: str, problems: list[str]) -> tuple[int, int]:
    try:
        return picture_size(path)
    except InputError as error:
        problems.append(f"{where}: {error}")
        return (0, 0)
