"""`weaver eval run | generate | judge | metrics | report`: the stages of one run, each resumable alone."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...errors import InputError
from ..arguments import (
    DEFAULT_DATASET,
    count,
    generation_arguments,
    judge_arguments,
    metric_arguments,
    prompt_arguments,
    retry_argument,
    run_folder_argument,
)
from ..run_folder import Manifest, RunFolder
from . import INCOMPLETE, OK, command
from .output import Bar, digits, interval_json, note, number, print_summary, print_table, summary_json
from .parts import choice_of, judge_is_given, make_backend, make_judge, metrics_of, report_inputs, told_command


def add(commands) -> None:
    run = command(commands, "run", _run, "generate, measure, judge (when a judge is given) and report",
                  "weaver eval run --out runs/mine --limit 20 --seed 7")
    run_folder_argument(run)
    prompt_arguments(run)
    generation_arguments(run)
    judge_arguments(run, required=False)
    metric_arguments(run)
    retry_argument(run)

    generate = command(commands, "generate", _generate, "let a system answer the prompts",
                       "weaver eval generate --out runs/api --backend openai --api-url https://host/v1 --chat-model M --image-model I")
    run_folder_argument(generate)
    prompt_arguments(generate)
    generation_arguments(generate)
    retry_argument(generate)

    judge = command(commands, "judge", _judge, "score the answers of a run with a VLM behind an OpenAI-compatible server",
                    "weaver eval judge --out runs/mine --judge-url http://127.0.0.1:8000/v1 --judge-model M --reps 2")
    run_folder_argument(judge)
    judge.add_argument("--limit", type=count, metavar="N", help="judge the first N prompts only")
    judge.add_argument("--ids", metavar="IDS", help="judge these prompts only, separated by commas")
    judge_arguments(judge, required=False, alias="--mode")
    retry_argument(judge)

    metrics = command(commands, "metrics", _metrics, "measure the answers of a run without a judge", "weaver eval metrics --out runs/mine")
    run_folder_argument(metrics)
    metric_arguments(metrics)

    report = command(commands, "report", _report, "write the report of one or several runs", "weaver eval report --out runs/mine")
    report.add_argument("--out", metavar="DIR", required=True, help="a run folder; the report is written there (or into --to)")
    report.add_argument("--with", metavar="DIR", action="append", dest="others", help="another run beside it (repeat it)")
    report.add_argument("--to", metavar="DIR", help="where to write it (default: the first run's folder)")
    report.add_argument("--judge", metavar="NAME", help="whose scores (default: the latest judge of each run)")
    report.add_argument("--title", default="", help="the report's title")


def _run(options: argparse.Namespace) -> int:
    judge_given = judge_is_given(options)
    run, code = _generate_stage(options)
    _metrics_stage(run, options)
    if judge_given:
        if options.dry_run:
            return _dry_run(run, options)
        code = max(code, _judge_stage(run, options, None))
    files = _write_report([run], run.folder, options)
    if options.json:
        print(json.dumps({"run": str(run.folder), "report": str(files.html), "summary": summary_json(run)}, indent=1))
    else:
        print_summary(run)
        print(files.html)
    return code


def _generate(options: argparse.Namespace) -> int:
    run, code = _generate_stage(options)
    documents = run.documents()
    failed = [document.prompt_id for document in documents if document.finish == "error"]
    if options.json:
        print(json.dumps({"run": str(run.folder), "documents": len(documents), "failed": failed}, indent=1))
    else:
        print(f"{len(documents)} of {len(run.prompts)} prompts answered, {len(failed)} failed: {run.folder}")
    return code


def _generate_stage(options: argparse.Namespace) -> tuple[RunFolder, int]:
    from ..backends import generate

    out = Path(options.out)
    exists = (out / "manifest.json").exists()
    choice = choice_of(options)
    load = not exists or options.dataset or any(value is not None for value in choice.values())
    if load:
        from ..prompt_sets import load_prompts

        chosen = load_prompts(options.dataset or DEFAULT_DATASET, **choice)
    backend = make_backend(options)
    manifest = Manifest(
        system=options.system or (f"{backend.name}: {backend.model}" if hasattr(backend, "model") else backend.name),
        backend={"name": backend.name, **backend.settings()},
        dataset={"name": chosen.name, "sha256": chosen.sha256} if load else {},
        seed=options.seed,
        command=told_command(),
    )
    if load:
        run = RunFolder.create_or_open(out, chosen.prompts, manifest, source=Path(chosen.folder))
    else:
        run = RunFolder.open(out)
        run.check_same(manifest)
    failed = sum(document.finish == "error" for document in run.documents()) if options.retry != "failed" else 0
    with Bar("generate", options) as bar:
        documents = generate(run, backend, retry_failed=options.retry == "failed", on_progress=lambda document, done, total: bar.tell(
            done, total, f"{document.prompt_id}: {document.error}" if document.error else ""))  # fmt: skip
    if failed:
        note(options, f"{failed} answers failed in an earlier go; --retry failed tries them again")
    return run, INCOMPLETE if any(document.finish == "error" for document in documents) else OK


def _judge(options: argparse.Namespace) -> int:
    run = RunFolder.open(options.out)
    if not judge_is_given(options):
        raise InputError("give a judge: --judge-url and --judge-model, or --oracle for picture-book prompts")
    only = list(run.prompts)[: options.limit] if options.limit else None
    if options.ids:
        wanted = [name.strip() for name in options.ids.split(",") if name.strip()]
        if unknown := [name for name in wanted if name not in run.prompts]:
            raise InputError(f"the run has no prompt {unknown[0]!r}")
        only = [name for name in only or run.prompts if name in wanted]
    if options.dry_run:
        return _dry_run(run, options, only)
    code = _judge_stage(run, options, only)
    if options.json:
        print(json.dumps(summary_json(run), indent=1))
    else:
        print_summary(run)
    return code


def _judge_stage(run: RunFolder, options: argparse.Namespace, only: Sequence[str] | None) -> int:
    from ..judge import FAILED, BudgetSpent, judge_run, spent_usd

    judge, dims, close = make_judge(options, run)
    waiting = [prompt_id for prompt_id in only or run.prompts if run.document(prompt_id) is None]
    if waiting:
        note(options, f"{len(waiting)} prompts have no answer yet ({', '.join(waiting[:3])} ...); they count as missing until they have one")
    code = OK
    try:
        with Bar("judge", options) as bar:
            def told(records, done, total):
                failed = [record for record in records if record.status in FAILED]
                bar.tell(done, total, f"{failed[0].prompt_id} {failed[0].dim}: {failed[0].status}: {failed[0].rationale}" if failed else "")

            records = judge_run(run, judge, dims=dims, reps=options.reps, retry_failed=options.retry == "failed",
                                workers=options.workers, only=only, on_progress=told)  # fmt: skip
    except BudgetSpent as stop:
        print(f"weaver: {stop}", file=sys.stderr)
        records, code = run.judge_records(judge.name), INCOMPLETE
    finally:
        close()
    spent = spent_usd(run.all_judge_records())
    if spent:
        note(options, f"judging this run has cost {spent:.4f} USD")
    failed = [record for record in records if record.status in FAILED]
    if failed:
        note(options, f"{len(failed)} of {len(records)} scores failed; --retry failed tries them again")
    return INCOMPLETE if failed else code


def _dry_run(run: RunFolder, options: argparse.Namespace, only: Sequence[str] | None = None) -> int:
    from ..judge import VlmJudge, estimate_run

    judge, dims, close = make_judge(options, run)
    try:
        if not isinstance(judge, VlmJudge):
            raise InputError("--dry-run tells the cost of the weaver rubric only; opening asks once per document, the oracle asks no one")
        estimate = estimate_run(run, judge, dims=dims, reps=options.reps, retry_failed=options.retry == "failed", only=only)
    finally:
        close()
    if options.json:
        print(json.dumps(asdict(estimate), indent=1))
        return OK
    usd = "give --prices to see USD" if estimate.usd is None else f"about {estimate.usd:.2f} USD"
    print(f"{estimate.documents} documents, {estimate.calls} calls, {estimate.images} images, about {estimate.tokens_in:,} tokens in and "
          f"{estimate.tokens_out:,} out: {usd}. Nothing was sent")  # fmt: skip
    return OK


def _metrics(options: argparse.Namespace) -> int:
    run = RunFolder.open(options.out)
    records = _metrics_stage(run, options)
    from ..statistics import mean_interval, unpaired_detectable

    means = {}
    for record in records:
        means.setdefault(record.metric, []).append(math.nan if record.value is None else record.value)
    found = {name: mean_interval(values) for name, values in means.items()}
    least = {name: unpaired_detectable(values) for name, values in means.items()}
    if options.json:
        print(json.dumps({name: interval_json(interval, detectable=least[name]) for name, interval in found.items()}, indent=1))
    else:
        print_table(["metric", "mean [95 %]", "n", "detectable"], [
            [name, digits(interval, 3), str(interval.n), number(least[name], 3)]
            for name, interval in found.items()
        ])  # fmt: skip
    return OK


def _metrics_stage(run: RunFolder, options: argparse.Namespace):
    from ..measure import measure_run

    metrics, embedder = metrics_of(run, options)
    with Bar("metrics", options) as bar:
        return measure_run(run, metrics, setup=str(getattr(embedder, "name", "")),
                           on_progress=lambda name, done, total: bar.tell(done, total, ""))  # fmt: skip


def _report(options: argparse.Namespace) -> int:
    runs = [RunFolder.open(folder) for folder in (options.out, *(options.others or ()))]
    files = _write_report(runs, Path(options.to or options.out), options)
    print(json.dumps({name: str(path) for name, path in asdict(files).items()}, indent=1) if options.json else files.html)
    return OK


def _write_report(runs: Sequence[RunFolder], out: Path, options: argparse.Namespace):
    from ..report import write_report

    inputs = report_inputs(runs, getattr(options, "judge", None))
    return write_report(inputs, out, title=getattr(options, "title", ""), command=told_command())
