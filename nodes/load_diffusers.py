"""Load Diffusers Visualizer: an image model in diffusers' own folder layout, for the nodes that draw plans."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from . import host
from .schema import CATEGORY, MODEL, fitted
from .values import HostedModel

if TYPE_CHECKING:
    from ..weaver_core.visualizers.diffusers_visualizer import DiffusersVisualizer

NODE = "Load Diffusers Visualizer"
NO_MODEL = "(none in models/diffusers)"
NO_LORA = "none"
QUANTIZATIONS = ("none", "nf4", "int8")
OFFLOADS = ("auto", "none", "model", "group")
DTYPES = ("auto", "bfloat16", "float16", "float32")

# The same settings again while somebody still holds the model are the same object, not a second copy in memory.
_alive: weakref.WeakValueDictionary[tuple, DiffusersVisualizer] = weakref.WeakValueDictionary()


class WeaverLoadDiffusers(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        loras = [NO_LORA, *host.lora_names()]
        return fitted(
            io.Schema,
            node_id="WeaverLoadDiffusers",
            display_name=NODE,
            category=CATEGORY,
            description="Loads an image model from a diffusers folder, such as Flux.2 Klein, Qwen-Image-Edit or Kontext, to draw "
            "plans with. In 4 or 8 bits, with LoRAs, and on cards that it does not fit on.",
            search_aliases=["diffusers", "flux2 klein", "qwen image edit", "kontext", "nf4", "image model loader"],
            inputs=[
                io.Combo.Input("model", options=host.pipeline_names() or [NO_MODEL],
                               tooltip="A folder under models/diffusers that holds model_index.json."),
                io.Combo.Input("quantization", options=list(QUANTIZATIONS), default=QUANTIZATIONS[0],
                               tooltip="nf4: 4 bits, a third of the memory, needs bitsandbytes. int8: half of it, needs torchao."),
                io.Combo.Input("offload", options=list(OFFLOADS), default=OFFLOADS[0],
                               tooltip="Where weights wait. auto: what fits. none: on the card. model: one part after the other "
                               "comes there. group: layer by layer, least memory and slowest."),
                io.Combo.Input("lora", options=loras, default=NO_LORA, tooltip="A LoRA in models/loras that was made for the model."),
                io.Float.Input("lora_strength", default=1.0, min=-10.0, max=10.0, step=0.05, round=0.001,
                               tooltip="How strongly it counts. 1 = as it was trained."),
                fitted(io.Combo.Input, "lora_2", options=loras, default=NO_LORA, advanced=True, tooltip="A second LoRA, besides the first."),
                fitted(io.Float.Input, "lora_2_strength", default=1.0, min=-10.0, max=10.0, step=0.05, round=0.001, advanced=True,
                       tooltip="How strongly the second LoRA counts."),
                fitted(io.Combo.Input, "dtype", options=list(DTYPES), default=DTYPES[0], advanced=True,
                       tooltip="Number format of weights that are not quantized. auto takes what the device is fast in."),
                fitted(io.Boolean.Input, "keep_loaded", default=False, advanced=True,
                       tooltip="Keep the model in memory for the next story. Off: its memory is free after every run."),
            ],
            outputs=[MODEL.Output("weaver_model", display_name="visualizer",
                                  tooltip="For Visualize Plan and Re-roll Image. It has no planner: plan with another node.")],
        )

    @classmethod
    def fingerprint_inputs(cls, model="", lora=NO_LORA, lora_2=NO_LORA, **others):
        """Changes when the files change, so that another model under the same name is not taken for the old one."""
        return host.stamp([*_files_of(model), *(path for name in (lora, lora_2) for path in _lora_files(name))])

    @classmethod
    def execute(
        cls, model, quantization="none", offload="auto", lora=NO_LORA, lora_strength=1.0, lora_2=NO_LORA, lora_2_strength=1.0,
        dtype="auto", keep_loaded=False,
    ) -> io.NodeOutput:  # fmt: skip
        chosen = tuple((name, strength) for name, strength in ((lora, lora_strength), (lora_2, lora_2_strength)) if name != NO_LORA)
        visualizer = _visualizer(model, quantization, offload, chosen, dtype)
        hosted = HostedModel(
            name=f"{visualizer.title} ({model})", embedded=False, model=None, planner=None, visualizer=visualizer, patcher=None,
            keeps=keep_loaded,
        )  # fmt: skip
        return io.NodeOutput(hosted)


@contextmanager
def ready_to_draw(hosted: HostedModel) -> Iterator[None]:
    """The model is where it draws. One that moves itself has ComfyUI's models make room, and leaves afterwards unless it is kept."""
    if hosted.keeps is None:
        host.bring_to_device(hosted.patcher)
        yield
        return
    visualizer = hosted.visualizer
    for other in tuple(_alive.values()):
        if other is not visualizer:
            other.unload()  # kept from another run, and not what is wanted now
    if not visualizer.is_loaded:
        host.make_room(visualizer.needed_memory(), visualizer.device)
    try:
        yield
    finally:
        if not hosted.keeps:
            visualizer.unload()
            host.give_back_memory()


def with_planner(hosted: HostedModel, node: str) -> HostedModel:
    """The model, if it can write stories. InputError for one that only draws."""
    if hosted.planner is None:
        raise InputError(
            f"{node} got {hosted.name}, which draws and cannot write; plan with Plan with a Local Model, Plan with a Server or "
            "Write Plan, and connect this model to Visualize Plan"
        )
    return hosted


def _visualizer(name: str, quantization: str, offload: str, loras: tuple, dtype: str) -> DiffusersVisualizer:
    import torch

    from ..weaver_core.visualizers.diffusers_folder import Lora
    from ..weaver_core.visualizers.diffusers_visualizer import DiffusersVisualizer

    folder = host.pipeline_folder(name)
    files = [(Lora.read(str(host.lora_file(lora))), strength) for lora, strength in loras]
    key = (name, quantization, offload, loras, dtype, host.stamp([*_files_of(name), *(lora.path for lora, _ in files)]))
    if (visualizer := _alive.get(key)) is not None:
        return visualizer
    device = host.device_for("auto")
    visualizer = DiffusersVisualizer(
        folder, loras=[Lora(path=lora.path, strength=strength) for lora, strength in files],
        quantization=None if quantization == "none" else quantization, offload=offload, device=device,
        dtype=host.dtype_for(dtype, device, torch.float32),
    )  # fmt: skip
    _alive[key] = visualizer
    return visualizer


def _files_of(name: str) -> list:
    """The files that decide what is loaded; none for a name that is not offered (`execute` says what is wrong)."""
    try:
        folder = host.pipeline_folder(name)
    except InputError:
        return []
    return sorted([*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("*/*.safetensors")])


def _lora_files(name: str) -> list:
    try:
        return [] if name == NO_LORA else [host.lora_file(name)]
    except InputError:
        return []
