"""Configuration of a training run: one TOML file, read into frozen dataclasses, unknown keys refused, all errors at once.

The file has the keys `stage` and `name`, the tables `[train]` and `[optimizer]` that every stage shares, and further
tables that belong to the stage (`Settings` of its module in `training/stages/`).
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.stages import STAGES, settings_of
from training.toml_lines import key_lines

NO_FP16 = ("train.autocast = true computes in bf16, false in fp32; fp16 is not offered: its numbers end at 65,504, so gradients "
            "overflow, and a loss scale only hides it by leaving steps out")
_HINTS = {f"train.{name}": NO_FP16 for name in ("precision", "mixed_precision", "fp16", "bf16", "dtype")}


TRACKERS = ("tensorboard", "wandb", "trackio")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How long, on what, and how often to save and to look."""

    steps: int  # optimizer steps of the whole run; the learning rate follows them, so that a resumed run is exact
    seed: int = 0  # of weights, data and noise
    accumulate: int = 1  # batches whose gradients make one step; several processes share them out
    device: str = "auto"  # "auto" takes a GPU if there is one
    threads: int = 1  # of this process on a CPU
    workers: int = 1  # processes that prepare batches; 0, and any system but Linux, prepares them in the training process
    autocast: bool = True  # forward passes in bf16; there is no fp16
    activation_checkpointing: bool = False  # computes each block again in the backward pass: much less memory, about a third more time
    ema_decay: float = 0.999  # upper bound of min(decay, (1 + t) / (10 + t)); 0 switches the average off
    checkpoint_every_steps: int = 1000
    checkpoint_every_minutes: float = 5.0
    keep_checkpoints: int = 2
    log_every: int = 20
    evaluate_every: int = 1000  # held-out numbers, samples and an export; also at the end
    trackers: tuple[str, ...] = ()  # "tensorboard", "wandb", "trackio" beside metrics.jsonl

    def __post_init__(self):
        for name in ("steps", "accumulate", "threads", "checkpoint_every_steps", "keep_checkpoints", "log_every", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        if self.workers < 0:
            raise ValueError(f"train.workers is {self.workers}; it must be at least 0, which prepares batches in the training process")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay is {self.ema_decay}; it must be in [0, 1)")
        for tracker in self.trackers:
            if tracker not in TRACKERS:
                raise ValueError(f"train.trackers names {tracker!r}; it can name {', '.join(TRACKERS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW (or Muon with AdamW) with decoupled decay on matrices only; warm-up, constant, cosine tail."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.05  # of weights with two or more axes
    muon: bool = False  # orthogonalised steps for hidden matrices, AdamW for the rest
    eight_bit: bool = False  # AdamW keeps its moments in 8 bits: 2 bytes a weight in place of 8; needs bitsandbytes
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


class ConfigError(ValueError):
    """Everything that is wrong with a config, a line each: file, line of the key, what was got, what to do."""


class Problems:
    """What is wrong with a config, found along the way and told together."""

    def __init__(self, path: Path, text: str, changes: list[str] = ()):
        self.path, self.text, self.messages = path, text, []
        self.changed = {change.partition("=")[0].strip() for change in changes}

    def add(self, key: str, message: str) -> None:
        self.messages.append(f"{self.place(key)}: {message}")

    def place(self, key: str) -> str:
        """`config.toml:12`, or the option that set the key, or the file alone where the key is not written anywhere."""
        if key in self.changed:
            return f"--set {key}"
        lines = key_lines(self.text)
        while key and key not in lines:  # a missing key: where its table begins
            key = key[:-len(key.split("[")[-1]) - 1] if key.endswith("]") else key.rpartition(".")[0]
        return f"{self.path}:{lines[key]}" if key else str(self.path)

    def raise_if_any(self) -> None:
        if self.messages:
            raise ConfigError("\n".join(self.messages))


def load_config(path: Path, changes: list[str] = ()) -> RunConfig:
    """Read a TOML file and apply `key.path=value` changes (values in TOML spelling; bare words are strings).

    Raises   ConfigError with all that is wrong: file and line, the key and the nearest valid key
    """
    return read_config(path, changes)[0]


def read_config(path: Path, changes: list[str] = ()) -> tuple[RunConfig, Problems]:
    """The config, and a list for problems that show later (files that are missing, say). Raises as `load_config`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}; shipped ones lie in training/configs/") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid TOML: {error}") from None
    for change in changes:
        apply_change(table, change)
    problems = Problems(path, text, changes)
    stage = table.get("stage")
    if stage not in STAGES:
        problems.add("stage", f"stage is {stage!r}; it must be one of {', '.join(STAGES)}")
        problems.raise_if_any()
    shared = {key: table.pop(key) for key in ("stage", "name", "train", "optimizer") if key in table}
    run = build_settings(RunConfig, {**shared, "settings": None}, "", problems)
    settings = build_settings(settings_of(stage), table, "", problems, others=("stage", "name", "train", "optimizer"))
    problems.raise_if_any()
    return dataclasses.replace(run, settings=settings), problems


def describe(cls: type, prefix: str = "") -> list[str]:
    """One line per key of a config class, for `--help`: name, type, default, and the comment beside it in the source."""
    lines = []
    hints = typing.get_type_hints(cls)
    source = "".join(inspect.getsource(kind) for kind in cls.__mro__ if dataclasses.is_dataclass(kind))
    for item in dataclasses.fields(cls):
        kind = hints[item.name]
        inner = next((k for k in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(k)), None)
        if inner is not None:
            is_list = typing.get_origin(kind) is tuple
            lines += describe(inner, f"{prefix}{item.name}{'[]' if is_list else ''}.")
            continue
        default = "" if item.default is dataclasses.MISSING else f" = {item.default!r}"
        comment = re.search(rf"^ +{item.name}: .*?  # (.+)$", source, re.MULTILINE)
        name = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
        lines.append(f"  {prefix}{item.name}: {name}{default}" + (f"\n      {comment[1]}" if comment else ""))
    return lines


def has_key(stage: str, key: str) -> bool:
    """Whether the config of a stage has a key, such as `data.batch_size`. Below a table of free names every name is one."""
    kinds = [RunConfig, settings_of(stage)]
    for name in key.split("."):
        hints = [typing.get_type_hints(kind).get(name) for kind in kinds]
        found = next((hint for hint in hints if hint is not None), None)
        if found is None:
            return False
        if typing.get_origin(found) is dict:
            return True
        kinds = [kind for kind in (found, *typing.get_args(found)) if dataclasses.is_dataclass(kind)]
    return True


def apply_change(table: dict, change: str) -> None:
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


def build_settings(cls: type, table: dict, where: str, problems: Problems, others: tuple[str, ...] = ()):
    """An instance of a config class, or None after problems. `others` are keys that are valid here, for the hint only."""
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    before = len(problems.messages)
    for key in table:
        if key not in fields:
            problems.add(f"{where}{key}", _unknown(f"{where}{key}", where, key, (*fields, *others)))
    values = {}
    for name, item in fields.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], f"{where}{name}", problems)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            if dataclasses.is_dataclass(hints[name]):
                values[name] = build_settings(hints[name], {}, f"{where}{name}.", problems)
            else:
                problems.add(f"{where}{name}", f"the key {where}{name} is missing; add it to the config")
    if len(problems.messages) > before:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        named = re.match(r"[a-z_.]+(\[\d+\])?", str(error))
        key = named[0].rstrip(".") if named else ""
        inside = key.removeprefix(where) if where else key
        problems.add(f"{where}{inside}" if inside.split(".")[0].split("[")[0] in fields else where.rstrip("."), str(error))
        return None


def _unknown(key: str, where: str, name: str, known: tuple[str, ...]) -> str:
    if key in _HINTS:
        return f"unknown key {key}: {_HINTS[key]}"
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown key {key}" + (f"; did you mean {where}{near[0]}?" if near else f"; known keys: {', '.join(known)}")


def _convert(kind, value, where: str, problems: Problems):
    if kind is Any or value is None:
        return value
    if dataclasses.is_dataclass(kind):
        if isinstance(value, dict):
            return build_settings(kind, value, f"{where}.", problems)
        return problems.add(where, f"{where} is {value!r}; expected a table [{where}]")
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _convert(next(k for k in typing.get_args(kind) if k is not type(None)), value, where, problems)
    if origin is tuple:
        if not isinstance(value, list):
            return problems.add(where, f"{where} is {value!r}; expected a list")
        item_kind = typing.get_args(kind)[0]
        return tuple(_convert(item_kind, item, f"{where}[{i}]", problems) for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            return problems.add(where, f"{where} is {value!r}; expected a table [{where}]")
        return {key: _convert(typing.get_args(kind)[1], item, f"{where}.{key}", problems) for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        reason = f"; {NO_FP16}" if where == "train.autocast" else ""
        return problems.add(where, f"{where} is {value!r}; expected {kind.__name__}{reason}")
    return value
