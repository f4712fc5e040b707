"""Does a judge or a metric notice what it should? Controlled damage, paired drops with intervals, and a verdict.

    verdicts = probe(prompts, documents, folder, [judge, *metrics], out)

Writes `out`/probe.json and `out`/probe.md; the damaged documents and pictures stay beside them for looking. A damage
makes a score fall when the mean paired drop lies above 0 with its whole interval, and rise when it lies below with its
whole interval. Expectations name DIMENSIONS for judges, and metrics (without their embedder) for metrics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import stdev

from ..durable import write_whole
from ..errors import InputError
from .degrade import DAMAGES, copy_whole, degrade
from .records import DIMENSIONS, Document, Judge, Metric, Prompt
from .statistics import detectable_difference, mean_interval

SMALL = 0.25  # of 10: a mean change that counts as none where a score should stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a damage must do: `falls` must fall, `stays` neither fall nor rise, `not_up` not rise."""

    falls: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()
    not_up: tuple[str, ...] = ()


JUDGE_EXPECTATIONS = {
    "drop_last_image": Expectation(falls=("CP", "PA")),
    "shuffle_images": Expectation(falls=("NC", "CC"), stays=("IC",)),
    "foreign_image": Expectation(falls=("IC", "CC")),
    "recolour_hero": Expectation(falls=("IC",)),
    "repeat_first_image": Expectation(falls=("NC", "PA"), not_up=("IC",)),
    "grid": Expectation(not_up=DIMENSIONS),
    "truncate_text": Expectation(falls=("CP",)),
    "contradict_fact": Expectation(falls=("CC",)),
    "beg_for_score": Expectation(not_up=DIMENSIONS),
}
METRIC_EXPECTATIONS = {
    "drop_last_image": Expectation(falls=("image_count",)),
    "shuffle_images": Expectation(falls=("margin", "recall"), stays=("self", "palette", "diversity")),
    "foreign_image": Expectation(falls=("self", "worst", "palette", "margin")),
    "recolour_hero": Expectation(falls=("hue", "self")),
    "repeat_first_image": Expectation(falls=("diversity", "margin", "recall")),
    "grid": Expectation(falls=("not_grid", "diversity")),
    "truncate_text": Expectation(falls=("clean_blocks",)),
    "beg_for_score": Expectation(not_up=("image_count", "clean_blocks", "finished", "not_blank", "not_grid", "self", "lift", "margin")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The mean paired drop (before - after) of one dimension under one damage, its 95 % interval, how many pairs, and the
    smallest true drop that so many would find with 80 % power; None where all drops are the same."""

    mean: float
    low: float
    high: float
    n: int
    detectable: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One judge or metric. `cells`: damage -> dimension -> Cell; `failures`: names such as "grid: IC rises"; `untested`:
    expectations with fewer than two pairs."""

    name: str
    kind: str
    cells: dict[str, dict[str, Cell]]
    failures: tuple[str, ...]
    untested: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures


def probe(
    prompts: dict[str, Prompt],
    documents: Sequence[Document],
    folder: Path,
    scorers: Sequence[Judge | Metric],
    out: Path,
    *,
    damages: Sequence[str] = tuple(DAMAGES),
    limit: int | None = None,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Verdict]:
    """Sensitivity of every scorer to every damage. Judges are asked once per document and damage; `limit` bounds documents.

    InputError when there is nothing to damage or a damage is unknown.
    """
    documents = [document for document in documents if document.blocks and document.prompt_id in prompts][:limit]
    if not documents:
        raise InputError("there are no documents with content to damage; generate some first")
    for damage in damages:
        if damage not in DAMAGES:
            raise InputError(f"the damage is {damage!r}; it must be one of {', '.join(DAMAGES)}")
    folder, out = Path(folder), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    versions = {"": [copy_whole(document, folder, out) for document in documents]}
    for damage in damages:
        made = [degrade(d, damage, prompts[d.prompt_id], documents, folder, out, seed=seed) for d in documents]
        versions[damage] = [document for document in made if document is not None]
    _write_documents(versions, out)
    verdicts = []
    for number, scorer in enumerate(scorers):
        scores = {}
        for done, (damage, some) in enumerate(versions.items()):
            on_progress(f"{scorer.name}: {damage or 'undamaged'}", number * len(versions) + done, len(scorers) * len(versions))
            scores[damage] = score_all(scorer, prompts, some, out)
        kind = "judge" if is_judge(scorer) else "metric"
        verdicts.append(_verdict(scorer.name, kind, scores, seed))
    write_whole(out / "probe.json", (json.dumps([asdict(v) | {"passed": v.passed} for v in verdicts], indent=1) + "\n").encode())
    write_whole(out / "probe.md", table(verdicts).encode())
    return verdicts


def is_judge(scorer: Judge | Metric) -> bool:
    return hasattr(scorer, "score")


def score_all(scorer: Judge | Metric, prompts: dict[str, Prompt], documents: Sequence[Document], folder: Path) -> dict[tuple[str, str], float]:
    """(prompt id, dimension or metric) -> value, for what could be scored."""
    if is_judge(scorer):
        records = [r for document in documents for r in scorer.score(prompts[document.prompt_id], document, folder)]
        return {(r.prompt_id, r.dim): r.score for r in records if r.status == "ok" and r.score is not None}
    records = scorer.measure(prompts, documents, folder) if documents else []
    return {(r.prompt_id, r.metric): r.value for r in records if r.value is not None}


def paired_drop(before: dict, after: dict, dimension: str, seed: int = 0) -> Cell | None:
    """Mean of before - after over the prompts that have both, with its bootstrap interval; None for fewer than two."""
    drops = [before[key] - after[key] for key in before if key[1] == dimension and key in after]
    if len(drops) < 2:
        return None
    found = mean_interval(drops, seed=seed)
    least = detectable_difference(stdev(drops), len(drops))
    return Cell(mean=found.mean, low=found.low, high=found.high, n=found.n, detectable=least if math.isfinite(least) else None)


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown: one table per judge or metric (rows damages, columns dimensions, cells mean drop and interval), then the verdict."""
    lines = ["# Probe", "", "Mean drop under each damage, with its 95 % interval; above 0 = the score fell, a bare 0 = none moved. The "
             "last column: the smallest true drop that all of the row's numbers that moved would find in four of five probes.", ""]
    for verdict in verdicts:
        dimensions = list(dict.fromkeys(name for row in verdict.cells.values() for name in row))
        lines += [f"## {verdict.name}", "", "| damage | " + " | ".join(dimensions) + " | n | detectable |", "|---" * (len(dimensions) + 3) + "|"]
        for damage, row in verdict.cells.items():
            cells = [_told(row[d]) if d in row else "–" for d in dimensions]
            known = [cell.detectable for cell in row.values() if cell.detectable is not None]
            lines.append(f"| {damage} | " + " | ".join(cells) + f" | {max((cell.n for cell in row.values()), default=0)} | "
                         + (f"{max(known):.2f} |" if known else "– |"))  # fmt: skip
        lines += ["", "Passed." if verdict.passed else "Failed: " + "; ".join(verdict.failures) + "."]
        lines += ["Not tested, for want of pairs: " + "; ".join(verdict.untested) + "."] if verdict.untested else []
        lines.append("")
    return "\n".join(lines)


def _told(cell: Cell) -> str:
    """A cell of the table; where no score moved at all it is a bare 0, so that the eye finds those that did."""
    return "0" if cell.mean == cell.low == cell.high == 0 else f"{cell.mean:+.2f} [{cell.low:+.2f}, {cell.high:+.2f}]"


def _verdict(name: str, kind: str, scores: dict[str, dict], seed: int) -> Verdict:
    before = scores[""]
    dimensions = sorted({key[1] for key in before}, key=lambda d: (DIMENSIONS.index(d) if d in DIMENSIONS else len(DIMENSIONS), d))
    cells = {}
    for damage in scores:
        if damage:
            found = {d: paired_drop(before, scores[damage], d, seed) for d in dimensions}
            cells[damage] = {d: cell for d, cell in found.items() if cell is not None}
    failures, untested = [], []
    wanted = JUDGE_EXPECTATIONS if kind == "judge" else METRIC_EXPECTATIONS
    for damage, row in cells.items():
        for what in ("falls", "stays", "not_up"):
            for part in getattr(wanted.get(damage, Expectation()), what):
                named = [d for d in dimensions if d == part or d.split(":")[-1] == part]
                if kind == "judge" and not named:
                    untested.append(f"{damage}: {part}")
                for d in named:
                    if d not in row:
                        untested.append(f"{damage}: {d}")
                    elif (fault := _fault(what, row[d], kind)) is not None:
                        failures.append(f"{damage}: {d} {fault}")
    return Verdict(name=name, kind=kind, cells=cells, failures=tuple(failures), untested=tuple(untested))


def _fault(what: str, cell: Cell, kind: str) -> str | None:
    small = SMALL if kind == "judge" else SMALL / 10
    if what == "falls":
        return None if cell.low > 0 else "does not fall"
    if cell.high < 0 and (what == "not_up" or cell.mean < -small):
        return "rises"
    return "falls" if what == "stays" and cell.low > 0 and cell.mean > small else None


def _write_documents(versions: dict[str, list[Document]], out: Path) -> None:
    for damage, documents in versions.items():
        lines = [json.dumps(document.to_json(), ensure_ascii=False) + "\n" for document in documents]
        write_whole(out / f"{damage or 'undamaged'}.jsonl", "".join(lines).encode())
