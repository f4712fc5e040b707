"""Configuration of a training run: one TOML file, read into frozen dataclasses, unknown keys refused.

The file has the keys `stage` and `name`, the tables `[train]` and `[optimizer]` that every stage shares, and further
tables that belong to the stage (`Settings` of its module in `training/stages/`).
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.stages import STAGES, settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How long, on what, and how often to save and to look."""

    steps: int  # optimizer steps of the whole run; the learning rate follows them, so that a resumed run is exact
    seed: int = 0  # of weights, data and noise
    device: str = "auto"  # "auto" takes a GPU if there is one
    threads: int = 1  # of this process on a CPU
    workers: int = 1  # processes that prepare batches; 0 prepares them in the training process
    autocast: bool = True  # forward passes in bf16
    ema_decay: float = 0.999  # upper bound of min(decay, (1 + t) / (10 + t)); 0 switches the average off
    checkpoint_every_steps: int = 1000
    checkpoint_every_minutes: float = 5.0
    keep_checkpoints: int = 2
    log_every: int = 20
    evaluate_every: int = 1000  # held-out numbers, samples and an export; also at the end

    def __post_init__(self):
        for name in ("steps", "threads", "checkpoint_every_steps", "keep_checkpoints", "log_every", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay is {self.ema_decay}; it must be in [0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW (or Muon with AdamW) with decoupled decay on matrices only; warm-up, constant, cosine tail."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.05  # of weights with two or more axes
    muon: bool = False  # orthogonalised steps for hidden matrices, AdamW for the rest
    clip: float = 1.0  # largest gradient norm
    warmup_steps: int = 100
    tail_fraction: float = 0.5  # share of the run over which the learning rate falls
    final_fraction: float = 0.05  # of the learning rate, at the last step

    def __post_init__(self):
        if self.lr <= 0:
            raise ValueError(f"optimizer.lr is {self.lr}; it must be above 0")
        for name in ("tail_fraction", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"optimizer.{name} is {getattr(self, name)}; it must be in [0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run: what the TOML file says."""

    stage: str
    name: str
    train: TrainConfig
    optimizer: OptimizerConfig
    settings: Any = field(default=None)  # the stage's own tables

    def to_json(self) -> dict:
        table = dataclasses.asdict(self)
        return json.loads(json.dumps(table))


def load_config(path: Path, changes: list[str] = ()) -> RunConfig:
    """Read a TOML file and apply `key.path=value` changes (values in TOML spelling; bare words are strings).

    Raises   ValueError naming the file, the key and the nearest valid key
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the config {path}: {error.strerror}; shipped ones lie in training/configs/") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no valid TOML: {error}") from None
    for change in changes:
        _apply_change(table, change)
    stage = table.get("stage")
    if stage not in STAGES:
        raise ValueError(f"{path}: stage is {stage!r}; it must be one of {', '.join(STAGES)}")
    shared = {key: table.pop(key) for key in ("stage", "name", "train", "optimizer") if key in table}
    shared["settings"] = table
    hints = {f.name: f.type for f in dataclasses.fields(RunConfig)}
    assert set(hints) >= set(shared)
    run = _build(RunConfig, {**shared, "settings": None}, where="")
    return dataclasses.replace(run, settings=_build(settings_of(stage), table, where=""))


def describe(cls: type, prefix: str = "") -> list[str]:
    """One line per key of a config class, for `--help`: name, type, default."""
    lines = []
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        kind = hints[item.name]
        if dataclasses.is_dataclass(kind):
            lines += describe(kind, f"{prefix}{item.name}.")
            continue
        default = "" if item.default is dataclasses.MISSING else f" = {item.default!r}"
        lines.append(f"  {prefix}{item.name}: {getattr(kind, '__name__', kind)}{default}")
    return lines


def _apply_change(table: dict, change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"--set {change!r}: expected key=value, such as --set optimizer.lr=1e-4")
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ValueError(f"--set {change!r}: {parent} is a value, not a table")
    try:
        table[leaf] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[leaf] = value


def _build(cls: type, table: dict, where: str):
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {where}{near[0]}?" if near else f"; known keys: {', '.join(fields)}"
            raise ValueError(f"unknown key {where}{key}{hint}")
    values = {}
    for name, item in fields.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], f"{where}{name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            if dataclasses.is_dataclass(hints[name]):
                values[name] = _build(hints[name], {}, f"{where}{name}.")
            else:
                raise ValueError(f"the key {where}{name} is missing; add it to the config")
    return cls(**values)


def _convert(kind, value, where: str):
    if kind is Any or value is None:
        return value
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {value!r}; expected a table [{where}]")
        return _build(kind, value, f"{where}.")
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _convert(next(k for k in typing.get_args(kind) if k is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is {value!r}; expected a list")
        item_kind = typing.get_args(kind)[0]
        return tuple(_convert(item_kind, item, where) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r}; expected {kind.__name__}")
    return value
