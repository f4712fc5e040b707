"""Measure the paper's four findings on the picture-book world: `python training/findings.py`.

Small arms are trained by `training/train.py` with the configs in training/configs/findings, all from the same bases, with equal steps,
for several seeds. What is measured goes to training/FINDINGS.md (tables, plots, a sentence on each claim) and training/findings.json.
Every arm is kept in runs/findings: one that is finished is not run again, one that was stopped goes on. Ctrl-C saves first.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.studies.design import FINDINGS, arms_of  # noqa: E402
from training.studies.page import write_report  # noqa: E402
from training.studies.runner import Stopped, Study  # noqa: E402

log = logging.getLogger("training")
HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 finished, 2 bad input or nothing to report, else that of the training that stopped (130 by a signal)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    study = Study(out=options.out, scale=options.scale, changes=tuple(options.set))
    findings = options.only or list(FINDINGS)
    try:
        study.check_changes(arms_of(findings))
        if options.dry_run:
            print("\n".join(told(study, findings, options.seeds)))
            return 0
        if not options.report:
            run_all(study, findings, options.seeds)
        print(write_report(study, findings, options.seeds, to=options.to))
    except Stopped as stopped:
        return stopped.args[0]
    except ValueError as error:
        log.error("error: %s", error)
        return 2
    return 0


def run_all(study: Study, findings: list[str], seeds: int) -> None:
    """All arms, seed by seed, so that what is stopped early has whole seeds. Raises as `Study.run`."""
    arms = arms_of(findings)
    left = [(arm, seed) for seed in range(seeds) for arm in arms if not (arm.is_base and seed)]
    for number, (arm, seed) in enumerate(left, 1):
        known = study.result(arm, seed) is not None
        log.info("[%d of %d] %s%s%s", number, len(left), arm.name, "" if arm.is_base else f", seed {seed}", ": known" if known else "")
        study.run(arm, seed)


def told(study: Study, findings: list[str], seeds: int) -> list[str]:
    """What a run would do: a line an arm with its steps and estimated minutes, and the sum of what is not there yet."""
    lines, total = [f"{'arm':32}{'seeds':>6}{'steps':>7}{'minutes each':>14}   (estimated for one core)"], 0.0
    for arm in arms_of(findings):
        runs = 1 if arm.is_base else seeds
        missing = sum(study.result(arm, seed) is None for seed in range(runs))
        minutes = (study.steps(arm) * arm.step_s + arm.look_s) / 60
        total += missing * minutes
        lines.append(f"{arm.name:32}{runs:6}{study.steps(arm):7}{minutes:14.1f}" + ("   finished" if not missing else
                     f"   {missing} of {runs} left" if missing < runs else ""))
    return [*lines, f"about {total:.0f} minutes in all"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="training/findings.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(FINDINGS), metavar="FINDING",
                        help=f"one of {', '.join(FINDINGS)}; may be repeated (default: all)")
    parser.add_argument("--scale", type=_positive, default=1.0, help="factor on the steps of all arms and bases (default: 1)")
    parser.add_argument("--seeds", type=_whole, default=3, help="how many seeds; fewer than 2 give no interval (default: 3)")
    parser.add_argument("--dry-run", action="store_true", help="print arms, steps and estimated minutes, and train nothing")
    parser.add_argument("--report", action="store_true", help="write the report from the arms that are finished, and train nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/findings"), help="folder of the runs (default: runs/findings)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change a key of all arms that have it, as with train.py; other results, so another --out keeps both")
    parser.add_argument("--to", type=Path, default=HERE, help="folder of FINDINGS.md, findings.json and findings_plots (default: training)")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no factor above 0")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too few; give 1 or more seeds")
    return value


if __name__ == "__main__":
    sys.exit(main())
