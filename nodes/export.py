"""Export Story: the story as a file to read, print or send, in ComfyUI's output folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from ..weaver_core.export import FORMATS, export_story
from ..weaver_core.story import Story
from . import host
from .schema import CATEGORY, STORY, checked, fitted
from .values import WovenStory

if TYPE_CHECKING:
    from PIL.Image import Image

NODE = "Export Story"
ALL = "all"


class WeaverExportStory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        kinds = "; ".join(f"{item.name}: {item.description}" for item in FORMATS.values())
        return fitted(
            io.Schema,
            node_id="WeaverExportStory",
            display_name=NODE,
            category=CATEGORY,
            description="Writes the story as a book into ComfyUI's output folder: PDF to print, EPUB, comic archive, HTML or "
            "Markdown. Plan and workflow are inside.",
            search_aliases=["export pdf", "export epub", "print book", "comic archive", "cbz", "markdown"],
            is_output_node=True,
            inputs=[
                STORY.Input("story", tooltip="From Visualize Plan."),
                io.Combo.Input("format", options=[*FORMATS, ALL], default="pdf", tooltip=f"{kinds}; {ALL}: one of each."),
                io.String.Input("filename_prefix", default="weaver/book",
                                tooltip="Name of the file inside ComfyUI's output folder; a number and the format's ending are "
                                "put behind it."),
            ],
            outputs=[
                io.String.Output("file", display_name="file",
                                 tooltip="The new file's name inside the output folder; one a line for several."),
            ],
        )

    @classmethod
    def execute(cls, story, format: str = "pdf", filename_prefix: str = "weaver/book") -> io.NodeOutput:
        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        if format not in (*FORMATS, ALL):
            raise InputError(f"format is {format!r}; it must be one of {', '.join((*FORMATS, ALL))}")
        base: Path = host.saving_folder(filename_prefix)
        texts = host.png_texts(cls.hidden)
        names = []
        for name in FORMATS if format == ALL else (format,):
            path = base.with_name(base.name + FORMATS[name].ending)
            names.append(host.name_of(export_story(_DrawnStory(woven), path, name, workflow=texts)))
            host.stop_if_interrupted()
        return io.NodeOutput("\n".join(names))


class _DrawnStory(Story):
    """What Visualize Plan has drawn as a story; every image is read when its page is written."""

    def __init__(self, woven: WovenStory):
        super().__init__(woven.request, settings=woven.settings)
        self.set_plan(woven.plan)
        self.renderings = {image_id: drawn.rendering for image_id, drawn in woven.images.items()}
        self._drawn = woven.images

    def image(self, segment_id: str) -> Image:
        return self._drawn[segment_id].read()
