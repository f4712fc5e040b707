"""The one training loop: optimizer, schedule, clipping, EMA, logs, checkpoints, exact resume, signals."""

from __future__ import annotations

import logging
import math
import os
import random
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

from training.checkpoints import (Snapshot, load_checkpoint, newest_checkpoint, random_state, restore_random_state, save_checkpoint,
                                  set_aside_later, step_folder)
from training.config import OptimizerConfig, RunConfig
from training.distributed import World
from training.ema import Ema
from training.engines import build_engine
from training.metrics import Meters, MetricsFile, Speed, amount_of, as_duration
from training.optimizers import build_optimizers, load_optimizer_tensors, optimizer_tensors
from training.stages import Stage, build_stage
from training.trackers import Trackers

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

    def __init__(self, stage: Stage, config: RunConfig, run_dir: Path, device: torch.device, world: World):
        self.stage, self.config, self.run_dir, self.device, self.world = stage, config, Path(run_dir), device, world
        self.share = world.share(config.train.accumulate)
        self.step = 0
        self.seconds = 0.0  # of training so far, over all sittings
        self.engine = build_engine(stage, world, lambda: build_stage(
            config.stage, config.settings, seed=config.train.seed, run_dir=self.run_dir, device=device))
        if not self.engine.parameters:
            raise ValueError(f"the stage {config.stage} has no trainable parameters")
        self.optimizers = build_optimizers(self.engine.parameters, config.optimizer, self.engine)
        self.ema = Ema(self.engine.parameters, config.train.ema_decay)
        self.metrics = MetricsFile(self.run_dir)
        self.trackers = Trackers(config.train.trackers if world.is_first else (), config.name, self.run_dir, config.to_json())

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Train until the last step or a signal; True if the run is finished."""
        train = self.config.train
        batches = iter(self._loader())
        meters, speed = Meters(), Speed()
        last_save_s, saved_step = time.monotonic(), -1
        with _StopOnSignal() as stop, tqdm(total=train.steps, initial=self.step, unit="step", dynamic_ncols=True,
                                           mininterval=0.5 if sys.stderr.isatty() else 30, disable=not self.world.is_first) as bar:
            while self.step < train.steps and not self.world.any(stop.requested):
                started = time.monotonic()
                told, step, amounts = self._train_step([next(batches) for _ in self.share])
                self.step += 1
                took_s = time.monotonic() - started
                self.seconds += took_s
                meters.add(told, step)
                speed.add(took_s, amounts)
                bar.update()
                if self.step % train.log_every == 0:
                    row = meters.take(self.world) | {"lr": self._lr(self.step - 1), "seconds": round(self.seconds, 1)}
                    row |= speed.take(train.steps - self.step, self.world.size, self.device)
                    self._write_metrics(row)
                    bar.set_postfix_str(_said(row))
                minutes = (time.monotonic() - last_save_s) / 60
                # Clocks differ a little, and all processes must save or none.
                if self.step % train.checkpoint_every_steps == 0 or self.world.any(minutes >= train.checkpoint_every_minutes):
                    self.save()
                    last_save_s, saved_step = time.monotonic(), self.step
                if self.step % train.evaluate_every == 0 and self.step < train.steps:
                    self.look()
        if saved_step != self.step:
            self.save()
        if self.step < train.steps:
            log.info("stopped at step %d of %d; the same command continues", self.step, train.steps)
            self.trackers.close()
            return False
        self.look()
        self.trackers.close()
        return True

    def _loader(self) -> DataLoader:
        """This process's batches from the next step to the last."""
        accumulate = self.config.train.accumulate
        # Workers inherit the stage, its network and all, by a fork. A copy could not be sent to them: where there is no fork, none start.
        workers = self.config.train.workers if sys.platform == "linux" else 0
        indices = [step * accumulate + part for step in range(self.step, self.config.train.steps) for part in self.share]
        # The loader draws a base seed when it starts: from a generator of its own, or a resumed run would differ.
        return DataLoader(_Batches(self.stage), batch_size=None, sampler=indices, num_workers=workers,
                          prefetch_factor=4 if workers else None, multiprocessing_context="fork" if workers else None,
                          generator=torch.Generator().manual_seed(0))

    def _train_step(self, batches: list[dict]) -> tuple[list[tuple[float, dict]], dict, dict[str, int]]:
        """One optimizer step; returns numbers to log, of each batch with its weight and of the whole step, and how much was read
        (tokens or images), by this process."""
        for module in self.stage.trainable.values():
            module.train()
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self._lr(self.step)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total, told = torch.zeros((), device=self.device), []
        indices = [self.step * self.config.train.accumulate + part for part in self.share]
        losses, amounts = {}, {}
        weights, mean_weight = [1.0] * len(batches), 1.0
        if hasattr(self.stage, "weight"):
            weights = [self.stage.weight(batch) for batch in batches]
            mean_weight = self.world.total(sum(weights)) / self.config.train.accumulate
        for index, weight, batch in zip(indices, weights, batches, strict=True):
            # Noise depends on the batch alone, so that it does not matter which process computes it, or after how many others.
            torch.manual_seed(_noise_seed(self.config.train.seed, index))
            for unit, count in amount_of(batch).items():
                amounts[unit] = amounts.get(unit, 0) + count
            batch = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            batch["loss_factor"] = weight / mean_weight
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.autocast):
                loss, numbers = self.engine.loss(batch)
            told.append((weight, numbers))
            loss = loss / self.config.train.accumulate
            loss.backward()
            losses[index] = loss.detach()
            total += loss.detach()
        total = self.world.sum(total)
        if not torch.isfinite(total):
            self._stop(f"the loss is {total.item()}", [index for index, loss in losses.items() if not torch.isfinite(loss)])
        self.engine.finish_gradients()
        norm = self.engine.clip(self.config.optimizer.clip)
        if not torch.isfinite(norm):
            self._stop(f"the gradient norm is {norm.item()} at a loss of {total.item():.4g}", indices)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update()
        return told, {"loss": total, "gradient_norm": norm.detach()}, amounts

    def _stop(self, what: str, indices: list[int]) -> None:
        """End before anything is changed by numbers that are none, naming the samples they came from."""
        names = getattr(self.stage, "names", lambda index: [])
        told = [f"batch {index} of seed {self.config.train.seed}" + "".join(f"\n  {name}" for name in names(index)) for index in indices]
        whence = "\n".join(told) or "the batches of another process"
        raise FloatingPointError(f"{what} at step {self.step + 1}, in {whence}\nlook at these samples, or lower optimizer.lr; nothing was "
                                 "changed by this step, and the last checkpoint is untouched")

    def look(self) -> None:
        """Held-out numbers, samples and an export under the averaged weights; training's random states stay as they are."""
        with preserved_random_state(), self.engine.looking(self.ema) as stage, torch.no_grad():
            if stage is None:  # the first process looks
                return
            for module in stage.trainable.values():
                module.eval()
            row = {f"held_out/{name}": value for name, value in stage.evaluate().items()}
            self._write_metrics(row)
            log.info("step %d: %s", self.step, ", ".join(f"{k.removeprefix('held_out/')} {v:.4g}" for k, v in row.items()))
            try:
                folder = self.run_dir / "samples" / f"step_{self.step:08d}"
                folder.mkdir(parents=True, exist_ok=True)
                stage.samples(folder)
            except Exception:  # a picture that fails must not end a training of hours
                log.exception("samples failed; training goes on")
            self._export(stage)

    def _export(self, stage: Stage) -> None:
        target, staging = self.run_dir / "export", self.run_dir / "export.tmp"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        stage.export(staging)
        old = self.run_dir / "export.old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            os.replace(target, old)
        os.replace(staging, target)
        shutil.rmtree(old, ignore_errors=True)

    def _lr(self, step: int) -> float:
        return self.config.optimizer.lr * learning_rate_factor(step, self.config.train.steps, self.config.optimizer)

    # -- state ---------------------------------------------------------------------------------------------------

    def save(self) -> None:
        kept = {"weights": self.engine.gathered(self.engine.parameters), "ema": self.engine.gathered(self.ema.shadow),
                "optimizer": self.engine.gathered(optimizer_tensors(self.optimizers, self.engine.parameters))}
        if not self.world.is_first:
            return
        tensors, states = random_state()
        snapshot = Snapshot(
            tensors={"weights": {**kept["weights"], **self.engine.buffers}, "ema": kept["ema"], "random": tensors,
                     "optimizer": kept["optimizer"]},
            state={"step": self.step, "seconds": self.seconds, "ema_updates": self.ema.updates, "random": states,
                   "config": self.config.to_json()})
        save_checkpoint(self.run_dir, self.step, snapshot, keep=self.config.train.keep_checkpoints)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Continue from a checkpoint folder: weights, optimizer, EMA, random states, counters."""
        snapshot = load_checkpoint(folder, self.engine.reads_to)
        for name, targets in (("weights", {**self.engine.parameters, **self.engine.buffers}), ("ema", self.ema.shadow)):
            _check_fit({key: self.engine.shapes[key] for key in targets}, snapshot.tensors[name], folder)
            for key, value in self.engine.parted(snapshot.tensors[name]).items():
                targets[key].copy_(value)
        load_optimizer_tensors(self.optimizers, self.engine.parameters, self.engine.parted(snapshot.tensors["optimizer"]))
        self.step, self.seconds = snapshot.state["step"], snapshot.state["seconds"]
        self.ema.updates = snapshot.state["ema_updates"]
        restore_random_state(snapshot.tensors["random"], snapshot.state["random"])
        if self.world.is_first:
            self.metrics.drop_after(self.step)

    def resume(self, wanted: str = "auto") -> str:
        """Load a checkpoint; returns a line that says what happened.

        wanted   a step, "newest" for the newest whole one, "auto" for that or, where there is none, the beginning
        Raises   ValueError if there is no such checkpoint, or it does not fit the config
        """
        if wanted.isdigit():
            self.load(step_folder(self.run_dir, int(wanted)))
            if self.world.is_first:
                for folder in set_aside_later(self.run_dir, self.step):
                    log.info("a later checkpoint was set aside: %s", folder)
            return f"continuing at step {self.step}"
        folder, skipped = newest_checkpoint(self.run_dir)
        for reason in skipped:
            log.warning("skipped an incomplete checkpoint: %s", reason)
        if folder is None:
            if wanted == "newest":
                raise ValueError(f"there is no whole checkpoint in {self.run_dir / 'checkpoints'}; leave --resume out to start at step 0, "
                                 "or give the run's folder with --run-dir")
            return "starting at step 0"
        self.load(folder)
        return f"continuing at step {self.step} from {folder.name}"

    def _write_metrics(self, row: dict) -> None:
        if self.world.is_first:
            self.metrics.append(self.step, row)
            self.trackers.log(row, self.step)


def _said(row: dict) -> str:
    """What the bar tells of a row."""
    speed = [f"{value:.4g} {name.removesuffix('_per_second')}/s" for name, value in row.items() if name.endswith("_per_second")]
    return ", ".join([f"loss {row['loss']:.4f}", f"lr {row['lr']:.1e}", f"{row['seconds_per_step']:.3g} s/step", *speed,
                      f"{row['peak_memory_gib']:.2g} GiB", f"{as_duration(row['eta_seconds'])} left"])


class _Batches(Dataset):
    def __init__(self, stage: Stage):
        self.stage = stage

    def __getitem__(self, step: int) -> dict:
        return {k: torch.from_numpy(v) if hasattr(v, "__array_interface__") and v.ndim else v
                for k, v in self.stage.batch(step).items()}


def _noise_seed(seed: int, batch_index: int) -> int:
    """A seed of its own for every batch of every run."""
    return random.Random(f"noise/{seed}/{batch_index}").getrandbits(63)


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


def _check_fit(shapes: dict[str, torch.Size], values: dict[str, torch.Tensor], folder: Path) -> None:
    """ValueError if a checkpoint's tensors are not those of this config."""
    missing, foreign = sorted(set(shapes) - set(values)), sorted(set(values) - set(shapes))
    if missing or foreign:
        raise ValueError(f"{folder} does not fit this config: missing {missing[:3]}, unknown {foreign[:3]}; "
                         f"use the config of that run, or --fresh")
    for name, shape in shapes.items():
        if shape != values[name].shape:
            raise ValueError(f"{folder}: {name} has shape {tuple(values[name].shape)}, this config needs "
                             f"{tuple(shape)}; use the config of that run, or --fresh")
