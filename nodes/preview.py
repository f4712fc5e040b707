"""Preview Story: the book view in the node, where pages stream in while they are drawn and can be changed one by one."""

from __future__ import annotations

from comfy_api.latest import io

from .book import book
from .schema import CATEGORY, STORY, checked, fitted
from .seeds import seeds_before
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
            description="Shows a story as a picture book while it is written and drawn. Click a page to look closer; draw it "
            "anew, lock it, edit its dense prompt, or use it as a reference.",
            search_aliases=["show story", "view story", "book view", "picture book", "reroll page", "lock page"],
            is_output_node=True,  # ComfyUI then hands over the prompt too
            hidden=[io.Hidden.unique_id],
            inputs=[STORY.Input("story", tooltip="From Visualize Plan or Interleave; stories of other nodes are shown as well.")],
            outputs=[STORY.Output("shown", display_name="story", tooltip="The same story, to go on with.")],
        )

    @classmethod
    def execute(cls, story) -> io.NodeOutput:
        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        seeds = seeds_before(cls.hidden.prompt or {}, cls.hidden.unique_id)
        return io.NodeOutput(woven, ui={"weaver_story": [book(woven) | {"seeds": seeds}]})
