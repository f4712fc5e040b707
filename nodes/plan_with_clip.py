"""Plan with Text Encoder: a story planned by the language model that is loaded as a CLIP, by ComfyUI's own means."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.planners.one_text import OneTextPlanner
from . import host
from .own_planner import plan_asked, read_asked
from .plan import own_planner_inputs, plan_outputs, typed_prompt_is_usable
from .schema import CATEGORY, fitted, single

NODE = "Plan with Text Encoder"


class WeaverPlanWithClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverPlanWithClip",
            display_name=NODE,
            category=CATEGORY,
            description="Writes a story with a language model that ComfyUI has loaded as a text encoder (Load CLIP): qwen3vl, "
            "qwen3.5, gemma. The same file may encode the prompts of your image model. Needs ComfyUI 0.15 or newer.",
            search_aliases=["clip", "text generate", "generate text", "qwen3vl", "gemma", "llm", "story planner", "write story"],
            is_input_list=True,  # pictures of different sizes come as a list
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.Clip.Input("clip", tooltip="From Load CLIP, with a model that can write: qwen3vl_4b, qwen3vl_8b, qwen3.5_4b, gemma ..."),
                *own_planner_inputs(),
            ],
            outputs=plan_outputs(),
        )

    @classmethod
    def validate_inputs(cls, prompt=None, input_types=None):
        return typed_prompt_is_usable(prompt, input_types)

    @classmethod
    def execute(cls, clip, **inputs) -> io.NodeOutput:
        asked = read_asked(NODE, **inputs)
        progress = host.ProgressText(cls.hidden.unique_id)
        progress.show("writing; the plan is shown when it is whole", at_once=True)
        return plan_asked(asked, clip_planner(single(clip, "clip", NODE)), progress, cls.hidden)


def clip_planner(clip) -> OneTextPlanner:
    def write_text(question, pictures, options) -> str:
        return host.write_text(
            clip, question, pictures, max_tokens=options.max_tokens, temperature=options.temperature, seed=options.seed
        )

    return OneTextPlanner(write_text, "the text encoder")
