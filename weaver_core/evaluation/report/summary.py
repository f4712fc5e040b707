"""The numbers of a report beyond the scores (statistics.py has those): metrics, flags, the judge, cost, what to show."""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..opening_profile import CRITERIA
from ..records import DIMENSIONS, Document, JudgeRecord
from ..run_folder import prompts_hash
from ..statistics import (
    Interval,
    Scores,
    bootstrap_weights,
    detectable_difference,
    interval,
    mean_interval,
    paired_p,
    resampled_means,
    unpaired_detectable,
)
from .inputs import ReportInput

NOT_ASKED = ("na", "missing_output")
NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def dimension_order(names: Iterable[str]) -> list[str]:
    """Ours in their order, then OpenING's in theirs, then others by name."""
    names = set(names)
    known = [name for name in (*DIMENSIONS, *CRITERIA) if name in names]
    return [*known, *sorted(names - set(known))]


def by_prompt(scores: Scores) -> dict[str, float]:
    """The mean over dimensions of each prompt that has a score."""
    means = scores.overall(scores.complete)
    return {name: float(mean) for name, mean in zip(scores.ids, means, strict=True) if math.isfinite(mean)}


def difference(a: Scores, b: Scores) -> tuple[Interval, float, float]:
    """Overall of b - a, its p and the detectable difference; paired by prompt, missing outputs as 0: compare.py in memory."""
    import numpy as np

    dims = [dim for dim in a.dims if dim in b.dims]
    place = {name: i for i, name in enumerate(b.ids)}
    pairs = [(i, place[name]) for i, name in enumerate(a.ids) if name in place]
    if not pairs or not dims:
        return NOTHING, math.nan, math.nan
    x = a.intent[np.ix_([i for i, _ in pairs], [a.dims.index(dim) for dim in dims])]
    y = b.intent[np.ix_([i for _, i in pairs], [b.dims.index(dim) for dim in dims])]
    both = np.isfinite(x) & np.isfinite(y)
    gaps = b.overall(np.where(both, y, np.nan)) - a.overall(np.where(both, x, np.nan))
    found = mean_interval(gaps)
    if found.n < 2:
        return found, math.nan, math.nan
    return found, paired_p(gaps), detectable_difference(float(np.nanstd(gaps, ddof=1)), found.n)


def intervals(columns: dict[str, dict[str, float]], ids: Sequence[str]) -> dict[str, Interval]:
    """The mean and interval of each column ({id: value}); one drawing of the ids for all of them."""
    import numpy as np

    if not columns or not ids:
        return {}
    row = {name: i for i, name in enumerate(ids)}
    values = np.full((len(ids), len(columns)), np.nan)
    for number, column in enumerate(columns.values()):
        for name, value in column.items():
            if name in row:
                values[row[name], number] = value
    means = resampled_means(values, _weights(len(ids)))
    found = {}
    for number, name in enumerate(columns):
        kept = values[np.isfinite(values[:, number]), number]
        found[name] = interval(means[:, number], float(kept.mean()), len(kept)) if len(kept) else NOTHING
    return found


@functools.lru_cache(maxsize=4)
def _weights(num_prompts: int):
    return bootstrap_weights(num_prompts)  # drawing them is most of a report's time


# ---- metrics


def metric_means(run: ReportInput) -> tuple[dict[str, Interval], dict[str, float]]:
    """Every judge-free metric's mean over documents, and the smallest difference from another run that would be found."""
    columns: dict[str, dict[str, float]] = defaultdict(dict)
    for record in run.metric_records:
        if record.value is not None and math.isfinite(record.value):
            columns[record.metric][record.prompt_id] = record.value
    means = intervals(dict(sorted(columns.items())), [document.prompt_id for document in run.documents])
    return means, {name: unpaired_detectable(columns[name].values()) for name in means}


def by_index(run: ReportInput) -> dict[str, list[Interval]]:
    """Every metric's mean by image index, for metrics with values for images: does it hold to the end of a story?"""
    columns: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for record in run.metric_records:
        for index, value in enumerate(record.by_image):
            if value is not None and math.isfinite(value):
                columns[record.metric, index][record.prompt_id] = value
    points = intervals(dict(columns), [document.prompt_id for document in run.documents])
    curves: dict[str, list[Interval]] = {}
    for name in sorted({name for name, _ in points}):
        last = max(index for other, index in points if other == name)
        curves[name] = [points.get((name, index), NOTHING) for index in range(last + 1)]
    return {name: curve for name, curve in curves.items() if sum(point.n > 0 for point in curve) > 1}


def flags(run: ReportInput) -> list[tuple[str, int, list[str]]]:
    """Faults by name ("grid" of "grid:2"): name, number of documents with it, their prompt ids; most frequent first."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for record in run.metric_records:
        for flag in record.flags:
            found[flag.partition(":")[0]][record.prompt_id] = None
    return sorted(((name, len(ids), list(ids)) for name, ids in found.items()), key=lambda item: (-item[1], item[0]))


# ---- the judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How far the judge can be believed. Shares in [0, 1]; None where nothing tells.

    statuses        records by status
    parse_rate      share of asked scores that came back as a valid score
    refusal_rate    share of asked scores that the judge refused
    repetition_sd   standard deviation of one output's score over repetitions (pooled)
    correlations    (dim, dim) -> Pearson r over outputs
    mean_r          their mean
    """

    judges: tuple[str, ...]
    statuses: dict[str, int]
    parse_rate: float | None
    refusal_rate: float | None
    repetition_sd: float | None
    correlations: dict[tuple[str, str], float]
    mean_r: float | None


def health(run: ReportInput, scores: Scores) -> Health:
    import numpy as np

    statuses = Counter(record.status for record in run.judge_records)
    asked = sum(count for status, count in statuses.items() if status not in NOT_ASKED)
    correlations = {}
    order = dimension_order(scores.dims)
    for number, first in enumerate(order):
        for second in order[number + 1 :]:
            pair = scores.complete[:, [scores.dims.index(first), scores.dims.index(second)]]
            x, y = pair[np.isfinite(pair).all(axis=1)].T
            if len(x) > 2 and x.std() > 0 and y.std() > 0:
                correlations[first, second] = float(np.corrcoef(x, y)[0, 1])
    return Health(
        judges=tuple(sorted({record.judge for record in run.judge_records if record.judge})),
        statuses=dict(statuses.most_common()),
        parse_rate=statuses["ok"] / asked if asked else None,
        refusal_rate=statuses["refused"] / asked if asked else None,
        repetition_sd=_repetition_sd(run.judge_records),
        correlations=correlations,
        mean_r=sum(correlations.values()) / len(correlations) if correlations else None,
    )


def _repetition_sd(records: Iterable[JudgeRecord]) -> float | None:
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        if record.status == "ok" and record.score is not None:
            scores[record.prompt_id, record.dim].append(record.score)
    squares, freedom = 0.0, 0
    for values in scores.values():
        mean = sum(values) / len(values)
        squares += sum((value - mean) ** 2 for value in values)
        freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else None


# ---- what it cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Sums over calls of the judge and over documents. usd None: no call's price is known; `unpriced`: calls without one."""

    calls: int
    usd: float | None
    unpriced: int
    usage: dict[str, float]
    judge_s: float | None
    images_sent: int
    draw_s: float | None


def cost(run: ReportInput) -> Cost:
    """Records of one call share its key; tokens and price stand with one of them, images with each."""
    calls: dict[str, list[JudgeRecord]] = defaultdict(list)
    for record in run.judge_records:
        if record.status not in NOT_ASKED:
            calls[record.key].append(record)
    usage: dict[str, float] = defaultdict(float)
    prices, times = [], []
    for records in calls.values():
        prices.append(next((record.usd for record in records if record.usd is not None), None))
        times += [record.ms for record in records if record.ms is not None][:1]
        counted = next((record.usage for record in records if "prompt_tokens" in record.usage), records[0].usage)
        for name, value in counted.items():
            if name.endswith("tokens") and isinstance(value, (int, float)):
                usage[name] += value
    drawn = [block.ms for document in run.documents for block in document.images if block.ms is not None]
    priced = [price for price in prices if price is not None]
    return Cost(
        calls=len(calls),
        usd=sum(priced) if priced else None,
        unpriced=len(prices) - len(priced),
        usage=dict(usage),
        judge_s=sum(times) / 1000 if times else None,
        images_sent=sum(max(record.images_sent for record in records) for records in calls.values()),
        draw_s=sum(drawn) / 1000 if drawn else None,
    )


# ---- which documents to show


def extremes(scores: Scores, documents: dict[str, Document], count: int) -> tuple[list[str], list[str]]:
    """Ids of the best and the worst documents that exist, by their mean score; never one in both."""
    ranked = sorted((-score, name) for name, score in by_prompt(scores).items() if name in documents)
    names = [name for _, name in ranked]
    count = min(count, len(names) // 2) or min(1, len(names))
    best = names[:count]
    return best, [name for name in reversed(names[-count:]) if name not in best] if names else []


def widest(a: Scores, b: Scores, count: int) -> list[str]:
    """Ids of the prompts on which two systems differ most: `count` in favour of each, ordered from a's to b's."""
    left, right = by_prompt(a), by_prompt(b)
    gaps = sorted((left[name] - right[name], name) for name in left if name in right)
    ahead = [name for gap, name in reversed(gaps) if gap > 0][:count]
    behind = [name for gap, name in gaps if gap < 0][:count]
    return [*ahead, *reversed(behind)]


def mismatches(runs: Sequence[ReportInput]) -> list[str]:
    """Sentences on why these runs cannot be compared; [] when nothing speaks against it."""
    found = []

    def differ(what: str, values: list[str]) -> None:
        if len(set(values)) > 1:
            found.append(f"{what}: " + "; ".join(f"{run.name}: {value}" for run, value in zip(runs, values, strict=True)))

    def all_of(run: ReportInput, name: Callable[[JudgeRecord], object]) -> str:
        judged = (record for record in run.judge_records if record.status != "missing_output")
        return ", ".join(sorted({str(name(record)) for record in judged})) or "none"

    def rubric(record: JudgeRecord) -> str:
        return str(record.rubric.get("sha256") or record.rubric.get("id") or "")[:12]

    differ("other prompts", [prompts_hash(run.prompts)[:12] for run in runs])
    differ("another judge", [all_of(run, lambda record: record.judge) for run in runs])
    differ("another rubric", [all_of(run, rubric) for run in runs])
    differ("other repetitions", [str(1 + max((record.rep for record in run.judge_records), default=0)) for run in runs])
    differ("another step hint", [str(run.manifest.get("step_hint", "none")) for run in runs])
    return found
