"""Trains arms through `training/train.py` and keeps what was measured on each, once.

    <out>/<arm>/seed-0/              the run folder of `training/train.py`
    <out>/<arm>/seed-0.key           what decides the arm: its whole config and the keys of the arms it needs
    <out>/<arm>/seed-0.result.json   its numbers, written when all are there
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from training.config import has_key, load_config
from training.studies.design import ARMS, COUNTS, DRAW_STEPS, SIDE, SPECIES, Arm
from training.studies.numbers import roughness
from weaver_core.durable import write_whole

log = logging.getLogger("training")
CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "findings"
AUTOENCODER = Path(__file__).resolve().parents[2] / "weaver_core" / "picturebook" / "weights" / "vae"


class Stopped(Exception):
    """A run ended before its last step; its exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A folder of arms.

    out      folder of all runs
    scale    of the steps of arms and bases; below 1 also of what the probes draw
    changes  further `--set` options for all arms that have such a key (`sample.count=2`), mostly for tests
    """

    out: Path
    scale: float = 1.0
    changes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How much the probes draw."""
        return {name: max(1, math.ceil(count * min(1.0, self.scale))) for name, count in COUNTS.items()}

    def result(self, arm: Arm, seed: int) -> dict | None:
        """The numbers of an arm that is finished and whose config is still the same, else None."""
        try:
            result = json.loads(self._path(arm, seed, ".result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result if result["key"] == self.key(arm, seed) else None

    def run(self, arm: Arm, seed: int) -> dict:
        """The numbers of an arm: found, or trained from where it stopped, and measured.

        Raises   Stopped if training ended before its last step, ValueError if an arm that it needs has no result
        """
        found = self.result(arm, seed)
        if found is not None:
            return found
        for need in arm.needs:
            if need != arm.name and self.result(ARMS[need], seed) is None:
                raise ValueError(f"{arm.name} needs {need}, which is not finished; run without --only, or its finding first")
        folder, key = self.folder(arm, seed), self.key(arm, seed)
        self._begin(arm, seed, key)
        from training.train import main as train

        started = time.monotonic()
        code = train([str(CONFIGS / f"{arm.config}.toml"), "--run-dir", str(folder),
                      *(part for change in self._changes(arm, seed) for part in ("--set", change))])
        if code:
            raise Stopped(code)
        numbers = self._numbers(arm, folder)
        if arm.probe:
            from training.studies.probes import measured

            planner, visualizer = (Path(self._resolved(place, seed)) for place in arm.pair)
            numbers |= measured(arm.probe, planner=planner, visualizer=visualizer, autoencoder=AUTOENCODER, species=SPECIES, side=SIDE,
                                steps=DRAW_STEPS, counts=self.counts)
        result = {"arm": arm.name, "seed": seed, "key": key, "steps": self.steps(arm), **self._course(arm, folder),
                  "looked_s": round(time.monotonic() - started, 1), "numbers": numbers}
        write_whole(self._path(arm, seed, ".result.json"), json.dumps(result, indent=1).encode())
        return result

    def check_changes(self, arms: Iterable[Arm]) -> None:
        """ValueError for a change that none of some arms has a key for: it would change nothing."""
        arms = list(arms)
        for change in self.changes:
            if not any(_has(arm, change) for arm in arms):
                raise ValueError(f"--set {change}: none of the {len(arms)} arms has the key {change.partition('=')[0].strip()}; training/train.py "
                                 "--help tells the keys of every stage")

    def steps(self, arm: Arm) -> int:
        return max(1, round(arm.steps * self.scale))

    def folder(self, arm: Arm, seed: int) -> Path:
        return self.out / arm.name / f"seed-{0 if arm.is_base else seed}"

    def key(self, arm: Arm, seed: int) -> str:
        """Changes with the config of an arm and with all that it starts from."""
        config = load_config(CONFIGS / f"{arm.config}.toml", self._changes(arm, seed)).to_json()
        needs = [self.key(ARMS[need], seed) for need in arm.needs if need != arm.name]
        text = json.dumps([config, needs, self.counts if arm.probe else None], sort_keys=True)
        for place, name in ((self.out, "<out>"), (AUTOENCODER, "<autoencoder>")):  # a folder that is moved keeps its results
            text = text.replace(json.dumps(str(place))[1:-1], name)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _changes(self, arm: Arm, seed: int) -> list[str]:
        seed = 0 if arm.is_base else seed
        own = [f"name={arm.name.replace('/', '-')}", f"train.steps={self.steps(arm)}", f"train.seed={seed}"]
        if arm.config != "planner":
            own.append(f"autoencoder={AUTOENCODER}")
        extra = [change for change in self.changes if _has(arm, change)]
        return [*own, *(self._resolved(change, seed) for change in arm.changes), *extra]

    def _resolved(self, text: str, seed: int) -> str:
        """Names of arms in braces become their export folders."""
        return re.sub(r"\{([^{}=]+/[^{}=]+)\}", lambda found: str(self.folder(ARMS[found[1]], seed) / "export"), text)

    def _begin(self, arm: Arm, seed: int, key: str) -> None:
        """A run of another config makes place; one of this config is continued."""
        folder, known = self.folder(arm, seed), self._path(arm, seed, ".key")
        if folder.exists() and not (known.exists() and known.read_text(encoding="utf-8") == key):
            number = 1
            while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
                number += 1
            folder.rename(aside)
        known.parent.mkdir(parents=True, exist_ok=True)
        write_whole(known, key.encode())

    def _numbers(self, arm: Arm, folder: Path) -> dict[str, float]:
        """The last held-out numbers, and what the loss curve says."""
        rows = _rows(folder)
        held_out = next(row for row in reversed(rows) if any(name.startswith("held_out/") for name in row))
        numbers = {name.removeprefix("held_out/"): value for name, value in held_out.items() if name != "step"}
        losses = [row[arm.curve] for row in rows if arm.curve in row]
        if losses:
            numbers |= {"final_loss": fmean(losses[-max(1, len(losses) // 4):]), "roughness": roughness(losses)}
        return numbers

    def _course(self, arm: Arm, folder: Path) -> dict:
        rows = [row for row in _rows(folder) if "seconds" in row]
        return {"seconds": rows[-1]["seconds"] if rows else None,
                "curve": [[row["step"], row[arm.curve]] for row in rows if arm.curve in row]}

    def _path(self, arm: Arm, seed: int, suffix: str) -> Path:
        folder = self.folder(arm, seed)
        return folder.with_name(folder.name + suffix)


def _has(arm: Arm, change: str) -> bool:
    return has_key(arm.config, change.partition("=")[0].strip())  # a config is called by its stage


def _rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
