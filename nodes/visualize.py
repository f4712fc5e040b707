"""Visualize Plan: the visualizer draws every image of a plan; what is drawn stays and is not drawn again."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..weaver_core.critic import Critic
from ..weaver_core.errors import Cancelled, InputError, WeaverError
from ..weaver_core.events import Finished, ImageJudged, ImageReady, StepProgress, Warning
from ..weaver_core.plan import Plan
from ..weaver_core.redraw import critic_sentence
from ..weaver_core.request import RenderSettings, Request
from ..weaver_core.segments import MAX_SEED
from ..weaver_core.story import StoryFolder
from ..weaver_core.weave import weave_plan
from . import host
from .critic import CRITIC, CriticWish, critic_beside
from .drafts import bring_drawn_pages, bring_pages_locked_in_plan, open_draft
from .live_book import LiveBook
from .load_diffusers import ready_to_draw
from .page_changes import bring_locked_pages, changed_plan, page_changes_are_usable, page_changes_inputs
from .pictures import reference_images, to_tensor
from .schema import CATEGORY, MODEL, PLAN, REFERENCES, STORY, checked, fitted, single
from .values import DrawnImage, HostedModel, PlannedStory, ReferenceChoosing, WovenStory

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
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                MODEL.Input("weaver_model", tooltip="From Load Weaver Model, the same that wrote the plan; or from Load Diffusers Visualizer."),
                PLAN.Input("plan", tooltip="From Weaver Plan."),
                io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True,
                             tooltip="The same seed, plan and settings draw the same images."),
                *drawing_inputs(),
                io.Image.Input("references", optional=True,
                               tooltip="Pictures of your hero to be consistent with, besides those that Weaver Plan was given: "
                               "an IMAGE, a batch, or a list."),
                *page_changes_inputs(),
                REFERENCES.Input("reference_choice", optional=True,
                                 tooltip="From References: what pages are drawn from where the plan does not say."),
                STORY.Input("story_so_far", optional=True,
                            tooltip="From Load Story: the drawn pages of a story that the plan goes on with. They stay as they are."),
                check_images_input(),
                CRITIC.Input("critic", optional=True,
                             tooltip="From Critic: a model that looks at every image, and has bad ones drawn again."),
            ],
            outputs=[
                STORY.Output("story", display_name="story", tooltip="Plan and images, for Preview Story and Save Story."),
                io.Image.Output("images", display_name="images", is_output_list=True,
                                tooltip="The images in the order of the story, as a list."),
            ],
        )

    @classmethod
    def validate_inputs(cls, page_changes=None):
        return page_changes_are_usable(page_changes)

    @classmethod
    def execute(
        cls, weaver_model, plan, seed, steps, guidance, reference_guidance, references=None, redraw_stale=None, page_changes=None,
        reference_choice=None, story_so_far=None, check_images=None, critic=None,
    ) -> io.NodeOutput:  # fmt: skip
        hosted = checked(single(weaver_model, "weaver_model", NODE), HostedModel, NODE, "Load Weaver Model")
        planned = checked(single(plan, "plan", NODE), PlannedStory, NODE, "Weaver Plan")
        if not planned.plan.images:
            raise InputError("the plan has no images, so there is nothing to draw; ask for at least one image in Weaver Plan")
        pictures, notes = reference_images(references, NODE, "reference")
        request, changed = replace(
            planned.request, images=planned.request.images + pictures, seed=single(seed, "seed", NODE)
        ).validated()
        notes += changed
        settings = read_settings(NODE, steps, guidance, reference_guidance, check_images)
        policy, settings = read_reference_choice(NODE, reference_choice, settings)
        before = single(story_so_far or [], "story_so_far", NODE)
        story_plan, changes = changed_plan(planned.plan, single(page_changes or [], "page_changes", NODE, otherwise=""), notes)
        wish = single(critic or [], "critic", NODE)
        wish = wish if wish is None else checked(wish, CriticWish, NODE, "Critic")
        follow = bool(single(redraw_stale or [], "redraw_stale", NODE, otherwise=False))
        drafts = {"visualizer": hosted.visualizer.fingerprint, "made_with": hosted.name}
        with ready_to_draw(hosted), open_draft(request, settings, **drafts) as draft:
            if before is not None:
                bring_drawn_pages(draft, story_plan, checked(before, WovenStory, NODE, "Load Story"))
            bring_pages_locked_in_plan(draft, story_plan)
            bring_locked_pages(draft, changes, notes)
            with critic_beside(wish, hosted.patcher) as judge:
                story, tensors = draw_plan(
                    hosted, story_plan, request, draft, follow, notes, cls.hidden, settings=settings, policy=policy, critic=judge
                )
        return io.NodeOutput(story, tensors, ui={"weaver_notes": notes})


# ---- what the nodes that draw have in common


def drawing_inputs() -> list:
    """How images are drawn."""
    return [
        io.Int.Input("steps", default=0, min=0, max=200,
                     tooltip="Denoising steps per image. 0 = what the model was made for."),
        io.Float.Input("guidance", default=0.0, min=0.0, max=20.0, step=0.1, round=0.01,
                       tooltip="How strongly the dense prompt is followed. 0 = the model's own value, 1 = no guidance."),
        io.Float.Input("reference_guidance", default=0.0, min=0.0, max=20.0, step=0.1, round=0.01,
                       tooltip="How strongly the references are followed. 0 = the model's own value, 1 = no guidance."),
    ]  # fmt: skip


def check_images_input():
    return fitted(io.Boolean.Input, "check_images", default=True, optional=True, advanced=True,
                  tooltip="Draw a page that is blank, a grid of panels or a copy of another page once more, and mark it when that "
                  "does not help.")  # fmt: skip


def read_settings(
    node: str, steps: list, guidance: list, reference_guidance: list, check_images: list | None = None
) -> RenderSettings:
    """The settings in the inputs of a node that takes lists; 0 means the visualizer's own."""
    return RenderSettings(
        steps=single(steps, "steps", node) or None,
        guidance=single(guidance, "guidance", node) or None,
        reference_guidance=single(reference_guidance, "reference_guidance", node) or None,
        check_images=bool(single(check_images or [], "check_images", node, otherwise=True)),
    )


def read_reference_choice(node: str, given: list | None, settings: RenderSettings) -> tuple[str, RenderSettings]:
    """The policy of a References node ("auto" without one), and the settings with its budget."""
    choice = single(given or [], "reference_choice", node)
    if choice is None:
        return "auto", settings
    choice = checked(choice, ReferenceChoosing, node, "References")
    return choice.policy, replace(
        settings, max_references=choice.max_references, max_reference_tokens=choice.max_reference_tokens
    )


def draw_plan(
    hosted: HostedModel, plan: Plan, request: Request, draft: StoryFolder, follow: bool, notes: list[str], hidden, *,
    settings: RenderSettings | None = None, policy: str | None = None, critic: Critic | None = None,
) -> tuple[WovenStory, list]:
    """The story with all its images, and these as IMAGE tensors in the order of the plan; or an error that says what is kept."""
    numbers = {image.id: number for number, image in enumerate(plan.images)}
    steps = draft.settings.steps or hosted.visualizer.capabilities.steps
    show, text, live = host.progress_bar(len(numbers) * steps), host.ProgressText(hidden.unique_id), LiveBook(hidden)
    images, tensors = {}, []
    events = weave_plan(
        plan, hosted.visualizer, planner=hosted.planner, request=request, story=draft, settings=settings or draft.settings,
        policy=policy, critic=critic,
        redraw_stale=follow, cancel=host.interrupted,
    )  # fmt: skip
    try:
        for event in events:
            live.hear(event)
            if isinstance(event, StepProgress):
                number = numbers[event.segment_id]
                show(number * steps + event.step, event.preview)
                text.show(f"drawing page {number + 1} of {len(numbers)}", at_once=event.step == 1)
            elif isinstance(event, ImageJudged):
                again = "; it is drawn once more" if event.redraws else ""
                notes.append(critic_sentence(event.segment_id, event.verdict) + again)
                text.show(notes[-1], at_once=True)
            elif isinstance(event, ImageReady):
                images[event.segment_id] = DrawnImage(rendering=event.rendering, path=event.path)
                tensors.append(to_tensor(event.image))
                show((event.index + 1) * steps, event.image)
            elif isinstance(event, Warning):
                notes.append(event.message)
            elif isinstance(event, Finished):
                check_all_drawn(draft, event.missing, len(numbers))
    except Cancelled:
        host.stop_if_interrupted()
        raise
    finally:
        live.close()
    text.show(f"{len(numbers)} page{'s' * (len(numbers) != 1)} drawn", at_once=True)
    story = WovenStory(
        plan=plan, request=request, settings=settings or draft.settings, made_with=hosted.name, images=images,
        policy=policy or draft.policy,
    )  # fmt: skip
    return story, tensors


def check_all_drawn(draft: StoryFolder, missing: tuple[str, ...], num_images: int) -> None:
    """WeaverError that says why images are missing."""
    if missing:
        reasons = "; ".join(draft.failures.get(image_id, image_id) for image_id in missing)
        raise WeaverError(
            f"{len(missing)} of {num_images} images could not be drawn: {reasons}. "
            f"The other {num_images - len(missing)} are kept: run again to draw only what is missing"
        )
