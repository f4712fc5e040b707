"""What the commands print: progress, notes, tables, JSON."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict

from ..run_folder import RunFolder


class Bar:
    """A progress bar on standard error, with lines for what failed."""

    def __init__(self, what: str, options: argparse.Namespace):
        self._what, self._quiet = what, options.quiet or options.json
        self._bar = None

    def tell(self, done: int, total: int, trouble: str) -> None:
        from tqdm import tqdm

        if self._bar is None and not self._quiet:
            self._bar = tqdm(total=total, desc=self._what, disable=None)
        if trouble and not self._quiet:
            tqdm.write(f"{self._what}: {trouble[:300]}", file=sys.stderr)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()


def note(options: argparse.Namespace, text: str) -> None:
    if not options.quiet and not options.json:
        print(text, file=sys.stderr)


def print_summary(run: RunFolder) -> None:
    records = run.judge_records()
    if not records:
        return
    from ..statistics import summarize

    found = summarize(list(run.prompts.values()), records)
    print(f"{run.system}: {found.num_prompts} prompts, {found.num_missing} without an answer; judge: {records[-1].judge}")
    if str(records[-1].rubric.get("id", "")).startswith("weaver-style"):
        print("WeaverBench-style: own prompts, own rubric; not comparable with published numbers")
    print_table(["", "missing as 0 [95 %]", "answered only [95 %]", "n", "coverage", "macro", "detectable"], [
        [line.name, digits(line.intent, 2), digits(line.complete, 2), str(line.complete.n),
         "-" if math.isnan(line.coverage) else f"{line.coverage:.0%}", number(line.macro, 2), number(line.detectable, 2)]
        for line in found.lines
    ])  # fmt: skip


def summary_json(run: RunFolder) -> dict | None:
    records = run.judge_records()
    if not records:
        return None
    from ..statistics import summarize

    return finite(asdict(summarize(list(run.prompts.values()), records)))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())


def digits(interval, digits: int) -> str:
    if not interval.n:
        return "-"
    mean = f"{interval.mean:.{digits}f}"
    return mean if math.isnan(interval.low) else f"{mean} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def interval_json(interval, **more) -> dict:
    return finite(asdict(interval) | more)


def finite(value):
    """NaN as null: JSON has no other word for it."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
