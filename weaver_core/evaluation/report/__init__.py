"""A report on one or several runs: a page that needs nothing else, the same as Markdown, and tables for a spreadsheet.

Everything that models, prompts and judges wrote is text wherever it stands: the page holds no script, and its own
security policy forbids everything but its style and the pictures inside it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...durable import write_whole
from ...errors import InputError
from .inputs import ReportInput, Verdict

__all__ = ["ReportFiles", "ReportInput", "Verdict", "write_report"]

_HERE = Path(__file__).parent
MAX_SYSTEMS = 6


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """What was written."""

    html: Path
    markdown: Path
    scores: Path
    documents: Path


def write_report(
    runs: Iterable[ReportInput],
    out: str | Path,
    *,
    title: str = "",
    verdicts: Sequence[Verdict] = (),
    command: str = "",
    examples: int = 3,
) -> ReportFiles:
    """Writes report.html, report.md, scores.csv and documents.csv into the folder `out`, each whole or not at all.

    runs       one to six; with two or more they are compared with the first, and what speaks against that is said
    verdicts   besides those that lie in the runs' folders (verdicts.py)
    command    how to make the report again
    examples   how many of the best, of the worst, and of the most different documents are shown
    Raises     InputError for no run, too many, or two of one name
    """
    from . import tables
    from .page import report_of
    from .verdicts import verdicts_in

    runs = list(runs)
    if not 1 <= len(runs) <= MAX_SYSTEMS:
        raise InputError(f"a report is about 1 to {MAX_SYSTEMS} runs, got {len(runs)}")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise InputError(f"two runs are called the same ({', '.join(names)}); give them names that tell them apart")
    verdicts = [*verdicts, *(verdict for run in runs for verdict in verdicts_in(run.folder))]
    report = report_of(runs, title=title, verdicts=verdicts, command=command, examples=examples)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    files = ReportFiles(out / "report.html", out / "report.md", out / "scores.csv", out / "documents.csv")
    write_whole(files.html, render("report.html.jinja", "report.css", report=report).encode())
    write_whole(files.markdown, tables.markdown(report).encode())
    write_whole(files.scores, tables.scores_csv(report).encode())
    write_whole(files.documents, tables.documents_csv(report).encode())
    return files


def render(template: str, style: str, script: str = "", **values) -> str:
    """A template of this folder with our own style and script inside, and a policy that allows these two by their hashes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from .tables import interval, number, percent

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "interval": interval, "percent": percent}
    css = (_HERE / style).read_text(encoding="utf-8")
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(css)}'"
    javascript = (_HERE / script).read_text(encoding="utf-8") if script else ""
    if script:
        policy += f"; script-src 'sha256-{_digest(javascript)}'"
    policy += "; base-uri 'none'; form-action 'none'"
    return environment.get_template(template).render(
        css=Markup(css), javascript=Markup(javascript), policy=Markup(policy), **values  # our own files, and hashes of them
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
