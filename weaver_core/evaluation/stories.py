"""One woven story as a run of one prompt, so that metrics, judges and reports take it as they take a benchmark's answers.

    run = run_of(folder, request, plan, image_of, system="mine")
    print(scorecard(measured(run)).text)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..pictures import encode_png
from ..plan import ImageSegment, Plan
from ..request import Request
from .backends import Answer, AnswerImage
from .judge.rubric import TITLES
from .measure import measure_run
from .metrics import DESCRIPTIONS, default_metrics
from .records import DIMENSIONS, Entity, InputBlock, JudgeRecord, MetricRecord, Prompt, Want
from .run_folder import Manifest, RunFolder

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPT_ID = "story"


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Numbers for a program, sentences for people, and what is wrong. values: name -> number, or None where it does not apply."""

    values: dict[str, float | None]
    faults: tuple[str, ...]
    text: str

    def to_json(self) -> str:
        return json.dumps({"values": self.values, "faults": list(self.faults)}, indent=1)


def run_of(folder: str | Path, request: Request, plan: Plan, image_of: Callable[[str], Image | None], *, system: str) -> RunFolder:
    """A new run in `folder` that holds this story as its only answer.

    image_of   the drawn image of a segment; None = it is not drawn
    Raises     InputError for a story without any text or image
    """
    parts: list[str | AnswerImage] = [f"# {plan.title}"] if plan.title else []
    missing = 0
    for segment in plan.segments:
        if not isinstance(segment, ImageSegment):
            parts.append(segment.text)
        elif (image := image_of(segment.id)) is not None:
            parts.append(AnswerImage(data=encode_png(image), dense_prompt=segment.prompt))
        else:
            missing += 1
    if not parts:
        raise InputError("the story is empty: it has neither text nor images; weave it first")
    folder = Path(folder)
    (folder / "given").mkdir(parents=True, exist_ok=True)
    blocks = [InputBlock(type="text", text=request.prompt)]
    for picture in request.images:
        path = folder / "given" / f"{picture.key[:16]}.png"
        path.write_bytes(encode_png(picture.image))
        blocks.append(InputBlock(type="image", path=path.relative_to(folder).as_posix()))
    run = RunFolder.create(folder, [_prompt(request, plan, blocks)], Manifest(system=system, backend={"name": "story"}, dataset={"name": "story"},
                                                                             seed=request.seed), source=folder)  # fmt: skip
    error = f"{missing} images are not drawn" if missing else ""
    run.keep(PROMPT_ID, Answer(parts=tuple(parts), finish="error" if missing else "stop", error=error), request.seed)
    return run


def measured(run: RunFolder) -> list[MetricRecord]:
    """What the metrics without a judge say of the story."""
    return measure_run(run, default_metrics())


def scorecard(records: Sequence[MetricRecord]) -> Scorecard:
    """The metrics of one story. What needs other stories beside it (lift) has no value and is left out."""
    values = {record.metric: record.value for record in records if record.value is not None}
    faults = tuple(dict.fromkeys(_fault(flag) for record in records for flag in record.flags))
    lines = ["Nothing is wrong with it that can be seen without a judge." if not faults else "Found: " + "; ".join(faults) + ".", ""]
    for name, value in values.items():
        lines.append(f"{name}: {value:.2f}  ({DESCRIPTIONS[name.split(':')[-1]]})")
    return Scorecard(values, faults, "\n".join(lines))


def judgement(records: Sequence[JudgeRecord]) -> Scorecard:
    """A judge's scores of one story, 0 to 10, with its reasons; Overall is their plain mean."""
    values: dict[str, float | None] = {record.dim: record.score if record.status == "ok" else None for record in records}
    scored = [value for value in values.values() if value is not None]
    values["Overall"] = sum(scored) / len(scored) if scored else None
    faults = tuple(f"{record.dim}: {record.status}: {record.rationale}" for record in records if record.status not in ("ok", "na"))
    lines = ["Overall: " + ("no score" if not scored else f"{values['Overall']:.1f} of 10"), ""]
    for record in sorted(records, key=lambda record: DIMENSIONS.index(record.dim)):
        score = f"{record.score:g}" if record.status == "ok" else {"na": "does not apply"}.get(record.status, record.status)
        lines.append(f"{record.dim} ({TITLES[record.dim].lower()}): {score}. {record.rationale}".rstrip())
    return Scorecard(values, faults, "\n".join(lines))


def _prompt(request: Request, plan: Plan, blocks: list[InputBlock]) -> Prompt:
    wanted = request.wanted_images
    named = {name for segment in plan.images for name in segment.cast}
    entities = tuple(Entity(name=member.name, recurs=True) for member in plan.cast if member.name in named)
    return Prompt(
        id=PROMPT_ID, v=1, category="story", lang=request.language, input=tuple(blocks),
        want=Want(images_min=wanted or 1, images_max=wanted or max(1, len(plan.images)), explicit=wanted is not None), entities=entities,
    )  # fmt: skip


def _fault(flag: str) -> str:
    """ "grid:2" as "grid (image 3)": images are counted from 1 for people, blocks are named as blocks."""
    name, _, place = flag.partition(":")
    words = name.replace("_", " ")
    if name in ("blank", "grid", "copy", "other_page") and place.isdecimal():
        return f"{words} (image {int(place) + 1})"
    if name in ("empty", "leaked_tag", "cut_off", "missing_file") and place.isdecimal():
        return f"{words} (part {int(place) + 1})"
    return f"{words} {place}".rstrip()
