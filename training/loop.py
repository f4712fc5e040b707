"""The one training loop: optimizer, schedule, clipping, EMA, logs, checkpoints, exact resume, signals."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from training.checkpoints import (Snapshot, fsync, load_checkpoint, newest_checkpoint, random_state,
                                  restore_random_state, save_checkpoint)
from training.config import OptimizerConfig, RunConfig
from training.ema import Ema
from training.optimizers import build_optimizers, load_optimizer_tensors, optimizer_tensors
from training.stages import Stage

log = logging.getLogger("training")


def learning_rate_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Factor on the learning rate for the step that follows `step` finished ones: warm-up, constant, cosine tail."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    tail = config.tail_fraction * steps
    done = (step - (steps - tail)) / tail if tail else 0.0
    if done <= 0:
        return warm
    return warm * (config.final_fraction + (1 - config.final_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Trainer:
    """Trains one stage in one run folder; `load` before `run` continues a run."""

    def __init__(self, stage: Stage, config: RunConfig, run_dir: Path, device: torch.device):
        self.stage, self.config, self.run_dir, self.device = stage, config, Path(run_dir), device
        self.step = 0
        self.seconds = 0.0  # of training so far, over all sittings
        self.parameters = {f"{part}.{name}": p for part, module in stage.trainable.items()
                           for name, p in module.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError(f"the stage {config.stage} has no trainable parameters")
        self.buffers = {f"{part}.{name}": b for part, module in stage.trainable.items()
                        for name, b in module.state_dict().items() if f"{part}.{name}" not in self.parameters}
        self.buffers = {name: b for name, b in self.buffers.items() if name not in _tied_names(stage)}
        self.optimizers = build_optimizers(self.parameters, config.optimizer)
        self.ema = Ema(self.parameters, config.train.ema_decay)

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Train until the last step or a signal; True if the run is finished."""
        train = self.config.train
        batches = iter(_loader(self.stage, self.step, train.steps, train.workers))
        meters = _Meters()
        last_save_s = time.monotonic()
        with _StopOnSignal() as stop, tqdm(total=train.steps, initial=self.step, unit="step", dynamic_ncols=True,
                                           mininterval=0.5 if sys.stderr.isatty() else 30) as bar:
            while self.step < train.steps and not stop.requested:
                started = time.monotonic()
                logs = self._train_step(next(batches))
                self.step += 1
                self.seconds += time.monotonic() - started
                meters.add(logs)
                bar.update()
                if self.step % train.log_every == 0:
                    row = meters.take() | {"lr": self._lr(self.step - 1), "seconds": round(self.seconds, 1)}
                    self._write_metrics(row)
                    bar.set_postfix(loss=f"{row['loss']:.4f}", lr=f"{row['lr']:.1e}", s=f"{self.seconds / self.step:.2f}")
                minutes = (time.monotonic() - last_save_s) / 60
                if self.step % train.checkpoint_every_steps == 0 or minutes >= train.checkpoint_every_minutes:
                    self.save()
                    last_save_s = time.monotonic()
                if self.step % train.evaluate_every == 0 and self.step < train.steps:
                    self.look()
        self.save()
        if self.step < train.steps:
            log.info("stopped at step %d of %d; the same command continues", self.step, train.steps)
            return False
        self.look()
        return True

    def _train_step(self, batch: dict) -> dict:
        for module in self.stage.trainable.values():
            module.train()
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self._lr(self.step)
        batch = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.autocast):
            loss, logs = self.stage.loss(batch, self.step)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.step + 1} ({logs}); "
                                     f"lower optimizer.lr or look at the data; the last checkpoint is untouched")
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.optimizer.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update()
        return {"loss": loss.detach(), "gradient_norm": norm.detach(), **logs}

    def look(self) -> None:
        """Held-out numbers, samples and an export under the averaged weights; training's random states stay as they are."""
        with preserved_random_state(), self.ema.applied(), torch.no_grad():
            for module in self.stage.trainable.values():
                module.eval()
            row = {f"held_out/{name}": value for name, value in self.stage.evaluate().items()}
            self._write_metrics(row)
            log.info("step %d: %s", self.step, ", ".join(f"{k.removeprefix('held_out/')} {v:.4g}" for k, v in row.items()))
            try:
                folder = self.run_dir / "samples" / f"step_{self.step:08d}"
                folder.mkdir(parents=True, exist_ok=True)
                self.stage.samples(folder)
            except Exception:  # a picture that fails must not end a training of hours
                log.exception("samples failed; training goes on")
            self._export()

    def _export(self) -> None:
        target, staging = self.run_dir / "export", self.run_dir / "export.tmp"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        self.stage.export(staging)
        old = self.run_dir / "export.old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            os.replace(target, old)
        os.replace(staging, target)
        shutil.rmtree(old, ignore_errors=True)

    def _lr(self, step: int) -> float:
        return self.config.optimizer.lr * learning_rate_factor(step, self.config.train.steps, self.config.optimizer)

    # -- state ---------------------------------------------------------------------------------------------------

    def save(self) -> Path:
        tensors, random = random_state()
        snapshot = Snapshot(
            tensors={"weights": {**self.parameters, **self.buffers}, "ema": self.ema.shadow, "random": tensors,
                     "optimizer": optimizer_tensors(self.optimizers, self.parameters)},
            state={"step": self.step, "seconds": self.seconds, "ema_updates": self.ema.updates, "random": random,
                   "config": self.config.to_json()})
        return save_checkpoint(self.run_dir, self.step, snapshot, keep=self.config.train.keep_checkpoints)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Continue from a checkpoint folder: weights, optimizer, EMA, random states, counters."""
        snapshot = load_checkpoint(folder, self.device)
        values = {**self.parameters, **self.buffers}
        _copy(values, snapshot.tensors["weights"], folder)
        _copy(self.ema.shadow, snapshot.tensors["ema"], folder)
        load_optimizer_tensors(self.optimizers, self.parameters, snapshot.tensors["optimizer"])
        self.step, self.seconds = snapshot.state["step"], snapshot.state["seconds"]
        self.ema.updates = snapshot.state["ema_updates"]
        restore_random_state(snapshot.tensors["random"], snapshot.state["random"])
        self._drop_later_metrics()

    def resume(self, wanted: str = "auto") -> str:
        """Load the newest valid checkpoint ("auto") or that of a step; returns a line that says what happened."""
        if wanted != "auto":
            from training.checkpoints import step_folder
            self.load(step_folder(self.run_dir, int(wanted)))
            return f"continuing at step {self.step}"
        folder, skipped = newest_checkpoint(self.run_dir)
        for reason in skipped:
            log.warning("skipped an incomplete checkpoint: %s", reason)
        if folder is None:
            return "starting at step 0"
        self.load(folder)
        return f"continuing at step {self.step} from {folder.name}"

    # -- logs ----------------------------------------------------------------------------------------------------

    def _write_metrics(self, row: dict) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with open(self.run_dir / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, **row}) + "\n")

    def _drop_later_metrics(self) -> None:
        """Rows after the resumed step will be written again; a torn last line goes too."""
        path = self.run_dir / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= self.step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue
        staging = path.with_suffix(".tmp")
        staging.write_text("".join(kept), encoding="utf-8")
        fsync(staging)
        os.replace(staging, path)


class _Meters:
    """Means of logged numbers since the last row; tensors are read once a row, not once a step."""

    def __init__(self):
        self.sums: dict[str, list] = {}

    def add(self, logs: dict) -> None:
        for name, value in logs.items():
            self.sums.setdefault(name, []).append(value)

    def take(self) -> dict[str, float]:
        row = {name: sum(float(v) for v in values) / len(values) for name, values in self.sums.items()}
        self.sums.clear()
        return row


class _Batches(Dataset):
    def __init__(self, stage: Stage):
        self.stage = stage

    def __getitem__(self, step: int) -> dict:
        return {k: torch.from_numpy(v) if hasattr(v, "__array_interface__") and v.ndim else v
                for k, v in self.stage.batch(step).items()}


def _loader(stage: Stage, start: int, stop: int, workers: int) -> DataLoader:
    # The loader draws a base seed when it starts: from a generator of its own, or a resumed run would differ.
    return DataLoader(_Batches(stage), batch_size=None, sampler=range(start, stop), num_workers=workers,
                      prefetch_factor=4 if workers else None, generator=torch.Generator().manual_seed(0))


class _StopOnSignal:
    """First SIGINT or SIGTERM asks the loop to finish its step and save; the second ends the process at once."""

    def __enter__(self):
        self.requested = False
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number, frame):
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        log.warning("finishing this step and saving; a second signal stops at once")

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@contextmanager
def preserved_random_state():
    tensors, state = random_state()
    try:
        yield
    finally:
        restore_random_state(tensors, state)


def _copy(targets: dict[str, torch.Tensor], values: dict[str, torch.Tensor], folder: Path) -> None:
    missing, foreign = sorted(set(targets) - set(values)), sorted(set(values) - set(targets))
    if missing or foreign:
        raise ValueError(f"{folder} does not fit this config: missing {missing[:3]}, unknown {foreign[:3]}; "
                         f"use the config of that run, or --fresh")
    for name, target in targets.items():
        if target.shape != values[name].shape:
            raise ValueError(f"{folder}: {name} has shape {tuple(values[name].shape)}, this config needs "
                             f"{tuple(target.shape)}; use the config of that run, or --fresh")
        target.copy_(values[name])


def _tied_names(stage: Stage) -> set[str]:
    """Second names of tied weights: in the state dict, but the same tensor as a named parameter."""
    tied = set()
    for part, module in stage.trainable.items():
        pointers = {p.data_ptr() for p in module.parameters()}
        named = dict(module.named_parameters())
        tied |= {f"{part}.{name}" for name, value in module.state_dict().items()
                 if name not in named and value.data_ptr() in pointers}
    return tied
