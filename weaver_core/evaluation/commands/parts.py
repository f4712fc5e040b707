"""What the options of a command stand for: the back end, the judge, the metrics, the chosen prompts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ..run_folder import RunFolder


def make_backend(options: argparse.Namespace):
    """The back end that --backend and its options name. InputError when one of them is missing."""
    size = tuple(options.size) if options.size else None
    if options.backend in ("library", "openai"):
        from ...request import RenderSettings

        how = {
            "mode": options.mode, "policy": options.references, "size": size, "num_images": options.num_images,
            "settings": RenderSettings(steps=options.steps, guidance=options.guidance),
        }  # fmt: skip
    if options.backend == "library":
        from ...cli import _load_native_pair  # the model options mean the same as in 'weaver story'
        from ..backends.library import LibraryBackend

        name = Path(options.model).resolve().name if options.model else "picture-book (embedded)"
        return LibraryBackend(*_load_native_pair(options), model=name, **how)
    if options.backend == "comfy":
        from ..backends.comfy import ComfyBackend

        _need(options, "comfy", "workflow")
        collect = [node.strip() for node in options.collect.split(",")] if options.collect else None
        return ComfyBackend(options.comfy_url, options.workflow, mapping=dict(options.set or ()), collect=collect, timeout_s=options.timeout)
    if options.backend == "openai":
        from ..backends.openai_api import OpenAIBackend

        _need(options, "openai", "api_url", "chat_model", "image_model")
        return OpenAIBackend(options.api_url, options.chat_model, options.image_model, images_url=options.images_url,
                             timeout_s=options.timeout, **how)  # fmt: skip
    from ..backends import ImportedDocuments

    _need(options, "imported", "documents")
    return ImportedDocuments(options.documents)


def _need(options: argparse.Namespace, backend: str, *names: str) -> None:
    for name in names:
        if not getattr(options, name):
            raise InputError(f"--backend {backend} needs --{name.replace('_', '-')}")


def judge_is_given(options: argparse.Namespace) -> bool:
    """Whether a judge is given. InputError for half a judge, or an address or key that cannot be one."""
    if options.oracle:
        if options.judge_url or options.judge_model:
            raise InputError("--oracle is a judge by itself; leave --judge-url and --judge-model out")
        return True
    if bool(options.judge_url) != bool(options.judge_model):
        raise InputError("a judge needs both --judge-url and --judge-model")
    if options.judge_url:
        from ..judge.client import ChatClient

        ChatClient(options.judge_url, options.judge_model)  # said now, not after hours of generating
    return bool(options.judge_url)


def make_judge(options: argparse.Namespace, run: RunFolder | None, *, cache: Path | None = None, spent: float | None = None):
    """The judge, its dimensions, and what closes its cache. `spent`: USD that count for --max-usd (None = the run's judging)."""
    if options.oracle:
        from ..metrics.oracle import OracleJudge

        return OracleJudge(), tuple(options.dims), lambda: None
    from ..judge import VlmJudge, spent_usd
    from ..judge.cache import ReplyCache
    from ..judge.client import ChatClient
    from ..judge.prices import read_price

    client = ChatClient(options.judge_url, options.judge_model, temperature=options.temperature, max_tokens=options.max_tokens,
                        timeout_s=options.judge_timeout)  # fmt: skip
    if options.rubric == "opening":
        from ..opening_profile import CRITERIA, OpeningJudge

        price = read_price(options.prices, options.judge_model) if options.prices else None
        if options.max_usd is not None:
            raise InputError("--max-usd cannot be kept with the OpenING rubric; leave it out, and see the cost with --prices")
        return OpeningJudge(client, price=price), CRITERIA, lambda: None
    if spent is None:
        spent = spent_usd(run.all_judge_records()) if run else 0.0
    path = cache or run.cache_path
    path.parent.mkdir(parents=True, exist_ok=True)
    replies = ReplyCache(path)
    judge = VlmJudge(
        client, mode=options.judge_mode, profile=options.image_profile, cache=replies,
        price=read_price(options.prices, options.judge_model) if options.prices else None, max_usd=options.max_usd,
        spent_usd=spent, ask_again=options.retry == "failed",
    )  # fmt: skip
    return judge, tuple(options.dims), replies.close


def metrics_of(run: RunFolder, options: argparse.Namespace):
    """The judge-free metrics of a run, and the embedder they use; in the picture-book world the reader's own-prompt recall too."""
    from ..metrics import default_metrics

    embedder = _embedder(options)
    metrics = default_metrics(embedder)
    if run.prompts and all(prompt.ref.get("world") == "picturebook" for prompt in run.prompts.values()):
        from ..metrics.oracle import oracle_metrics

        metrics += oracle_metrics()
    return metrics, embedder


def _embedder(options: argparse.Namespace):
    """The model of the metrics that compare meaning; None = those that need none."""
    if not options.embedder:
        return None
    from ..metrics.embedders import TransformersEmbedder

    return TransformersEmbedder(options.embedder)


def choice_of(options: argparse.Namespace) -> dict:
    return {
        "limit": options.limit,
        "ids": [name.strip() for name in options.ids.split(",") if name.strip()] if options.ids else None,
        "category": options.category,
        "shard": options.shard,
    }


def report_inputs(runs: Sequence[RunFolder], judge: str | None = None) -> list:
    """The runs as the report takes them, under names that tell them apart."""
    from ..report import ReportInput

    names = [run.system for run in runs]
    return [
        ReportInput.from_run(run, judge=judge, name=run.system if names.count(run.system) == 1 else f"{run.system} ({run.folder.name})")
        for run in runs
    ]


def told_command() -> str:
    """The command as it was given, to repeat it; "" where this is no command line."""
    import shlex

    return shlex.join(["weaver", *sys.argv[sys.argv.index("eval"):]]) if "eval" in sys.argv else ""
