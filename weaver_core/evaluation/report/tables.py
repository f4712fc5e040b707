"""The report as Markdown, and its numbers as CSV. Foreign text is made harmless for both: no markup, no formulas."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..statistics import OVERALL, Interval
from .summary import by_prompt

if TYPE_CHECKING:
    from .page import Report

NONE = "–"


def number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.{digits}f}"


def interval(value: Interval, digits: int = 2) -> str:
    return "" if value.n < 2 else f"[{value.low:.{digits}f}, {value.high:.{digits}f}]"


def percent(value: float | None, digits: int = 1) -> str:
    return NONE if value is None or math.isnan(value) else f"{value * 100:.{digits}f} %"


# ---- Markdown


def markdown(report: Report) -> str:
    lines = [f"# {_md(report.title)}", "", f"{report.about} Intervals are 95 % bootstraps over prompts.", ""]
    lines += [f"> **Not comparable.** {_md(warning)}" for warning in report.warnings] + [""] * bool(report.warnings)
    head = ["system", OVERALL, *report.dims, "missing = 0", "n", "coverage", "detectable"]
    rows = [
        [system.name, _both(system.overall.complete),
         *[_both(system.lines[dim].complete) if dim in system.lines else NONE for dim in report.dims],
         _both(system.overall.intent), system.overall.complete.n, percent(system.overall.coverage),
         number(system.overall.detectable)]
        for system in report.systems
    ]  # fmt: skip
    rows += [
        [f"{row['name']} (published)", number(row["overall"]), *[number(row["scores"].get(dim)) for dim in report.dims], "",
         row["note"], "", ""]
        for row in report.published
    ]  # fmt: skip
    lines += ["## Scores", "", *_table(head, rows), ""]
    if report.published:
        lines += ["Published rows: other prompts, other judge.", ""]
    for name, gap, p, p_holm, detectable in report.differences:
        lines.append(
            f"{_md(name)} − {_md(report.systems[0].name)}: {number(gap.mean)} {interval(gap)} over {gap.n} prompts, paired, missing "
            f"outputs as 0, p = {number(p, 3)}, p (Holm) = {number(p_holm, 3)}"
            + (f"; found in four of five measurements: a true difference from {number(detectable)}." if math.isfinite(detectable) else ".")
        )
    for system in report.systems:
        lines += ["", f"## {_md(system.name)}", ""]
        for kind, groups in system.slices.items():
            lines += [*_table([kind, OVERALL, "n", "detectable"],
                              [[line.name, _both(line.complete), line.complete.n, number(line.detectable)] for line in groups]), ""]
        if system.metrics:
            rows = [[name, f"{number(value.mean, 3)} {interval(value, 3)}", value.n, number(system.detectable[name], 3)]
                    for name, value in system.metrics.items()]  # fmt: skip
            lines += [*_table(["metric", "mean", "n", "detectable"], rows), ""]
        if system.flags:
            rows = [[name, count, ", ".join(ids[:3])] for name, count, ids in system.flags]
            lines += [*_table(["flag", "documents", "such as"], rows), ""]
        lines += ["Judge: " + _md(", ".join(system.health.judges) or "none"), ""]
        lines += [f"- {text}" for _, text in system.health_notes]
        if official := system.official:
            lines.append(
                f"- OpenING's own arithmetic: {number(official.overall)} over {official.scored} of {official.expected} outputs; "
                f"{official.failed} failed, {official.missing} missing; all these as 0: {number(official.with_missing)}."
            )
    lines += ["", *[f"- {_md(verdict.name)}: {_md(verdict.text)}" for verdict in report.verdicts]]
    if report.command:
        lines += ["", "Made with", "", *[f"    {line}" for line in report.command.splitlines()]]
    return "\n".join(lines).rstrip() + "\n"


def _both(value: Interval) -> str:
    return f"{number(value.mean)} {interval(value)}".rstrip()


def _table(head: list[str], rows: Iterable[list[Any]]) -> list[str]:
    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(_md(str(cell)) for cell in cells) + " |"

    return [line(head), "|" + " --- |" * len(head), *[line(row) for row in rows]]


def _md(text: str) -> str:
    """Text that stays on its line and in its cell, and means nothing to Markdown or HTML."""
    text = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\`*_[]|":
        text = text.replace(sign, f"\\{sign}") if sign != "|" else text.replace(sign, "&#124;")
    return text


# ---- CSV


def scores_csv(report: Report) -> str:
    """One line for each system, group, dimension and treatment: mean, interval, n."""
    rows: list[list[Any]] = []

    def add(system: str, kind: str, group: str, dim: str, treatment: str, value: Interval, detectable: float) -> None:
        rows.append([system, kind, group, dim, treatment, value.mean, value.low, value.high, value.n, detectable])

    for system in report.systems:
        for line in system.lines.values():
            add(system.name, "all", "", line.name, "complete", line.complete, line.detectable)
            add(system.name, "all", "", line.name, "missing=0", line.intent, line.detectable)
        for kind, groups in system.slices.items():
            for line in groups:
                add(system.name, kind, line.name, OVERALL, "complete", line.complete, line.detectable)
                add(system.name, kind, line.name, OVERALL, "missing=0", line.intent, line.detectable)
        for name, value in system.metrics.items():
            add(system.name, "metric", "", name, "complete", value, system.detectable[name])
    return _csv(["system", "kind", "group", "dimension", "treatment", "mean", "low", "high", "n", "detectable"], rows)


def documents_csv(report: Report) -> str:
    """One line for each system and prompt: its scores, whether there is an output."""
    rows = []
    for system in report.systems:
        means = by_prompt(system.scores)
        answered = {document.prompt_id for document in system.run.documents if document.blocks}
        for place, prompt in enumerate(system.run.prompts):
            scores = dict(zip(system.scores.dims, map(float, system.scores.complete[place]), strict=True))
            output = "there" if prompt.id in answered else "missing"
            numbers = [means.get(prompt.id), *[scores.get(dim) for dim in report.dims]]
            rows.append([system.name, prompt.id, prompt.category, output, *numbers])
    return _csv(["system", "prompt", "category", "output", OVERALL, *report.dims], rows)


def _csv(head: list[str], rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_plain(cell) for cell in head)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _plain(cell: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets a quote before it."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + cell
    return round(cell, 6) if isinstance(cell, float) else cell
