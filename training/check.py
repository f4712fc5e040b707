"""`--check`, and the first look of every run: everything that can be known before weights are loaded."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from training.config import Problems, RunConfig
from training.distributed import missing_device
from training.estimate import Inspection, TrainingEstimate, estimate
from training.optimizers import missing_for_eight_bit
from training.stages import stage_module
from training.trackers import missing_trackers
from weaver_core.errors import WeaverError
from weaver_core.memory import GIB


def check(config: RunConfig, problems: Problems, run_dir: Path, *, fresh: bool = False) -> tuple[Inspection, TrainingEstimate]:
    """Look at config, folders, data and packages; `problems` gets what is wrong. Returns what the run will need.

    fresh   the run starts again, and what its folder holds stays beside the new one
    """
    if config.optimizer.eight_bit and (reason := missing_for_eight_bit()):
        problems.add("optimizer.eight_bit", reason)
    if reason := missing_device(config.train.device):
        problems.add("train.device", reason)
        config = replace(config, train=replace(config.train, device="auto"))  # the rest can be looked at all the same
    found = Inspection()
    try:
        found = stage_module(config.stage).inspect(config.settings, config, problems)
    except (WeaverError, ValueError, OSError) as error:
        problems.add("", str(error))
    needed = estimate(found, config)
    free = shutil.disk_usage(_existing(run_dir)).free + (0 if fresh else _taken(run_dir))
    if needed.disk > free:
        problems.add("train.keep_checkpoints", f"checkpoints take up to {needed.disk / GIB:.1f} GB, and {free / GIB:.1f} GB are free where "
                     f"{run_dir} lies; lower train.keep_checkpoints, or choose another place with --run-dir")
    return found, needed


def tell(config: RunConfig, found: Inspection, needed: TrainingEstimate) -> list[str]:
    """The check's findings, a line each."""
    lines = [str(part) for part in found.parts]
    if found.batch:
        lines.append(f"a step reads {config.train.accumulate} x {found.batch}")
    lines += [*found.notes, *missing_trackers(config.train.trackers), *_missing_helpers()]
    if found.parts:
        lines.append(f"needs {needed}")
    return lines


def _missing_helpers() -> list[str]:
    """Optional packages that are not here, and what they would give."""
    offers = {"peft": ("lora", "LoRA"), "bitsandbytes": ("bnb", "8-bit AdamW and QLoRA")}
    return [f'{name} is not installed; it gives {gives}: pip install "wan-weaver[{extra}]"'
            for name, (extra, gives) in offers.items() if find_spec(name) is None]


def _taken(run_dir: Path) -> int:
    """Bytes of checkpoints and export that are there already and that new ones replace."""
    files = (path for name in ("checkpoints", "export") for path in (run_dir / name).rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if not path.parent.name.endswith(".aside"))


def _existing(folder: Path) -> Path:
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
