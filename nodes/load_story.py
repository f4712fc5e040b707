"""Load Story: a story that was saved into ComfyUI's output folder, by the name of its folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from comfy_api.latest import io

from ..weaver_core.errors import StoryError, WeaverError
from ..weaver_core.rendering import Rendering
from ..weaver_core.segments import MAX_SEED, MAX_SIDE
from ..weaver_core.story import StoryFolder
from .changes import stale_notes
from .saved_folders import SavedKind
from .schema import CATEGORY, PLAN, STORY, fitted
from .values import DrawnImage, PlannedStory, WovenStory

NODE = "Load Story"
MAX_NOTES = 50
STORIES = SavedKind(
    word="story", input="story_folder", marker="story.jsonl", example="weaver/story_00001_", made_by="Save Story"
)


class WeaverLoadStory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverLoadStory",
            display_name=NODE,
            category=CATEGORY,
            description="Opens a story that Save Story has written into ComfyUI's output folder, or that somebody has given "
            "you: to read it, change a page, or export it.",
            search_aliases=["open story", "load book", "story folder", "continue story"],
            inputs=[
                io.Combo.Input("story_folder", options=story_names(),
                               tooltip="A folder of ComfyUI's output folder, newest first. Press R to see newer ones."),
            ],
            outputs=[
                STORY.Output("story", display_name="story", tooltip="The story, for Preview Story, Re-roll Image and others."),
                PLAN.Output("plan", display_name="plan", tooltip="Its plan, to draw it anew."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, story_folder=None):
        return STORIES.is_usable(story_folder)

    @classmethod
    def fingerprint_inputs(cls, story_folder=None):
        """Changes when the story has changed on disk."""
        try:
            folder = folder_named(story_folder)
            stats = [(folder / name).stat() for name in ("request.json", "plan.json", "story.jsonl")]
        except (WeaverError, OSError):
            return ""  # `execute` says what is wrong
        facts = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @classmethod
    def execute(cls, story_folder: str) -> io.NodeOutput:
        path = folder_named(story_folder)
        try:
            woven, notes = _read(path)
        except WeaverError as error:  # its message may name the folder by its whole path, which is nobody's business
            raise StoryError(str(error).replace(str(path), story_folder)) from None
        plan = PlannedStory(plan=woven.plan, request=woven.request)
        return io.NodeOutput(woven, plan, ui={"weaver_notes": [note.replace(str(path), story_folder) for note in notes]})


def story_names() -> list[str]:
    """The story folders inside the output folder, newest first."""
    return STORIES.names()


def folder_named(name: str) -> Path:
    """The story folder with this name inside the output folder. InputError when there is none, or it leads elsewhere."""
    return STORIES.folder(name)


def _read(path: Path) -> tuple[WovenStory, list[str]]:
    """The story in a folder, and sentences about what is damaged, missing or stale in it. WeaverError: it cannot be used."""
    with StoryFolder.open(path, read_only=True) as folder:
        if folder.plan is None:
            raise StoryError(f"{path} was not written to its end; finish it on the command line: weaver resume FOLDER")
        notes = list(folder.warnings)
        images = {}
        for segment in folder.plan.images:
            rendering = folder.renderings.get(segment.id)
            if rendering is None:
                notes.append(f"{segment.id} has no image")
            elif not _is_sound(rendering):
                notes.append(f"what is noted about the image of {segment.id} cannot be; it is left out")
            else:
                images[segment.id] = DrawnImage(rendering=rendering, path=folder.path(segment.id))
        notes += stale_notes(folder)
        woven = WovenStory(
            plan=folder.plan, request=folder.request, settings=folder.settings, made_with=folder.made_with, images=images,
            policy=folder.policy,
        )  # fmt: skip
    return woven, notes[:MAX_NOTES]


def _is_sound(rendering: Rendering) -> bool:
    """Whether size and seed are such as images have: they leave the node, and the folder may come from a stranger."""
    sides_fit = all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in rendering.size)
    return sides_fit and isinstance(rendering.seed, int) and 0 <= rendering.seed <= MAX_SEED
