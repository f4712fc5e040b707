"""Preview Story: the book view in the node, where pages stream in while they are drawn and can be changed one by one."""

from __future__ import annotations

from comfy_api.latest import io

from .book import book
from .schema import CATEGORY, STORY, checked, fitted
from .values import WovenStory

NODE = "Preview Story"
_SEEDS = ("seed", "noise_seed")


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


def seeds_before(prompt: dict, node_id: str | None) -> list[list]:
    """[node, input, seed] of every node that this one depends on: with these the same story comes again, and one page can change.

    Their widgets may show other seeds by then, because the page rolls them after every run.
    """
    found, waiting, seen = [], [node_id], set()
    while waiting:
        current = waiting.pop()
        inputs = prompt.get(current, {}).get("inputs", {})
        if current in seen:
            continue
        seen.add(current)
        for name, value in inputs.items():
            if isinstance(value, list) and len(value) == 2:
                waiting.append(str(value[0]))
            elif name in _SEEDS and isinstance(value, int) and not isinstance(value, bool):
                found.append([current, name, value])
    return found
