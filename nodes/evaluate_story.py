"""Evaluate Story: what can be said of a story without a judge, in numbers and words."""

from __future__ import annotations

import tempfile
from pathlib import Path

from comfy_api.latest import io

from . import host
from .schema import CATEGORY, STORY, checked, fitted
from .values import WovenStory

NODE = "Evaluate Story"


class WeaverEvaluateStory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverEvaluateStory",
            display_name=NODE,
            category=CATEGORY,
            description="Measures a story without any judge or network: number of images, blank pages, collages, copies, leaked tags, "
            "texts cut off, how alike the pages are. Seconds on a CPU.",
            search_aliases=["story metrics", "quality check", "find blank pages", "consistency score", "grid detector", "duplicate pages"],
            inputs=[STORY.Input("story", tooltip="From Visualize Plan or Load Story.")],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="What was found, for people."),
                io.String.Output("numbers", display_name="numbers", tooltip="The same as JSON: values by name, and faults."),
                io.Int.Output("faults", display_name="faults", tooltip="How many faults were found; 0 = nothing is wrong that can be seen."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, story) -> io.NodeOutput:
        from ..weaver_core.evaluation.stories import measured, scorecard

        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        with tempfile.TemporaryDirectory(prefix="weaver-evaluate-") as folder:
            found = scorecard(measured(story_run(Path(folder), woven, "story")))
        return io.NodeOutput(found.text, found.to_json(), len(found.faults), ui={"text": [found.text]})


def story_run(folder: Path, woven: WovenStory, system: str):
    """The story as a run of the evaluation in this folder."""
    from ..weaver_core.evaluation.stories import run_of

    def image_of(segment_id: str):
        host.stop_if_interrupted()
        return woven.images[segment_id].read() if segment_id in woven.images else None

    return run_of(folder, woven.request, woven.plan, image_of, system=system)
