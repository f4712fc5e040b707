"""The only door to ComfyUI: devices and memory, progress and interrupt, folders. Nothing else in the pack imports it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
import folder_paths

from ..weaver_core.errors import Cancelled, InputError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MODEL_KIND = "weaver"
PIPELINE_KIND = "diffusers"  # ComfyUI's own folder for models in diffusers' layout
PLANNER_KIND = "LLM"  # the folder under models/ where packs for language models keep them
EMBEDDED = "picture-book (embedded)"
MAX_PREFIX = 200
_LORA_FILES = ("adapter_config.json", "adapter_model.safetensors")  # how PEFT saves a LoRA
_PLANNER_DEPTH = 3  # folders below models/LLM that are looked into: maker/model, or a snapshot of the Hugging Face cache
BOOK_EVENT = "weaver.book"  # the name under which the page hears of a story that is being made
_TEXT_PAUSE_S = 0.15  # between two pieces of streamed text: more often only makes the page slow
_TEXT_TAIL = 1500  # characters of streamed text that are shown: what was written last


# ---- model folders


def register_model_folders() -> None:
    """Lets `models/weaver` hold model folders and `models/LLM` language models (and what extra_model_paths.yaml says)."""
    folder_paths.add_model_folder_path(MODEL_KIND, os.path.join(folder_paths.models_dir, MODEL_KIND), is_default=True)
    # Other packs have this folder too; where they put files by default is theirs to say.
    folder_paths.add_model_folder_path(PLANNER_KIND, os.path.join(folder_paths.models_dir, PLANNER_KIND))


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


def planner_names() -> list[str]:
    """What Plan with a Local Model offers: models and .gguf files under models/LLM, and LoRAs (PEFT folders) of these models."""
    return sorted(_planners())


def planner_path(name: str) -> Path:
    """The folder or file behind a name; InputError for a name that is not offered."""
    return _offered(_planners(), name, "chat model", PLANNER_KIND)


def planner_and_lora(name: str) -> tuple[Path, Path | None]:
    """The model behind a name, and the LoRA that it is to be loaded with, where the name is one of a LoRA.

    Raises   InputError for a name that is not offered, or a LoRA whose model is not there
    """
    path = planner_path(name)
    if not (path / _LORA_FILES[0]).is_file():
        return path, None
    try:
        base = json.loads((path / _LORA_FILES[0]).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    if not isinstance(base, str) or not base.strip():
        raise InputError(f"the LoRA {name} does not say which model it is for: base_model_name_or_path in {_LORA_FILES[0]}")
    # Written where it was trained: the folder may lie elsewhere here, but its last names are the same ("Qwen/Qwen3-VL-4B-Instruct").
    known = {other: found for other, found in _planners().items() if not (found / _LORA_FILES[0]).is_file()}
    wanted = re.split(r"[/\\]+", base.rstrip("/\\"))
    for length in (2, 1):
        for other, found in sorted(known.items()):
            if other.split("/")[-length:] == wanted[-length:]:
                return found, path
    raise InputError(f"the LoRA {name} is for {wanted[-1][:80]}, which is not under models/{PLANNER_KIND}; put that model's folder there")


def _offered(known: dict[str, Path], name: str, what: str, kind: str) -> Path:
    if name in known:
        return known[name]
    there = f"there is {', '.join(sorted(known))}" if known else "there is none yet; put the folder of one there, and press R in ComfyUI"
    raise InputError(f"there is no {what} {str(name)[:80]!r} under models/{kind}; {there}")


def _planners() -> dict[str, Path]:
    """Name -> path; a name is the path below models/LLM. The first of several folders wins."""
    found: dict[str, Path] = {}
    for root in folder_paths.get_folder_paths(PLANNER_KIND):
        for path in _chat_models(root, _PLANNER_DEPTH):
            found.setdefault(path.relative_to(root).as_posix(), path)
    return found


def _chat_models(folder: str, depth: int) -> Iterator[Path]:
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:
        return  # a folder that is configured but not there is usual
    for entry in entries:
        name = entry.name.lower()
        if entry.is_file():
            if name.endswith(".gguf") and not name.startswith("mmproj"):  # mmproj = the eyes of a model, not a model
                yield Path(entry.path)
        elif entry.is_dir() and (path := Path(entry.path)) and (path / "config.json").is_file() and any(path.glob("*.safetensors")):
            yield path
        elif entry.is_dir() and all((path / file).is_file() for file in _LORA_FILES):
            yield path
        elif entry.is_dir() and depth > 1:
            yield from _chat_models(entry.path, depth - 1)


def pipeline_names() -> list[str]:
    """What Load Diffusers Visualizer offers: folders under models/diffusers that hold a model_index.json."""
    return sorted(_pipelines())


def pipeline_folder(name: str) -> Path:
    """The folder behind a name; InputError for a name that is not offered."""
    return _offered(_pipelines(), name, "image model", PIPELINE_KIND)


def _pipelines() -> dict[str, Path]:
    """Name -> folder; a name is the path below models/diffusers: model, or maker/model. The first of several folders wins."""
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths(PIPELINE_KIND)):
        for pattern in ("*/model_index.json", "*/*/model_index.json"):
            for path in sorted(root.glob(pattern)):
                found.setdefault(path.parent.relative_to(root).as_posix(), path.parent)
    return found


def lora_names() -> list[str]:
    """LoRAs under models/loras that can be read without running code."""
    return [name for name in folder_paths.get_filename_list("loras") if name.endswith(".safetensors")]


def lora_file(name: str) -> Path:
    """The file behind a name; InputError for a name that is not offered."""
    path = folder_paths.get_full_path("loras", name) if name in lora_names() else None
    if path is None:
        raise InputError(f"there is no LoRA {str(name)[:80]!r} under models/loras; press R in ComfyUI if you have just put it there")
    return Path(path)


def stamp(paths: Iterable[Path]) -> str:
    """16 hex digits from names, sizes and times of files. Short, because ComfyUI writes it into PNGs."""
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def model_file_stamp(name: str) -> str:
    """The stamp of the files that loaders of whatever kind find under this name; "" when there are none."""
    found = {folder_paths.get_full_path(kind, name) for kind in list(folder_paths.folder_names_and_paths)}
    paths = [Path(path) for path in sorted(filter(None, found)) if Path(path).is_file()]
    return stamp(paths) if paths else ""


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


def patcher_of(modules: dict[str, torch.nn.Module], device: torch.device, name: str = "WeaverPair"):
    """The modules as one model that ComfyUI may move to its device and away again; `name` is what its log calls them."""
    import torch
    from comfy.model_patcher import ModelPatcher

    # ComfyUI writes into `device` where the weights are.
    kind = type(name, (torch.nn.ModuleDict,), {"device": None})
    return ModelPatcher(kind(modules), load_device=device, offload_device=offload_device_for(device))


def with_weight_changes(patcher, tensors: dict[str, torch.Tensor], keys: dict[str, str], strength: float):
    """The model with a LoRA: the weights are shared with `patcher`, and ComfyUI changes them while the LoRA is in use.

    keys   where a key of the file (without `.lora_A.weight`) goes: the name of a weight in the model
    """
    import comfy.lora

    changed = patcher.clone()
    known = set(changed.add_patches(comfy.lora.load_lora(tensors, keys), strength))
    if missing := sorted(set(keys.values()) - known):
        raise InputError(f"this ComfyUI could not use {len(missing)} layers of the LoRA, such as {missing[0]}; update ComfyUI")
    return changed


def bring_to_device(patcher, working: int = 0) -> None:
    """Moves the model to its device, making room there if need be, and for so many bytes that it needs while it works.

    Whole: our modules do not stream their weights. None = a model that moves itself.
    """
    if patcher is None:
        return
    comfy.model_management.load_models_gpu([patcher], memory_required=working, force_full_load=True)


def make_room(size: int, device: torch.device) -> None:
    """Takes models of ComfyUI off a device until so many bytes are free there. They come back when they are used."""
    if device.type != "cpu":
        comfy.model_management.free_memory(size, device)


def give_back_memory() -> None:
    """Lets other programs, and other models, have what nobody holds any more."""
    comfy.model_management.soft_empty_cache()


# ---- progress and interrupt


def interrupted() -> bool:
    return comfy.model_management.processing_interrupted()


def stop_if_interrupted() -> None:
    """Ends the node as ComfyUI wants it ended when the user has pressed Interrupt."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress_bar(total: int) -> Callable[..., None]:
    """`show(done, preview, total)` moves this node's progress bar and shows a preview image in the node; the total may grow."""
    bar = comfy.utils.ProgressBar(max(total, 1))

    def show(done: int, preview: Image | None = None, total: int | None = None) -> None:
        bar.update_absolute(done, total=total, preview=None if preview is None else ("JPEG", preview, 512))

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


def node_in_graph(node_id: str | None) -> str | None:
    """The node of the user's graph: what runs inside an expansion is called after the one that was expanded, "7.0.0.p1" after 7."""
    return None if node_id is None else str(node_id).split(".")[0]


class BookMessages:
    """Messages of a running node for the book view, to the page that has queued the run. Like `ProgressText` a comfort only.

    Every message names the run, the node and the workflow, so that two runs, or two open workflows, do not mix in the page.
    """

    def __init__(self, hidden):
        workflow = (getattr(hidden, "extra_pnginfo", None) or {}).get("workflow")
        self._node_id = hidden.unique_id
        self._workflow_id = workflow.get("id") if isinstance(workflow, dict) else None

    def send(self, data: dict) -> None:
        if self._node_id is None:
            return
        from server import PromptServer

        server = PromptServer.instance
        about = {"prompt_id": server.last_prompt_id, "node": node_in_graph(self._node_id), "workflow": self._workflow_id}
        server.send_sync(BOOK_EVENT, about | data, server.client_id)

    def stop(self) -> None:
        self._node_id = None


# ---- text from ComfyUI's own text encoders

TEXT_SINCE = "0.15.0"  # the first version whose text encoders can write


def write_text(clip, question: str, pictures: list[Image], *, max_tokens: int, temperature: float, seed: int) -> str:
    """What the language model inside of a CLIP answers. Interrupt stops it between two tokens, as everywhere in ComfyUI.

    pictures   of one size
    Raises     InputError for a CLIP that is only good for encoding, or a ComfyUI that is too old
    """
    import numpy as np
    import torch

    if not hasattr(clip, "generate"):
        raise InputError(f"text encoders can write text since ComfyUI {TEXT_SINCE}, and this is {version() or 'an older one'}; "
                         "update ComfyUI, or use Plan with a Local Model or Plan with a Server")
    if not any(hasattr(module, "sample_token") for module in clip.cond_stage_model.modules()):
        raise InputError("this text encoder reads text and cannot write any; load one that can with Load CLIP: "
                         "qwen3vl_4b, qwen3vl_8b, qwen3.5_4b, qwen3.5_9b or gemma")
    image = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])).float() / 255 if pictures else None
    text = clip.tokenize(question, image=image, min_length=1, thinking=False)
    sampling = {"do_sample": temperature > 0, "temperature": max(temperature, 0.01), "top_k": 64, "top_p": 0.95, "min_p": 0.05}
    try:
        # Tags come again and again in a plan, so repetition is not punished.
        return clip.decode(clip.generate(text, max_length=max_tokens, seed=seed, repetition_penalty=1.0, **sampling))
    except comfy.model_management.InterruptProcessingException:
        # Its flag went down when it was raised; it goes up again, so that whoever called us can end as ComfyUI wants it.
        comfy.model_management.interrupt_current_processing(True)
        raise Cancelled from None


# ---- graphs of core nodes


def node_classes(names: Iterable[str]) -> dict[str, dict]:
    """What /object_info says about inputs and outputs of those of these node classes that this ComfyUI has."""
    import nodes

    found = {name: nodes.NODE_CLASS_MAPPINGS[name] for name in names if name in nodes.NODE_CLASS_MAPPINGS}
    return {name: {"input": node.INPUT_TYPES(), "output": list(node.RETURN_TYPES)} for name, node in found.items()}


def graph_prefix() -> str:
    """What ids of nodes in this node's expansion begin with: the same in every run."""
    from comfy_execution.graph_utils import GraphBuilder

    return GraphBuilder.alloc_prefix()


def blocker():
    """As an output: whatever depends on it does not run, and nothing is said about that."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


def version() -> str:
    """ComfyUI's own version; "" where it does not say."""
    try:
        from comfyui_version import __version__
    except ImportError:
        return ""
    return __version__


def model_kind(model) -> tuple[str, dict]:
    """Class name and architecture of what is inside a MODEL; "" and {} where it is none of ComfyUI's own."""
    inner = getattr(model, "model", None)
    config = getattr(getattr(inner, "model_config", None), "unet_config", None)
    return (type(inner).__name__ if inner is not None else ""), dict(config or {})


def sampler_names() -> list[str]:
    import comfy.samplers

    return list(comfy.samplers.KSampler.SAMPLERS)


def scheduler_names() -> list[str]:
    import comfy.samplers

    return list(comfy.samplers.KSampler.SCHEDULERS)


def output_file(path: Path) -> str:
    """What Load Image calls a file of the output folder."""
    return f"{name_of(path)} [output]"


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
