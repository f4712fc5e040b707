"""Save Story: a story folder with an HTML book, in ComfyUI's output folder."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.export.html import write_html
from ..weaver_core.story import StoryFolder
from . import host
from .schema import CATEGORY, STORY, checked, fitted
from .values import WovenStory

NODE = "Save Story"


class WeaverSaveStory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverSaveStory",
            display_name=NODE,
            category=CATEGORY,
            description="Saves the story into ComfyUI's output folder: story.html to read, the plan, and every image as a PNG "
            "that opens this workflow again.",
            search_aliases=["export story", "save book", "story html"],
            is_output_node=True,
            inputs=[
                STORY.Input("story", tooltip="From Visualize Plan."),
                io.String.Input("filename_prefix", default="weaver/story",
                                tooltip="Name of the new folder inside ComfyUI's output folder; a number is put behind it."),
            ],
            outputs=[io.String.Output("folder", display_name="folder", tooltip="The new folder's name inside the output folder.")],
        )

    @classmethod
    def execute(cls, story, filename_prefix: str = "weaver/story") -> io.NodeOutput:
        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        images = {image_id: drawn.read() for image_id, drawn in woven.images.items()}  # before anything is written
        path = host.saving_folder(filename_prefix)
        texts = host.png_texts(cls.hidden)
        how = {"settings": woven.settings, "policy": woven.policy, "made_with": woven.made_with}
        with StoryFolder.create(path, woven.request, **how) as saved:
            saved.set_plan(woven.plan)
            for image_id, image in images.items():
                saved.keep(woven.images[image_id].rendering, image, texts=texts)
            saved.finish()
            write_html(saved, path / "story.html")
            shown = [host.view_of(saved.path(image_id)) for image_id in images]
        return io.NodeOutput(host.name_of(path), ui={"images": shown})
