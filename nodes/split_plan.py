"""Split Plan: what a plan holds, page by page, as lists that ComfyUI's own nodes take."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from ..weaver_core.plan import Plan, image_seed
from ..weaver_core.visualizers import Capabilities
from .schema import CATEGORY, PLAN, checked, fitted
from .values import PlannedStory

NODE = "Split Plan"
_MAX_SIDE = 16384  # ComfyUI's own bound


class WeaverSplitPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def items(kind, name, tooltip):
            return kind.Output(name, display_name=name, tooltip=tooltip, is_output_list=True)

        return fitted(
            io.Schema,
            node_id="WeaverSplitPlan",
            display_name=NODE,
            category=CATEGORY,
            description="Gives the plan's texts, dense prompts, sizes and seeds as lists, one item per image, "
            "so that any sampler can draw the story.",
            search_aliases=["plan to prompts", "dense prompts", "story prompts", "prompt list"],
            inputs=[
                PLAN.Input("plan", tooltip="From Weaver Plan."),
                io.Int.Input("width", default=1024, min=16, max=_MAX_SIDE, step=16, optional=True,
                             tooltip="Width of images for which the plan says neither size nor aspect."),
                io.Int.Input("height", default=1024, min=16, max=_MAX_SIDE, step=16, optional=True,
                             tooltip="Height of images for which the plan says neither size nor aspect."),
            ],
            outputs=[
                items(io.String, "texts", "The text of each page."),
                items(io.String, "prompts", "The dense prompt of each image."),
                items(io.Int, "widths", "The width of each image in pixels."),
                items(io.Int, "heights", "The height of each image in pixels."),
                items(io.Int, "seeds", "The seed of each image: its own, or made from the story's seed."),
                io.Int.Output("count", display_name="count", tooltip="How many images the plan has."),
            ],
        )

    @classmethod
    def execute(cls, plan, width: int = 1024, height: int = 1024) -> io.NodeOutput:
        planned = checked(plan, PlannedStory, NODE, "Weaver Plan")
        images = planned.plan.images
        if not images:
            raise InputError("the plan has no images, so there is nothing to split; ask for at least one image in Weaver Plan")
        request = planned.request
        grid = Capabilities(max_references=0, default_size=(width, height), min_side=16, max_side=_MAX_SIDE)
        sizes = [grid.fit_size(*request.size_and_aspect(image)) for image in images]
        seeds = [image_seed(request.seed, image.id) if image.seed == "auto" else image.seed for image in images]
        return io.NodeOutput(
            page_texts(planned.plan),
            [image.prompt for image in images],
            [size[0] for size in sizes],
            [size[1] for size in sizes],
            seeds,
            len(images),
        )


def page_texts(plan: Plan) -> list[str]:
    """One text per image, in the order of the images; text without an image of its own joins a neighbour's."""
    texts: list[str] = []
    waiting: list[str] = []
    for page in plan.pages():
        words = [text.text for text in page.texts]
        if page.image is not None:
            texts.append("\n".join(waiting + words))
            waiting = []
        elif texts:
            texts[-1] = "\n".join([texts[-1], *words])
        else:
            waiting += words
    return texts
