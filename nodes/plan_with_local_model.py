"""Plan with a Local Model: a story planned by a chat model in the process of ComfyUI."""

from __future__ import annotations

from comfy_api.latest import io

from . import host
from .hosted_planner import NO_MODEL, WEIGHTS, hosted_planner, stamp_of
from .own_planner import plan_asked, read_asked
from .plan import own_planner_inputs, plan_outputs, typed_prompt_is_usable
from .schema import CATEGORY, fitted, single

NODE = "Plan with a Local Model"


class WeaverPlanWithLocalModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverPlanWithLocalModel",
            display_name=NODE,
            category=CATEGORY,
            description="Writes a story with a chat model in models/LLM: Qwen3-VL, Qwen2.5-VL, SmolLM or another. "
            "It is held to well-formed plans with exactly the images that were asked for.",
            search_aliases=["qwen", "qwen-vl", "transformers", "gguf", "llm", "vlm", "story planner", "write story"],
            is_input_list=True,  # pictures of different sizes come as a list
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.Combo.Input("model", options=host.planner_names() or [NO_MODEL],
                               tooltip="A chat model under models/LLM: its folder, a .gguf file, or a LoRA (PEFT) of a model that is there."),
                *own_planner_inputs(),
                fitted(io.Combo.Input, "weights", options=list(WEIGHTS), default=WEIGHTS[0], advanced=True,
                       tooltip="nf4 loads them in 4 bits: about a third of the memory. Needs bitsandbytes."),
                fitted(io.Boolean.Input, "keep_loaded", default=False, advanced=True,
                       tooltip="Keep the model in memory for the next story. Off: its memory is free for the image model."),
            ],
            outputs=plan_outputs(),
        )

    @classmethod
    def validate_inputs(cls, prompt=None, input_types=None):
        return typed_prompt_is_usable(prompt, input_types)

    @classmethod
    def fingerprint_inputs(cls, model=(), **others):
        """Changes when the files of the model change, so that another model under the same name is not taken for the old one."""
        return stamp_of(single(model, "model", NODE))

    @classmethod
    def execute(cls, model, weights, keep_loaded, **inputs) -> io.NodeOutput:
        asked = read_asked(NODE, **inputs)
        name, progress = single(model, "model", NODE), host.ProgressText(cls.hidden.unique_id)
        keeps = single(keep_loaded, "keep_loaded", NODE)
        with hosted_planner(name, single(weights, "weights", NODE), keeps=keeps) as hosted:
            progress.show(f"loading {name}", at_once=True)
            hosted.load()
            host.stop_if_interrupted()
            return plan_asked(asked, hosted.planner, progress, cls.hidden)
