"""Means with intervals, and tests of differences; the unit is always the prompt.

Two treatments stand side by side. *Intent to treat*: an answer that is missing counts 0. *Complete case*: only answers
that have a score. What a judge failed to score is no system's fault: it counts in neither and lowers the coverage. A
dimension that does not apply (`na`) counts in neither.

A score is the mean over repetitions; a dimension's score the mean over prompts (micro) or over the means of categories
(macro); Overall is the plain mean of the dimensions, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, stdev
from typing import TYPE_CHECKING

from ..errors import InputError
from .records import DIMENSIONS, JudgeRecord, Prompt

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 4000
_EXACT = 12  # 2^12 patterns of signs
OVERALL = "Overall"


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, its 95 % interval, and over how many prompts. NaN where there is nothing; the interval needs two prompts."""

    mean: float
    low: float
    high: float
    n: int


# ---- means


@lru_cache(maxsize=4)
def bootstrap_weights(num_prompts: int, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each prompt is drawn in each resample: (resamples, prompts), rows sum to `num_prompts`. Read-only."""
    import numpy as np

    even = np.full(num_prompts, 1 / num_prompts)
    weights = np.random.default_rng(seed).multinomial(num_prompts, even, size=resamples).astype(np.float32)
    weights.setflags(write=False)  # kept and given to others
    return weights


def resampled_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The means of each resample, passing over NaN.

    Shapes   values (prompts, columns); weights (resamples, prompts); returns (resamples, columns), NaN where a resample
             drew no value of a column
    """
    import numpy as np

    valid = np.isfinite(values)
    total = weights @ np.where(valid, values, 0.0).astype(np.float32)
    count = weights @ valid.astype(np.float32)
    return np.divide(total, count, out=np.full(total.shape, np.nan, np.float32), where=count > 0)


def interval(means: np.ndarray, mean: float, num_prompts: int) -> Interval:
    """The interval of a mean whose resampled means are given: percentiles, moved outwards for few prompts.

    Source   expanded percentile interval of Hesterberg (2015), "What Teachers Should Know About the Bootstrap", section
             4.2: plain percentiles are too narrow by a factor of about sqrt((n-1)/n) and use the normal quantile
             instead of Student's
    """
    import numpy as np

    means = means[np.isfinite(means)]
    if num_prompts < 2 or not len(means):
        return Interval(mean, math.nan, math.nan, num_prompts)
    t = _student(0.975, num_prompts - 1)
    tail = NormalDist().cdf(-math.sqrt(num_prompts / (num_prompts - 1)) * t)
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(mean, float(low), float(high), num_prompts)


def mean_interval(values: Iterable[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of some values (NaN passed over) with its interval."""
    import numpy as np

    kept = np.asarray([value for value in values if math.isfinite(value)], float)
    if not len(kept):
        return Interval(math.nan, math.nan, math.nan, 0)
    weights = bootstrap_weights(len(kept), resamples=resamples, seed=seed)
    return interval(resampled_means(kept[:, None], weights)[:, 0], float(kept.mean()), len(kept))


# ---- differences


def paired_p(differences: Sequence[float], *, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p of a paired permutation test of the mean difference; exact for up to 12 prompts. NaN without any.

    Under the null hypothesis the two systems' scores of a prompt can be exchanged, so every sign is as likely. Drawn
    signs count the observed ones too, so p is never 0 (Phipson and Smyth 2010).
    """
    import numpy as np

    values = np.asarray(differences, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan
    exact = len(values) <= _EXACT
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    else:
        signs = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, (resamples, len(values)), dtype=np.int8)
    sums, observed = np.abs(signs @ values), abs(float(values.sum()))
    as_large = int((sums >= observed - 1e-9 * max(1.0, observed)).sum())  # equal up to rounding is equal
    return as_large / len(sums) if exact else (as_large + 1) / (len(sums) + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for the size of their family (Holm 1979); NaN stays NaN and does not count."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def detectable_difference(sd: float, num_prompts: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that is found with this power, for paired differences of this SD (normal approximation).

    NaN where nothing varied: few prompts that agree say nothing of how much others would.
    """
    if num_prompts < 2 or not math.isfinite(sd) or sd < 1e-9:
        return math.nan
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * sd / math.sqrt(num_prompts)


def unpaired_detectable(values: Iterable[float]) -> float:
    """`detectable_difference` of a run from one that is as spread as this, their scores unrelated (NaN passed over)."""
    kept = [float(value) for value in values if math.isfinite(value)]
    return detectable_difference(stdev(kept) * math.sqrt(2), len(kept)) if len(kept) > 1 else math.nan


# ---- a judged run


@dataclass(frozen=True, slots=True)
class Scores:
    """One system's scores by prompt.

    ids         prompt ids
    dims        dimensions, in their own order
    complete    (prompts, dims) mean over repetitions; NaN where there is no score
    missing     (prompts, dims) bool: no output, so 0 in intent to treat
    na          (prompts, dims) bool: does not apply
    """

    ids: tuple[str, ...]
    dims: tuple[str, ...]
    complete: np.ndarray
    missing: np.ndarray
    na: np.ndarray

    @property
    def intent(self) -> np.ndarray:
        """(prompts, dims): as `complete`, and 0 where the output is missing."""
        import numpy as np

        return np.where(self.missing, 0.0, self.complete)

    def overall(self, values: np.ndarray) -> np.ndarray:
        """(prompts,): the mean over the dimensions that a prompt has."""
        import numpy as np

        count = np.isfinite(values).sum(axis=1)
        return np.divide(np.nansum(values, axis=1), count, out=np.full(len(values), np.nan), where=count > 0)


def scores_of(prompt_ids: Sequence[str], records: Iterable[JudgeRecord]) -> Scores:
    """The scores in a judge's records (run_folder.RunFolder.judge_records)."""
    import numpy as np

    records = list(records)
    seen = {record.dim for record in records}
    dims = tuple([dim for dim in DIMENSIONS if dim in seen] + sorted(seen - set(DIMENSIONS)))
    row, column = {name: i for i, name in enumerate(prompt_ids)}, {name: i for i, name in enumerate(dims)}
    total, count = np.zeros((len(row), len(dims))), np.zeros((len(row), len(dims)))
    missing, na = np.zeros(total.shape, bool), np.zeros(total.shape, bool)
    for record in records:
        if record.prompt_id not in row:
            continue
        at = row[record.prompt_id], column[record.dim]
        if record.status == "ok" and record.score is not None and math.isfinite(record.score):
            total[at] += record.score
            count[at] += 1
        missing[at] |= record.status == "missing_output"
        na[at] |= record.status == "na"
    complete = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return Scores(tuple(prompt_ids), dims, complete, missing & (count == 0), na & (count == 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of a summary: a dimension (or Overall), or a slice's Overall.

    coverage   share of the prompts to which it applies that have a score or a missing output
    macro      mean over categories' means, intent to treat; NaN without categories
    detectable the smallest true difference from another run over these prompts that would be found with 80 % power, should
               the scores of the two have nothing to do with each other; pairs that rise and fall together find less
    """

    name: str
    intent: Interval
    complete: Interval
    coverage: float
    macro: float = math.nan
    detectable: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run's scores: a line per dimension and Overall, and Overall by slice: kind -> lines."""

    lines: tuple[Line, ...]
    slices: dict[str, tuple[Line, ...]]
    num_prompts: int
    num_missing: int


def summarize(prompts: Sequence[Prompt], records: Iterable[JudgeRecord], *, resamples: int = RESAMPLES, seed: int = 0) -> Summary:
    """Means, intervals, coverage and slices. InputError when there are no prompts or nothing has been judged."""
    import numpy as np

    if not prompts:
        raise InputError("there are no prompts")
    scores = scores_of([prompt.id for prompt in prompts], records)
    if not scores.dims:
        raise InputError("nothing has been judged yet; run 'weaver eval judge' first")
    weights = bootstrap_weights(len(prompts), resamples=resamples, seed=seed)
    everything = np.ones(len(prompts), bool)
    categories = [prompt.category for prompt in prompts]
    lines = [_line(dim, scores, [column], everything, weights, categories) for column, dim in enumerate(scores.dims)]
    columns = list(range(len(scores.dims)))
    lines.append(_line(OVERALL, scores, columns, everything, weights, categories))
    slices = {}
    for kind, value_of in SLICES.items():
        values = [value_of(prompt) for prompt in prompts]
        names = sorted(set(values), key=lambda name: (len(name), name) if kind == "images" else (0, name))
        if len(names) > 1:
            slices[kind] = tuple(
                _line(name, scores, columns, np.array([value == name for value in values]), weights) for name in names
            )
    return Summary(
        lines=tuple(lines), slices=slices, num_prompts=len(prompts), num_missing=int(scores.missing.any(axis=1).sum())
    )


def _images_wanted(prompt: Prompt) -> str:
    most = prompt.want.images_max
    return str(most) if most <= 5 else "6-8" if most <= 8 else "9 and more"


SLICES: dict[str, Callable[[Prompt], str]] = {
    "category": lambda prompt: prompt.category or "none",
    "language": lambda prompt: prompt.lang,
    "images": _images_wanted,
    "input": lambda prompt: "with images" if any(block.type == "image" for block in prompt.input) else "text only",
}


def _line(name: str, scores: Scores, columns: list[int], mask, weights, categories: Sequence[str] = ()) -> Line:
    import numpy as np

    intent = np.where(mask[:, None], scores.intent[:, columns], np.nan)
    complete = np.where(mask[:, None], scores.complete[:, columns], np.nan)
    applies = ~scores.na[:, columns] & mask[:, None]
    got = np.isfinite(intent)
    macro = math.nan
    if categories:
        groups = [intent[[category == name for category in categories]] for name in dict.fromkeys(categories)]
        means = [_mean_of_columns(group) for group in groups]
        macro = float(np.nanmean(means)) if np.isfinite(means).any() else math.nan
    return Line(
        name=name,
        intent=_interval_of_columns(intent, weights),
        complete=_interval_of_columns(complete, weights),
        coverage=float((got & applies).sum() / applies.sum()) if applies.any() else math.nan,
        macro=macro,
        detectable=unpaired_detectable(scores.overall(intent)),
    )


def _mean_of_columns(values) -> float:
    """The mean over columns of the means over rows; columns without any value are left out."""
    import numpy as np

    values = values[:, np.isfinite(values).any(axis=0)]
    return float(np.nanmean(values, axis=0).mean()) if values.size else math.nan


def _interval_of_columns(values, weights) -> Interval:
    import numpy as np

    values = values[:, np.isfinite(values).any(axis=0)]
    n = int(np.isfinite(values).any(axis=1).sum())
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    means = resampled_means(values, weights)
    return interval(means.mean(axis=1), _mean_of_columns(values), n)


def _student(probability: float, degrees: int) -> float:
    try:
        from scipy.special import stdtrit
    except ImportError:
        raise InputError('intervals need scipy: pip install "wan-weaver[eval]"') from None
    return float(stdtrit(degrees, probability))
