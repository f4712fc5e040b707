"""Two runs over the same prompts, side by side; and a gate that a new version must pass.

Differences are paired by prompt. Runs that were judged or prompted unlike are refused: their difference would say as much
about the judge as about the systems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from .run_folder import RunFolder
from .statistics import OVERALL, Interval, detectable_difference, holm, mean_interval, paired_p, scores_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One number of two runs, over the prompts that both have.

    a, b          means; intent to treat for judged dimensions
    difference    b - a, with its interval
    p, p_holm     paired permutation test; adjusted for all lines of the same kind
    detectable    the smallest true difference that this many prompts find with 80 % power
    """

    name: str
    a: float
    b: float
    difference: Interval
    p: float
    p_holm: float
    detectable: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """judged: lines per dimension and Overall; metrics: lines per metric. `unlike` says why it should not be believed
    (only where it was forced)."""

    a: str
    b: str
    judged: tuple[Difference, ...]
    metrics: tuple[Difference, ...]
    unlike: tuple[str, ...] = ()

    def line(self, name: str) -> Difference:
        """A dimension's, Overall's or a metric's line. InputError names those that there are."""
        for line in (*self.judged, *self.metrics):
            if line.name == name:
                return line
        known = ", ".join(line.name for line in (*self.judged, *self.metrics)) or "none"
        raise InputError(f"there is no {name!r} in both runs; there are: {known}")


def unlike(a: RunFolder, b: RunFolder, *, judge: str | None = None) -> list[str]:
    """Sentences on what makes two runs incomparable; [] when nothing does."""
    found = []

    def check(what: str, left, right) -> None:
        if left != right:
            found.append(f"{what}: {_short(left)} against {_short(right)}")

    check("the prompts differ", a.manifest.dataset.get("prompts"), b.manifest.dataset.get("prompts"))
    check("the step hint differs", a.manifest.step_hint, b.manifest.step_hint)
    sides = [_judged_how(run, judge) for run in (a, b)]
    if (sides[0] is None) != (sides[1] is None):
        found.append("only one of the runs has been judged" + (f" by {judge}" if judge else ""))
    elif sides[0] is not None:
        left, right = sides
        for key, what in (("model", "the judge differs"), ("rubric", "the rubric differs"), ("images", "the image size shown to the "
                          "judge differs"), ("mode", "the judging mode differs"), ("reps", "the number of repetitions differs")):
            check(what, left.get(key), right.get(key))
        if left["name"] != right["name"] and not any(left.get(key) != right.get(key) for key in ("model", "rubric", "images", "mode")):
            check("the judge differs", left["name"], right["name"])
    return found


def compare(a: RunFolder, b: RunFolder, *, judge: str | None = None, force: bool = False, resamples: int = 4000) -> Comparison:
    """b against a. InputError when the runs are unlike and it is not forced, or share no scored prompt.

    judge   its name in both runs; None: the latest of each
    """
    reasons = unlike(a, b, judge=judge)
    if reasons and not force:
        raise InputError(f"{a.folder} and {b.folder} cannot be compared: " + "; ".join(reasons) + ". --force compares them all the same")
    shared = [prompt_id for prompt_id in a.prompts if prompt_id in b.prompts]
    judged = _judged(a, b, judge, shared, resamples)
    metrics = _metrics(a, b, shared, resamples)
    if not judged and not metrics:
        raise InputError(f"{a.folder} and {b.folder} have no scores of the same prompts; run 'weaver eval judge' or 'metrics' first")
    return Comparison(a=a.system, b=b.system, judged=judged, metrics=metrics, unlike=tuple(reasons))


def gate(comparison: Comparison, names: Sequence[str], max_drop: float) -> list[str]:
    """Why the second run (the candidate) does not pass: sentences, [] when it does.

    It fails on a number that is lower by more than `max_drop`; the interval is told, so that luck can be seen.
    """
    if not max_drop >= 0:
        raise InputError(f"the largest drop is {max_drop}; it must be 0 or more")
    failed = []
    for name in names:
        line = comparison.line(name)
        if math.isnan(line.difference.mean):
            failed.append(f"{name} cannot be compared: no prompt has a score in both runs")
        elif -line.difference.mean > max_drop:
            failed.append(
                f"{name} fell from {line.a:.3g} to {line.b:.3g}: by {-line.difference.mean:.3g}, more than {max_drop:g} (95 % interval "
                f"of the change {line.difference.low:.3g} to {line.difference.high:.3g}, {line.difference.n} prompts)"
            )
    return failed


def _judged(a: RunFolder, b: RunFolder, judge: str | None, shared: list[str], resamples: int) -> tuple[Difference, ...]:
    left, right = (scores_of(shared, run.judge_records(judge)) for run in (a, b))
    dims = [dim for dim in left.dims if dim in right.dims]
    if not dims:
        return ()
    x, y = (scores.intent[:, [scores.dims.index(dim) for dim in dims]] for scores in (left, right))
    import numpy as np

    both = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(both, x, np.nan), np.where(both, y, np.nan)
    columns = {dim: (x[:, i], y[:, i]) for i, dim in enumerate(dims)}
    # Overall of a prompt: over the dimensions that both have there, so that the pair is like with like.
    columns[OVERALL] = (left.overall(x), right.overall(y))
    return _lines(columns, resamples)


def _metrics(a: RunFolder, b: RunFolder, shared: list[str], resamples: int) -> tuple[Difference, ...]:
    import numpy as np

    left, right = ({(record.metric, record.prompt_id): record.value for record in run.metric_records()} for run in (a, b))
    names = [name for name in dict.fromkeys(metric for metric, _ in left) if any(metric == name for metric, _ in right)]
    columns = {}
    for name in names:
        pair = [np.array([math.nan if (value := side.get((name, prompt_id))) is None else value for prompt_id in shared], float)
                for side in (left, right)]
        both = np.isfinite(pair[0]) & np.isfinite(pair[1])
        columns[name] = tuple(np.where(both, values, np.nan) for values in pair)
    return _lines(columns, resamples)


def _lines(columns: dict, resamples: int) -> tuple[Difference, ...]:
    import numpy as np

    found = []
    for name, (x, y) in columns.items():
        gap = (y - x)[np.isfinite(y - x)]
        sd = float(gap.std(ddof=1)) if len(gap) > 1 else math.nan
        found.append((
            name, _mean(x), _mean(y), mean_interval(gap, resamples=resamples), paired_p(gap), detectable_difference(sd, len(gap)),
        ))  # fmt: skip
    adjusted = holm([item[4] for item in found])
    return tuple(
        Difference(name=name, a=a, b=b, difference=difference, p=p, p_holm=p_holm, detectable=detectable)
        for (name, a, b, difference, p, detectable), p_holm in zip(found, adjusted, strict=True)
    )


def _mean(values) -> float:
    import numpy as np

    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else math.nan


def _judged_how(run: RunFolder, judge: str | None) -> dict | None:
    """What decides a judge's scores; None when there are none. A judge without settings is told by its name."""
    records = run.judge_records(judge)
    if not records:
        return None
    name = records[-1].judge
    settings = run.manifest.judges.get(name, {})
    rubrics = sorted({str(record.rubric.get("sha256") or record.rubric.get("id") or "") for record in records})
    return {
        "name": name,
        "model": settings.get("model", name),
        "mode": settings.get("mode"),
        "images": settings.get("images"),
        "rubric": rubrics,
        "reps": max(record.rep for record in records) + 1,
    }


def _short(value: object) -> str:
    text = ", ".join(item[:12] for item in value) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:12]
