"""Visualize Plan: the visualizer draws every image of a plan; what is drawn stays and is not drawn again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from comfy_api.latest import io

from ..weaver_core.errors import Cancelled, InputError, StoryError, WeaverError
from ..weaver_core.events import Finished, ImageReady, StepProgress, Warning
from ..weaver_core.plan import Plan
from ..weaver_core.request import RenderSettings, Request
from ..weaver_core.segments import MAX_SEED
from ..weaver_core.story import StoryFolder, fresh_folder, slug
from ..weaver_core.weave import weave_plan
from . import host
from .pictures import reference_images, to_tensor
from .schema import CATEGORY, MODEL, PLAN, STORY, checked, fitted, single
from .values import DrawnImage, HostedModel, PlannedStory, WovenStory

NODE = "Visualize Plan"


class WeaverVisualizePlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverVisualizePlan",
            display_name=NODE,
            category=CATEGORY,
            description="Draws every image of a plan, with the same hero on every page. Finished pages are kept: "
            "after an interrupt, and when one page changes, only what is missing is drawn.",
            search_aliases=["draw story", "render plan", "story images", "consistent character"],
            is_input_list=True,  # references of different sizes come as a list
            hidden=[io.Hidden.unique_id],
            inputs=[
                MODEL.Input("weaver_model", tooltip="From Load Weaver Model; the same that wrote the plan."),
                PLAN.Input("plan", tooltip="From Weaver Plan."),
                io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True,
                             tooltip="The same seed, plan and settings draw the same images."),
                io.Int.Input("steps", default=0, min=0, max=200,
                             tooltip="Denoising steps per image. 0 = what the model was made for."),
                io.Float.Input("guidance", default=0.0, min=0.0, max=20.0, step=0.1, round=0.01,
                               tooltip="How strongly the dense prompt is followed. 0 = the model's own value, 1 = no guidance."),
                io.Float.Input("reference_guidance", default=0.0, min=0.0, max=20.0, step=0.1, round=0.01,
                               tooltip="How strongly the references are followed. 0 = the model's own value, 1 = no guidance."),
                io.Image.Input("references", optional=True,
                               tooltip="Pictures of your hero to be consistent with, besides those that Weaver Plan was given: "
                               "an IMAGE, a batch, or a list."),
                fitted(io.Boolean.Input, "redraw_stale", default=False, optional=True, advanced=True,
                       tooltip="When a page has changed, also draw those pages anew that used it as a reference."),
            ],
            outputs=[
                STORY.Output("story", display_name="story", tooltip="Plan and images, for Preview Story and Save Story."),
                io.Image.Output("images", display_name="images", is_output_list=True,
                                tooltip="The images in the order of the story, as a list."),
            ],
        )

    @classmethod
    def execute(
        cls, weaver_model, plan, seed, steps, guidance, reference_guidance, references=None, redraw_stale=None
    ) -> io.NodeOutput:
        hosted = checked(single(weaver_model, "weaver_model", NODE), HostedModel, NODE, "Load Weaver Model")
        planned = checked(single(plan, "plan", NODE), PlannedStory, NODE, "Weaver Plan")
        if not planned.plan.images:
            raise InputError("the plan has no images, so there is nothing to draw; ask for at least one image in Weaver Plan")
        pictures, notes = reference_images(references, NODE, "reference")
        request, changed = replace(
            planned.request, images=planned.request.images + pictures, seed=single(seed, "seed", NODE)
        ).validated()
        notes += changed
        settings = RenderSettings(
            steps=single(steps, "steps", NODE) or None,
            guidance=single(guidance, "guidance", NODE) or None,
            reference_guidance=single(reference_guidance, "reference_guidance", NODE) or None,
        )
        follow = bool(single(redraw_stale or [], "redraw_stale", NODE, otherwise=False))
        host.bring_to_device(hosted.patcher)
        draft = _open_draft(hosted, request, settings)
        with draft:
            images = _draw(hosted, replace(planned, request=request), draft, follow, notes, cls.hidden.unique_id)
        story = WovenStory(
            plan=planned.plan, request=request, settings=settings, made_with=hosted.name,
            images={image_id: drawn for image_id, (drawn, _) in images.items()},
        )  # fmt: skip
        tensors = [tensor for _, tensor in images.values()]
        return io.NodeOutput(story, tensors, ui={"weaver_notes": notes})


def _draw(hosted: HostedModel, planned: PlannedStory, draft: StoryFolder, follow: bool, notes: list[str], node_id: str | None):
    """Segment id -> (DrawnImage, IMAGE tensor), in the order of the plan; all of them, or an error that says what is kept."""
    numbers = {image.id: number for number, image in enumerate(planned.plan.images)}
    steps = draft.settings.steps or hosted.visualizer.capabilities.steps
    show, text = host.progress_bar(len(numbers) * steps), host.ProgressText(node_id)
    missing: tuple[str, ...] = ()
    images = {}
    events = weave_plan(
        planned.plan, hosted.visualizer, planner=hosted.planner, request=planned.request, story=draft, settings=draft.settings,
        redraw_stale=follow, cancel=host.interrupted,
    )  # fmt: skip
    try:
        for event in events:
            if isinstance(event, StepProgress):
                number = numbers[event.segment_id]
                show(number * steps + event.step, event.preview)
                text.show(f"drawing page {number + 1} of {len(numbers)}", at_once=event.step == 1)
            elif isinstance(event, ImageReady):
                images[event.segment_id] = (DrawnImage(rendering=event.rendering, path=event.path), to_tensor(event.image))
                show((event.index + 1) * steps, event.image)
            elif isinstance(event, Warning):
                notes.append(event.message)
            elif isinstance(event, Finished):
                missing = event.missing
    except Cancelled:
        host.stop_if_interrupted()
        raise
    if missing:
        reasons = "; ".join(draft.failures.get(image_id, image_id) for image_id in missing)
        raise WeaverError(
            f"{len(missing)} of {len(numbers)} images could not be drawn: {reasons}. "
            f"The other {len(images)} are kept: run again to draw only what is missing"
        )
    text.show(f"{len(numbers)} page{'s' * (len(numbers) != 1)} drawn", at_once=True)
    return images


def _open_draft(hosted: HostedModel, request: Request, settings: RenderSettings) -> StoryFolder:
    """The folder where the pages of this story are kept: the one that was begun, or a new one.

    One folder for everything but the plan: a changed plan finds its unchanged pages there, also after a restart.
    """
    facts = [
        request.prompt, request.num_images, request.size, request.aspect, request.language, request.seed,
        Plan(cast=request.cast).to_json()["cast"], [[picture.name, picture.key] for picture in request.images],
        [settings.steps, settings.guidance, settings.reference_guidance], hosted.visualizer.fingerprint,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:10]
    name = f"{slug(request.prompt)[:32].strip('-')}-{digest}"
    path: Path = host.drafts_folder() / name
    if (path / "story.jsonl").is_file():
        try:
            return StoryFolder.open(path)
        except StoryError:
            path = fresh_folder(host.drafts_folder(), name)  # damaged, or another program is drawing in it
    return StoryFolder.create(path, request, settings=settings, made_with=hosted.name)
