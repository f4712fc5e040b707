"""`weaver doctor`: what this machine can run, and which files are missing."""

from __future__ import annotations

import argparse
import json

from .errors import InputError

HELP = "tell what this machine can run, and which files are missing"


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weaver doctor` to its parser, which has --quiet and --json already."""
    parser.add_argument("--comfyui", metavar="DIR", help="a ComfyUI folder: which model families are ready, which files are "
                        "missing (it is read, nothing of it is run)")
    parser.add_argument("--models", metavar="DIR", action="append", default=[],
                        help="a further folder with diffusion_models, text_encoders, vae, ... (repeat it)")
    parser.add_argument("--estimate", metavar="DIR", action="append", default=[],
                        help="a transformers or diffusers folder: how much memory its weights take (repeat it)")
    parser.add_argument("--model", metavar="FOLDER", help="a native model folder (default: the embedded picture-book model)")


def run_doctor(options: argparse.Namespace) -> int:
    """Prints what was found; the exit code says whether the native model (the embedded one by default) can run."""
    from .cli import ERROR, OK
    from .doctor import examine, report, verdict

    if options.models and not options.comfyui:
        raise InputError("--models is for what ComfyUI loads; give --comfyui with its folder too")
    facts = examine(comfyui=options.comfyui, models=options.models, estimate=options.estimate, model=options.model)
    if options.json:
        print(json.dumps(facts, indent=1))
    else:
        print(verdict(facts) + "\n" if options.quiet else report(facts), end="")
    return OK if facts["ok"] else ERROR
