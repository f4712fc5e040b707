"""`weaver eval import | export`: other benchmarks' prompts and layouts."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...errors import InputError
from ..arguments import run_folder_argument
from ..run_folder import Manifest, RunFolder
from . import INCOMPLETE, OK, command
from .output import note
from .parts import told_command


def add(commands) -> None:
    importing = command(commands, "import", _import, "make a run of another benchmark's prompts and outputs",
                        "weaver eval import --format opening --root OpenING-benchmark --outputs gen_outputs/X_output --out runs/x")
    importing.add_argument("--format", choices=("opening", "isg", "documents"), required=True, help="whose files they are")
    importing.add_argument("--root", metavar="DIR", help="the benchmark's folder (your own copy)")
    importing.add_argument("--outputs", metavar="PATH", help="a system's outputs; without it OpenING's reference answers (system Human)")
    importing.add_argument("--system", metavar="NAME", help="the system's name (default: from the outputs)")
    importing.add_argument("--subset", default="all", help="OpenING: all, or multi (two and more reference images)")
    importing.add_argument("--step-hint", choices=("none", "can_be", "must_exact"), default="none",
                           help="OpenING: how the system was told the number of steps; runs that differ are not comparable")
    run_folder_argument(importing)

    export = command(commands, "export", _export, "write a run's answers in another benchmark's layout",
                     "weaver eval export --format opening --out runs/mine --to exported")
    export.add_argument("--format", choices=("opening", "isg"), required=True, help="whose layout")
    export.add_argument("--to", metavar="DIR", required=True, help="where to write")
    run_folder_argument(export)


def _import(options: argparse.Namespace) -> int:
    from ..importers import isg, opening
    from ..importers.store import store_run

    if options.format == "documents":
        return _import_documents(options)
    if not options.root:
        raise InputError(f"--format {options.format} needs --root, the folder of your own copy of the benchmark")
    notes: list[str] = []
    if options.format == "isg":
        if options.outputs:
            raise InputError("ISG-Bench's outputs cannot be read; only its prompts can: leave --outputs out, then generate --out with the run")
        prompts, documents, root, document_folder = isg.read_prompts(options.root), [], Path(options.root), Path(options.root)
    else:
        prompts, notes = opening.read_prompts(options.root, subset=options.subset, step_hint=options.step_hint)
        root = opening.find_root(options.root)
        if options.outputs:
            documents, more = opening.read_outputs(options.outputs, prompts, system=options.system or "")
            notes, document_folder = [*notes, *more], Path(options.outputs)
        else:
            documents, document_folder = opening.read_reference(options.root, prompts), root
    for sentence in notes:
        note(options, sentence)
    system = options.system or (documents[0].system if documents else options.format)
    run = store_run(options.out, prompts, documents, system=system, dataset=f"{options.format}/{options.subset}", prompt_folder=root,
                    document_folder=document_folder, step_hint=options.step_hint)  # fmt: skip
    print(f"{len(run.documents())} of {len(run.prompts)} prompts have an answer: {run.folder}")
    return OK


def _import_documents(options: argparse.Namespace) -> int:
    if not options.root or not options.outputs:
        raise InputError("--format documents needs --root (a prompt set) and --outputs (a JSONL file of documents)")
    from ..backends import ImportedDocuments, generate
    from ..prompt_sets import load_prompts

    chosen = load_prompts(options.root)
    backend = ImportedDocuments(options.outputs)
    manifest = Manifest(system=options.system or Path(options.outputs).stem, backend={"name": backend.name, **backend.settings()},
                        dataset={"name": chosen.name, "sha256": chosen.sha256}, command=told_command())  # fmt: skip
    run = RunFolder.create_or_open(options.out, chosen.prompts, manifest, source=Path(chosen.folder))
    failed = [document for document in generate(run, backend) if document.finish == "error"]
    print(f"{len(run.prompts) - len(failed)} of {len(run.prompts)} prompts have an answer: {run.folder}")
    return INCOMPLETE if failed else OK


def _export(options: argparse.Namespace) -> int:
    from ..importers import isg, opening

    run = RunFolder.open(options.out)
    writer = opening.export_outputs if options.format == "opening" else isg.export_submission
    path, notes = writer(run.prompts, run.documents(), run.folder, options.to)
    for sentence in notes:
        note(options, sentence)
    print(path)
    return OK
