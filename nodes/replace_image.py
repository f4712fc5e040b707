"""Replace Image: any picture of ComfyUI's becomes a page of a story."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.changes import put_picture
from ..weaver_core.errors import InputError
from .changes import changed, changing, stale_notes
from .pick_image import MAX_PAGE, image_at
from .pictures import reference_images
from .schema import CATEGORY, STORY, checked, fitted
from .values import WovenStory

NODE = "Replace Image"


class WeaverReplaceImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverReplaceImage",
            display_name=NODE,
            category=CATEGORY,
            description="Puts any image onto a page of a story: one that you painted, upscaled, or made with another model. "
            "Pages that used the old image as a reference are marked as stale.",
            search_aliases=["swap image", "put image into story", "set page", "insert image", "upscale page"],
            inputs=[
                STORY.Input("story", tooltip="From Visualize Plan or Load Story."),
                io.Image.Input("image", tooltip="The new image of the page, in any size."),
                io.Int.Input("page", default=1, min=1, max=MAX_PAGE,
                             tooltip="Which image, counted from 1 in the order of the story."),
            ],
            outputs=[
                STORY.Output("changed", display_name="story", tooltip="The story with the new image. Its page is locked."),
                io.String.Output("stale", display_name="stale",
                                 tooltip="The numbers of the pages that are stale now, such as '2, 4'. Empty when none is."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, story, image, page: int = 1) -> io.NodeOutput:
        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        segment = image_at(woven, page)
        pictures, notes = reference_images([image], NODE, "image")
        if len(pictures) != 1:
            raise InputError(
                f"{NODE} got {len(pictures)} images for one page; take one of them, with ImageFromBatch for instance"
            )
        with changing(woven) as altered:
            put_picture(altered, segment.id, pictures[0].image)
            notes += stale_notes(altered)
            stale = {mark.segment_id for mark in altered.stale()}
            after = changed(altered, woven)
        numbers = [str(number) for number, other in enumerate(after.plan.images, 1) if other.id in stale]
        return io.NodeOutput(after, ", ".join(numbers), ui={"weaver_notes": notes})
