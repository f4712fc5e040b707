"""`weaver eval compare | pairwise | gate | vote`: two runs over the same prompts."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from ...errors import InputError
from ..arguments import compare_arguments, count, judge_arguments, retry_argument
from ..run_folder import RunFolder
from . import GATE_FAILED, INCOMPLETE, OK, command
from .output import Bar, digits, finite, note, number, print_table
from .parts import make_judge, report_inputs


def add(commands) -> None:
    compare = command(commands, "compare", _compare, "compare two runs over the same prompts",
                      "weaver eval compare runs/old runs/new --json")
    compare.add_argument("a", metavar="A", help="a run folder")
    compare.add_argument("b", metavar="B", help="the run folder that is compared with it")
    compare_arguments(compare)

    pairwise = command(commands, "pairwise", _pairwise, "let a judge choose between the answers of two runs, in both orders",
                       "weaver eval pairwise runs/old runs/new --judge-url URL --judge-model M")
    pairwise.add_argument("a", metavar="A", help="a run folder")
    pairwise.add_argument("b", metavar="B", help="another run folder over the same prompts")
    pairwise.add_argument("--to", metavar="FILE", help="where verdicts are kept (default: B/pairwise-<A's system>.jsonl)")
    pairwise.add_argument("--force", action="store_true", help="compare runs over different prompts, where they share some")
    judge_arguments(pairwise, required=True, only_server=True)
    retry_argument(pairwise)

    gate = command(commands, "gate", _gate, "fail (exit code 4) when a run is worse than a baseline",
                   "weaver eval gate --baseline runs/old --candidate runs/new --max-drop 0.2 --on Overall,IC")
    gate.add_argument("--baseline", metavar="DIR", required=True, help="the run to hold against")
    gate.add_argument("--candidate", metavar="DIR", required=True, help="the run that must not be worse")
    gate.add_argument("--max-drop", type=float, required=True, metavar="X", help="how much lower a mean may be, in its own unit")
    gate.add_argument("--on", default="Overall", metavar="NAMES", help="dimensions, Overall or metrics, separated by commas (default: Overall)")
    compare_arguments(gate)

    vote = command(commands, "vote", _vote, "write a page on which people choose between two runs without knowing which is which",
                   "weaver eval vote runs/old runs/new --to vote        then, with the file that a voter saved:\n"
                   "  weaver eval vote runs/old runs/new --to vote --votes votes.json")
    vote.add_argument("a", metavar="A", help="a run folder")
    vote.add_argument("b", metavar="B", help="another run folder over the same prompts")
    vote.add_argument("--to", metavar="DIR", required=True, help="where vote.html and vote-key.json are written")
    vote.add_argument("--pairs", type=count, default=48, metavar="N", help="how many prompts are shown (default: 48)")
    vote.add_argument("--votes", metavar="FILE", help="count what a voter saved, with the key in --to; writes nothing")


def _compare(options: argparse.Namespace) -> int:
    from ..compare import compare

    found = compare(RunFolder.open(options.a), RunFolder.open(options.b), judge=options.judge, force=options.force)
    if options.json:
        print(json.dumps(finite(asdict(found)), indent=1))
        return OK
    if found.unlike:
        print("NOT COMPARABLE (forced): " + "; ".join(found.unlike))
    for title, lines in (("judged, missing answers as 0", found.judged), ("metrics", found.metrics)):
        if lines:
            print(f"{found.b} against {found.a} ({title})")
            print_table(["", "A", "B", "B - A [95 %]", "n", "p", "p (Holm)", "detectable"], [
                [line.name, number(line.a, 3), number(line.b, 3), digits(line.difference, 3), str(line.difference.n), number(line.p, 4),
                 number(line.p_holm, 4), number(line.detectable, 3)]
                for line in lines
            ])  # fmt: skip
    return OK


def _gate(options: argparse.Namespace) -> int:
    from ..compare import compare, gate

    names = [name.strip() for name in options.on.split(",") if name.strip()]
    found = compare(RunFolder.open(options.baseline), RunFolder.open(options.candidate), judge=options.judge, force=options.force)
    failed = gate(found, names, options.max_drop)
    if options.json:
        lines = {name: finite(asdict(found.line(name))) for name in names}
        print(json.dumps({"passed": not failed, "failed": failed, "lines": lines}, indent=1))
    else:
        for sentence in failed:
            print(f"not passed: {sentence}")
        if not failed:
            print("passed: " + ", ".join(f"{name} {found.line(name).difference.mean:+.3f}" for name in names))
    return GATE_FAILED if failed else OK


def _pairwise(options: argparse.Namespace) -> int:
    from ..pairwise import pairwise, verdicts_usd

    a, b = RunFolder.open(options.a), RunFolder.open(options.b)
    if a.manifest.dataset.get("prompts") != b.manifest.dataset.get("prompts") and not options.force:
        raise InputError(f"{a.folder} and {b.folder} are over other prompts; --force compares those that they share")
    name = "".join(letter if letter.isalnum() else "-" for letter in a.system)[:60]
    out = Path(options.to) if options.to else b.folder / f"pairwise-{name}.jsonl"
    judge, _, close = make_judge(options, b, spent=verdicts_usd(out))
    try:
        with Bar("pairwise", options) as bar:
            found = pairwise(a, b, judge, out, retry_failed=options.retry == "failed", on_progress=lambda verdict, done, total: bar.tell(
                done, total, f"{verdict.prompt_id}: {verdict.status}: {verdict.rationale}" if verdict.choice is None else ""))  # fmt: skip
    finally:
        close()
    if options.json:
        print(json.dumps(finite(asdict(found)), indent=1))
    else:
        print(f"{found.b} against {found.a}: win rate {digits(found.win_rate, 3)}, {found.wins} won, {found.ties} tied, {found.losses} lost, "
              f"{found.failed} failed")  # fmt: skip
        print(f"the judge: same verdict in both orders {found.consistent:.0%}, for the answer shown first {found.first_place:.0%} (50 % is no bias)")
        if math.isfinite(found.detectable):
            print(f"detectable: a true win rate {found.detectable:.3f} away from 0.5")
    return INCOMPLETE if found.failed else OK


def _vote(options: argparse.Namespace) -> int:
    from ..report.vote import read_votes, write_vote

    if options.votes:
        found = read_votes(options.votes, Path(options.to) / "vote-key.json")
        if options.json:
            print(json.dumps(finite(asdict(found)), indent=1))
        else:
            first, second = found.systems
            p = "" if found.p is None else f"; sign test p {found.p:.4f}"
            print(f"{first} {found.wins[first]}, {second} {found.wins[second]}, equal {found.ties}, not voted {found.open}{p}")
        return OK
    runs = [RunFolder.open(options.a), RunFolder.open(options.b)]
    page, key = write_vote(*report_inputs(runs), options.to, pairs=options.pairs)
    note(options, f"keep {key} to yourself: it says which side is which")
    print(page)
    return OK
