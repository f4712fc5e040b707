"""Image models of the user's own on the command line: `--visualizer` and what belongs to it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..planner_arguments import silence_libraries
from .diffusers_loading import OFFLOADS, QUANTIZATIONS

if TYPE_CHECKING:
    from .diffusers_visualizer import DiffusersVisualizer


def add_visualizer_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("your own image model")
    group.add_argument("--visualizer", metavar="FOLDER",
                       help="draw with a diffusers pipeline: a folder with model_index.json, or a hub name such as "
                       "black-forest-labs/FLUX.2-klein-4B (Qwen-Image-2.1, Qwen-Image-Edit-2509 and -2511, Flux.2, Kontext)")
    group.add_argument("--lora", metavar="FILE[:STRENGTH]", action="append", default=[],
                       help="with this LoRA (repeat it): of the image model (needs peft), or without one of the model of --model")
    group.add_argument("--quantize", choices=("none", *QUANTIZATIONS), default="none",
                       help="; ".join(f"{name}: {what}" for name, what in QUANTIZATIONS.items()))
    group.add_argument("--offload", choices=tuple(OFFLOADS), default="auto",
                       help="where weights wait. " + "; ".join(f"{name}: {what}" for name, what in OFFLOADS.items()))


def own_visualizer(options: argparse.Namespace) -> DiffusersVisualizer | None:
    """The visualizer that the options name, None = the model's own. InputError for options that do not go together."""
    if options.visualizer is None:
        for name, default in (("quantize", "none"), ("offload", "auto")):
            if getattr(options, name) != default:
                raise InputError(f"--{name} is for an image model of your own; name it with --visualizer")
        return None
    import torch
    from diffusers.utils import logging

    from .diffusers_visualizer import DiffusersVisualizer

    # The libraries' bars and advice would run through the story's text.
    silence_libraries()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return DiffusersVisualizer(
        options.visualizer, loras=options.lora, quantization=None if options.quantize == "none" else options.quantize,
        offload=options.offload, device=options.device, dtype=getattr(torch, options.dtype) if options.dtype else None,
    )  # fmt: skip


def visualizer_name(options: argparse.Namespace) -> str:
    """What a story folder keeps of the choice, for messages: the whole path of a folder, or the name on the hub."""
    path = Path(options.visualizer).expanduser()
    return str(path.resolve()) if path.is_dir() else options.visualizer
