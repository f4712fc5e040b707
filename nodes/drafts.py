"""Drafts: the folders in ComfyUI's output folder where drawn pages are kept until their story is saved."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PureWindowsPath

from ..weaver_core.errors import InputError, StoryError
from ..weaver_core.plan import Plan
from ..weaver_core.request import RenderSettings, Request
from ..weaver_core.segments import ILLEGAL
from ..weaver_core.story import StoryFolder, fresh_folder, slug
from . import host
from .values import DrawnImage, WovenStory

MAX_NAME = 100  # characters of a draft's name; `open_draft` makes at most half as many


def open_draft(
    request: Request, settings: RenderSettings, *, visualizer: str, made_with: str, mode: str = "plan-first", told: tuple = ()
) -> StoryFolder:
    """The folder where the pages of this story are kept: the one that was begun, or a new one.

    One folder for everything but the plan: a changed plan finds its unchanged pages there, also after a restart.

    visualizer   fingerprint of what draws
    mode         "closed-loop" for a folder in which the text is kept as well
    told         what else decides the story, where the text is written while pages are drawn
    """
    facts = [
        request.prompt, request.style, request.num_images, request.size, request.aspect, request.language, request.seed,
        Plan(cast=request.cast).to_json()["cast"], [[picture.name, picture.key] for picture in request.images],
        [settings.steps, settings.guidance, settings.reference_guidance], visualizer, *told,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:10]
    name = f"{slug(request.prompt)[:32].strip('-')}-{digest}"
    path: Path = host.drafts_folder() / name
    if (path / "story.jsonl").is_file():
        try:
            return StoryFolder.open(path)
        except StoryError:
            path = fresh_folder(host.drafts_folder(), name)  # damaged, or another program is drawing in it
    return StoryFolder.create(path, request, mode=mode, settings=settings, made_with=made_with)


def draft_named(name: str, *, read_only: bool = False) -> StoryFolder:
    """The draft with this folder name, which `open_draft` made before. InputError for a name that leads elsewhere."""
    if PureWindowsPath(name).name != name or name in ("", ".", "..") or ILLEGAL.search(name) or len(name) > MAX_NAME:
        raise InputError(f"{name[:60]!r} is no name of a draft; such names are written by the pack's nodes, not by hand")
    if not (host.drafts_folder() / name / "story.jsonl").is_file():
        raise StoryError(f"the draft {name[:60]} is no longer in weaver-drafts; run again, and its pages are drawn anew")
    return StoryFolder.open(host.drafts_folder() / name, read_only=read_only)


def bring_drawn_pages(draft: StoryFolder, plan: Plan, story: WovenStory) -> None:
    """Puts the pictures of another story into the draft, for the images that the plan locks; what is there is not copied again."""
    for image in plan.images:
        drawn = story.images.get(image.id)
        if not image.locked or drawn is None:
            continue
        if known := draft.find(drawn.rendering.key):
            draft.reuse(known, image.id)
        else:
            draft.keep(drawn.rendering, drawn.read())


def woven(draft: StoryFolder) -> WovenStory:
    """The story of a draft that has all its images."""
    images = {
        image.id: DrawnImage(rendering=draft.renderings[image.id], path=draft.path(image.id)) for image in draft.plan.images
    }
    return WovenStory(
        plan=draft.plan, request=draft.request, settings=draft.settings, made_with=draft.made_with, images=images
    )
