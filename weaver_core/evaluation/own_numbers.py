"""Our own numbers: a native pair and its ablations on the picture-book split, scored by the oracle; and what cheap metrics
are worth against it (`weaver eval ablate`).

    runs = measure(planner, visualizer, out, limit=24)      # a run folder per system; stopped, it goes on
    write_results(results(runs), runs, to)                  # own.json, README.md, ablations.png

Beside the ablations stands "true pictures", the drawn truth of each prompt: what a perfect system would get.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from ..durable import write_whole
from ..errors import InputError
from .ablations import ABLATIONS, FULL, ablated
from .backends import Answer, generate, read_answer
from .compare import compare
from .correlate import Correlation, correlate
from .judge import judge_run
from .measure import measure_run
from .metrics import default_metrics
from .metrics.oracle import OracleJudge, oracle_metrics
from .picturebook_split import draw_truth
from .prompt_sets import load_prompts
from .records import Prompt
from .run_folder import Manifest, RunFolder
from .statistics import holm, summarize

TRUTH = "true pictures"
DEFAULT_LIMIT = 24  # prompts of 1 to 5 images, 70 in all; everything then takes about a quarter of an hour on one core
SPLIT = "picturebook"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class TruthBackend:
    """Answers a picture-book prompt with its own true story, drawn."""

    name = "truth"
    model = SPLIT

    def settings(self) -> dict:
        return {}

    def answer(self, prompt: Prompt, folder: Path, *, seed: int, work: Path) -> Answer:
        work.mkdir(parents=True, exist_ok=True)
        (document,) = draw_truth([prompt], work)
        return read_answer(document, work)


def measure(
    planner,
    visualizer,
    out: str | Path,
    *,
    model: str,
    names: Sequence[str] = (TRUTH, *ABLATIONS),
    limit: int = DEFAULT_LIMIT,
    seed: int = 0,
    command: str = "",
    on_progress: Progress = lambda what, done, total: None,
) -> dict[str, RunFolder]:
    """A generated, measured and judged run for each name, in `out`/<name>; what is there already is not done again.

    model   what the pair is called
    Raises  InputError for an unknown name, or a folder that holds another measurement
    """
    for name in names:
        if name != TRUTH and name not in ABLATIONS:
            raise InputError(f"there is no ablation {name!r}; there are {', '.join((TRUTH, *ABLATIONS))}")
    chosen = load_prompts(SPLIT, limit=limit)
    runs = {}
    for name in names:
        backend = TruthBackend() if name == TRUTH else ablated(name, planner, visualizer, model=model)
        manifest = Manifest(system=name, backend={"name": backend.name, **backend.settings()}, seed=seed, command=command,
                            dataset={"name": chosen.name, "sha256": chosen.sha256})  # fmt: skip
        run = RunFolder.create_or_open(Path(out) / re.sub(r"[^a-z0-9]+", "-", name.lower()), chosen.prompts, manifest, source=chosen.folder)

        def told(document, done, total, name=name):
            on_progress(name, done, total)

        generate(run, backend, on_progress=told)
        measure_run(run, [*default_metrics(), *oracle_metrics()])
        judge_run(run, OracleJudge())
        runs[name] = run
    return runs


def correlations(run: RunFolder) -> list[Correlation]:
    """Every judge-free metric against the oracle, over a run's documents and their damaged versions; kept in the run's folder."""
    return correlate(run.prompts, run.documents(), run.folder, [*default_metrics(), *oracle_metrics()], OracleJudge(),
                     run.folder / "correlations")  # fmt: skip


# ---- results


def results(runs: dict[str, RunFolder], found: Sequence[Correlation] = ()) -> dict:
    """Everything that was measured, as JSON. Differences are against "full"; their p is Holm's over all of them together."""
    systems, differences = {}, {}
    for name, run in runs.items():
        drawn = [block.ms for document in run.documents() for block in document.images if block.ms]
        summary = summarize(list(run.prompts.values()), run.judge_records("oracle"))
        systems[name] = {
            "what": "the truth of each prompt, drawn" if name == TRUTH else ABLATIONS[name].text,
            "num_prompts": summary.num_prompts,
            "num_failed": sum(document.finish == "error" for document in run.documents()),
            "num_images": sum(len(document.images) for document in run.documents()),
            "seconds_per_image": round(sum(drawn) / len(drawn) / 1000, 3) if drawn else None,
            "scores": {line.name: asdict(line.intent) | {"detectable": line.detectable} for line in summary.lines},
        }
        if name != FULL and FULL in runs:
            differences[name] = compare(runs[FULL], run, judge="oracle").judged
    adjusted = iter(holm([line.p for lines in differences.values() for line in lines]))
    first = next(iter(runs.values()))
    pair = runs.get(FULL, first)
    return _plain({
        "split": {"name": first.manifest.dataset["name"], "prompts": first.manifest.dataset["prompts"], "num_prompts": len(first.prompts)},
        "seed": first.manifest.seed,
        "model": {"name": pair.manifest.backend.get("model"), "fingerprint": pair.manifest.backend.get("visualizer")},
        "versions": first.manifest.versions,
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": first.manifest.command,
        "systems": systems,
        "differences": {
            name: {line.name: asdict(line.difference) | {"p": line.p, "p_holm": next(adjusted), "detectable": line.detectable} for line in lines}
            for name, lines in differences.items()
        },
        "correlations": [asdict(one) for one in found],
    })  # fmt: skip


def write_results(measured: dict, runs: dict[str, RunFolder], to: str | Path) -> Path:
    """Writes own.json, README.md and ablations.png into a folder; returns the README. Other files there stay."""
    from .own_page import picture_of, readme

    to = Path(to)
    to.mkdir(parents=True, exist_ok=True)
    write_whole(to / "own.json", (json.dumps(measured, indent=1) + "\n").encode())
    picture = picture_of(runs)
    if picture is not None:
        write_whole(to / "ablations.png", picture)
    write_whole(to / "README.md", readme(measured, has_picture=picture is not None).encode())
    return to / "README.md"


def _plain(value):
    """Rounded for a file that is committed; NaN as null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
