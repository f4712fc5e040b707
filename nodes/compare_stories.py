"""Compare Stories: two stories side by side on one page, with what the metrics say of each."""

from __future__ import annotations

import tempfile
from pathlib import Path

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from . import host
from .evaluate_story import story_run
from .schema import CATEGORY, STORY, checked, fitted
from .values import WovenStory

NODE = "Compare Stories"
MAX_NAME = 60


class WeaverCompareStories(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverCompareStories",
            display_name=NODE,
            category=CATEGORY,
            description="Writes a page with two stories side by side and their measures, into ComfyUI's output folder. One file, no network.",
            search_aliases=["side by side", "a/b test", "compare models", "story report", "which is better"],
            is_output_node=True,
            inputs=[
                STORY.Input("story_a", tooltip="From Visualize Plan or Load Story."),
                STORY.Input("story_b", tooltip="Another story, best of the same request: with another model, seed or setting."),
                io.String.Input("name_a", default="A", tooltip="What the first is called on the page."),
                io.String.Input("name_b", default="B", tooltip="What the second is called on the page."),
                io.String.Input("filename_prefix", default="weaver/compare",
                                tooltip="Name of the folder inside ComfyUI's output folder; a number is put behind it."),
            ],
            outputs=[
                io.String.Output("file", display_name="file", tooltip="The page's name inside the output folder."),
                io.String.Output("text", display_name="text", tooltip="The same as Markdown, without pictures."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, story_a, story_b, name_a: str = "A", name_b: str = "B", filename_prefix: str = "weaver/compare") -> io.NodeOutput:
        from ..weaver_core.evaluation.report import ReportInput, write_report
        from ..weaver_core.evaluation.stories import measured

        stories = [checked(story, WovenStory, NODE, "Visualize Plan") for story in (story_a, story_b)]
        names = [name.strip()[:MAX_NAME] for name in (name_a, name_b)]
        if not all(names) or names[0] == names[1]:
            raise InputError(f"the names are {names[0]!r} and {names[1]!r}; give two that tell the stories apart")
        out = host.saving_folder(filename_prefix)
        with tempfile.TemporaryDirectory(prefix="weaver-compare-") as folder:
            inputs = []
            for number, (woven, name) in enumerate(zip(stories, names, strict=True)):
                run = story_run(Path(folder) / str(number), woven, name)
                measured(run)
                inputs.append(ReportInput.from_run(run))
            files = write_report(inputs, out)
        text = files.markdown.read_text(encoding="utf-8")
        return io.NodeOutput(host.name_of(files.html), text, ui={"text": [host.name_of(files.html)]})
