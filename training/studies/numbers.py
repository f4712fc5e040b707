"""Intervals of paired differences, and the claims that they decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from weaver_core.evaluation.statistics import Interval


def student_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean of some values with its two-sided Student t interval; of one value, or of values that are all alike, without width
    only in the second case: one value says nothing of its spread, so its bounds are NaN.

    Raises   ValueError where there is no value, or one is not finite
    Source   Student (1908): mean +- t(level, n - 1) * s / sqrt(n)
    """
    from scipy.stats import t

    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"an interval needs finite values, got {list(values)}")
    mean, n = fmean(values), len(values)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(t.ppf((1 + level) / 2, n - 1)) * stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(better: Sequence[float], worse: Sequence[float]) -> Interval:
    """Student interval of `better - worse`, paired by seed. Raises ValueError if the two do not belong together."""
    if len(better) != len(worse):
        raise ValueError(f"{len(better)} values cannot be paired with {len(worse)}; both arms need the same seeds")
    return student_interval([a - b for a, b in zip(better, worse)])


def roughness(losses: Sequence[float]) -> float:
    """Spread of a curve about its own trend: the standard deviation of successive differences over sqrt(2), in units of the loss.

    A steady fall adds little to it, unlike to a plain standard deviation. 0 for fewer than two values.
    Source   von Neumann (1941), the mean square successive difference
    """
    if len(losses) < 2:
        return 0.0
    return math.sqrt(fmean((b - a) ** 2 for a, b in zip(losses, losses[1:])) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One thing that the paper says, as a difference that must be above a bound.

    difference  "higher" - "lower" per seed, both names of (arm, measure)
    above       the bound: 0, or below 0 where the claim is that something is *kept*
    if_not      what may be behind it where the claim does not hold here; shown only then
    """

    text: str
    unit: str
    higher: tuple[str, str]
    lower: tuple[str, str]
    above: float = 0.0
    if_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A claim with its measured difference; `reproduced` only where the whole interval lies above the bound."""

    claim: Claim
    interval: Interval

    @property
    def reproduced(self) -> bool:
        return self.interval.n > 1 and self.interval.low > self.claim.above

    @property
    def word(self) -> str:
        """reproduced, contradicted (the whole interval lies below the bound) or undecided."""
        if self.reproduced:
            return "reproduced"
        return "contradicted" if self.interval.n > 1 and self.interval.high < self.claim.above else "undecided"


def judge(claim: Claim, values: dict[str, dict[str, Sequence[float]]]) -> Verdict:
    """`values` holds per arm and measure a list over the seeds, in the same order for all arms."""
    higher, lower = (values[arm][measure] for arm, measure in (claim.higher, claim.lower))
    return Verdict(claim=claim, interval=paired_difference(higher, lower))
