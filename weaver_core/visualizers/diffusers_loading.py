"""Builds a pipeline of diffusers from a checked folder: number formats, LoRAs, and where its weights wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..card_table import RESERVED
from ..errors import InputError, first_line
from ..memory import estimate_pipeline
from ..out_of_memory import is_out_of_memory
from ..planners.transformers_planner import CPU_BLOCK, NOT_QUANTIZED, _need, _nf4
from . import Capabilities
from .diffusers_families import Drawing
from .diffusers_folder import Lora, PipelineFolder

if TYPE_CHECKING:
    import torch

QUANTIZATIONS = {
    "nf4": "4 bits: a third of the memory (bitsandbytes)",
    "int8": "8 bits: half of the memory (torchao)",
}
OFFLOADS = {
    "auto": "what fits",
    "none": "all weights stay on the device",
    "model": "encoder, transformer and autoencoder come to the device one after the other",
    "group": "layer by layer: least memory, slowest",
}


def build_pipeline(folder: PipelineFolder, drawing: Drawing, loras: Sequence[Lora], quantization: str | None, device, dtype):
    """The pipeline on the CPU (4-bit parts on the device already), with its LoRAs. InputError when files do not fit together."""
    import diffusers

    kind = getattr(diffusers, drawing.family.pipeline)
    how = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    if configs := _quantization_configs(folder, quantization, device, dtype):
        how["quantization_config"] = diffusers.PipelineQuantizationConfig(quant_mapping=configs)
    try:
        pipeline = kind.from_pretrained(str(folder.path), **how)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"{folder.name} cannot be loaded: {first_line(error)}; copy or download the folder again") from None
    if quantization == "nf4" and device.type == "cpu":
        _pack_by_hand(pipeline.transformer, dtype)
    pipeline.set_progress_bar_config(disable=True)
    if drawing.sampling.shift is not None and drawing.sampling.cfg == 1:
        _keep_shift(pipeline, drawing.sampling.shift)
    _add_loras(pipeline, loras)
    return pipeline


def without_references(pipeline, drawing: Drawing):
    """The pipeline that draws from words alone: itself, or another class around the same parts."""
    import diffusers

    if not drawing.family.without:
        return pipeline
    names = ("scheduler", "vae", "text_encoder", "tokenizer", "transformer")
    other = getattr(diffusers, drawing.family.without)(**{name: getattr(pipeline, name) for name in names})
    other.set_progress_bar_config(disable=True)
    return other


# ---- where weights wait


def place(pipeline, offload: str, device) -> None:
    """Brings the pipeline to its device in one of the ways of OFFLOADS; also from another way, but never from "group"."""
    import torch

    pipeline.remove_all_hooks()
    if offload == "none":
        pipeline.to(device)
        return
    _need(f"offload {offload!r}", "accelerate", "bnb")
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
        return
    pipeline.to("cpu")
    pipeline.enable_group_offload(
        onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level",
        use_stream=device.type == "cuda", low_cpu_mem_usage=device.type == "cuda",
    )  # fmt: skip


def next_offload(offload: str, quantization: str | None) -> str | None:
    """A way that takes less memory; None where there is none. 4-bit weights cannot come layer by layer."""
    if offload == "none":
        return "model"
    return "group" if offload == "model" and quantization != "nf4" else None


def fitting_offload(folder: PipelineFolder, able: Capabilities, quantization: str | None, device, dtype) -> str:
    """What `auto` means here: the fastest way that fits into what is free on the card (estimated, see memory.py)."""
    import torch

    if device.type != "cuda":
        return "none"
    room = torch.cuda.mem_get_info(device)[0] - RESERVED
    for offload in ("none", "model"):
        if wanted_memory(folder, offload, able, quantization, dtype) <= room:
            return offload
    return "model" if quantization == "nf4" else "group"


def wanted_memory(folder: PipelineFolder, offload: str, able: Capabilities, quantization: str | None, dtype) -> int:
    """Bytes at the highest point of a drawing with as many references as there can be, where weights wait like this."""
    format = {"nf4": "nf4", "int8": "fp8", None: str(dtype).removeprefix("torch.")}[quantization]
    return estimate_pipeline(
        folder.path, format=format, size=able.default_size, references=able.max_references, offloads=offload in ("model", "group")
    ).total


def check_choices(quantization: str | None, offload: str) -> None:
    """InputError for choices that do not exist, or not together; ImportError (a sentence) for a missing extra."""
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise InputError(f"quantization is {quantization!r}; it must be {' or '.join(QUANTIZATIONS)}, or None")
    if offload not in OFFLOADS:
        raise InputError(f"offload is {offload!r}; it must be one of {', '.join(OFFLOADS)}")
    if quantization == "nf4" and offload == "group":
        raise InputError("4-bit weights cannot come to the device layer by layer; take offload model, or quantization int8")
    if quantization == "nf4":
        _need("4-bit weights", "bitsandbytes", "bnb")
        _need("4-bit weights", "accelerate", "bnb")
    if quantization == "int8":
        _need("8-bit weights", "torchao", "int8")


# ---- number formats


def _quantization_configs(folder: PipelineFolder, quantization: str | None, device, dtype) -> dict:
    """Part -> config, for the parts that have most of the weights: the transformer and the large text encoders."""
    if quantization is None:
        return {}
    encoders = [
        name for name, (library, kind) in folder.parts.items()
        if name.startswith("text_encoder") and library == "transformers" and not kind.startswith("CLIP")
    ]  # fmt: skip
    if quantization == "int8":
        return _int8(encoders)
    found = {name: _nf4(dtype) for name in encoders}
    if device.type != "cpu":  # diffusers itself packs on a graphics card only
        from diffusers import BitsAndBytesConfig

        found["transformer"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                                  bnb_4bit_compute_dtype=dtype)  # fmt: skip
    return found


def _int8(encoders: Sequence[str]) -> dict:
    import transformers
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    found = {name: transformers.TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=list(NOT_QUANTIZED)) for name in encoders}
    return found | {"transformer": TorchAoConfig(Int8WeightOnlyConfig())}


def _pack_by_hand(model: torch.nn.Module, dtype) -> None:
    """Linear layers in 4 bits, on a CPU; those that its blocks do not fit stay whole."""
    import bitsandbytes
    import torch

    layers = [(name, layer) for name, layer in model.named_modules() if type(layer) is torch.nn.Linear]
    for name, layer in layers:
        if layer.in_features % CPU_BLOCK[0] or layer.out_features % CPU_BLOCK[1]:
            continue
        packed = bitsandbytes.nn.Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype,
                                            quant_type="nf4")  # fmt: skip
        packed.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
        packed.bias = layer.bias
        where, _, last = name.rpartition(".")
        setattr(model.get_submodule(where), last, packed.to("cpu"))  # packs


# ---- LoRAs and few-step models


def _add_loras(pipeline, loras: Sequence[Lora]) -> None:
    if not loras:
        return
    _need("a LoRA", "peft", "lora")
    names = []
    for number, lora in enumerate(loras, 1):
        names.append(f"lora_{number}")
        try:
            pipeline.load_lora_weights(str(lora.path.parent), weight_name=lora.path.name, adapter_name=names[-1],
                                       use_safetensors=True, local_files_only=True)  # fmt: skip
        except Exception as error:  # of many kinds, by what the file holds
            raise InputError(f"the LoRA {lora.path.name} does not fit the model: {first_line(error)[:200]}; take one made for it") from None
        if names[-1] not in {name for part in pipeline.get_list_adapters().values() for name in part}:
            raise InputError(f"the LoRA {lora.path.name} does not fit the model: none of its layers is one of the model's; take one made for it")
    pipeline.set_adapters(names, [lora.strength for lora in loras])


def _keep_shift(pipeline, shift: float) -> None:
    """Few-step LoRAs were made with one time shift for pictures of all sizes."""
    kind, config = type(pipeline.scheduler), pipeline.scheduler.config
    pipeline.scheduler = kind.from_config(config, base_shift=math.log(shift), max_shift=math.log(shift), shift_terminal=None)
