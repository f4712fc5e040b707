"""`weaver eval ...`: generate, measure, judge, report, compare. Every stage can be stopped and started again."""

from __future__ import annotations

import argparse

from .commands import ERROR, GATE_FAILED, INCOMPLETE, INTERRUPTED, OK, USAGE, exchange, own, stages, trial, two_runs

__all__ = ["ERROR", "GATE_FAILED", "INCOMPLETE", "INTERRUPTED", "OK", "USAGE", "add_eval_parser"]

_EPILOG = """\
examples:
  weaver eval run --out runs/mine --limit 20                       the embedded model; no judge, no network
  weaver eval run --out runs/flux --backend comfy --workflow flux_api.json --judge-url http://127.0.0.1:8000/v1 --judge-model M
  weaver eval judge --out runs/mine --judge-url URL --judge-model M --dry-run        what would it cost?
  weaver eval judge --out runs/mine --judge-url URL --judge-model M --max-usd 5 --prices prices.json
  weaver eval compare runs/old runs/new
  weaver eval gate --baseline runs/old --candidate runs/new --max-drop 0.2

The judge's key comes from WEAVER_JUDGE_API_KEY, else (api.openai.com and OPENAI_BASE_URL only) from OPENAI_API_KEY; it is written nowhere.
Every stage goes on where it was stopped: give the same command again. --retry failed tries again what failed.

exit codes: 0 done, 1 error, 2 wrong usage, 3 done but something is missing or failed, 4 a gate or probe is not passed, 130 interrupted
"""


def add_eval_parser(subparsers) -> argparse.ArgumentParser:
    """Adds `eval` with its commands to the command line's parsers. Each command's `run(options)` returns the exit code."""
    parser = subparsers.add_parser(
        "eval", help="evaluate systems: generate, judge, measure, compare, report",
        description="Measures interleaved text-and-image generation (WeaverBench-style: own prompts, own rubric).",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (stages, two_runs, trial, exchange, own):
        group.add(commands)
    return parser
