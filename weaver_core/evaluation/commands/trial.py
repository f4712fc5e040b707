"""`weaver eval calibrate | probe | correlate`: judges and metrics on trial."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ...durable import write_whole
from ...errors import InputError
from ..arguments import count, judge_arguments, metric_arguments, retry_argument, run_folder_argument
from ..run_folder import RunFolder
from . import GATE_FAILED, OK, command
from .output import Bar, finite
from .parts import judge_is_given, make_judge, metrics_of


def add(commands) -> None:
    calibrate = command(commands, "calibrate", _calibrate, "examine a judge on pairs of answers that experts compared",
                        "weaver eval calibrate --pairs interleaved.json --judge-url URL --judge-model M")
    calibrate.add_argument("--pairs", metavar="FILE", required=True, help="MMRB2's interleaved.json, from your own copy")
    calibrate.add_argument("--limit", type=count, metavar="N", help="the first N pairs only")
    calibrate.add_argument("--to", metavar="DIR", default="calibration",
                           help="where replies and the result are kept (default: calibration); RUN/calibration makes the run's report tell of it")
    judge_arguments(calibrate, required=True, only_server=True)
    retry_argument(calibrate)

    probe = command(commands, "probe", _probe, "damage answers on purpose and see whether a judge or the metrics notice",
                    "weaver eval probe --out runs/mine        (the metrics; with --judge-url and --judge-model the judge)")
    run_folder_argument(probe)
    probe.epilog += "\nexit code 4: something was not noticed that should be"
    probe.add_argument("--limit", type=count, metavar="N", help="the first N answers only")
    judge_arguments(probe, required=False)
    metric_arguments(probe)

    correlate = command(commands, "correlate", _correlate, "see which judge-free metrics go along with the oracle",
                        "weaver eval correlate --out runs/mine        (runs of --dataset picturebook)")
    run_folder_argument(correlate)
    correlate.add_argument("--limit", type=count, metavar="N", help="the first N answers only")
    metric_arguments(correlate)


def _calibrate(options: argparse.Namespace) -> int:
    from ..calibrate import calibrate
    from ..importers.mmrb2 import read_pairs

    path = Path(options.pairs)
    pairs = read_pairs(path)[: options.limit]
    judge, _, close = make_judge(options, None, cache=Path(options.to) / "cache.sqlite")
    try:
        with Bar("calibrate", options) as bar:
            found = calibrate(pairs, _preference(judge, path.parent), on_progress=lambda what, done, total: bar.tell(done, total, ""))
    finally:
        close()
    result = finite(asdict(found) | {"judge": judge.name, "warning": found.warning})
    write_whole(Path(options.to) / "calibration.json", (json.dumps(result, indent=1) + "\n").encode())
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print("\n".join([judge.name, *found.lines()]))
    return OK


def _preference(judge, folder: Path):
    """The judge as `calibrate` asks it; `folder` is where the pairs' image paths begin."""

    def prefer(prompt, first, second) -> str | None:
        return {"A": "first", "B": "second", "tie": "tie"}.get(judge.prefer(prompt, first, second, folder).choice)

    return prefer


def _probe(options: argparse.Namespace) -> int:
    from ..probe import probe, table

    run = RunFolder.open(options.out)
    with_judge = judge_is_given(options)
    judge, _, close = make_judge(options, run) if with_judge else (None, None, lambda: None)
    scorers = [judge] if with_judge else metrics_of(run, options)[0]
    try:
        with Bar("probe", options) as bar:
            verdicts = probe(run.prompts, run.documents(), run.folder, scorers, run.folder / "probe", limit=options.limit,
                             on_progress=lambda what, done, total: bar.tell(done, total, ""))  # fmt: skip
    finally:
        close()
    print(json.dumps([finite(asdict(verdict)) | {"passed": verdict.passed} for verdict in verdicts], indent=1) if options.json else table(verdicts))
    return OK if all(verdict.passed for verdict in verdicts) else GATE_FAILED


def _correlate(options: argparse.Namespace) -> int:
    from ..correlate import correlate, table
    from ..metrics.oracle import OracleJudge

    run = RunFolder.open(options.out)
    if not all(prompt.ref.get("world") == "picturebook" for prompt in run.prompts.values()):
        raise InputError("the oracle knows the picture-book world only; generate a run with --dataset picturebook")
    found = correlate(run.prompts, run.documents()[:options.limit], run.folder, metrics_of(run, options)[0], OracleJudge(),
                      run.folder / "correlations")  # fmt: skip
    print(json.dumps([asdict(one) for one in found], indent=1) if options.json else table(found), end="\n" if options.json else "")
    return OK
