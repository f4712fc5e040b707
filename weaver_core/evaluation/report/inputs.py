"""What a report is made of: one system's run as it lies on disk, and verdicts that others reached about judge and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..records import Document, JudgeRecord, MetricRecord, Prompt

if TYPE_CHECKING:
    from ..run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """One system's answers with their scores; only read. Documents' and prompts' image paths begin at `folder`.

    manifest   as in run_folder.Manifest, as JSON; what is missing there is not shown
    """

    name: str
    folder: Path
    prompts: tuple[Prompt, ...]
    documents: tuple[Document, ...]
    judge_records: tuple[JudgeRecord, ...] = ()
    metric_records: tuple[MetricRecord, ...] = ()
    manifest: dict = field(default_factory=dict)

    @classmethod
    def from_run(cls, run: RunFolder, *, judge: str | None = None, name: str = "") -> ReportInput:
        """The run as it is now, with the scores of one judge (None: the latest)."""
        return cls(
            name=name or run.system,
            folder=run.folder,
            prompts=tuple(run.prompts.values()),
            documents=tuple(run.documents()),
            judge_records=tuple(run.judge_records(judge)),
            metric_records=tuple(run.metric_records()),
            manifest=run.manifest.to_json(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Something that was found out about a judge or a metric: a probe, a calibration, its position bias.

    passed   True, False, or None where there is nothing to pass
    """

    name: str
    text: str
    passed: bool | None = None
