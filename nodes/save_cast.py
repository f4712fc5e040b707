"""Save Cast: characters with their pictures as a folder, for later stories."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.cast import Cast, save_cast
from . import host
from .schema import CAST, CATEGORY, checked, fitted

NODE = "Save Cast"


class WeaverSaveCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverSaveCast",
            display_name=NODE,
            category=CATEGORY,
            description="Saves characters with their pictures into ComfyUI's output folder, where Load Cast finds them.",
            search_aliases=["save character", "character library", "keep hero"],
            is_output_node=True,
            inputs=[
                CAST.Input("cast", tooltip="From Make Character or Character from Story."),
                io.String.Input("filename_prefix", default="weaver/casts/cast",
                                tooltip="Name of the new folder inside ComfyUI's output folder; a number is put behind it."),
            ],
            outputs=[io.String.Output("folder", display_name="folder", tooltip="The new folder's name inside the output folder.")],
        )

    @classmethod
    def execute(cls, cast, filename_prefix: str = "weaver/casts/cast") -> io.NodeOutput:
        known = checked(cast, Cast, NODE, "Make Character")
        path = save_cast(known, host.saving_folder(filename_prefix))
        shown = [host.view_of(file) for file in sorted(path.glob("*.png"))]
        return io.NodeOutput(host.name_of(path), ui={"images": shown})
