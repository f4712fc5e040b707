"""Runs a recipe: step after step over shards, each finished shard journaled, so that a build that is killed goes on.

In the folder `work` of the output:

    journal.jsonl            one line for each finished shard: what it was made from and the hashes of its files
    02-caption/00003.jsonl   records; 00003.dropped.jsonl beside it says who was dropped and why
    pictures/                the picture store
    pictures.txt             names of the pictures that were put out
    replies.sqlite           answers of the model by what was asked

A shard's key holds everything that decides its bytes: the stage, its version and settings, its input's hash and, where it asks
or embeds, the model with its weights. Same key: it is not made again. Change a stage in the recipe, and what comes after it is made anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data_engine import questions
from training.data_engine.recipe import Recipe, StageConfig, to_json
from training.data_engine.record import Dropped, Record, digest, lines_of, read_lines
from training.data_engine.sources import list_source, listing_key
from training.data_engine.stages import Tools, stage_class
from training.data_engine.weights import weights_of
from training.records import DROPPED
from weaver_core.durable import Journal, write_whole
from weaver_core.errors import InputError
from weaver_core.planners import instruction

PUT_OUT = ("images", "stories.jsonl", "metadata.jsonl", DROPPED, "report.html", "report.json")  # beside `work`


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage at its place. `name` is its folder."""

    name: str
    stage: StageConfig
    recipe: Recipe

    @property
    def cls(self):
        return stage_class(self.stage.kind)

    @property
    def key(self) -> str:
        """Of everything but the input."""
        return _step_key(self.recipe, self.stage)


def steps_of(recipe: Recipe) -> list[Step]:
    read = stage_class("read")
    stages = (StageConfig(kind="read", settings=read.Settings()), *recipe.stages)
    return [Step(name=f"{number:02}-{stage.kind}", stage=stage, recipe=recipe) for number, stage in enumerate(stages)]


class Build:
    """One recipe in one folder. `told` gets a sentence now and then."""

    def __init__(self, recipe: Recipe, folder: Path, *, told: Callable[[str], None] = lambda sentence: None, retry_failed: bool = False):
        self.recipe, self.folder, self.work, self.told, self.retry_failed = recipe, Path(folder), Path(folder) / "work", told, retry_failed
        check_folder(self.folder)
        self.work.mkdir(parents=True, exist_ok=True)
        path = self.work / "journal.jsonl"
        self.journal = Journal(path, create=not path.exists())
        self.done = {(entry["step"], entry["shard"]): entry for entry in self.journal.records if "key" in entry}
        self.tools = Tools(recipe, self.work)

    def close(self) -> None:
        self.journal.close()

    def run(self, engine: Callable | None = None) -> list[dict]:
        """Makes what is not there yet, and returns a table: a dict for each step with what came in, went on and was dropped.

        engine   a function as `run_here`, for steps that take shards one by one; None = in this process
        """
        run = engine or run_here
        inputs, table = self._listing(), []
        for step in steps_of(self.recipe):
            self.told(f"{step.name}: {len(inputs)} shards")
            entries = self._whole(step, inputs) if step.cls.is_whole else self._by_shard(step, inputs, run)
            table.append({"step": step.name, "kind": step.stage.kind, "in": sum(entry["kept"] for entry in inputs),
                          **{name: sum(entry[name] for entry in entries) for name in ("kept", "dropped", "failed")}})
            inputs = entries
        return table

    def records(self, step: str) -> Iterator[Record]:
        """What a finished step hands on."""
        for _, entry in sorted((shard, entry) for (name, shard), entry in self.done.items() if name == step):
            yield from read_lines((self.work / step / f"{entry['shard']:05}.jsonl").read_bytes())

    def dropped(self, step: str) -> Iterator[str]:
        """The lines about records that a finished step did not hand on."""
        for _, entry in sorted((shard, entry) for (name, shard), entry in self.done.items() if name == step):
            yield from (self.work / step / f"{entry['shard']:05}.dropped.jsonl").read_text(encoding="utf-8").split("\n")[:-1]

    # ---- steps

    def _listing(self) -> list[dict]:
        """The sources' records, as shards of a step of their own."""
        records = [record for number, source in enumerate(self.recipe.sources) for record in list_source(source, number, self.recipe.folder)]
        _check_ids(records)
        return self._write_shards("listing", digest("listing"), records, [])

    def _by_shard(self, step: Step, inputs: list[dict], run: Callable) -> list[dict]:
        key = step.key
        keys = [digest(key, entry["sha256"]) for entry in inputs]
        todo = [index for index, key in enumerate(keys) if not self._is_done(step.name, index, key)]
        jobs = [{"step": step.name, "before": inputs[index]["step"], "shard": index, "key": keys[index]} for index in todo]
        for entry in run(self.recipe, self.work, jobs, self.tools):
            self._finished(entry)
            self.told(f"{step.name}: shard {entry['shard'] + 1} of {len(inputs)}, {entry['kept']} go on, {entry['dropped']} dropped")
        self._forget_from(step.name, len(inputs))
        return [self.done[step.name, index] for index in range(len(inputs))]

    def _whole(self, step: Step, inputs: list[dict]) -> list[dict]:
        key = digest(step.key, [entry["sha256"] for entry in inputs])
        mine = sorted((entry for (name, _), entry in self.done.items() if name == step.name), key=lambda entry: entry["shard"])
        mine = mine[:mine[0]["of"]] if mine else []  # the journal also knows shards of an older, longer result
        if mine and len(mine) == mine[0]["of"] and all(self._is_done(step.name, entry["shard"], key) for entry in mine):
            self._forget_from(step.name, len(mine))
            return mine
        records = [record for entry in inputs for record in read_lines((self.work / entry["step"] / f"{entry['shard']:05}.jsonl").read_bytes())]
        outcomes = list(step.cls(step.stage.settings, self.tools).whole(records))
        kept = [outcome for outcome in outcomes if isinstance(outcome, Record)]
        return self._write_shards(step.name, key, kept, [outcome for outcome in outcomes if isinstance(outcome, Dropped)])

    def _write_shards(self, name: str, key: str, kept: list[Record], dropped: list[Dropped]) -> list[dict]:
        """Records in shards; all that was dropped is told beside the first."""
        size = self.recipe.build.shard_size
        parts = [kept[start:start + size] for start in range(0, len(kept), size)] or [[]]
        for index, part in enumerate(parts):
            entry = write_shard(self.work, name, index, key, part, dropped if index == 0 else []) | {"of": len(parts)}
            if self.done.get((name, index)) != entry:
                self._finished(entry)
        self._forget_from(name, len(parts))
        return [self.done[name, index] for index in range(len(parts))]

    def _is_done(self, name: str, index: int, key: str) -> bool:
        entry = self.done.get((name, index))
        if entry is None or entry["key"] != key or (self.retry_failed and entry["failed"]):
            return False
        files = [self.work / name / f"{index:05}{suffix}" for suffix in (".jsonl", ".dropped.jsonl")]
        try:
            return [_sha256(path.read_bytes()) for path in files] == [entry["sha256"], entry["dropped_sha256"]]
        except OSError:
            return False

    def _finished(self, entry: dict) -> None:
        self.journal.append(entry)
        self.done[entry["step"], entry["shard"]] = entry

    def _forget_from(self, name: str, count: int) -> None:
        """Shards that an older recipe had and this one has not."""
        for key in [key for key in self.done if key[0] == name and key[1] >= count]:
            del self.done[key]
        folder = self.work / name
        for path in folder.glob("*.jsonl") if folder.is_dir() else ():
            if path.name.split(".")[0].isdigit() and int(path.name.split(".")[0]) >= count:
                path.unlink()


def run_here(recipe: Recipe, work: Path, jobs: list[dict], tools: Tools) -> Iterator[dict]:
    """The embedded engine: one shard after another, in this process."""
    for job in jobs:
        yield run_shard(recipe, work, job, tools)


def run_shard(recipe: Recipe, work: Path, job: dict, tools: Tools) -> dict:
    """Makes one shard and returns its line for the journal. What every engine calls, wherever it runs."""
    step = next(step for step in steps_of(recipe) if step.name == job["step"])
    records = read_lines((work / job["before"] / f"{job['shard']:05}.jsonl").read_bytes())
    outcomes = step.cls(step.stage.settings, tools).shard(records)
    kept = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    dropped = [outcome for outcome in outcomes if isinstance(outcome, Dropped)]
    return write_shard(work, step.name, job["shard"], job["key"], kept, dropped)


def write_shard(work: Path, name: str, index: int, key: str, kept: list[Record], dropped: list[Dropped]) -> dict:
    folder = work / name
    folder.mkdir(exist_ok=True)
    data, about = lines_of(kept), lines_of(dropped)
    for suffix, content in ((".dropped.jsonl", about), (".jsonl", data)):
        path = folder / f"{index:05}{suffix}"
        if not path.exists() or path.read_bytes() != content:
            write_whole(path, content)
    return {"step": name, "shard": index, "key": key, "kept": len(kept), "dropped": len(dropped),
            "failed": sum(outcome.failed for outcome in dropped), "sha256": _sha256(data), "dropped_sha256": _sha256(about)}


def check_folder(folder: Path) -> None:
    """InputError for a folder with a set that no build made: its list would be replaced."""
    found = [name for name in PUT_OUT if (folder / name).exists()]
    if found and not (folder / "work" / "journal.jsonl").exists():
        raise InputError(f"{folder} holds {', '.join(found)} and no work/journal.jsonl, so this is no folder of a build, and a build would replace "
                         "what is there; choose another folder with --out")


def start_over(folder: Path) -> None:
    """Removes what earlier builds made in this folder, but no answer that was paid for."""
    check_folder(Path(folder))
    work = Path(folder) / "work"
    for path in work.iterdir() if work.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name == "journal.jsonl":
            os.truncate(path, 0)  # not removed: it says that the folder is a build's


def _step_key(recipe: Recipe, stage: StageConfig) -> str:
    cls, table = stage_class(stage.kind), to_json(recipe)
    key = [stage.kind, cls.version, to_json_settings(stage), recipe.seed]
    if cls.asks:
        backend = table["backend"]
        key += [questions.VERSION, instruction.VERSION, *(backend[name] for name in ("kind", "model", "quantization", "temperature", "max_tokens"))]
        key += [weights] if (weights := recipe.backend.weights) else []
    if cls.embeds:
        key += [recipe.embedder.folder, *([weights_of(recipe.embedder.folder)] if recipe.embedder.folder else [])]
    if stage.kind == "read":
        key += [listing_key(source) for source in recipe.sources]
    return digest(*key)


def to_json_settings(stage: StageConfig) -> dict:
    return {name: getattr(stage.settings, name) for name in stage.settings.__dataclass_fields__}


def _check_ids(records: list[Record]) -> None:
    if len({record.id for record in records}) < len(records):
        raise InputError("two sources list one file under one name; leave one of them out")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
