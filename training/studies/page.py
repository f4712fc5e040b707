"""FINDINGS.md, findings.json and the plots, out of the results of the arms that are finished."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean

from training.studies import plots
from training.studies.design import ARMS, FINDINGS, Finding, arms_of
from training.studies.numbers import Verdict, judge, student_interval
from training.studies.runner import Study
from weaver_core.durable import write_whole
from weaver_core.evaluation.statistics import Interval

PLOTS, POINTS = "findings_plots", 20


def write_report(study: Study, findings: list[str], seeds: int, *, to: Path) -> str:
    """Write the report of what is there; returns a line for each finding.

    Findings that are not asked for, or of which no seed is whole, keep what an earlier findings.json says of them; without any
    whole seed, the page and the plots are written anew from that file.
    Raises   ValueError if there is neither
    """
    path = to / "findings.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    fresh = {key: record for key in findings if (record := _record(study, FINDINGS[key], seeds))}
    if not fresh and not known:
        raise ValueError(f"no seed of any finding is finished in {study.out}; run without --report first")
    records = {key: fresh.get(key, known.get(key)) for key in FINDINGS if key in fresh or key in known}
    (to / PLOTS).mkdir(parents=True, exist_ok=True)
    for key, record in records.items():
        write_whole(to / PLOTS / f"{key}.svg", _plot(FINDINGS[key], record).encode())
    write_whole(path, (json.dumps(records, indent=1) + "\n").encode())
    write_whole(to / "FINDINGS.md", _page(records).encode())
    return "\n".join(f"{key}: {'reproduced' if record['reproduced'] else 'not reproduced'} ({len(record['seeds'])} seeds)"
                     for key, record in records.items())


def _record(study: Study, finding: Finding, seeds: int) -> dict | None:
    """All that is said of a finding: over the seeds of which every arm is finished; None without one."""
    names = [arm.name for arm in arms_of([finding.key])]
    results = {name: [study.result(ARMS[name], seed) for seed in range(seeds)] for name in names}
    whole = [seed for seed in range(seeds) if all(results[name][seed] for name in names)]
    if not whole:
        return None
    own = {name: [results[name][seed] for seed in whole] for name in finding.arms.values()}
    values = {name: {measure: [result["numbers"][measure] for result in found] for measure in finding.measures
                     if all(measure in result["numbers"] for result in found)} for name, found in own.items()}
    verdicts = [judge(claim, values) for claim in finding.claims]
    bases = {name: results[name][0] for name in names if ARMS[name].is_base}
    return {
        "seeds": whole, "num_seeds": len(whole), "scale": study.scale, "interval": _listed(verdicts[0].interval), "reproduced": all(v.reproduced for v in verdicts),
        "claims": [_claim(verdict) for verdict in verdicts],
        "values": values,
        "steps": {name: found[0]["steps"] for name, found in own.items()} | {name: base["steps"] for name, base in bases.items()},
        "seconds": {name: round(fmean(result["seconds"] for result in found), 1) for name, found in own.items() if found[0]["seconds"]},
        "bases": {name: {measure: base["numbers"][measure] for measure in finding.measures if measure in base["numbers"]}
                  for name, base in bases.items()},
        "curves": {name: [result["curve"] for result in found] for name, found in own.items() if found[0]["curve"]} if finding.curves else {},
    }


def _claim(verdict: Verdict) -> dict:
    claim = verdict.claim
    return {"text": claim.text, "unit": claim.unit, "difference": [*claim.higher, *claim.lower], "above": claim.above,
            "mean": verdict.interval.mean, "interval": _listed(verdict.interval), "reproduced": verdict.reproduced, "verdict": verdict.word}


def _listed(interval: Interval) -> list[float] | None:
    """[low, high]; None where one seed gives no interval."""
    return None if math.isnan(interval.low) else [interval.low, interval.high]


# ---- plots


def _plot(finding: Finding, record: dict) -> str:
    if finding.curves:
        arms = {label: name for label, name in finding.arms.items() if name in record["curves"]}
        binned = [_binned(record["curves"][name]) for name in arms.values()]
        steps = [str(step) for step in binned[0][0]]
        return plots.lines([points for _, points in binned], list(arms), steps, "step")
    shown = [[_interval(record["values"][name], measure) for name in finding.arms.values()] for measure in finding.plotted]
    return plots.bars([(finding.measures[measure], row) for measure, row in zip(finding.plotted, shown)], list(finding.arms))


def _binned(curves: list) -> tuple[list[int], list[Interval]]:
    """Means of a loss over equal parts of the run, with intervals over the seeds, and the last step of each part."""
    rows = len(curves[0])
    edges = [round(rows * part / min(POINTS, rows)) for part in range(min(POINTS, rows) + 1)]
    parts = list(zip(edges, edges[1:]))
    points = [student_interval([fmean(loss for _, loss in curve[start:stop]) for curve in curves]) for start, stop in parts]
    return [curves[0][stop - 1][0] for _, stop in parts], points


def _interval(values: dict, measure: str) -> Interval:
    return student_interval(values[measure]) if measure in values else Interval(math.nan, math.nan, math.nan, 0)


# ---- the page


def _page(records: dict) -> str:
    lines = ["# The paper's four findings, measured here", "",
             "Written by `python training/findings.py`; the numbers are in [findings.json](findings.json), the arms in "
             "[studies/design.py](studies/design.py) and [configs/findings](configs/findings).", "",
             "A small planner (1.2M parameters) and a small twin (1.9M) on four heroes of the picture-book world, pictures of 64 pixels, under "
             "the shipped autoencoder. Arms of a finding start from the same bases and take equally many steps of equal size. Intervals: 95 %, "
             "Student t, of differences paired by seed; the bases are trained once, so the intervals do not tell how other bases would "
             "do. A claim is *reproduced* where its whole interval lies above the bound, *contradicted* where it lies below, else "
             "*undecided*; a finding is reproduced where all its claims are.", "",
             "| finding | seeds | reproduced | claims |", "|---|---|---|---|"]
    for key, record in records.items():
        words = [claim["verdict"] for claim in record["claims"]]
        told = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        lines.append(f"| [{FINDINGS[key].title}](#{_anchor(FINDINGS[key].title)}) | {len(record['seeds'])} | "
                     f"{'yes' if record['reproduced'] else 'no'} | {told} |")
    for key, record in records.items():
        lines += ["", *_section(FINDINGS[key], record)]
    return "\n".join(lines) + "\n"


def _section(finding: Finding, record: dict) -> list[str]:
    steps = ", ".join(f"{name} {count}" for name, count in record["steps"].items())
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in record["seconds"].items())
    lines = [f"## {finding.title}", "", f"The paper: {finding.paper}", "", *(line for note in finding.notes for line in (note, "")),
             f"![{finding.title}]({PLOTS}/{finding.key}.svg)", "",
             "| claim | difference | 95 % interval | must be above | |", "|---|---|---|---|---|"]
    for claim in record["claims"]:
        interval = "one seed: none" if claim["interval"] is None else "{:+.4f} to {:+.4f}".format(*claim["interval"])
        lines.append(f"| {claim['text']} ({claim['unit']}) | {claim['mean']:+.4f} | {interval} | {claim['above']:g} | {claim['verdict']} |")
    names = list(finding.measures.values())
    lines += ["", *(f"* {_sentence(claim, told.if_not)}" for claim, told in zip(record["claims"], finding.claims)), "",
              f"| arm (mean, interval over {len(record['seeds'])} seeds) | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for label, name in finding.arms.items():
        lines.append(f"| {label} | " + " | ".join(_cell(record["values"][name], measure) for measure in finding.measures) + " |")
    for name, numbers in record["bases"].items():
        if numbers:
            lines.append(f"| {name}, where arms began | " + " | ".join(
                f"{numbers[measure]:.3f}" if measure in numbers else "" for measure in finding.measures) + " |")
    return [*lines, "", f"Seeds {', '.join(map(str, record['seeds']))}; scale {record['scale']:g}; steps: {steps}. "
            f"Seconds of training on a shared core, in the mean: {seconds}."]


def _sentence(claim: dict, if_not: str) -> str:
    """What came out, in words, and where it is not what the paper says what may be behind that."""
    if claim["interval"] is None:
        return f"{claim['text'].capitalize()}: one seed says nothing of chance."
    measured = f"{claim['mean']:+.3f}, and between {claim['interval'][0]:+.3f} and {claim['interval'][1]:+.3f} with 95 % confidence"
    if claim["verdict"] == "reproduced":
        return f"Reproduced: {claim['text']} ({measured})."
    if claim["verdict"] == "contradicted":
        told = f"Not reproduced: here it is not so. The claim was that {claim['text']}; the difference is {measured}."
    else:
        told = f"Not reproduced: the interval holds {claim['above']:g}, so these seeds and steps do not decide whether {claim['text']} ({measured})."
    return f"{told} {if_not}".rstrip()


def _cell(values: dict, measure: str) -> str:
    found = _interval(values, measure)
    if not found.n:
        return ""
    return f"{found.mean:.3f}" if math.isnan(found.low) else f"{found.mean:.3f} ± {found.high - found.mean:.3f}"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-").replace(",", "")
