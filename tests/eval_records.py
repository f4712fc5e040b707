"""Small records of an evaluation for tests of the report: runs with given scores, and one in which every text is hostile."""

from __future__ import annotations

import dataclasses

from PIL import Image

from weaver_core.evaluation.records import DIMENSIONS, Block, Document, InputBlock, JudgeRecord, MetricRecord, Prompt, Want
from weaver_core.evaluation.report import ReportInput

EVIL = '<script>window.hacked=1</script>"><img src=x onerror=window.hacked=2>\'><svg onload=window.hacked=3>{{ 7*7 }}</title></style>'


def prompt(name, **more):
    known = {"v": 1, "category": "recipe", "lang": "en", "input": (InputBlock(type="text", text=f"ask {name}"),),
             "want": Want(images_min=1, images_max=2, explicit=False)}  # fmt: skip
    return Prompt(id=name, **(known | more))


def document(name, *blocks, system="ours", **more):
    return Document(prompt_id=name, system=system, seed=1, blocks=blocks or (Block(type="text", text=f"answer {name}"),), **more)


def judged(name, scores, *, system="ours", rep=0, status="ok", judge="j", **more):
    """A record per dimension; None is a score that the judge failed to give."""
    return [
        JudgeRecord(key=f"{name}/{dim}/{rep}", prompt_id=name, system=system, rep=rep, dim=dim, score=score,
                    status=status if score is not None or status != "ok" else "parse_error", judge=judge, **more)
        for dim, score in zip(DIMENSIONS, scores, strict=True)
    ]  # fmt: skip


def run(folder, *, name="ours", scores=None, metrics=(), prompts=None, documents=None, **more):
    """A run over the prompts a, b, c, ... of `scores` (id -> five scores)."""
    scores = scores or {"a": (8, 8, 8, 8, 8), "b": (6, 6, 6, 6, 6), "c": (4, 4, 4, 4, 4)}
    return ReportInput(
        name=name,
        folder=folder,
        prompts=tuple(prompts or [prompt(one) for one in scores]),
        documents=tuple(documents if documents is not None else [document(one, system=name) for one in scores]),
        judge_records=tuple(record for one, given in scores.items() for record in judged(one, given, system=name)),
        metric_records=tuple(metrics),
        **more,
    )


def picture(path, colour="red", size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def hostile_run(folder):
    """Every text field of every record holds markup and script."""
    picture(folder / "p.png")
    blocks = (Block(type="text", text=EVIL), Block(type="image", path="p.png", dense_prompt=EVIL, refs=(EVIL,)), Block(type="image", path=EVIL))
    ids = [f"{EVIL}{n}" for n in range(3)]
    return ReportInput(
        name=EVIL,
        folder=folder,
        prompts=tuple(prompt(one, category=f"{EVIL}{one}", lang=EVIL + one, source=EVIL, input=(InputBlock(type="text", text=EVIL),)) for one in ids),
        documents=tuple(document(one, *blocks, system=EVIL, finish=EVIL, error=EVIL) for one in ids),
        judge_records=tuple(
            dataclasses.replace(record, rationale=EVIL, raw=EVIL, judge=EVIL, rubric={"id": EVIL}, usage={EVIL: 3, EVIL + "tokens": 3},
                                dim=record.dim if n else record.dim + EVIL, status="ok" if n else EVIL)
            for n, one in enumerate(ids) for record in judged(one, (n + 1,) * 5)
        ),
        metric_records=tuple(
            MetricRecord(prompt_id=one, system=EVIL, metric=EVIL, value=0.5, by_image=(0.5, 0.4), flags=(EVIL, f"{EVIL}:0", "grid:0")) for one in ids
        ),
        manifest={"seed": EVIL, "step_hint": EVIL, "command": EVIL, "backend": {"name": EVIL}, "dataset": {"name": EVIL, "prompts": EVIL},
                  "versions": {EVIL: EVIL}},
    )  # fmt: skip
