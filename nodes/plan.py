"""Weaver Plan: the planner writes the story and the dense prompt of every image."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.errors import Cancelled
from ..weaver_core.events import PlanReady, TextDelta, Warning
from ..weaver_core.picturebook.vocabulary import known_words
from ..weaver_core.planners import PlannerOptions
from ..weaver_core.request import MAX_IMAGES, Request
from ..weaver_core.segments import MAX_SEED
from ..weaver_core.weave import write_plan
from . import host
from .pictures import reference_images
from .schema import CATEGORY, MODEL, PLAN, checked, fitted, single
from .values import HostedModel, PlannedStory

NODE = "Weaver Plan"
DEFAULT_PROMPT = "Make a four picture story about Pip, a red fox with a scarf, at the beach."


class WeaverPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverPlan",
            display_name=NODE,
            category=CATEGORY,
            description="Writes a story: title, text, and a dense prompt for every image. Nothing is drawn yet.",
            search_aliases=["story", "story planner", "dense prompt", "write story", "interleaved"],
            is_input_list=True,  # pictures of different sizes come as a list
            hidden=[io.Hidden.unique_id],
            inputs=[
                MODEL.Input("weaver_model", tooltip="From Load Weaver Model."),
                io.String.Input("prompt", multiline=True, default=DEFAULT_PROMPT,
                                tooltip="What the story is about: who, where, what happens, how many pictures."),
                io.Int.Input("num_images", default=0, min=0, max=MAX_IMAGES,
                             tooltip="How many images the story has. 0 = as the prompt says. "
                             "The picture-book planner was made for 1 to 8."),
                io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True,
                             tooltip="The same seed, prompt and model write the same story."),
                fitted(io.Float.Input, "temperature", default=0.7, min=0.0, max=2.0, step=0.05, advanced=True,
                       tooltip="0 = always the likeliest word; higher = more surprising stories."),
                io.Image.Input("images", optional=True,
                               tooltip="Pictures that the story is about, such as your hero: an IMAGE, a batch, or a list."),
            ],
            outputs=[
                PLAN.Output("plan", display_name="plan", tooltip="The plan, for Visualize Plan and Split Plan."),
                io.String.Output("markup", display_name="markup", tooltip="The plan as text, with <imagine> around every dense prompt."),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt=None):
        # Only a typed prompt comes here, so that the message is there before anything runs; a linked one is checked in execute.
        typed = prompt[0] if isinstance(prompt, list) and prompt else prompt
        if isinstance(typed, str) and not typed.strip():
            return "the prompt is empty; say what the story is about, such as: a fox who finds a red kite"
        return True

    @classmethod
    def execute(cls, weaver_model, prompt, num_images, seed, temperature, images=None) -> io.NodeOutput:
        hosted = checked(single(weaver_model, "weaver_model", NODE), HostedModel, NODE, "Load Weaver Model")
        wanted = single(num_images, "num_images", NODE)
        pictures, notes = reference_images(images, NODE, "picture")
        request, changed = Request(
            prompt=single(prompt, "prompt", NODE),
            images=pictures,
            num_images=None if wanted == 0 else wanted,
            seed=single(seed, "seed", NODE),
        ).validated()
        notes += changed
        if hosted.embedded and not pictures and (warning := known_words(request.prompt).warning()):
            notes.append(warning)
        options = PlannerOptions(temperature=single(temperature, "temperature", NODE), seed=request.seed)
        host.bring_to_device(hosted.patcher)
        plan = _write(hosted, request, options, notes, host.ProgressText(cls.hidden.unique_id))
        return io.NodeOutput(PlannedStory(plan=plan, request=request), plan.to_markup(), ui={"weaver_notes": notes})


def _write(hosted: HostedModel, request: Request, options: PlannerOptions, notes: list[str], progress: host.ProgressText):
    """The plan; its text is shown as it comes, its warnings are added to `notes`."""
    show_images = host.progress_bar(request.num_images or 0)
    shown, last_id, num_images, plan = "", None, 0, None
    try:
        for event in write_plan(request, hosted.planner, options=options, cancel=host.interrupted):
            if isinstance(event, TextDelta):
                if event.segment_id != last_id:
                    shown += "\n\n" if shown else ""
                    num_images += event.kind == "prompt"
                    shown += f"picture {num_images}: " if event.kind == "prompt" else ""
                    last_id = event.segment_id
                shown += event.text
                progress.show(shown)
                show_images(num_images)
            elif isinstance(event, Warning):
                notes.append(event.message)
            elif isinstance(event, PlanReady):
                plan = event.plan
    except Cancelled:
        host.stop_if_interrupted()
        raise
    progress.show(shown, at_once=True)
    return plan
