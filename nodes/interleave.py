"""Interleave: a story whose planner sees every image before it writes on; the closed loop in one node."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.errors import Cancelled
from ..weaver_core.events import Finished, ImagePlanned, ImageReady, StepProgress, TextDelta, Warning
from ..weaver_core.picturebook.vocabulary import known_words
from ..weaver_core.planners import PlannerOptions
from ..weaver_core.request import RenderSettings, Request
from ..weaver_core.story import StoryFolder
from ..weaver_core.weave import weave
from . import host
from .drafts import open_draft, woven
from .live_book import LiveBook
from .load_diffusers import with_planner
from .page_changes import bring_locked_pages, changed_plan, page_changes_are_usable, page_changes_inputs
from .pictures import to_tensor
from .plan import hosted_planner_inputs, read_request, typed_prompt_is_usable
from .schema import CATEGORY, MODEL, PLAN, REQUEST, STORY, checked, fitted, single
from .values import HostedModel, PlannedStory, WovenStory
from .visualize import check_all_drawn, check_images_input, draw_plan, drawing_inputs, read_settings

NODE = "Interleave"


class WeaverInterleave(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverInterleave",
            display_name=NODE,
            category=CATEGORY,
            description="Writes and draws a story in turns: the planner sees every image before it writes on. Text and pictures in "
            "one node; finished pages are kept.",
            search_aliases=["closed loop", "interleaved", "story in one node", "write and draw", "look back"],
            is_input_list=True,  # pictures of different sizes come as a list
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                MODEL.Input("weaver_model", tooltip="From Load Weaver Model."),
                *hosted_planner_inputs(
                    long_stories="The picture-book planner was made for 1 to 8 in the closed loop.",
                    same_seed="The same seed, prompt, model and settings make the same story.",
                ),
                *drawing_inputs(),
                io.Image.Input("images", optional=True,
                               tooltip="Pictures that the story is about, such as your hero: an IMAGE, a batch, or a list."),
                *page_changes_inputs(when="When a page was changed in the book view"),
                check_images_input(),
                REQUEST.Input("request", optional=True,
                              tooltip="From Weaver Request. It counts instead of what is typed here; the pictures of both are used."),
            ],
            outputs=[
                STORY.Output("story", display_name="story", tooltip="Plan and images, for Preview Story and Save Story."),
                io.Image.Output("images_out", display_name="images", is_output_list=True,
                                tooltip="The images in the order of the story, as a list."),
                PLAN.Output("plan", display_name="plan", tooltip="The plan as it was written, to draw it anew or to edit it."),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt=None, page_changes=None, input_types=None):
        usable = typed_prompt_is_usable(prompt, input_types)
        return page_changes_are_usable(page_changes) if usable is True else usable

    @classmethod
    def execute(
        cls, weaver_model, prompt, num_images, seed, temperature, steps, guidance, reference_guidance, images=None,
        redraw_stale=None, page_changes=None, check_images=None, request=None,
    ) -> io.NodeOutput:  # fmt: skip
        hosted = with_planner(checked(single(weaver_model, "weaver_model", NODE), HostedModel, NODE, "Load Weaver Model"), NODE)
        request, notes = read_request(NODE, prompt, num_images, seed, images, given=request)
        if hosted.embedded and not request.images and (warning := known_words(request.prompt).warning()):
            notes.append(warning)
        settings = read_settings(NODE, steps, guidance, reference_guidance, check_images)
        options = PlannerOptions(temperature=single(temperature, "temperature", NODE), seed=request.seed)
        drafts = {"visualizer": hosted.visualizer.fingerprint, "made_with": hosted.name}
        host.bring_to_device(hosted.patcher)
        with open_draft(request, settings, mode="closed-loop", told=("closed-loop", options.temperature), **drafts) as draft:
            _weave(hosted, request, draft, settings, options, notes, cls.hidden)
            story, tensors = woven(draft), [to_tensor(draft.image(image.id)) for image in draft.plan.images]
        written = PlannedStory(plan=story.plan, request=request)
        plan, changes = changed_plan(story.plan, single(page_changes or [], "page_changes", NODE, otherwise=""), notes)
        if changes:
            follow = bool(single(redraw_stale or [], "redraw_stale", NODE, otherwise=False))
            # The loop's own folder stays as it was woven; changed pages are drawn beside it, and their text stays.
            with open_draft(request, settings, told=("pages of a closed loop", options.temperature), **drafts) as pages:
                _bring_pages(story, pages)
                bring_locked_pages(pages, changes, notes)
                story, tensors = draw_plan(hosted, plan, request, pages, follow, notes, cls.hidden, settings=settings)
        return io.NodeOutput(story, tensors, written, ui={"weaver_notes": notes})


def _weave(
    hosted: HostedModel, request: Request, draft: StoryFolder, settings: RenderSettings, options: PlannerOptions, notes: list[str],
    hidden,
) -> None:  # fmt: skip
    """Weaves the story in the draft to its end; finds what is there already."""
    steps = settings.steps or hosted.visualizer.capabilities.steps
    num_images = request.wanted_images or 1
    show, text, live = host.progress_bar(num_images * steps), host.ProgressText(hidden.unique_id), LiveBook(hidden)
    events = weave(
        request, hosted.planner, hosted.visualizer, story=draft, mode="closed-loop", settings=settings, options=options,
        cancel=host.interrupted,
    )  # fmt: skip
    page, written = 0, ""
    try:
        for event in events:
            live.hear(event)
            if isinstance(event, TextDelta):
                written += event.text
                text.show(written)
            elif isinstance(event, ImagePlanned):
                page, written = event.index, ""
                num_images = max(num_images, page + 1)
            elif isinstance(event, StepProgress):
                show(page * steps + event.step, event.preview, num_images * steps)
                text.show(f"drawing page {page + 1}", at_once=event.step == 1)
            elif isinstance(event, ImageReady):
                show((event.index + 1) * steps, event.image, num_images * steps)
            elif isinstance(event, Warning):
                notes.append(event.message)
            elif isinstance(event, Finished):
                check_all_drawn(draft, event.missing, len(draft.plan.images))
    except Cancelled:
        host.stop_if_interrupted()
        raise
    finally:
        live.close()
    text.show(f"{num_images} page{'s' * (num_images != 1)} woven", at_once=True)


def _bring_pages(story: WovenStory, pages: StoryFolder) -> None:
    """Puts the images that the loop has drawn where changed pages are drawn, once."""
    for image_id, drawn in story.images.items():
        if pages.find(drawn.rendering.key) is None:
            pages.keep(drawn.rendering, drawn.read())
