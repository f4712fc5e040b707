"""`weaver eval ablate`: a native pair, what it loses without each of its parts, and what cheap metrics are worth."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ...errors import InputError
from ..arguments import count, run_folder_argument
from . import OK, command
from .output import Bar, print_table
from .parts import told_command


def add(commands) -> None:
    ablate = command(commands, "ablate", _ablate, "measure a picture-book pair with each of its parts taken away, exactly",
                     "weaver eval ablate --out runs/own --to weaver_core/evaluation/results")
    ablate.epilog += "\n\nStopped at any moment, the same command goes on. A run folder per system lies in --out: compare and report them as any."
    run_folder_argument(ablate)
    ablate.add_argument("--to", metavar="DIR", help="where own.json, README.md and ablations.png are written (default: --out)")
    ablate.add_argument("--limit", type=count, metavar="N",
                        help="the first N prompts of the picture-book split (default: 24, about a quarter of an hour on one core)")
    ablate.add_argument("--only", metavar="NAMES", help="some of the systems, separated by commas (full is always measured)")
    ablate.add_argument("--seed", type=int, default=0, help="the base seed (default: 0)")
    ablate.add_argument("--no-correlations", action="store_true", help="leave out what the metrics are worth")
    ablate.add_argument("--model", metavar="FOLDER", help="a native model folder (default: the embedded picture-book model)")
    ablate.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    ablate.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="number format (default: by device)")


def _ablate(options: argparse.Namespace) -> int:
    from ...cli import _load_native_pair
    from ..ablations import ABLATIONS, FULL, ablated
    from ..own_numbers import DEFAULT_LIMIT, TRUTH, correlations, measure, results, write_results

    known = (TRUTH, *ABLATIONS)
    names = [name.strip() for name in options.only.split(",") if name.strip()] if options.only else list(known)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"there is no ablation {unknown[0]!r}; there are {', '.join(known)}")
    name = Path(options.model).resolve().name if options.model else "picture-book (embedded)"
    pair = _load_native_pair(options)
    chosen = [one for one in known if one in names or one == FULL]
    for one in chosen:
        if one != TRUTH:
            ablated(one, *pair, model=name)  # a part that the pair does not have is told now, not after hours of drawing
    runs = {}
    for one in chosen:
        with Bar(one, options) as bar:
            runs |= measure(*pair, options.out, model=name, names=[one], limit=options.limit or DEFAULT_LIMIT, seed=options.seed,
                            command=told_command(), on_progress=lambda what, done, total: bar.tell(done, total, ""))  # fmt: skip
    found = [] if options.no_correlations else correlations(runs[FULL])
    measured = results(runs, found)
    page = write_results(measured, runs, options.to or options.out)
    if options.json:
        print(json.dumps(measured, indent=1))
        return OK
    dims = list(measured["systems"][FULL]["scores"])
    print_table(["", *dims, "Overall - full [95 %]"], [
        [one, *["-" if system["scores"][dim]["mean"] is None else f"{system['scores'][dim]['mean']:.2f}" for dim in dims],
         _difference(measured["differences"].get(one))]
        for one, system in measured["systems"].items()
    ])  # fmt: skip
    print(page)
    return OK


def _difference(found: dict | None) -> str:
    if not found:
        return ""
    value = found["Overall"]
    return f"{value['mean']:+.2f}" + ("" if value["low"] is None else f" [{value['low']:+.2f}, {value['high']:+.2f}]")
