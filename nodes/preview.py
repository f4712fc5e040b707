"""Preview Story: text and pictures side by side, in the node."""

from __future__ import annotations

from comfy_api.latest import io

from . import host
from .schema import CATEGORY, STORY, checked, fitted
from .values import WovenStory

NODE = "Preview Story"


class WeaverPreviewStory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverPreviewStory",
            display_name=NODE,
            category=CATEGORY,
            description="Shows a story as a picture book: text and pictures side by side.",
            search_aliases=["show story", "view story", "book view", "picture book"],
            is_output_node=True,
            inputs=[STORY.Input("story", tooltip="From Visualize Plan.")],
            outputs=[STORY.Output("shown", display_name="story", tooltip="The same story, to go on with.")],
        )

    @classmethod
    def execute(cls, story) -> io.NodeOutput:
        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        return io.NodeOutput(woven, ui={"weaver_story": [book(woven)]})


def book(story: WovenStory) -> dict:
    """What the page needs to show a story: title and pages; pictures by the names under which ComfyUI serves them."""
    pages = []
    for page in story.plan.pages():
        drawn = story.images.get(page.image.id) if page.image else None
        pages.append({
            "id": page.image.id if page.image else None,
            "texts": [text.text for text in page.texts],
            "prompt": page.image.prompt if page.image else None,
            "picture": None if drawn is None else host.view_of(drawn.path) | {"size": list(drawn.rendering.size)},
        })  # fmt: skip
    return {"title": story.plan.title, "language": story.plan.language, "pages": pages}
