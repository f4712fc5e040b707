"""The only door to ComfyUI: devices and memory, progress and interrupt, folders. Nothing else in the pack imports it."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
import folder_paths

from ..weaver_core.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MODEL_KIND = "weaver"
EMBEDDED = "picture-book (embedded)"
MAX_PREFIX = 200
_TEXT_PAUSE_S = 0.15  # between two pieces of streamed text: more often only makes the page slow
_TEXT_TAIL = 1500  # characters of streamed text that are shown: what was written last


# ---- model folders


def register_model_folder() -> None:
    """Lets `models/weaver` (and what extra_model_paths.yaml says) hold model folders."""
    path = os.path.join(folder_paths.models_dir, MODEL_KIND)
    folder_paths.add_model_folder_path(MODEL_KIND, path, is_default=True)


def model_names() -> list[str]:
    """What Load Weaver Model offers: the embedded pair first, then every folder that holds a model_index.json."""
    found = set()
    for parent in folder_paths.get_folder_paths(MODEL_KIND):
        try:
            found |= {entry.name for entry in os.scandir(parent) if os.path.isfile(os.path.join(entry.path, "model_index.json"))}
        except OSError:
            continue  # a folder that is configured but not there is usual
    return [EMBEDDED, *sorted(found)]


def model_folder(name: str) -> Path | None:
    """The folder behind a name; None for the embedded pair. InputError for a name that is not offered."""
    if name == EMBEDDED:
        return None
    if name in model_names():
        for parent in folder_paths.get_folder_paths(MODEL_KIND):
            path = Path(parent) / name
            if (path / "model_index.json").is_file():
                return path
    raise InputError(f"there is no model {name!r} under models/{MODEL_KIND}; there is {', '.join(model_names())}")


# ---- devices and memory


def device_for(choice: str) -> torch.device:
    """The device that `auto` or `cpu` means here."""
    import torch

    return torch.device("cpu") if choice == "cpu" else comfy.model_management.get_torch_device()


def dtype_for(choice: str, device: torch.device, cpu_default: torch.dtype) -> torch.dtype:
    """The number format that `auto` or a name such as `bfloat16` means on this device."""
    import torch

    if choice != "auto":
        return getattr(torch, choice)
    if device.type == "cpu":
        return cpu_default
    if comfy.model_management.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if comfy.model_management.should_use_fp16(device) else torch.float32


def offload_device_for(device: torch.device) -> torch.device:
    return device if device.type == "cpu" else comfy.model_management.unet_offload_device()


def patcher_of(modules: dict[str, torch.nn.Module], device: torch.device):
    """The modules as one model that ComfyUI may move to its device and away again."""
    import torch
    from comfy.model_patcher import ModelPatcher

    class WeaverPair(torch.nn.ModuleDict):
        device = None  # ComfyUI writes here where the weights are

    pair = WeaverPair(modules)
    return ModelPatcher(pair, load_device=device, offload_device=offload_device_for(device))


def bring_to_device(patcher) -> None:
    """Moves the model to its device, making room there if need be. Whole: our modules do not stream their weights."""
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)


# ---- progress and interrupt


def interrupted() -> bool:
    return comfy.model_management.processing_interrupted()


def stop_if_interrupted() -> None:
    """Ends the node as ComfyUI wants it ended when the user has pressed Interrupt."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress_bar(total: int) -> Callable[[int, Image | None], None]:
    """`show(done, preview)` moves this node's progress bar and shows a preview image in the node."""
    bar = comfy.utils.ProgressBar(max(total, 1))

    def show(done: int, preview: Image | None = None) -> None:
        bar.update_absolute(done, preview=None if preview is None else ("JPEG", preview, 512))

    return show


class ProgressText:
    """Text under a running node, where the host and its page can show it. Never fails: it is a comfort, not a result."""

    def __init__(self, node_id: str | None):
        self._node_id = node_id
        self._last = 0.0

    def show(self, text: str, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._node_id is None or not text or (now - self._last < _TEXT_PAUSE_S and not at_once):
            return
        self._last = now
        tail = text if len(text) <= _TEXT_TAIL else "… " + text[-_TEXT_TAIL:]
        try:
            from server import PromptServer

            server = PromptServer.instance
            server.send_progress_text(tail, self._node_id, server.client_id)
        except Exception as error:
            self._node_id = None
            logging.debug("Weaver: progress text cannot be shown here: %s", error)


# ---- folders


def drafts_folder() -> Path:
    """Where drawn pages are kept so that they need not be drawn again: `weaver-drafts` in ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory()) / "weaver-drafts"


def saving_folder(prefix: str) -> Path:
    """A new folder for a saved story: `prefix` under the output folder, with a number that is free.

    Raises   InputError for a prefix that leads out of the output folder or is no name
    """
    if len(prefix) > MAX_PREFIX or any(ord(character) < 32 for character in prefix) or not prefix.strip(" ./\\"):
        raise InputError(
            f"filename_prefix is {prefix[:60]!r}; it must be a name of at most {MAX_PREFIX} characters, such as weaver/story"
        )
    try:
        parent, name, number, _, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    except OSError as error:
        raise InputError(f"filename_prefix {prefix[:60]!r} cannot be used: {error.strerror or error}") from None
    except Exception:  # the host raises a bare Exception, and a ValueError for another drive
        raise InputError(f"filename_prefix {prefix[:60]!r} leads out of ComfyUI's output folder; use a name such as weaver/story") from None
    return Path(parent) / f"{name}_{number:05}_"


def view_of(path: Path) -> dict[str, str]:
    """How the page asks for a file of the output folder: file name, subfolder and type."""
    inside = path.relative_to(folder_paths.get_output_directory())
    return {"filename": inside.name, "subfolder": inside.parent.as_posix(), "type": "output"}


def name_of(path: Path) -> str:
    """A path inside the output folder as users may see it: relative to it."""
    return path.relative_to(folder_paths.get_output_directory()).as_posix()


def png_texts(hidden) -> dict[str, str]:
    """The texts that make a PNG open as a workflow: what ComfyUI's own Save Image writes; empty when it is told not to."""
    from comfy.cli_args import args

    if args.disable_metadata or hidden is None:
        return {}
    texts = {} if hidden.prompt is None else {"prompt": json.dumps(hidden.prompt)}
    return texts | {key: json.dumps(value) for key, value in (hidden.extra_pnginfo or {}).items()}
