"""Weaver Plan: the planner writes the story and the dense prompt of every image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..weaver_core.cast import Cast
from ..weaver_core.errors import Cancelled
from ..weaver_core.events import PlanReady, TextDelta, Warning
from ..weaver_core.picturebook.vocabulary import known_words
from ..weaver_core.planners import Planner, PlannerOptions
from ..weaver_core.request import MAX_IMAGES, Request
from ..weaver_core.segments import MAX_SEED, ImageSegment
from ..weaver_core.weave import write_plan
from . import host
from .live_book import LiveBook
from .load_diffusers import with_planner
from .pictures import reference_images
from .schema import CATEGORY, MODEL, PLAN, REQUEST, checked, fitted, single
from .values import HostedModel, PlannedStory

if TYPE_CHECKING:
    from ..weaver_core.plan import Plan

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
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                MODEL.Input("weaver_model", tooltip="From Load Weaver Model."),
                *hosted_planner_inputs(
                    long_stories="Above 8 the picture-book planner tells it in chapters.",
                    same_seed="The same seed, prompt and model write the same story.",
                ),
                io.Image.Input("images", optional=True,
                               tooltip="Pictures that the story is about, such as your hero: an IMAGE, a batch, or a list."),
                *linked_inputs(),
            ],
            outputs=plan_outputs(),
        )

    @classmethod
    def validate_inputs(cls, prompt=None, input_types=None):
        return typed_prompt_is_usable(prompt, input_types)

    @classmethod
    def execute(
        cls, weaver_model, prompt, num_images, seed, temperature, images=None, request=None, story_so_far=None
    ) -> io.NodeOutput:
        hosted = with_planner(checked(single(weaver_model, "weaver_model", NODE), HostedModel, NODE, "Load Weaver Model"), NODE)
        before = read_story_so_far(NODE, story_so_far)
        request, notes = read_request(NODE, prompt, num_images, seed, images, given=request, before=before)
        if hosted.embedded and not request.images and (warning := known_words(request.prompt).warning()):
            notes.append(warning)
        options = PlannerOptions(temperature=single(temperature, "temperature", NODE), seed=request.seed)
        host.bring_to_device(hosted.patcher)
        plan = write_shown(
            hosted.planner, request, options, notes, host.ProgressText(cls.hidden.unique_id), LiveBook(cls.hidden), before
        )
        return plan_output(plan, request, notes)


# ---- what the nodes that plan have in common


def hosted_planner_inputs(*, long_stories: str, same_seed: str) -> list:
    """What the planner of a Weaver model is asked; the texts are what it makes of many images and of a seed."""
    return [
        io.String.Input("prompt", multiline=True, default=DEFAULT_PROMPT,
                        tooltip="What the story is about: who, where, what happens, how many pictures."),
        io.Int.Input("num_images", default=0, min=0, max=MAX_IMAGES,
                     tooltip=f"How many images the story has. 0 = as the prompt says. {long_stories}"),
        io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True, tooltip=same_seed),
        _temperature_input(),
    ]


def own_planner_inputs() -> list:
    """What a planner of the user's own is asked; the names are those of `WeaverPlan`."""
    return [
        io.String.Input("prompt", multiline=True, default=DEFAULT_PROMPT,
                        tooltip="What the story is about: who, where, what happens."),
        io.Int.Input("num_images", default=4, min=0, max=MAX_IMAGES,
                     tooltip="How many images the story has. 0 = as the prompt says, else as the model likes."),
        io.String.Input("language", default="en", tooltip="Language of title and page texts, such as en, de or zh."),
        io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True,
                     tooltip="The same seed, prompt and model write the same story, as far as the model can."),
        _temperature_input(),
        fitted(io.Int.Input, "max_tokens", default=4096, min=64, max=131072, advanced=True,
               tooltip="The model stops there. Long stories, and models that think first, need more."),
        io.Image.Input("images", optional=True,
                       tooltip="Pictures that the story is about, for models that see: an IMAGE, a batch, or a list."),
        *linked_inputs(),
    ]


def _temperature_input():
    return fitted(io.Float.Input, "temperature", default=0.7, min=0.0, max=2.0, step=0.05, advanced=True,
                  tooltip="0 = always the likeliest word; higher = more surprising stories.")  # fmt: skip


def linked_inputs() -> list:
    """What every planner may be given by wire. They stand last, and workflows that were saved without them still load."""
    return [
        REQUEST.Input("request", optional=True,
                      tooltip="From Weaver Request. It counts instead of what is typed here; the pictures of both are used."),
        PLAN.Input("story_so_far", optional=True,
                   tooltip="A plan to go on with, from Load Story for one: its pages stay, and so many images are added."),
    ]


def plan_outputs() -> list:
    return [
        PLAN.Output("plan", display_name="plan", tooltip="The plan, for Visualize Plan, Visualize with Your Model and Split Plan."),
        io.String.Output("markup", display_name="markup", tooltip="The plan as text, with <imagine> around every dense prompt."),
    ]


def plan_output(plan: Plan, request: Request, notes: list[str]) -> io.NodeOutput:
    return io.NodeOutput(PlannedStory(plan=plan, request=request), plan.to_markup(), ui={"weaver_notes": notes})


def typed_prompt_is_usable(prompt, input_types=None) -> bool | str:
    """For `validate_inputs`: True, or what is wrong. Only a typed prompt comes there, so that the message is there before
    anything runs; a linked one, and one of a request, is checked by `read_request`.

    input_types   the types of what is linked, by input
    """
    linked = input_types[0] if isinstance(input_types, list) and input_types else input_types
    if isinstance(linked, dict) and "request" in linked:
        return True
    typed = prompt[0] if isinstance(prompt, list) and prompt else prompt
    if isinstance(typed, str) and not typed.strip():
        return "the prompt is empty; say what the story is about, such as: a fox who finds a kite"
    return True


def read_request(
    node: str, prompt: list, num_images: list, seed: list, images: list | None, language: list = (), *,
    given: list | None = None, before: PlannedStory | None = None,
):  # fmt: skip
    """The request in the inputs of a node that takes lists, and sentences about what was changed. InputError for bad ones.

    given    what came from a Weaver Request; it wins over what was typed
    before   the story that is to go on; its cast and pictures are known to the request as well
    """
    pictures, notes = reference_images(images, node, "picture")
    request = single(given or [], "request", node)
    if request is None:
        request = Request(
            prompt=single(prompt, "prompt", node),
            num_images=single(num_images, "num_images", node) or None,
            language=single(language, "language", node, otherwise=before.plan.language if before else "en"),
        )
    request = checked(request, Request, node, "Weaver Request")
    if before:
        request = Cast.from_request(before.request).joined(Cast.from_request(request)).into(request)
        known = {picture.name for picture in request.images}
        request = replace(request, images=request.images + tuple(p for p in before.request.images if p.name not in known))
    request = replace(request, images=request.images + pictures, seed=single(seed, "seed", node))
    request, changed = request.validated()
    return request, [*notes, *changed]


def read_story_so_far(node: str, given: list | None) -> PlannedStory | None:
    """The story that is to go on, with its images locked: what is drawn of it stays."""
    value = single(given or [], "story_so_far", node)
    if value is None:
        return None
    planned = checked(value, PlannedStory, node, "Load Story")
    plan = planned.plan
    segments = tuple(replace(part, locked=True) if isinstance(part, ImageSegment) else part for part in plan.segments)
    return replace(planned, plan=replace(plan, segments=segments))


def write_shown(
    planner: Planner, request: Request, options: PlannerOptions, notes: list[str], progress: host.ProgressText, live: LiveBook,
    before: PlannedStory | None = None,
) -> Plan:  # fmt: skip
    """The plan; its text is shown as it comes, below the node and in the book view; its warnings are added to `notes`."""
    show_images = host.progress_bar(request.num_images or 0)
    shown, last_id, num_images, plan = "", None, 0, None
    try:
        for event in write_plan(
            request, planner, options=options, cancel=host.interrupted, before=before.plan if before else None
        ):
            live.hear(event)
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
    finally:
        live.close()
    progress.show(shown, at_once=True)
    return plan
