"""Do judge-free numbers go along with a judge? Correlation of every metric with every dimension over good and damaged documents.

With the oracle as judge this says, without any model, which of the cheap numbers mean something in the picture-book world.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..durable import write_whole
from ..errors import InputError
from .degrade import DAMAGES, copy_whole, degrade
from .probe import score_all
from .records import DIMENSIONS, Document, Judge, Metric, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """Pearson and Spearman of a metric with a dimension over n documents; 95 % intervals from resampling prompts. None
    where either side never changes."""

    metric: str
    dim: str
    n: int
    pearson: float | None
    pearson_interval: tuple[float, float] | None
    spearman: float | None
    spearman_interval: tuple[float, float] | None


def correlate(
    prompts: dict[str, Prompt],
    documents: Sequence[Document],
    folder: Path,
    metrics: Sequence[Metric],
    judge: Judge,
    out: Path,
    *,
    damages: Sequence[str] = tuple(DAMAGES),
    seed: int = 0,
    samples: int = 500,
) -> list[Correlation]:
    """Scores every document once as it is and once under each damage, and correlates; writes `out`/correlations.json and .md."""
    documents = [document for document in documents if document.blocks and document.prompt_id in prompts]
    if not documents:
        raise InputError("there are no documents with content to correlate on; generate some first")
    folder, out = Path(folder), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    versions = [[copy_whole(document, folder, out) for document in documents]]
    for damage in damages:
        made = [degrade(d, damage, prompts[d.prompt_id], documents, folder, out, seed=seed) for d in documents]
        versions.append([document for document in made if document is not None])
    judged = [score_all(judge, prompts, some, out) for some in versions]
    found = []
    for metric in metrics:
        # A version is measured as a system of its own, so lift compares damaged documents with damaged ones.
        measured = [score_all(metric, prompts, some, out) for some in versions]
        for name in sorted({key[1] for one in measured for key in one}):
            for dim in DIMENSIONS:
                rows = [(prompt_id, value, judged[v][(prompt_id, dim)]) for v, one in enumerate(measured)
                        for (prompt_id, n), value in one.items() if n == name and (prompt_id, dim) in judged[v]]  # fmt: skip
                if rows:
                    found.append(_correlation(name, dim, rows, seed, samples))
    write_whole(out / "correlations.json", (json.dumps([asdict(one) for one in found], indent=1) + "\n").encode())
    write_whole(out / "correlations.md", table(found).encode())
    return found


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Product-moment correlation; None where x or y is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 1e-12 else None


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson of the ranks, ties sharing their mean rank."""
    return pearson(ranks(x), ranks(y))


def ranks(values: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


def table(correlations: Sequence[Correlation]) -> str:
    """Markdown: metrics by dimensions, Spearman with its interval."""
    lines = ["| metric | " + " | ".join(DIMENSIONS) + " |", "|---" * (len(DIMENSIONS) + 1) + "|"]
    for name in dict.fromkeys(one.metric for one in correlations):
        row = {one.dim: one for one in correlations if one.metric == name}
        cells = []
        for dim in DIMENSIONS:
            one = row.get(dim)
            interval = one.spearman_interval if one else None
            cells.append("–" if one is None or one.spearman is None else f"{one.spearman:+.2f}" + (
                f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""))  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _correlation(metric: str, dim: str, rows: list[tuple[str, float, float]], seed: int, samples: int) -> Correlation:
    x, y = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    ids = np.array([row[0] for row in rows])
    groups = [np.flatnonzero(ids == prompt_id) for prompt_id in dict.fromkeys(ids)]
    found, intervals = [], []
    for measure in (pearson, spearman):
        rng = np.random.default_rng(seed)
        found.append(measure(x, y))
        drawn = [np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]) for _ in range(samples)]
        values = [value for value in (measure(x[i], y[i]) for i in drawn) if value is not None]
        known = found[-1] is not None and len(groups) > 1 and len(values) > samples / 2
        intervals.append(tuple(float(v) for v in np.quantile(values, (0.025, 0.975))) if known else None)
    return Correlation(metric=metric, dim=dim, n=len(rows), pearson=found[0], pearson_interval=intervals[0],
                       spearman=found[1], spearman_interval=intervals[1])  # fmt: skip
