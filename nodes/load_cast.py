"""Load Cast: characters that Save Cast has written into ComfyUI's output folder."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.cast import CAST_FILE, load_cast
from ..weaver_core.errors import InputError, StoryError
from .make_character import appended
from .saved_folders import SavedKind
from .schema import CAST, CATEGORY, fitted

NODE = "Load Cast"
CASTS = SavedKind(word="cast", input="cast_folder", marker=CAST_FILE, example="weaver/casts/cast_00001_", made_by="Save Cast")


class WeaverLoadCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverLoadCast",
            display_name=NODE,
            category=CATEGORY,
            description="Opens characters that Save Cast has written into ComfyUI's output folder, or that somebody has given you.",
            search_aliases=["load character", "character library", "open cast"],
            inputs=[
                io.Combo.Input("cast_folder", options=CASTS.names(),
                               tooltip="A folder of ComfyUI's output folder, newest first. Press R to see newer ones."),
                CAST.Input("cast", optional=True, tooltip="Others that come before; members of the same name are replaced."),
            ],
            outputs=[
                CAST.Output("cast_out", display_name="cast", tooltip="For Weaver Request."),
                io.String.Output("names", display_name="names", tooltip="Who is in the cast, one name a line."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, cast_folder=None):
        return CASTS.is_usable(cast_folder)

    @classmethod
    def fingerprint_inputs(cls, cast_folder=None, cast=None):
        """Changes when the cast has changed on disk."""
        try:
            stat = (CASTS.folder(cast_folder) / CAST_FILE).stat()
        except (InputError, OSError):
            return ""  # `execute` says what is wrong
        return f"{stat.st_size}-{stat.st_mtime_ns}"

    @classmethod
    def execute(cls, cast_folder: str, cast=None) -> io.NodeOutput:
        path = CASTS.folder(cast_folder)
        try:
            loaded = load_cast(path)
        except StoryError as error:  # its message names the folder by its whole path, which is nobody's business
            raise StoryError(str(error).replace(str(path), cast_folder)) from None
        whole = appended([] if cast is None else [cast], loaded, NODE)
        return io.NodeOutput(whole, "\n".join(member.name for member in whole.members))
