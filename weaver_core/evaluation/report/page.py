"""From runs to what the page and the tables show: sentences, tables and examples, with pictures made small."""

from __future__ import annotations

import dataclasses
import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..importers.opening import steps_of
from ..judge.rubric import TITLES
from ..opening_profile import CRITERIA, summarise
from ..opening_profile import Summary as OpeningSummary
from ..records import Document, JudgeRecord, Prompt
from ..statistics import OVERALL, Interval, Line, Scores, holm, scores_of, summarize
from . import charts
from .inputs import ReportInput, Verdict
from .pictures import Picture, Thumbnails
from .published import published
from .summary import (
    NOTHING,
    Cost,
    Health,
    by_index,
    by_prompt,
    cost,
    difference,
    dimension_order,
    extremes,
    flags,
    health,
    metric_means,
    mismatches,
    widest,
)

HALO_R = 0.75  # OpenING's seven criteria in one call correlate 0.75-0.89 within a system
LOW_PARSE_RATE, HIGH_REFUSAL_RATE = 0.95, 0.02  # our choice
NOISY_SD = 0.7  # one OpenING output scored twice differs by 0.67
NO_IMAGE_FLAGS = ("empty", "leaked_tag", "cut_off", "missing_file", "missing_images", "extra_images")
"""Flags whose number is a block's or a count (metrics/structure.py); every other flag's number is an image's, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A document as it is shown: what was asked, step by step what came, and how it was scored."""

    system: str
    number: int
    prompt: Prompt
    asked: list[tuple[str, str, Picture | None]]
    steps: list[dict]
    finish: str
    error: str
    score: float | None
    scores: dict[str, float]
    judged: list[JudgeRecord]
    flags: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One run with its numbers. `number` decides its colour.

    lines    a dimension's (or OVERALL's) scores by name; OVERALL alone, and empty, when nothing has been judged
    slices   kind -> Overall by slice
    detectable  by metric, as statistics.Line.detectable
    first    documents to look at when nothing has been judged
    official OpenING's own summary where its criteria were judged
    """

    number: int
    run: ReportInput
    scores: Scores
    lines: dict[str, Line]
    slices: dict[str, tuple[Line, ...]]
    metrics: dict[str, Interval]
    detectable: dict[str, float]
    flags: list[tuple[str, int, list[str]]]
    health: Health
    health_notes: list[tuple[str, str]]
    cost: Cost
    official: OpeningSummary | None
    best: list[Shown]
    worst: list[Shown]
    first: list[Shown]

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def overall(self) -> Line:
        return self.lines[OVERALL]

    @property
    def num_missing(self) -> int:
        """Prompts without an output, or with an empty one."""
        answered = {document.prompt_id for document in self.run.documents if document.blocks}
        return sum(prompt.id not in answered for prompt in self.run.prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """differences   of each later system from the first: name, Overall, p, p adjusted for their number (Holm), detectable"""

    title: str
    about: str
    created: str
    command: str
    dims: list[str]
    dim_names: dict[str, str]
    systems: list[System]
    published: list[dict]
    warnings: list[str]
    differences: list[tuple[str, Interval, float, float, float]]
    forest: dict
    curves: list[tuple[str, dict]]
    pairs: list[tuple[Shown, Shown]]
    verdicts: Sequence[Verdict]


def report_of(
    runs: Sequence[ReportInput], *, title: str = "", verdicts: Sequence[Verdict] = (), command: str = "", examples: int = 3
) -> Report:
    thumbnails = Thumbnails()
    systems = [_system(number, run, thumbnails, examples) for number, run in enumerate(runs)]
    dims = dimension_order(dim for system in systems for dim in system.scores.dims)
    marks = published(dims)
    pairs = []
    if len(systems) > 1:
        answered = [{document.prompt_id for document in system.run.documents} for system in systems[:2]]
        both = [prompt.id for prompt in runs[0].prompts if prompt.id in answered[0] & answered[1]]
        pairs = [
            (_shown(systems[0], name, thumbnails), _shown(systems[1], name, thumbnails))
            for name in widest(systems[0].scores, systems[1].scores, examples) or both[:examples]
        ]
    return Report(
        title=title or " against ".join(run.name for run in runs),
        about=_about(runs[0]),
        created=datetime.datetime.now(datetime.timezone.utc).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        command=command,
        dims=dims,
        dim_names={dim: TITLES.get(dim, dim) for dim in dims},
        systems=systems,
        published=marks,
        warnings=mismatches(list(runs)),
        differences=_differences(systems),
        forest=_forest(systems, dims, marks),
        curves=_curves(systems),
        pairs=pairs,
        verdicts=verdicts,
    )


def _system(number: int, run: ReportInput, thumbnails: Thumbnails, examples: int) -> System:
    scores = scores_of([prompt.id for prompt in run.prompts], run.judge_records)
    summary = summarize(run.prompts, run.judge_records) if scores.dims else None
    facts = health(run, scores)
    means, detectable = metric_means(run)
    system = System(
        number=number,
        run=run,
        scores=scores,
        lines={line.name: line for line in summary.lines} if summary else {
            OVERALL: Line(name=OVERALL, intent=NOTHING, complete=NOTHING, coverage=0.0)
        },
        slices=summary.slices if summary else {},
        metrics=means,
        detectable=detectable,
        flags=flags(run),
        health=facts,
        health_notes=_health_notes(facts),
        cost=cost(run),
        official=_official(run, scores),
        best=[],
        worst=[],
        first=[],
    )  # fmt: skip
    unseen = system.num_missing - int(scores.missing.any(axis=1).sum()) if summary else 0
    if unseen > 0:
        system.health_notes.append(("bad", f"{unseen} missing outputs are not among its records yet, so nowhere count as 0: judge again."))
    best, worst = extremes(scores, {document.prompt_id: document for document in run.documents}, examples)
    system.best.extend(_shown(system, name, thumbnails) for name in best)
    system.worst.extend(_shown(system, name, thumbnails) for name in worst)
    if not best:
        system.first.extend(_shown(system, document.prompt_id, thumbnails) for document in run.documents[:examples])
    return system


def _official(run: ReportInput, scores: Scores) -> OpeningSummary | None:
    if not set(CRITERIA) <= set(scores.dims):
        return None
    records = [dataclasses.replace(record, system=run.name) for record in run.judge_records]
    return summarise(records, [prompt.id for prompt in run.prompts])


def _shown(system: System, prompt_id: str, thumbnails: Thumbnails) -> Shown:
    run = system.run
    prompt = next(prompt for prompt in run.prompts if prompt.id == prompt_id)
    document = next((document for document in run.documents if document.prompt_id == prompt_id), None)
    if document is None:
        document = Document(prompt_id=prompt_id, system=run.name, seed=0, blocks=(), finish="error", error="there is no output")
    faults: dict[int, list[str]] = defaultdict(list)
    whole: list[str] = []
    for flag in (flag for record in run.metric_records if record.prompt_id == prompt_id for flag in record.flags):
        name, _, index = flag.partition(":")
        if name not in NO_IMAGE_FLAGS and index.isdecimal() and int(index) < len(document.images):
            faults[int(index)].append(name)
        else:
            whole.append(flag.replace(":", " "))
    steps, count = [], 0
    for step in steps_of(document):
        picture = None if step.image is None else thumbnails.get(run.folder, step.image.path)
        steps.append({
            "text": step.text,
            "picture": picture,
            "dense": step.image.dense_prompt if step.image else "",
            "seed": step.image.seed if step.image else None,
            "flags": faults[count] if step.image else [],
        })  # fmt: skip
        count += step.image is not None
    judged = [record for record in run.judge_records if record.prompt_id == prompt_id]
    dims = dimension_order(system.scores.dims)
    row = system.scores.complete[system.scores.ids.index(prompt_id)]
    scores = {dim: float(row[system.scores.dims.index(dim)]) for dim in dims}
    return Shown(
        system=run.name,
        number=system.number,
        prompt=prompt,
        asked=[
            (block.type, block.text, thumbnails.get(run.folder, block.path) if block.type == "image" else None)
            for block in prompt.input
        ],
        steps=steps,
        finish=document.finish,
        error=document.error,
        score=by_prompt(system.scores).get(prompt_id),
        scores=scores,
        judged=sorted(judged, key=lambda record: (dims.index(record.dim), record.rep)),
        flags=whole,
    )


def _differences(systems: Sequence[System]) -> list[tuple[str, Interval, float, float, float]]:
    found = [(system.name, *difference(systems[0].scores, system.scores)) for system in systems[1:]]
    adjusted = holm([p for _, _, p, _ in found])
    return [(name, gap, p, p_holm, detectable) for (name, gap, p, detectable), p_holm in zip(found, adjusted, strict=True)]


def _forest(systems: Sequence[System], dims: Sequence[str], marks: Sequence[dict]) -> dict:
    rows = [(OVERALL, [system.overall.complete for system in systems], [(mark["name"], mark["overall"]) for mark in marks])]
    for dim in dims:
        rows.append((
            TITLES.get(dim, dim),
            [system.lines[dim].complete if dim in system.lines else NOTHING for system in systems],
            [(mark["name"], mark["scores"][dim]) for mark in marks if dim in mark["scores"]],
        ))  # fmt: skip
    return charts.forest(rows)


def _curves(systems: Sequence[System]) -> list[tuple[str, dict]]:
    curves = [by_index(system.run) for system in systems]
    names = sorted({name for found in curves for name in found})
    return [(name, charts.curve([found.get(name, []) for found in curves])) for name in names]


def _about(run: ReportInput) -> str:
    """What the prompts are, and what the numbers must not be taken for."""
    if any(prompt.ref.get("benchmark") == "opening" for prompt in run.prompts):
        return (
            "The prompts are OpenING's, from the user's copy; the judge follows its scripts, with instructions in our words. "
            "Published scores rest on other outputs and another judge, and are shown greyed."
        )
    if any(prompt.ref.get("benchmark") for prompt in run.prompts):
        return f"The prompts come from {run.prompts[0].source or 'an imported benchmark'}; the rubric is ours."
    return (
        "The prompts and the rubric are ours and WeaverBench-style. They are not the paper's, which are not public: "
        "no score here can be set beside a published one (other prompts, other judge)."
    )


def _health_notes(facts: Health) -> list[tuple[str, str]]:
    """("good", "bad" or "open", sentence) on how far the judge can be believed."""
    notes = []
    if facts.parse_rate is not None:
        kind = "good" if facts.parse_rate >= LOW_PARSE_RATE else "bad"
        notes.append((kind, f"{facts.parse_rate:.1%} of the scores asked for came back as valid scores."))
        kind = "good" if facts.refusal_rate <= HIGH_REFUSAL_RATE else "bad"
        notes.append((kind, f"{facts.refusal_rate:.1%} were refused by the judge."))
    if facts.repetition_sd is None and facts.parse_rate is not None:
        notes.append(("open", "Its own noise is unknown: every output was judged once."))
    elif facts.repetition_sd is not None:
        notes.append(("good" if facts.repetition_sd < NOISY_SD else "bad",
                      f"Judging the same output again moves a score by {facts.repetition_sd:.2f} (standard deviation)."))  # fmt: skip
    if facts.mean_r is not None:
        if facts.mean_r >= HALO_R:
            notes.append(("bad", f"The dimensions move together (mean r {facts.mean_r:.2f}): read them as about one number."))
        else:
            notes.append(("good", f"The dimensions tell different things (mean r {facts.mean_r:.2f})."))
    return notes
