"""The commands of `weaver eval`, a module per group; `add(commands)` of each adds its parsers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

OK, ERROR, USAGE, INCOMPLETE, GATE_FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130


def command(commands, name: str, run: Callable, text: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=lambda options: _stoppable(run, options))
    parser.add_argument("--quiet", action="store_true", help="print nothing but the result and errors")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _stoppable(run: Callable, options: argparse.Namespace) -> int:
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\nstopped; everything finished is kept, the same command goes on", file=sys.stderr)
        return INTERRUPTED
