"""Planners of the user's own on the command line: `--planner`, `--planner-url`, and the critic that asks them."""

from __future__ import annotations

import argparse
import logging

from .critic import MAX_REDRAWS, Critic
from .errors import InputError
from .planners import Planner, PlannerOptions


def add_planner_arguments(parser: argparse.ArgumentParser, *, draws: bool, writes: bool = True) -> None:
    """draws    the command draws images, so that a critic has something to look at
    writes   the command may write a plan, by whatever planner"""
    group = parser.add_argument_group("your own planner", "a key for a server is read from WEAVER_API_KEY or OPENAI_API_KEY")
    group.add_argument("--planner-url", metavar="URL", help="an OpenAI-compatible server, such as http://localhost:11434 (Ollama)")
    group.add_argument("--planner-model", metavar="NAME", help="the server's model")
    group.add_argument("--planner-json", action="store_true", help="ask the server for JSON under a schema: surer, but no streaming")
    group.add_argument("--planner", metavar="FOLDER", help="a chat model on this computer: a folder, .gguf file or hub name")
    group.add_argument("--planner-4bit", action="store_true", help="load it in 4 bits (needs bitsandbytes)")
    group.add_argument("--planner-lora", metavar="FOLDER", help="with this LoRA (needs peft)")
    if writes:
        how = parser.add_argument_group("writing")
        how.add_argument("--temperature", metavar="T", type=float,
                         help=f"how freely the planner chooses words; 0 = always the likeliest (default: {PlannerOptions().temperature})")
        how.add_argument("--max-tokens", metavar="N", type=int,
                         help=f"the plan is never longer than so many tokens (default: {PlannerOptions().max_tokens:,})")
    if draws:
        group.add_argument("--critic", metavar="K", type=int, nargs="?", const=1,
                           help="let your planner look at every image that is drawn, and draw one that it finds wrong up to K "
                           "more times (default: once); the best is kept. It must be a model that sees, and stays in memory")


def own_planner(options: argparse.Namespace) -> Planner | None:
    """The planner that the options name, None = the model's own. InputError for options that do not go together."""
    if options.planner is None:
        for name in ("planner_4bit", "planner_lora"):
            if getattr(options, name):
                raise InputError(f"--{name.replace('_', '-')} is for a model on this computer; name it with --planner")
    if options.planner_url is None:
        for name in ("planner_model", "planner_json"):
            if getattr(options, name):
                raise InputError(f"--{name.replace('_', '-')} is for a server; give its address with --planner-url")
    elif options.planner is not None:
        raise InputError("--planner is a model on this computer and --planner-url a server; give one of them")
    else:
        from .planners.http import HttpPlanner

        server = HttpPlanner(options.planner_url, options.planner_model or "?", form="json" if options.planner_json else "markup")
        if not options.planner_model:
            raise InputError(f"which model? --planner-model can be {', '.join(server.list_models()[:20])}")
        return server
    if options.planner is None:
        return None
    import torch

    from .planners.transformers_planner import TransformersPlanner

    silence_libraries()
    return TransformersPlanner(
        options.planner,
        device=options.device,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        quantization="nf4" if options.planner_4bit else None,
        lora=options.planner_lora,
    )


def planner_options(options: argparse.Namespace) -> PlannerOptions:
    """How the planner is to write; seed and number of images come from the request. ValueError for values out of range."""
    given = {name: getattr(options, name) for name in ("temperature", "max_tokens")}
    return PlannerOptions(**{name: value for name, value in given.items() if value is not None})


def critic_of(options: argparse.Namespace, planner: Planner | None) -> Critic | None:
    """The critic that the options ask for. InputError when there is nobody to ask."""
    if options.critic is None:
        return None
    if planner is None:
        raise InputError("--critic needs a model that can look at pictures, and the picture-book planner only writes stories; "
                         "name one with --planner or --planner-url")
    if not 0 <= options.critic <= MAX_REDRAWS:
        raise InputError(f"--critic {options.critic}: an image can be drawn 0 to {MAX_REDRAWS} more times")
    return Critic(planner, max_redraws=options.critic)


def silence_libraries() -> None:
    """Their bars and advice would run through the story's text."""
    from transformers.utils import logging as transformers_logging

    silence_imports()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def silence_imports() -> None:
    """While they are imported, libraries warn of parts of each other that nobody asked for. Call it before; errors are still told."""
    for name in ("bitsandbytes", "diffusers.quantizers.torchao.torchao_quantizer", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
