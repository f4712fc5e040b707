"""Pick Image: one page of a story by its number, for ComfyUI's own nodes."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from ..weaver_core.plan import ImageSegment
from .pictures import to_tensor
from .schema import CATEGORY, STORY, checked, fitted
from .split_plan import page_texts
from .values import DrawnImage, WovenStory

NODE = "Pick Image"
MAX_PAGE = 10_000  # as many segments as a plan may have


class WeaverPickImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverPickImage",
            display_name=NODE,
            category=CATEGORY,
            description="Takes one page out of a story: its image, its text, the dense prompt and the seed it was drawn with.",
            search_aliases=["get page", "story image", "select page", "page by number"],
            inputs=[
                STORY.Input("story", tooltip="From Visualize Plan or Load Story."),
                io.Int.Input("page", default=1, min=1, max=MAX_PAGE,
                             tooltip="Which image, counted from 1 in the order of the story."),
            ],
            outputs=[
                io.Image.Output("image", display_name="image", tooltip="The image."),
                io.String.Output("text", display_name="text", tooltip="The text of the page."),
                io.String.Output("prompt", display_name="prompt", tooltip="The dense prompt of the image."),
                io.Int.Output("seed", display_name="seed", tooltip="The seed that the image was drawn with."),
            ],
        )

    @classmethod
    def execute(cls, story, page: int = 1) -> io.NodeOutput:
        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        segment = image_at(woven, page)
        drawn = drawn_image(woven, page)
        text = page_texts(woven.plan)[page - 1]
        return io.NodeOutput(to_tensor(drawn.read()), text, segment.prompt, drawn.rendering.seed_used)


def image_at(woven: WovenStory, page: int) -> ImageSegment:
    """The image segment with this number, from 1. InputError when there is none."""
    images = woven.plan.images
    if not images:
        raise InputError("the story has no images; ask for at least one in Weaver Plan, or write <imagine>...</imagine>")
    if not 1 <= page <= len(images):
        there = f"{len(images)} images; choose 1 to {len(images)}" if len(images) > 1 else "one image; choose 1"
        raise InputError(f"there is no image {page}: the story has {there}")
    return images[page - 1]


def drawn_image(woven: WovenStory, page: int) -> DrawnImage:
    """The drawn image with this number. InputError when there is none."""
    segment = image_at(woven, page)
    if segment.id not in woven.images:
        raise InputError(
            f"image {page} ({segment.id}) of the story is not drawn; draw the story to its end with Visualize Plan"
        )
    return woven.images[segment.id]
