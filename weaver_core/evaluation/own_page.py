"""Our own numbers as people read them: README.md with tables, and one picture of the same pages under several ablations."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from .metrics.pixels import read_image
from .records import DIMENSIONS
from .run_folder import RunFolder
from .statistics import OVERALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .records import Document

SHOWN = ("true pictures", "full", "no references", "no words", "window of another page", "no pooled window", "4 steps")
"""What the picture shows, from top to bottom."""

TRUSTED = 0.5  # a correlation, our choice
_TILE, _LABEL, _COLUMNS = 96, 150, 4
_COLUMN_ORDER = (OVERALL, *DIMENSIONS)


def readme(measured: dict, *, has_picture: bool) -> str:
    """Markdown of what `own_numbers.results` gives."""
    parts = [_what_was_measured(measured), _systems(measured["systems"])]
    if has_picture:
        parts.append(["![The same pages under several switches](ablations.png)", "", "*The same pages of one story, a row per system.*"])
    if measured["differences"]:
        parts.append(_differences(measured["differences"]))
    if measured["correlations"]:
        parts.append(_correlations(measured["correlations"]))
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _what_was_measured(measured: dict) -> list[str]:
    split, model = measured["split"], measured["model"]
    counted = measured["systems"].get("full") or next(iter(measured["systems"].values()))
    return [
        "# Our own numbers", "",
        f"What {model['name']} can do in its own world, and what it loses when one part of it is switched off. Every system answered the "
        f"same {_count(split['num_prompts'], 'prompt')} of `{split['name']}` ({_count(counted['num_images'], 'image')} of the full pair; "
        f"phrasings that training never saw) with seed {measured['seed']}.", "",
        "An oracle scores each answer from 0 to 10. It is no model: it reads hero, colour, clothes, place, time and thing from the pixels "
        "and holds them against request and text. *True pictures*, each prompt's own story drawn without any model, shows how far it can be "
        "believed: they should get 10.", "",
        "* **PA** prompt adherence, **NC** narrative coordination, **CC** content consistency, **IC** image consistency (two images and more), "
        "**CP** completeness; **Overall** is their plain mean. An answer that is missing counts as 0.",
        "* Square brackets are 95 % intervals (bootstrap over prompts).",
        "* These scores say what a small model does in a small world. They cannot be set beside anybody's published ones.", "",
        f"Measured on {measured['made']} with weights `{str(model['fingerprint'])[:24]}`; all figures are in [own.json](own.json). To repeat it:", "",
        f"    {measured['command'] or 'weaver eval ablate'}",
    ]  # fmt: skip


def _systems(systems: dict[str, dict]) -> list[str]:
    return [
        "## The pair and its switches", "",
        *_table(["", *_COLUMN_ORDER, "images", "s per image"], [
            [f"**{name}**" if name == "full" else name, *[_score(system["scores"].get(dim)) for dim in _COLUMN_ORDER], system["num_images"],
             "–" if system["seconds_per_image"] is None else f"{system['seconds_per_image']:.2f}"]
            for name, system in systems.items()
        ]), "",
        *[f"* **{name}**: {system['what']}." for name, system in systems.items()], "",
        "The pair was trained with every part. A switch says how much this pair leans on a part, not what a pair that was trained without it "
        "would do. Seconds are of drawing alone, on the computer that measured.",
    ]  # fmt: skip


def _differences(differences: dict[str, dict]) -> list[str]:
    return [
        "## Differences from the full pair", "",
        "Paired by prompt. **Bold**: p below 0.05 in a permutation test, after Holm's correction over the whole table. *Detectable* is the "
        "smallest true difference in Overall that so many prompts find in four of five measurements; a smaller one proves nothing. Overall "
        "is taken within each prompt here, over the dimensions that apply to it, and may differ a little from the table above.", "",
        *_table(["", *_COLUMN_ORDER, "detectable"], [
            [name, *[_difference(found.get(dim)) for dim in _COLUMN_ORDER], _number(found[OVERALL]["detectable"])]
            for name, found in differences.items()
        ]),
    ]  # fmt: skip


def _correlations(found: Sequence[dict]) -> list[str]:
    """One row per metric: Spearman with each dimension; the strongest of each row in bold where its interval leaves out 0."""
    by_metric: dict[str, dict[str, dict]] = {}
    for one in found:
        by_metric.setdefault(one["metric"], {})[one["dim"]] = one
    best = {name: _strongest(row) for name, row in by_metric.items()}
    rows = [[f"`{name}`", *[f"**{_signed(row.get(dim))}**" if dim == best[name] else _signed(row.get(dim)) for dim in DIMENSIONS],
             max(one["n"] for one in row.values())] for name, row in by_metric.items()]  # fmt: skip
    return [
        "## What the metrics without a judge are worth", "",
        "Each metric against the oracle, over the full pair's answers as they came and under nine controlled damages (Spearman; n answers).", "",
        *_worth(by_metric, best), "",
        "A negative one is no mistake: copies raise likeness and lower every score, so read `lift` and `self` together with `diversity`. "
        "What begins with `oracle:` sees pictures with the oracle's own eyes, and stands here for comparison only. All this holds for "
        "these damages and these pictures; metrics with an embedder (CLIP, SigLIP, DINO) and judges were not on trial here: "
        "`weaver eval probe`, `calibrate` and `correlate` do that with yours.", "",
        *_table(["metric", *DIMENSIONS, "n"], rows), "",
        "**Bold**: the strongest of a row, where its 95 % interval (own.json) leaves out 0.",
    ]  # fmt: skip


def _strongest(row: dict[str, dict]) -> str:
    """The dimension that a metric goes along with best; "" where every interval holds 0."""
    sure = {dim: abs(one["spearman"]) for dim, one in row.items() if one["spearman_interval"] and _leaves_out_0(one["spearman_interval"])}
    return max(sure, key=sure.get) if sure else ""


def _worth(by_metric: dict[str, dict[str, dict]], best: dict[str, str]) -> list[str]:
    """Sentences: which metrics can be trusted for what, which only hint, which say nothing here."""
    groups: dict[str, list[str]] = {"trusted": [], "hint": [], "nothing": [], "still": []}
    for name, row in by_metric.items():
        if best[name]:
            value = row[best[name]]["spearman"]
            groups["trusted" if abs(value) >= TRUSTED else "hint"].append(f"`{name}` ({best[name]} {value:+.2f})")
        else:
            groups["nothing" if any(one["spearman"] is not None for one in row.values()) else "still"].append(f"`{name}`")
    words = {
        "trusted": f"**Can be trusted** for the dimension named ({TRUSTED:g} and more, sure not to be 0)",
        "hint": "**Only a hint** (sure, but weak)",
        "nothing": "**Not to be trusted**: no correlation that is surely not 0, or too few answers to tell",
        "still": "**Not tested**: never changed on these answers",
    }
    return [f"* {words[key]}: {', '.join(names)}." for key, names in groups.items() if names]


def picture_of(runs: dict[str, RunFolder]) -> bytes | None:
    """A PNG: a row per system (SHOWN), the first pages of the first story that has four in every row, else of the longest; None
    when no story has two."""
    rows = [name for name in SHOWN if name in runs]
    documents: dict[str, Document] = {}
    columns = 1
    for prompt_id in next(iter(runs.values())).prompts if rows else ():
        found = {name: document for name in rows if (document := runs[name].document(prompt_id)) is not None}
        shortest = min(len(document.images) for document in found.values()) if len(found) == len(rows) else 0
        if min(shortest, _COLUMNS) > columns:
            documents, columns = found, min(shortest, _COLUMNS)
    if not documents:
        return None
    sheet = Image.new("RGB", (_LABEL + columns * (_TILE + 4), len(rows) * (_TILE + 4)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(rows):
        top = row * (_TILE + 4)
        pen.text((4, top + _TILE // 2 - 6), name, fill="black")
        for column, block in enumerate(documents[name].images[:columns]):
            image = read_image(runs[name].folder, block)
            if image is not None:
                sheet.paste(image.resize((_TILE, _TILE), Image.Resampling.LANCZOS), (_LABEL + column * (_TILE + 4), top))
    buffer = io.BytesIO()
    sheet.quantize(96, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


# ---- cells


def _table(head: Sequence, rows: Sequence[Sequence]) -> list[str]:
    return [f"| {' | '.join(map(str, cells))} |" for cells in (head, ["---"] * len(head), *rows)]


def _score(value: dict | None) -> str:
    return "–" if value is None or value["mean"] is None else f"{value['mean']:.2f} {_interval(value)}".rstrip()


def _difference(value: dict | None) -> str:
    if value is None or value["mean"] is None:
        return "–"
    text = f"{value['mean']:+.2f}"
    return f"**{text}** {_interval(value)}" if value["p_holm"] is not None and value["p_holm"] < 0.05 else f"{text} {_interval(value)}"


def _interval(value: dict) -> str:
    return "" if value["low"] is None else f"[{value['low']:.2f}, {value['high']:.2f}]"


def _signed(one: dict | None) -> str:
    return "–" if one is None or one["spearman"] is None else f"{one['spearman']:+.2f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _leaves_out_0(interval: Sequence[float]) -> bool:
    return interval[0] > 0 or interval[1] < 0
