"""What a training stage owes the loop, and the list of stages.

A stage knows its modules, its data and its loss. The loop (`training/loop.py`) owns everything that all stages share:
optimizer, schedule, clipping, EMA, checkpoints, resume, logs, signals. A stage module offers

    Settings                                  frozen dataclass of its own tables in the TOML file
    build(settings, *, seed, run_dir, device) -> Stage
    inspect(settings, config, problems) -> Inspection     what `--check` tells, without loading weights

also, where there is such a thing,

    begin(settings, run_dir)                  writes into the run folder what all processes build from; the first one calls it, and others wait

and a stage may offer, beyond the protocol below,

    prepare() -> lines of text                fills its caches before training, or for `--cache-only`
    names(index) -> lines of text             which samples a batch holds, for messages about it
    weight(batch) -> float                    for a loss that is a mean over things whose number differs from batch to batch: their number
                                              (or weights, added up) in a batch before it is moved to the device. `loss` must multiply that
                                              mean by batch["loss_factor"], so that all things of a step count alike, not all its batches
    layers: modules                           layers of its trained networks that every batch runs through exactly once, in this order:
                                              where networks are sharded, such a layer is gathered by itself (`training/engines.py`)
"""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

STAGES = ("autoencoder", "planner", "chat_planner", "visualizer", "dpcw", "joint")
# The DPCW tuning is the visualizer's trainer with other data, so both live in one module.
_MODULES = {"dpcw": "visualizer"}


class Stage(Protocol):
    """One stage of training.

    `batch(index)` must be a pure function of the run's seed and the batch's index (so a resumed run sees the same data without
    any saved position), returns numpy arrays, tensors and plain values in a dict, and may run in a worker process. `loss` may
    draw noise from torch's global generator, which the loop seeds for every batch. The loop puts averaged (EMA) weights into
    the trainable modules around `evaluate`, `samples` and `export`, in eval mode, and keeps all random states untouched.
    """

    trainable: dict[str, nn.Module]
    frozen: dict[str, nn.Module]
    num_batches: int  # of the whole run; set before the first batch, for data that changes along the way

    def batch(self, index: int) -> dict[str, Any]: ...

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]: ...

    def evaluate(self) -> dict[str, float]: ...

    def samples(self, folder: Path) -> None: ...

    def export(self, folder: Path) -> None: ...


def stage_module(stage: str):
    return importlib.import_module(f"training.stages.{_MODULES.get(stage, stage)}")


def settings_of(stage: str) -> type:
    """The dataclass of a stage's own tables; a module with several stages offers `settings_of(stage)` instead."""
    module = stage_module(stage)
    return module.settings_of(stage) if hasattr(module, "settings_of") else module.Settings


def build_stage(stage: str, settings, *, seed: int, run_dir: Path, device) -> Stage:
    return stage_module(stage).build(settings, seed=seed, run_dir=run_dir, device=device)


def step_rng(seed: int, step: int, stream: str) -> random.Random:
    """The random generator of one step: the same for the same run, step and stream name in every process."""
    return random.Random(f"{stream}/{seed}/{step}")
