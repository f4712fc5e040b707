"""What comes out: exactly what the trainers read.

stories      stories.jsonl (training/records.py): request, plan, `images` of the user's, `drawn` pages; pictures beside it
references   metadata.jsonl (training/picture_records.py): file_name, prompt, references; images/ beside it
Both         dropped.jsonl: every record that was not handed on, with step, reason and detail
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from training.data_engine.record import Record, digest, utf8
from training.data_engine.runner import Build, steps_of
from training.records import DROPPED
from weaver_core.durable import write_whole
from weaver_core.export.files import whole_file


def write_output(build: Build) -> tuple[Path, int]:
    """Writes the set (pictures first, the list last and whole) and returns its file and the number of records."""
    last = steps_of(build.recipe)[-1].name
    make = {"stories": _story, "references": _row}[build.recipe.output]
    path = build.folder / {"stories": "stories.jsonl", "references": "metadata.jsonl"}[build.recipe.output]
    kept, number = {name for record in build.records(last) for name in make(record)[1]}, 0
    others = _others(build, kept)
    with whole_file(path) as file:
        for record in build.records(last):
            line, pictures = make(record)
            for name, key in pictures.items():
                build.tools.store.link(key, build.folder / name)
            file.write(utf8(json.dumps(line, ensure_ascii=False) + "\n"))
            number += 1
    _remove(build, others, kept)
    with whole_file(build.folder / DROPPED) as file:
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
    return {"file_name": names[0], "prompt": record.fields["text"], "references": names[1:]}, dict(zip(names, keys))


def _others(build: Build, kept: set[str]) -> set[str]:
    """Pictures that an earlier recipe put out and this one does not. `work/pictures.txt` names all that this build ever put out: nothing
    else in `images` is ours to remove. New names are noted before their files are there, so that a kill leaves none unknown."""
    path = build.work / "pictures.txt"
    before = set(path.read_text(encoding="utf-8").split("\n")[:-1]) if path.is_file() else set()
    _note(build, before | kept)
    return before - kept


def _remove(build: Build, names: set[str], kept: set[str]) -> None:
    for name in names:
        (build.folder / name).unlink(missing_ok=True)
    for folder in {(build.folder / name).parent for name in names}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    _note(build, kept)


def _note(build: Build, names: set[str]) -> None:
    write_whole(build.work / "pictures.txt", "".join(f"{name}\n" for name in sorted(names)).encode())
