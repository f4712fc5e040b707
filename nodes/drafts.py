"""Drafts: the folders in ComfyUI's output folder where drawn pages are kept until their story is saved."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PureWindowsPath

from ..weaver_core.errors import InputError, StoryError
from ..weaver_core.plan import ImageSegment, Plan
from ..weaver_core.request import RenderSettings, Request
from ..weaver_core.segments import ILLEGAL
from ..weaver_core.story import StoryFolder, fresh_folder, slug
from . import host
from .values import DrawnImage, WovenStory

MAX_NAME = 100  # characters of a draft's name; `open_draft` makes at most half as many
MAX_SEARCHED = 20  # earlier drafts of one request that are looked through for a locked page


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
    name = f"{_name_of(request)}-{digest}"
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


def bring_pages_locked_in_plan(draft: StoryFolder, plan: Plan) -> None:
    """Puts the pictures of pages that the plan locks into the draft: those of the newest earlier draft of this request.

    They were drawn under another seed, other settings or another model; a lock keeps them all the same.
    """
    wanted = {image.id: image for image in plan.images if image.locked and not _has(draft, image)}
    earlier = _earlier_drafts(draft) if wanted else []
    for path in earlier:
        try:
            with StoryFolder.open(path, read_only=True) as source:
                for image in [image for image in wanted.values() if _has(source, image)]:
                    draft.keep(source.renderings[image.id], source.image(image.id))
                    del wanted[image.id]
        except StoryError:
            continue  # damaged, or gone
        if not wanted:
            return


def _has(story: StoryFolder, image: ImageSegment) -> bool:
    rendering = story.renderings.get(image.id)
    return rendering is not None and rendering.is_of(image.prompt)


def _earlier_drafts(draft: StoryFolder) -> list[Path]:
    """The other drafts of its request, the newest first."""
    name = re.compile(re.escape(_name_of(draft.request)) + r"-[0-9a-f]{10}(-\d+)?\Z")
    written = {}
    for path in draft.folder.parent.iterdir():
        if name.match(path.name) and path != draft.folder and (path / "story.jsonl").is_file():
            written[path] = (path / "story.jsonl").stat().st_mtime_ns
    return sorted(written, key=written.get, reverse=True)[:MAX_SEARCHED]


def _name_of(request: Request) -> str:
    return slug(request.prompt)[:32].strip("-")


def woven(draft: StoryFolder) -> WovenStory:
    """The story of a draft that has all its images."""
    images = {
        image.id: DrawnImage(rendering=draft.renderings[image.id], path=draft.path(image.id)) for image in draft.plan.images
    }
    return WovenStory(
        plan=draft.plan, request=draft.request, settings=draft.settings, made_with=draft.made_with, images=images,
        policy=draft.policy,
    )  # fmt: skip
