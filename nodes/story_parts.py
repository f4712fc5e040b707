"""Story to Images and Text: everything that a story holds, as core nodes take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from ..weaver_core.plan import Plan
from .pictures import to_tensor
from .schema import CATEGORY, PLAN, STORY, checked, fitted
from .split_plan import page_texts
from .values import PlannedStory, WovenStory

if TYPE_CHECKING:
    from PIL.Image import Image

NODE = "Story to Images and Text"


class WeaverStoryParts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverStoryParts",
            display_name=NODE,
            category=CATEGORY,
            description="Gives a story's images as a list and as a batch of equal sizes, and its text: page by page, whole, "
            "and as markup.",
            search_aliases=["story to image batch", "story text", "unpack story", "story images", "story to plan"],
            inputs=[STORY.Input("story", tooltip="From Visualize Plan or Load Story.")],
            outputs=[
                io.Image.Output("images", display_name="images", is_output_list=True,
                                tooltip="The images in order, as a list, each in its own size."),
                io.Image.Output("batch", display_name="batch",
                                tooltip="The images as one batch in the size of the first; others are fitted on white."),
                io.String.Output("texts", display_name="texts", is_output_list=True,
                                 tooltip="The text of each page, as a list as long as the images."),
                io.String.Output("text", display_name="text",
                                 tooltip="Title and text of the whole story, without the prompts."),
                io.String.Output("markup", display_name="markup", tooltip="The plan as text, for Write Plan."),
                PLAN.Output("plan", display_name="plan", tooltip="The plan of the story, to draw it anew or to split it."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, story) -> io.NodeOutput:
        import torch

        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        plan = woven.plan
        if not plan.images:
            raise InputError("the story has no images; ask for at least one in Weaver Plan, or write <imagine>...</imagine>")
        if undrawn := [segment.id for segment in plan.images if segment.id not in woven.images]:
            raise InputError(f"{', '.join(undrawn)} of the story are not drawn; draw the story to its end with Visualize Plan")
        images = [woven.images[segment.id].read() for segment in plan.images]
        size = images[0].size
        batch = torch.cat([to_tensor(fitted_to(image, size)) for image in images])
        others = sum(image.size != size for image in images)
        notes = []
        if others:
            notes.append(f"{others} of {len(images)} images have another size than the first; the batch has them on white")
        return io.NodeOutput(
            [to_tensor(image) for image in images],
            batch,
            page_texts(plan),
            whole_text(plan),
            plan.to_markup(),
            PlannedStory(plan=plan, request=woven.request),
            ui={"weaver_notes": notes},
        )


def fitted_to(image: Image, size: tuple[int, int]) -> Image:
    """The image in this size, whole, on white where its shape differs; itself when the size is right."""
    from PIL import Image, ImageOps

    return image if image.size == size else ImageOps.pad(image, size, method=Image.Resampling.LANCZOS, color="white")


def whole_text(plan: Plan) -> str:
    """Title and texts, with empty lines between."""
    return "\n\n".join([*filter(None, [plan.title]), *(text.text for text in plan.texts)])
