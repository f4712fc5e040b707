"""Re-roll Image: one page of a story is drawn anew with another seed, the others stay as they are."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.changes import ChangedStory, users_of, with_seed
from ..weaver_core.errors import Cancelled, InputError, WeaverError
from ..weaver_core.events import ImageReady, StepProgress, Warning
from ..weaver_core.segments import MAX_SEED
from ..weaver_core.weave import weave_plan
from . import host
from .changes import changed, changing
from .pick_image import MAX_PAGE, image_at
from .load_diffusers import ready_to_draw
from .pictures import to_tensor
from .schema import CATEGORY, MODEL, STORY, checked, fitted
from .values import HostedModel, WovenStory

NODE = "Re-roll Image"


class WeaverRerollImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverRerollImage",
            display_name=NODE,
            category=CATEGORY,
            description="Draws one page of a story anew with another seed and leaves the others as they are. "
            "Pages that used it as a reference follow if you say so.",
            search_aliases=["reroll", "redraw page", "try again", "another seed", "variation"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                MODEL.Input("weaver_model", tooltip="From Load Weaver Model; the same that drew the story."),
                STORY.Input("story", tooltip="From Visualize Plan or Load Story."),
                io.Int.Input("page", default=1, min=0, max=MAX_PAGE,
                             tooltip="Which image, counted from 1 in the order of the story. "
                             "0 = none: only stale pages are redrawn."),
                io.Int.Input("seed", default=1, min=0, max=MAX_SEED, control_after_generate=True,
                             tooltip="The new seed of the page. A seed that was there before brings back its image."),
                io.Boolean.Input("redraw_stale", default=False,
                                 tooltip="Also draw those pages anew that used this one, or another that was changed, "
                                 "as a reference."),
            ],
            outputs=[
                STORY.Output("changed", display_name="story", tooltip="The story with the new page."),
                io.Image.Output("images", display_name="images", is_output_list=True,
                                tooltip="All images of the story in order, as a list."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, weaver_model, story, page: int = 1, seed: int = 1, redraw_stale: bool = False) -> io.NodeOutput:
        hosted = checked(weaver_model, HostedModel, NODE, "Load Weaver Model")
        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        if page == 0 and not redraw_stale:
            raise InputError(
                "page is 0 and redraw_stale is off, so there is nothing to draw; choose a page, or switch redraw_stale on"
            )
        with changing(woven) as altered:
            wanted = _wanted(altered, woven, page, seed, redraw_stale)
            notes = _foreign_notes(altered, wanted, hosted, woven)
            if wanted:
                with ready_to_draw(hosted):
                    _draw(hosted, altered, wanted, redraw_stale, notes, cls.hidden.unique_id)
            else:
                notes.append("no page is stale; nothing was drawn")
            images = [to_tensor(altered.image(image.id)) for image in altered.plan.images if image.id in altered.renderings]
            after = changed(altered, woven)
        return io.NodeOutput(after, images, ui={"weaver_notes": notes})


def _wanted(story: ChangedStory, before: WovenStory, page: int, seed: int, redraw_stale: bool) -> set[str]:
    """The ids of the images to draw; the page has its new seed in the story's plan. InputError when it is locked."""
    wanted = set()
    if page:
        segment = image_at(before, page)
        story.set_plan(with_seed(story.plan, segment.id, seed))
        wanted.add(segment.id)
    if redraw_stale:
        wanted |= {mark.segment_id for mark in story.stale()}
        wanted |= {user for image_id in tuple(wanted) for user in users_of(story, image_id)}
    return wanted - {image.id for image in story.plan.images if image.locked}


def _foreign_notes(story: ChangedStory, wanted: set[str], hosted: HostedModel, woven: WovenStory) -> list[str]:
    drawn = [story.renderings[image_id] for image_id in wanted if image_id in story.renderings]
    if all(rendering.visualizer == hosted.visualizer.fingerprint for rendering in drawn):
        return []
    before = woven.made_with or "another model"
    return [f"the story was drawn with {before}, not with {hosted.name} as it is now; the new page may look different"]


def _draw(
    hosted: HostedModel, story: ChangedStory, wanted: set[str], follow: bool, notes: list[str], node_id: str | None
) -> None:
    """Draws the wanted images into the story; an error says what failed."""
    order = [image.id for image in story.plan.images if image.id in wanted]
    pages = {image.id: number for number, image in enumerate(story.plan.images, 1)}
    steps = story.settings.steps or hosted.visualizer.capabilities.steps
    show, text = host.progress_bar(len(order) * steps), host.ProgressText(node_id)
    events = weave_plan(
        story.plan, hosted.visualizer, planner=hosted.planner, request=story.request, story=story, settings=story.settings,
        only=wanted, redraw_stale=follow, cancel=host.interrupted,
    )  # fmt: skip
    try:
        for event in events:
            if isinstance(event, StepProgress):
                show(order.index(event.segment_id) * steps + event.step, event.preview)
                text.show(f"drawing page {pages[event.segment_id]}", at_once=event.step == 1)
            elif isinstance(event, ImageReady) and event.segment_id in wanted:
                show((order.index(event.segment_id) + 1) * steps, event.image)
            elif isinstance(event, Warning):
                notes.append(event.message)
    except Cancelled:
        host.stop_if_interrupted()
        raise
    if story.failures:
        raise WeaverError(f"{'; '.join(story.failures.values())}. The story is as it was before; run again")
    text.show(f"{len(order)} page{'s' * (len(order) != 1)} drawn", at_once=True)
