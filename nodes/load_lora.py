"""Load LoRA: what training/train.py taught the visualizer, on top of a Weaver model."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from . import host
from .schema import CATEGORY, MODEL, checked, fitted
from .values import HostedModel

NODE = "Load LoRA"
NO_LORA = "(none in models/loras)"


class WeaverLoadLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverLoadLora",
            display_name=NODE,
            category=CATEGORY,
            description="Adds a LoRA to the visualizer of a Weaver model: a style, a hero or a place that was trained from your own "
            "pictures. Several can follow one another.",
            search_aliases=["weaver lora", "story lora", "style lora", "fine-tune"],
            inputs=[
                MODEL.Input("weaver_model", tooltip="From Load Weaver Model, or from another Load LoRA."),
                io.Combo.Input("lora", options=host.lora_names() or [NO_LORA],
                               tooltip="A file in models/loras that training/train.py has made for this model."),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05, round=0.001,
                               tooltip="How strongly it counts. 1 = as it was trained, 0 = not at all."),
            ],
            outputs=[MODEL.Output("with_lora", display_name="weaver_model",
                                  tooltip="For Weaver Plan and Visualize Plan. Pages that were drawn without the LoRA are drawn anew.")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora="", **others):
        """Changes when the file changes, so that a LoRA that was trained on is not taken for the old one."""
        try:
            return host.stamp([host.lora_file(lora)])
        except InputError:
            return ""  # `execute` says what is wrong

    @classmethod
    def execute(cls, weaver_model, lora: str, strength: float = 1.0) -> io.NodeOutput:
        hosted = checked(weaver_model, HostedModel, NODE, "Load Weaver Model")
        if hosted.model is None:
            raise InputError(f"{NODE} got {hosted.name}, whose LoRAs are chosen in Load Diffusers Visualizer; connect a Weaver model here")
        path = host.lora_file(lora)
        return io.NodeOutput(_with_lora(hosted, path, strength) if strength else hosted)


def _with_lora(hosted: HostedModel, path, strength: float) -> HostedModel:
    """The same pair with changed weights: nothing of it is in memory twice, and the planner keeps what it has read."""
    import torch

    from ..weaver_core.model.lora import PREFIX, lora_fingerprint, lora_tensors, read_lora
    from ..weaver_core.visualizers.native import NativeVisualizer

    # ComfyUI runs nodes in inference mode; tensors made in it could not be used outside of it.
    with torch.inference_mode(False):
        layers = read_lora(path, hosted.model.visualizer)
        keys = {f"{PREFIX}{name}": f"visualizer.{name}.weight" for name in layers}
        patcher = host.with_weight_changes(hosted.patcher, lora_tensors(layers), keys, strength)
        model = replace(hosted.model, fingerprint=lora_fingerprint(hosted.model.fingerprint, path, strength))
        # A visualizer of its own: references that were encoded without the LoRA look otherwise.
        return replace(hosted, model=model, visualizer=NativeVisualizer(model), patcher=patcher)
