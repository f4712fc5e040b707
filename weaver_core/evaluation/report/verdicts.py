"""What probes and pairwise comparisons left in a run's folder, as verdicts for the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...durable import JournalCopy
from ...errors import InputError, WeaverError
from .inputs import Verdict

FAIR = 0.1  # how far from one half the share of verdicts for the first place may be (our choice; GPT-4o on OpenING: 0.14)
_SHOWN = 4


def verdicts_in(folder: Path) -> list[Verdict]:
    """All that is there: probe.json of `weaver eval probe`, calibration.json of `calibrate`, pairwise-*.jsonl of `pairwise`.

    What cannot be read becomes a verdict that says so.
    """
    found: list[Verdict] = []
    for path in (folder / "probe.json", *sorted(folder.glob("probe*/probe.json"))):
        if path.is_file():
            found += _guarded(path, _probed)
    for path in sorted(folder.glob("calibration*/calibration.json")):
        found += _guarded(path, _calibrated)
    for path in sorted(folder.glob("pairwise-*.jsonl")):
        found += _guarded(path, _compared)
    return found


def _guarded(path: Path, read) -> list[Verdict]:
    try:
        return read(path)
    except (WeaverError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return [Verdict(name=path.name, text=f"cannot be read: {error or type(error).__name__}")]


def _probed(path: Path) -> list[Verdict]:
    found = []
    for item in json.loads(path.read_text(encoding="utf-8")):
        failures, untested = _texts(item["failures"]), _texts(item["untested"])
        text = f"{len(item['cells'])} kinds of damage; " + (
            f"not noticed as it should be: {_some(failures)}" if failures else "noticed as it should be"
        )
        if untested:
            text += f"; not tested: {_some(untested)}"
        found.append(Verdict(name=f"probe of {item['name']}", text=text, passed=not failures))
    return found


def _calibrated(path: Path) -> list[Verdict]:
    from ..calibrate import WARN_BELOW

    found = json.loads(path.read_text(encoding="utf-8"))
    spread = "" if found["low"] is None else f" [{found['low']:.0%}, {found['high']:.0%}]"  # one pair has none
    text = (
        f"agrees with people in {found['accuracy']:.0%}{spread} of {found['num_pairs']} pairs, both orders "
        f"(chance is 50 %); the same winner in both orders: {found['consistency']:.0%}"
    )
    return [Verdict(name=f"calibration of {found['judge']}", text=text, passed=found["accuracy"] >= WARN_BELOW)]


def _compared(path: Path) -> list[Verdict]:
    from ..pairwise import Verdict as Choice
    from ..pairwise import count

    choices = [Choice(**record) for record in JournalCopy(path).records]
    result = count("", "", choices)
    decided = sum(choice.for_first is not None and choice.status == "ok" for choice in choices)
    if not decided:
        return [Verdict(name=path.stem, text="no verdict is for either answer")]
    text = (
        f"{result.first_place:.0%} of {decided} verdicts are for the answer shown first (one half would be fair); "
        f"{result.consistent:.0%} of the prompts have the same verdict in both orders"
    )
    return [Verdict(name=f"position bias in {path.stem}", text=text, passed=abs(result.first_place - 0.5) <= FAIR)]


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError("expected a list of texts")
    return value


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
