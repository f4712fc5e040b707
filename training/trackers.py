"""Where a run's numbers can be watched besides `metrics.jsonl`: TensorBoard, Weights & Biases, Trackio, where they are installed."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

log = logging.getLogger("training")


def missing_trackers(names: tuple[str, ...]) -> list[str]:
    """A sentence for each tracker whose package is not there."""
    return [f"train.trackers names {name!r}, which is not installed: pip install {name}; metrics.jsonl is written anyway"
            for name in names if find_spec(name) is None]


class Trackers:
    """Hands rows of numbers on. A tracker that is missing or fails costs a sentence, never the training."""

    def __init__(self, names: tuple[str, ...], run_name: str, run_dir: Path, config: dict):
        self._loggers = []
        for sentence in missing_trackers(names):
            log.warning("%s", sentence)
        for name in names:
            if find_spec(name) is not None:
                self._guarded(name, lambda name=name: self._loggers.append((name, *_OPENERS[name](run_name, run_dir, config))))

    def log(self, row: dict[str, float], step: int) -> None:
        for name, write, _ in list(self._loggers):
            self._guarded(name, lambda write=write: write(row, step))

    def close(self) -> None:
        for name, _, close in self._loggers:
            self._guarded(name, close)
        self._loggers = []

    def _guarded(self, name: str, act) -> None:
        try:
            act()
        except Exception as error:  # a network that is down, a missing login
            log.warning("%s stopped listening (%s: %s); metrics.jsonl goes on", name, type(error).__name__, str(error)[:200])
            self._loggers = [logger for logger in self._loggers if logger[0] != name]


def _tensorboard(run_name: str, run_dir: Path, config: dict):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run_dir / "tensorboard"))

    def write(row: dict[str, float], step: int) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return write, writer.close


def _wandb(run_name: str, run_dir: Path, config: dict):
    import wandb

    run = wandb.init(project="wan-weaver", name=run_name, dir=str(run_dir), config=config, resume="allow", id=_run_id(run_dir))
    return lambda row, step: run.log(row, step=step), run.finish


def _trackio(run_name: str, run_dir: Path, config: dict):
    import trackio

    run = trackio.init(project="wan-weaver", name=run_name, config=config, resume="allow")
    return lambda row, step: run.log(row, step=step), trackio.finish


def _run_id(run_dir: Path) -> str:
    """The same for every sitting of a run, so that its curve goes on."""
    path = run_dir / "wandb_id"
    if not path.exists():
        import secrets

        path.write_text(secrets.token_hex(8), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


_OPENERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
