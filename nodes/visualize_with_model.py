"""Visualize with Your Model: expands a plan into ComfyUI's own nodes for the image model that is loaded already."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from ..weaver_core.plan import Plan
from ..weaver_core.references import ReferenceChoice
from ..weaver_core.rendering import Rendering
from ..weaver_core.request import ReferenceImage, RenderSettings, Request, reference_name
from ..weaver_core.segments import MAX_SEED, CastMember
from ..weaver_core.story import StoryFolder
from ..weaver_core.visualizers.graph import Link, ModelFacts, families
from ..weaver_core.visualizers.graph.detect import digest_before, files_before, find_family, is_link
from ..weaver_core.visualizers.graph.nodes import NodeGraph, check_needs, fitted_graph
from ..weaver_core.visualizers.graph.shots import described, emit_pages, overridden, pages_to_draw, visualizer_of
from . import host
from .critic import CRITIC, CriticWish
from .drafts import bring_drawn_pages, bring_pages_locked_in_plan, open_draft, woven
from .live_book import LiveBook
from .page_changes import bring_locked_pages, changed_plan, page_changes_are_usable, page_changes_inputs
from .pictures import reference_images, to_tensor
from .schema import CATEGORY, PLAN, STORY, checked, fitted, single
from .values import PlannedStory, WovenStory
from .visualize import check_images_input

NODE = "Visualize with Your Model"
KEEP_NODE = "WeaverKeepPage"
_MAX_SIDE = 2048


class WeaverVisualizeWithModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverVisualizeWithModel",
            display_name=NODE,
            category=CATEGORY,
            description="Draws every image of a plan with the image model you have loaded, such as Qwen-Image-Edit, Flux.2 Klein or "
            "SDXL. Families that take references draw the same hero on every page. Finished pages are kept.",
            search_aliases=["qwen image edit story", "flux klein story", "consistent character", "render plan", "sdxl story"],
            is_input_list=True,  # references of different sizes come as a list
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.dynprompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.Model.Input("model", tooltip="The image model, with its LoRAs: from Load Diffusion Model or Load Checkpoint."),
                io.Clip.Input("clip", tooltip="The text encoder that belongs to the model."),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
                PLAN.Input("plan", tooltip="From Weaver Plan."),
                io.Combo.Input("family", options=["auto", *families()], default="auto",
                               tooltip="Which kind of model it is. auto tells it from the model and the names of its files."),
                io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True,
                             tooltip="The same seed, plan, model and settings draw the same images."),
                io.Int.Input("steps", default=0, min=0, max=200,
                             tooltip="Steps per image. 0 = as the family wants, fewer for Lightning and Turbo models."),
                io.Float.Input("cfg", default=0.0, min=0.0, max=30.0, step=0.1, round=0.01,
                               tooltip="How strongly the dense prompt is followed. 0 = as the family wants. "
                               "For Flux models without true guidance it is their built-in guidance."),
                fitted(io.Combo.Input, "sampler_name", options=["auto", *host.sampler_names()], default="auto", advanced=True,
                       tooltip="auto = as the family wants."),
                fitted(io.Combo.Input, "scheduler", options=["auto", *host.scheduler_names()], default="auto", advanced=True,
                       tooltip="auto = as the family wants. Flux.2 always has its own."),
                io.Int.Input("width", default=0, min=0, max=_MAX_SIDE, step=16,
                             tooltip="Width of images for which the plan says neither size nor aspect. 0 = as the family wants."),
                io.Int.Input("height", default=0, min=0, max=_MAX_SIDE, step=16,
                             tooltip="Height of images for which the plan says neither size nor aspect. 0 = as the family wants."),
                io.Image.Input("references", optional=True,
                               tooltip="Character sheets and other pictures to be consistent with: an IMAGE, a batch, or a list."),
                io.String.Input("reference_names", default="", optional=True,
                                tooltip="Whom the references show, in their order, as the plan calls them: Robin, Mia"),
                *page_changes_inputs(),
                check_images_input(),
                CRITIC.Input("critic", optional=True,
                             tooltip="From Critic: a model that looks at every page and has it drawn again when it is wrong."),
                STORY.Input("story_so_far", optional=True,
                            tooltip="From Load Story: the drawn pages of a story that the plan goes on with. They stay as they are."),
            ],
            outputs=[
                STORY.Output("story", display_name="story", tooltip="Plan and images, for Preview Story and Save Story."),
                io.Image.Output("images", display_name="images", is_output_list=True,
                                tooltip="The images in the order of the story, as a list."),
                PLAN.Output("drawn_plan", display_name="plan", tooltip="The plan as it was drawn, for Split Plan."),
            ],
        )

    @classmethod
    def validate_inputs(cls, width=None, height=None, page_changes=None):
        sides = [value[0] if isinstance(value, list) and value else value for value in (width, height)]
        if any(isinstance(side, int) and side != 0 and not 64 <= side <= _MAX_SIDE for side in sides):
            return f"width and height must lie in 64..{_MAX_SIDE}, or be 0 for the size that the model family wants"
        return page_changes_are_usable(page_changes)

    @classmethod
    def execute(
        cls, model, clip, vae, plan, family, seed, steps, cfg, sampler_name, scheduler, width, height,
        references=None, reference_names=None, redraw_stale=None, page_changes=None, check_images=None, critic=None,
        story_so_far=None,
    ) -> io.NodeOutput:  # fmt: skip
        planned = checked(single(plan, "plan", NODE), PlannedStory, NODE, "Weaver Plan")
        if not planned.plan.images:
            raise InputError("the plan has no images, so there is nothing to draw; ask for at least one image in Weaver Plan")
        wish = single(critic or [], "critic", NODE)
        wish = wish if wish is None else checked(wish, CriticWish, NODE, "Critic")
        nodes = cls.hidden.dynprompt.get_node
        links = _links(nodes(cls.hidden.unique_id), model=model, clip=clip, vae=vae)
        kind, config = host.model_kind(single(model, "model", NODE))
        facts = ModelFacts(kind=kind, files=files_before(nodes, links["model"]), config=config)
        chosen, note = find_family(facts, single(family, "family", NODE))
        check_needs(chosen, host.node_classes([need.node for need in chosen.needs]), host.version())
        sampling = overridden(
            chosen.sampling(facts), steps=single(steps, "steps", NODE), cfg=single(cfg, "cfg", NODE),
            sampler=single(sampler_name, "sampler_name", NODE), scheduler=single(scheduler, "scheduler", NODE),
        )  # fmt: skip
        pictures, notes = reference_images(references, NODE, "reference")
        request = _sized(planned.request, single(width, "width", NODE), single(height, "height", NODE))
        request, story_plan, told = _cast_by(
            replace(request, seed=single(seed, "seed", NODE)), planned.plan, pictures,
            single(reference_names or [], "reference_names", NODE, otherwise=""),
        )  # fmt: skip
        notes = [described(chosen, sampling), *filter(None, [note]), *notes, *told]
        if request.images and not chosen.capabilities.max_references:
            notes.append(f"{chosen.title} cannot use references; the looks of the cast go into the prompts instead")
        story_plan, changes = changed_plan(story_plan, single(page_changes or [], "page_changes", NODE, otherwise=""), notes)
        weights = digest_before(nodes, links["model"], links["clip"], links["vae"], stamp=host.model_file_stamp)
        visualizer = visualizer_of(chosen, sampling, weights)
        settings = RenderSettings(steps=single(steps, "steps", NODE) or None, guidance=single(cfg, "cfg", NODE) or None)
        made_with = f"{chosen.title} ({facts.files[0]})" if facts.files else chosen.title
        before = single(story_so_far or [], "story_so_far", NODE)
        follow = bool(single(redraw_stale or [], "redraw_stale", NODE, otherwise=False))
        checks = bool(single(check_images or [], "check_images", NODE, otherwise=True))

        def wants_look(kept: Rendering) -> bool:
            return (checks and kept.lacks_redraw) or (wish is not None and not wish.is_done_with(kept))

        # Its pages are kept one by one, each by a node that finds the plan in the draft: two such nodes must not share one.
        with open_draft(request, settings, visualizer=visualizer, made_with=made_with, told=(cls.hidden.unique_id,)) as draft:
            draft.set_plan(story_plan)
            if before is not None:
                bring_drawn_pages(draft, story_plan, checked(before, WovenStory, NODE, "Load Story"))
            bring_pages_locked_in_plan(draft, story_plan)
            bring_locked_pages(draft, changes, notes)
            LiveBook(cls.hidden).hear_draft(draft)
            pages, more = pages_to_draw(
                story_plan, request, draft, chosen, sampling, visualizer, redraw_stale=follow, wants_look=wants_look
            )
            notes += more
            drawn_plan = PlannedStory(plan=story_plan, request=request)
            if not pages:
                story = woven(draft)
                images = [to_tensor(draft.image(image_id)) for image_id in story.images]
                return io.NodeOutput(story, images, drawn_plan, ui={"weaver_notes": notes})
            graph = NodeGraph(host.graph_prefix())
            last = emit_pages(
                graph, chosen, sampling, pages, **links, file_of=lambda choice: _file_of(draft, request, choice),
                keep_node=KEEP_NODE, draft=draft.folder.name, notes=notes,
                checks=checks,
                critic=nodes(cls.hidden.unique_id)["inputs"]["critic"] if wish is not None else None,
            )  # fmt: skip
        emitted = graph.finalize()
        expansion = fitted_graph(emitted, host.node_classes({node["class_type"] for node in emitted.values()}))
        return io.NodeOutput([last[0], 1], [last[0], 2], drawn_plan, expand=expansion)


def _links(node: dict, **values) -> dict[str, Link]:
    """The links at the node's own inputs: the expansion takes models by these, so that ComfyUI can tell what has changed."""
    for name, value in values.items():
        if not is_link(node["inputs"].get(name)) or single(value, name, NODE) is None:
            raise InputError(f"{NODE} got no {name.upper()}; connect the loader of your image model to {name!r}")
    return {name: node["inputs"][name] for name in values}


def _sized(request: Request, width: int, height: int) -> Request:
    if bool(width) != bool(height):
        raise InputError(f"width is {width} and height is {height}; set both, or leave both 0 for the size that the family wants")
    return replace(request, size=(width, height), aspect=None) if width else request


def _cast_by(
    request: Request, plan: Plan, pictures: tuple[ReferenceImage, ...], names: str
) -> tuple[Request, Plan, list[str]]:
    """Request and plan with the references, each bound to the member of the cast that it shows; and sentences to tell."""
    shown = [" ".join(name.split()) for name in names.split(",") if name.strip()]
    if len(shown) > len(pictures):
        raise InputError(
            f"reference_names has {len(shown)} names ({', '.join(shown)}) for {len(pictures)} references; "
            "connect a picture for each"
        )
    named = tuple(
        replace(picture, name=reference_name(shown[i])) if i < len(shown) else picture for i, picture in enumerate(pictures)
    )
    request, notes = replace(request, images=request.images + named).validated()
    members = {member.name: member for member in plan.cast}
    first = len(request.images) - len(pictures)
    for name, picture in zip(shown, request.images[first:], strict=False):
        member = members.get(name) or CastMember(name=name)
        members[name] = replace(member, references=(*member.references, picture.name))
    return request, replace(plan, cast=tuple(members.values())), list(notes)


def _file_of(draft: StoryFolder, request: Request, choice: ReferenceChoice) -> str:
    """What LoadImage calls a picture that lies in the draft."""
    if choice.kind == "image":
        return host.output_file(draft.path(choice.source))
    picture = next(picture for picture in request.images if picture.name == choice.source)
    return host.output_file(draft.folder / "references" / f"{picture.name}-{picture.key[:12]}.png")  # where the story put it
