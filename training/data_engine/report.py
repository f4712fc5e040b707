"""The report of a build: counts for each step, reasons, groups, what was asked, and pictures of what was kept and dropped."""

from __future__ import annotations

import collections
import json
import random
from pathlib import Path

from training.data_engine.outputs import dropped_lines
from training.data_engine.record import Record, utf8
from training.data_engine.runner import Build, steps_of
from weaver_core.durable import write_whole
from weaver_core.planners.instruction import data_uri_part

SHOWN = 12  # kept records, and dropped ones for each reason
_SIDE = 160  # pixels of a picture in the report
_MOST_TEXT = 600


def write_report(build: Build, table: list[dict]) -> Path:
    """Writes report.json and report.html (one page that needs nothing else) and returns the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    reasons, shown = _dropped(build)
    numbers = {"name": build.recipe.name, "output": build.recipe.output, "steps": table, "reasons": reasons,
               "groups": _group_sizes(build), "asked": _asked(build)}
    write_whole(build.folder / "report.json", utf8(json.dumps(numbers, ensure_ascii=False, indent=1) + "\n"))
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html.jinja").render(**numbers, kept=_kept(build), dropped=shown)
    path = build.folder / "report.html"
    write_whole(path, utf8(page))
    return path


def _dropped(build: Build) -> tuple[dict, list[dict]]:
    """How many for each step and reason, and some of each to look at."""
    counts, shown = collections.Counter(), collections.defaultdict(list)
    for line in dropped_lines(build):
        key = (line["step"], line["reason"])
        counts[key] += 1
        if len(shown[key]) < SHOWN:
            shown[key].append(line)
    samples = [{"step": step, "reason": reason, "count": counts[step, reason],
                "records": [_card(build, Record(id=line["id"], fields=line["fields"]), line["detail"]) for line in lines]}
               for (step, reason), lines in shown.items()]
    reasons = collections.defaultdict(dict)
    for (step, reason), count in counts.items():
        reasons[step][reason] = count
    return dict(reasons), samples


def _kept(build: Build) -> list[dict]:
    """Some of what came out, chosen by chance, the same ones every time."""
    rng, chosen = random.Random(build.recipe.seed), []
    for index, record in enumerate(build.records(steps_of(build.recipe)[-1].name)):
        if index < SHOWN:
            chosen.append(record)
        elif (place := rng.randrange(index + 1)) < SHOWN:
            chosen[place] = record
    return [_card(build, record, "") for record in chosen]


def _card(build: Build, record: Record, detail: str) -> dict:
    fields = record.fields
    keys = [*([fields["picture"]] if "picture" in fields else []), *([fields["copy_of"]] if "copy_of" in fields else []),
            *(key for name in ("references", "pictures", "images", "drawn") for key in fields.get(name, ()))]
    texts = [str(fields[name]) for name in ("topic", "request", "text", "caption", "plan") if fields.get(name)]
    return {"id": record.id, "detail": detail, "pictures": [_thumbnail(build, key) for key in keys[:8]],
            "texts": [text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + " ..." for text in texts]}


def _thumbnail(build: Build, key: str) -> str:
    image = build.tools.store.get(key)
    image.thumbnail((_SIDE, _SIDE))
    return data_uri_part(image)["image_url"]["url"]


def _group_sizes(build: Build) -> dict[str, int]:
    """How many groups have how many pictures, where the last step that knows groups stands."""
    for step in reversed(steps_of(build.recipe)):
        if step.stage.kind in ("read", "cluster", "check_group", "drop_copies"):
            sizes = collections.Counter(record.fields["group"] for record in build.records(step.name) if "group" in record.fields)
            if sizes:
                return {str(size): count for size, count in sorted(collections.Counter(sizes.values()).items())}
    return {}


def _asked(build: Build) -> dict:
    return {} if build.recipe.backend.kind == "none" else build.tools.writer.ledger.totals()
