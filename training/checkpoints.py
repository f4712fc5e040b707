"""Checkpoints that are whole or absent: temporary folder, fsync, marker last, rename; safetensors and JSON only.

    <run>/checkpoints/step_00001000/
        weights.safetensors  optimizer.safetensors  ema.safetensors  random.safetensors
        state.json       counters, python's and numpy's random state
        complete.json    written last: step, files and their sizes; a folder without a fitting one is not a checkpoint

`step_*.tmp` is being written, `step_*.old` is being replaced (and whole until the new one is), `step_*.aside` was left behind
when a run went on from an earlier step.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

MARKER = "complete.json"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything a run needs to go on exactly: tensors by file, and JSON counters."""

    tensors: dict[str, dict[str, torch.Tensor]]  # "weights" | "optimizer" | "ema" | "random" -> name -> tensor
    state: dict


def step_folder(run_dir: Path, step: int) -> Path:
    return Path(run_dir) / "checkpoints" / f"step_{step:08d}"


def save_checkpoint(run_dir: Path, step: int, snapshot: Snapshot, *, keep: int) -> Path:
    """Write one checkpoint and drop all but the newest `keep`; returns its folder.

    Raises   OSError if the disk is full; older checkpoints are untouched then, and no part of the new one stays
    """
    target = step_folder(run_dir, step)
    staging, old = target.with_name(target.name + ".tmp"), target.with_name(target.name + ".old")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        _write(staging, step, snapshot)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise OSError(_no_room(run_dir, step, snapshot, error)) from error
    if target.exists():  # a folder with files cannot be replaced; should it end here, the older one still counts
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
    os.replace(staging, target)
    fsync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
    for number, folder in enumerate(_folders(run_dir)):
        if number >= keep:
            shutil.rmtree(folder, ignore_errors=True)
    return target


def _write(staging: Path, step: int, snapshot: Snapshot) -> None:
    staging.mkdir(parents=True)
    for name, tensors in snapshot.tensors.items():
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()},
                  staging / f"{name}.safetensors")
    (staging / "state.json").write_text(json.dumps(snapshot.state), encoding="utf-8")
    sizes = {}
    for path in sorted(staging.iterdir()):
        fsync(path)
        sizes[path.name] = path.stat().st_size
    (staging / MARKER).write_text(json.dumps({"step": step, "files": sizes}), encoding="utf-8")
    fsync(staging / MARKER)
    fsync(staging)


def _no_room(run_dir: Path, step: int, snapshot: Snapshot, error: Exception) -> str:
    needed = sum(value.nbytes for tensors in snapshot.tensors.values() for value in tensors.values())
    last, _ = newest_checkpoint(run_dir)
    kept = f"{last.name} is whole; make room, and the same command goes on from there" if last else "there is no older checkpoint"
    return (f"the checkpoint of step {step} ({needed / 2**20:.1f} MB) could not be written: {error}; "
            f"{shutil.disk_usage(run_dir).free / 2**20:.1f} MB are free in {run_dir}. {kept}")


def set_aside_later(run_dir: Path, step: int) -> list[str]:
    """Checkpoints after `step`, where a run now goes on: they would win over the new ones. They get another name; returns these."""
    moved = []
    for folder in _folders(run_dir):
        if _step_of(folder) > step:
            aside = folder.with_name(folder.name + ".aside")
            shutil.rmtree(aside, ignore_errors=True)
            moved.append(str(folder.rename(aside)))
    return moved


def load_checkpoint(folder: Path, device: str | torch.device = "cpu") -> Snapshot:
    """Read a checkpoint folder; raises ValueError naming what is wrong with an incomplete one."""
    problem = whats_wrong(folder)
    if problem:
        raise ValueError(f"{folder}: {problem}; choose another checkpoint or start again with --fresh")
    names = [name for name in json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]]
    tensors = {name.removesuffix(".safetensors"): load_file(folder / name, device=str(device))
               for name in names if name.endswith(".safetensors")}
    return Snapshot(tensors=tensors, state=json.loads((folder / "state.json").read_text(encoding="utf-8")))


def newest_checkpoint(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest valid checkpoint of a run, and what was skipped on the way to it and why."""
    skipped = []
    for folder in _folders(run_dir):
        problem = whats_wrong(folder)
        if problem is None:
            return folder, skipped
        skipped.append(f"{folder.name}: {problem}")
    return None, skipped


def whats_wrong(folder: Path) -> str | None:
    """Why a folder is no complete checkpoint, or None if it is one."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        files = marker["files"].items()
    except FileNotFoundError:
        return f"no {MARKER}" if folder.is_dir() else "no such folder"
    except (ValueError, KeyError, AttributeError, OSError) as error:
        return f"unreadable {MARKER} ({error})"
    for name, size in files:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
    return None


def random_state() -> tuple[dict[str, torch.Tensor], dict]:
    """States of the torch, numpy and python generators as (tensors, JSON)."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, cached = random.getstate()
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(keys.astype(np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors, {"numpy": [kind, position, has_gauss, gauss], "python": [version, list(internal), cached]}


def restore_random_state(tensors: dict[str, torch.Tensor], state: dict) -> None:
    kind, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, tensors["numpy"].cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, cached = state["python"]
    random.setstate((version, tuple(internal), cached))
    torch.set_rng_state(tensors["torch"].cpu())
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"].cpu())


def fsync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    if path.is_dir() and os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _folders(run_dir: Path) -> list[Path]:
    """Checkpoint folders, newest first; of one step the finished one before the one that it was to replace."""
    found = [path for path in (Path(run_dir) / "checkpoints").glob("step_*") if path.is_dir() and path.suffix in ("", ".old")]
    return sorted(found, key=lambda path: (-_step_of(path), path.suffix))


def _step_of(folder: Path) -> int:
    digits = folder.stem.removeprefix("step_")
    return int(digits) if digits.isdigit() else -1
