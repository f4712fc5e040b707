"""What comes out: exactly what the trainers read.

stories      stories.jsonl (training/records.py): request, plan, `images` of the user's, `drawn` pages; pictures beside it
references   metadata.jsonl: file_name, text, references; images/ beside it
Both         dropped.jsonl: every record that was not handed on, with step, reason and detail
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from training.data_engine.record import Record, digest, utf8
from training.data_engine.runner import Build, steps_of
from weaver_core.export.files import whole_file


def write_output(build: Build) -> tuple[Path, int]:
    """Writes the set (pictures first, the list last and whole) and returns its file and the number of records."""
    last = steps_of(build.recipe)[-1].name
    make = {"stories": _story, "references": _row}[build.recipe.output]
    path = build.folder / {"stories": "stories.jsonl", "references": "metadata.jsonl"}[build.recipe.output]
    kept, number = set(), 0
    with whole_file(path) as file:
        for record in build.records(last):
            line, pictures = make(record)
            for name, key in pictures.items():
                build.tools.store.link(key, build.folder / name)
            kept |= pictures.keys()
            file.write(utf8(json.dumps(line, ensure_ascii=False) + "\n"))
            number += 1
    _remove_others(build.folder, kept)
    with whole_file(build.folder / "dropped.jsonl") as file:
        for line in dropped_lines(build):
            file.write(utf8(json.dumps(line, ensure_ascii=False) + "\n"))
    return path, number


def dropped_lines(build: Build) -> Iterator[dict]:
    """The dead letters of all steps, in order."""
    for step in steps_of(build.recipe):
        for line in build.dropped(step.name):
            yield {"step": step.name} | json.loads(line)


def _story(record: Record) -> tuple[dict, dict[str, str]]:
    """Pictures get the names that plans call them by, so each story has a folder of its own."""
    folder = f"images/{digest(record.id)[:16]}"
    line, pictures = {"request": record.fields["request"], "plan": record.fields["plan"]}, {}
    for key, name in (("images", "picture"), ("drawn", "page")):
        named = {f"{folder}/{name}-{i}.png": picture for i, picture in enumerate(record.fields.get(key, ()), 1)}
        line |= {key: list(named)} if named else {}
        pictures |= named
    return line, pictures


def _row(record: Record) -> tuple[dict, dict[str, str]]:
    keys = [record.fields["picture"], *record.fields["references"]]
    names = [f"images/{key}.png" for key in keys]
    return {"file_name": names[0], "text": record.fields["text"], "references": names[1:]}, dict(zip(names, keys))


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Pictures of records that an earlier recipe made and this one did not."""
    for path in sorted((folder / "images").rglob("*"), reverse=True) if (folder / "images").is_dir() else ():
        if path.is_file() and path.relative_to(folder).as_posix() not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
