"""The stage that measures a whole run with judge-free metrics.

A metric sees all documents of the run at once, so it is measured again when one of them has changed, and not otherwise;
`metrics.done.json` says for which documents each metric has been measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from ..durable import write_whole
from .records import Metric, MetricRecord
from .run_folder import RunFolder, answer_hash


def measure_run(
    run: RunFolder,
    metrics: Sequence[Metric],
    *,
    setup: str = "",
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[MetricRecord]:
    """Measures what has not been measured for these documents; returns all records that count.

    setup         what else the values depend on, such as the embedder's name
    on_progress   called with a metric's name, how many metrics are done, and how many there are
    """
    documents = run.documents()
    state = hashlib.sha256(json.dumps([setup, [[d.prompt_id, answer_hash(d)] for d in documents]]).encode()).hexdigest()
    done = _read_state(run)
    todo = [metric for metric in metrics if done.get(metric.name) != state] if documents else []
    if todo:
        journal = run.journal("metrics.jsonl")
        try:
            for number, metric in enumerate(todo, 1):
                for record in metric.measure(run.prompts, documents, run.folder):
                    journal.append(record.to_json())
                done[metric.name] = state
                write_whole(run.folder / "metrics.done.json", (json.dumps(done, indent=1) + "\n").encode())
                if on_progress:
                    on_progress(metric.name, number, len(todo))
        finally:
            journal.close()
    return run.metric_records()


def _read_state(run: RunFolder) -> dict[str, str]:
    try:
        state = json.loads((run.folder / "metrics.done.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
