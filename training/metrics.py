"""The numbers of a run: means between two rows, speed, what is left to do, and the file they are kept in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from training.checkpoints import fsync
from training.distributed import World


class Meters:
    """Means of logged numbers over the steps since the last row; tensors are read once a row, not once a step."""

    def __init__(self):
        self.steps: list[tuple[list[tuple[float, dict]], dict]] = []

    def add(self, batches: list[tuple[float, dict]], step: dict) -> None:
        """One step: (weight, numbers) of each batch that this process computed, and numbers that are of the whole step already."""
        self.steps.append((batches, step))

    def take(self, world: World) -> dict[str, float]:
        """A row. All processes must take it together: it tells of the batches of all."""
        mine = [[(weight, {name: _plain(value) for name, value in numbers.items()}) for weight, numbers in batches] for batches, _ in self.steps]
        rows = [_of_step([batch for batches in parts for batch in batches]) | {name: float(value) for name, value in step.items()}
                for (_, step), *parts in zip(self.steps, *world.gather(mine))]
        self.steps.clear()
        columns = {name: [row[name] for row in rows if name in row] for name in dict.fromkeys(name for row in rows for name in row)}
        return {name: sum(values) / len(values) for name, values in columns.items()}


def _plain(value) -> int | float:
    return value if isinstance(value, int) else float(value)


def _of_step(batches: list[tuple[float, dict]]) -> dict[str, float]:
    """Whole numbers are counts and are added up; of all others the mean, with the weights that the batches have in the loss."""
    told: dict[str, list] = {}
    for weight, numbers in batches:
        for name, value in numbers.items():
            told.setdefault(name, []).append((weight, value))
    return {name: sum(value for _, value in pairs) if isinstance(pairs[0][1], int) else
            sum(weight * value for weight, value in pairs) / sum(weight for weight, _ in pairs) for name, pairs in told.items()}


class Speed:
    """Seconds a step and things a second since the last row, over all processes; and the seconds that are left."""

    def __init__(self):
        self.seconds, self.steps, self.amounts = 0.0, 0, {}

    def add(self, seconds: float, amounts: dict[str, int]) -> None:
        self.seconds += seconds
        self.steps += 1
        for unit, count in amounts.items():
            self.amounts[unit] = self.amounts.get(unit, 0) + count

    def take(self, steps_left: int, num_processes: int, device: torch.device) -> dict[str, float]:
        row = {"seconds_per_step": self.seconds / self.steps}
        row |= {f"{unit}_per_second": count * num_processes / self.seconds for unit, count in self.amounts.items()}
        row |= {"eta_seconds": row["seconds_per_step"] * steps_left, "peak_memory_gib": peak_memory(device) / 2**30}
        self.__init__()
        return {name: float(f"{value:.4g}") for name, value in row.items()}


def amount_of(batch: dict) -> dict[str, int]:
    """What a batch is counted in: {"tokens": ...} without padding, or {"images": ...}."""
    if "num_tokens" in batch:
        return {"tokens": int(batch["num_tokens"])}
    if "input_ids" in batch:
        return {"tokens": batch["input_ids"].numel()}
    pictures = next((batch[name] for name in ("pixels_BHWC", "latents_BCYX") if name in batch), None)
    return {} if pictures is None else {"images": len(pictures)}


def peak_memory(device: torch.device) -> int:
    """The most bytes used so far: of the GPU by torch, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def as_duration(seconds: float) -> str:
    """`2:05` or `3:10:00`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class MetricsFile:
    """`metrics.jsonl` of a run folder, a row a line, beginning with its step."""

    def __init__(self, run_dir: Path):
        self.path = Path(run_dir) / "metrics.jsonl"

    def append(self, step: int, row: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")

    def drop_after(self, step: int) -> None:
        """Rows after a resumed step will be written again; a torn last line goes too."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue
        staging = self.path.with_suffix(".tmp")
        staging.write_text("".join(kept), encoding="utf-8")
        fsync(staging)
        os.replace(staging, self.path)
