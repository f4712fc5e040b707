"""A recipe: one TOML file that names sources, stages and what comes out. Unknown keys are refused, all errors at once."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import ConfigError, Problems, apply_change, build_settings
from training.data_engine.backend import BackendConfig
from training.data_engine.sources import SourceConfig
from training.data_engine.stages import KINDS, stage_class

OUTPUTS = ("stories", "references")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderConfig:
    """What tells pictures apart by what they show."""

    folder: str = ""  # a SigLIP, CLIP or DINOv2 model as transformers saves it; "" = built in: colours and textures only
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """How the build is run; none of it changes the result."""

    shard_size: int = 256  # records that are finished (and lost by a kill) together
    ray_address: str = ""  # with --ray: of a running cluster; "" = this computer
    ray_workers: int = 0  # with --ray: shards at a time; 0 = as many as there are cores
    ray_gpus: float = 0.0  # with --ray: GPUs of one worker in stages that embed or ask a local model

    def __post_init__(self):
        if self.shard_size < 1:
            raise ValueError(f"shard_size is {self.shard_size}; it must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One stage of the recipe, with the settings of its kind."""

    kind: str
    settings: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All of it. `folder` is where the file lies: paths of sources count from there."""

    name: str
    output: str
    sources: tuple[SourceConfig, ...]
    stages: tuple[StageConfig, ...]
    backend: BackendConfig
    embedder: EmbedderConfig
    build: BuildConfig
    seed: int
    path: Path

    @property
    def folder(self) -> Path:
        return self.path.resolve().parent


def load_recipe(path: str | Path, changes: list[str] = ()) -> Recipe:
    """The recipe in a file, with `key.path=value` changes. ConfigError with all that is wrong, each with file and line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}; shipped ones lie in training/data_engine/recipes/") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid TOML: {error}") from None
    for change in changes:
        apply_change(table, change)
    problems = Problems(path, text, changes)
    known = ("name", "output", "seed", "sources", "stages", "backend", "embedder", "build")
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            problems.add(key, f"unknown key {key}; " + (f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"))
    for key, kind in (("name", str), ("output", str), ("sources", list), ("stages", list)):
        if not isinstance(table.get(key), kind) or not table[key] and key != "stages":
            problems.add(key, f"the key {key} is missing or no {'text' if kind is str else 'list of tables [[' + key + ']]'}")
    if not problems.messages and table["output"] not in OUTPUTS:
        problems.add("output", f"output is {table['output']!r}; it must be one of {', '.join(OUTPUTS)}")
    if not isinstance(table.get("seed", 0), int):
        problems.add("seed", f"seed is {table['seed']!r}; expected a whole number")
    problems.raise_if_any()
    parts = {key: build_settings(kind, table.get(key, {}), f"{key}.", problems)
             for key, kind in (("backend", BackendConfig), ("embedder", EmbedderConfig), ("build", BuildConfig))}
    sources = tuple(build_settings(SourceConfig, item, f"sources[{i}].", problems) for i, item in enumerate(table["sources"]))
    stages = tuple(_stage(item, f"stages[{i}].", problems) for i, item in enumerate(table["stages"]))
    problems.raise_if_any()
    _check_order(table["output"], stages, parts["backend"], problems)
    problems.raise_if_any()
    return Recipe(name=table["name"], output=table["output"], sources=sources, stages=stages, seed=table.get("seed", 0), path=path, **parts)


def _stage(item: dict, where: str, problems: Problems) -> StageConfig | None:
    if not isinstance(item, dict):
        problems.add(where.rstrip("."), f"expected a table with kind, got {item!r}")
        return None
    kind = item.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        problems.add(f"{where}kind", f"kind is {kind!r}; " + (f"did you mean {near[0]!r}?" if near else f"there is {', '.join(KINDS)}"))
        return None
    table = {key: value for key, value in item.items() if key != "kind"}
    settings = build_settings(stage_class(kind).Settings, table, where, problems, others=("kind",))
    return None if settings is None else StageConfig(kind=kind, settings=settings)


def _check_order(output: str, stages: tuple[StageConfig, ...], backend: BackendConfig, problems: Problems) -> None:
    """What would only show after hours."""
    kinds = [stage.kind for stage in stages]
    for index, kind in enumerate(kinds):
        before = kinds[:index]
        if stage_class(kind).asks and backend.kind == "none":
            problems.add(f"stages[{index}].kind", f"{kind} asks a model; give [backend] with kind = \"server\" or \"local\"")
        if stage_class(kind).asks and backend.kind == "picturebook" and kind != "write_plan":
            problems.add(f"stages[{index}].kind", f"{kind} needs a model that answers questions; the picture-book planner only writes plans")
        for needed, by in (("check_picture", ("drop_copies",)), ("embed", ("cluster", "check_group"))):
            if kind in by and needed not in before:
                problems.add(f"stages[{index}].kind", f"{kind} needs a stage of kind {needed!r} before it")
    last = {"stories": ("write_plan", "request_for"), "references": ("pair",)}[output]
    if not any(kind in last for kind in kinds):
        problems.add("output", f"output {output!r} is made by a stage of kind {' or '.join(map(repr, last))}; there is none")


def to_json(recipe: Recipe) -> dict:
    """The recipe as plain JSON, for keys and reports."""
    return dataclasses.asdict(dataclasses.replace(recipe, path=recipe.path.name))
