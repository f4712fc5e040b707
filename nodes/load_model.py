"""Load Weaver Model: a planner and visualizer pair, in ComfyUI's care."""

from __future__ import annotations

import hashlib
import weakref

from comfy_api.latest import io

from . import host
from .schema import CATEGORY, MODEL, fitted
from .values import HostedModel

DTYPES = ("auto", "bfloat16", "float16", "float32")
DEVICES = ("auto", "cpu")

# The same model asked for again while somebody still holds it is the same object, not a second copy in memory.
_alive: weakref.WeakValueDictionary[tuple, HostedModel] = weakref.WeakValueDictionary()


class WeaverLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverLoadModel",
            display_name="Load Weaver Model",
            category=CATEGORY,
            description="Loads a planner, which writes the story, and the visualizer that draws it. "
            "The picture-book pair comes with the pack and needs no download.",
            search_aliases=["weaver loader", "story model", "picture book", "wan weaver"],
            inputs=[
                io.Combo.Input("model", options=host.model_names(), default=host.EMBEDDED,
                               tooltip="The embedded picture-book pair, or a folder under models/weaver."),
                fitted(io.Combo.Input, "dtype", options=list(DTYPES), default="auto", advanced=True,
                       tooltip="Number format of the weights. auto takes what the device is fast in; float32 is the most exact."),
                fitted(io.Combo.Input, "device", options=list(DEVICES), default="auto", advanced=True,
                       tooltip="auto is ComfyUI's own device. The picture-book pair also runs well on the CPU."),
            ],
            outputs=[MODEL.Output("weaver_model", display_name="weaver_model",
                                  tooltip="Planner and visualizer, for Weaver Plan and Visualize Plan.")],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, dtype: str, device: str):
        """Changes when the files of the model change, so that a newly trained model is not taken for the old one."""
        return _stamp(model)

    @classmethod
    def execute(cls, model: str, dtype: str = "auto", device: str = "auto") -> io.NodeOutput:
        return io.NodeOutput(_load(model, dtype, device))


def _load(name: str, dtype_choice: str, device_choice: str) -> HostedModel:
    import torch

    from ..weaver_core.model.checkpoint import WeaverModel, default_dtype
    from ..weaver_core.planners.native import NativePlanner
    from ..weaver_core.visualizers.native import NativeVisualizer

    folder = host.model_folder(name)
    device = host.device_for(device_choice)
    dtype = host.dtype_for(dtype_choice, device, default_dtype(torch.device("cpu")))
    key = (name, str(device), str(dtype), _stamp(name))
    if (hosted := _alive.get(key)) is not None:
        return hosted
    # ComfyUI runs nodes in inference mode; weights made in it could not be moved or tuned outside of it.
    with torch.inference_mode(False):
        model = WeaverModel.from_pretrained(folder, device=host.offload_device_for(device), dtype=dtype)
    modules = {"planner": model.planner, "visualizer": model.visualizer, "vae": model.vae}
    hosted = HostedModel(
        name=name,
        embedded=folder is None,
        model=model,
        planner=NativePlanner(model),
        visualizer=NativeVisualizer(model),
        patcher=host.patcher_of(modules, device),
    )
    _alive[key] = hosted
    return hosted


def _stamp(name: str) -> str:
    """16 hex digits from sizes and times of the files that decide what is loaded. Short, because ComfyUI writes it into PNGs."""
    from ..weaver_core.model.checkpoint import default_folder

    folder = host.model_folder(name) or default_folder()
    files = sorted([*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("*/*.safetensors")])
    facts = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
