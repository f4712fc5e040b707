"""Changes to a finished story: another picture on a page, a page drawn anew. The story that was there stays as it was.

Only the images that change are stored anew, in a story folder of their own; the others are read where they lie. Which pages
are stale after a change follows from what they were drawn from (`Story.stale`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from .errors import InputError, StoryError
from .pictures import image_key, read_picture
from .plan import ImageSegment, Plan
from .rendering import Rendering, UsedReference, rendering_key
from .request import RenderSettings, Request
from .story import Story, StoryFolder

PUT_IN = "put in by hand"  # stands for a visualizer in the rendering of a picture that none has drawn


class ChangedStory(Story):
    """A story on top of drawn images that are left where they are.

    drawn     segment id -> (its rendering, its PNG)
    keep_in   where changed images are stored; one that it holds under its key need not be drawn again
    """

    def __init__(
        self,
        plan: Plan,
        request: Request,
        drawn: Mapping[str, tuple[Rendering, Path]],
        keep_in: StoryFolder,
        *,
        settings: RenderSettings | None = None,
        policy: str = "auto",
    ):
        super().__init__(request, settings=settings, policy=policy)
        self.plan = plan
        self._keep_in = keep_in
        self._paths = dict[str, Path]()  # by the rendering's key
        for rendering, path in drawn.values():
            self._paths[rendering.key] = path
            self._accept(rendering)

    def image(self, segment_id: str) -> Image.Image:
        path = self.path(segment_id)
        if not path.is_file():
            raise StoryError(f"the drawn page {path.name} is no longer in {path.parent}; draw the story again")
        return read_picture(path)[0]

    def path(self, segment_id: str) -> Path:
        return self._paths[self._current(segment_id).key]

    def find(self, key: str) -> Rendering | None:
        if known := super().find(key):
            return known
        if known := self._keep_in.find(key):
            self._paths[key] = self._keep_in.folder / known.file
        return known

    def keep(self, rendering: Rendering, image: Image.Image, *, texts: Mapping[str, str] | None = None) -> Rendering:
        kept = self._keep_in.keep(rendering, image, texts=texts)
        self._paths[kept.key] = self._keep_in.folder / kept.file
        self._accept(kept)
        return kept


def put_picture(story: Story, segment_id: str, picture: Image.Image) -> Rendering:
    """Makes any RGB picture the image of a segment, and locks the segment, so that no drawing takes the picture away.

    Pages that used the segment's former image as a reference are stale after it.
    """
    segment = _image_segment(story.plan, segment_id)
    pixels = image_key(picture)
    facts = {
        "prompt": segment.prompt, "size": picture.size, "seed": 0, "visualizer": PUT_IN, "steps": 0, "guidance": 1.0,
        "reference_guidance": 1.0,
    }  # fmt: skip
    # The pixels are all that decides this image; they stand where the keys of references do.
    key = rendering_key(references=[UsedReference(source=PUT_IN, key=pixels)], **facts)
    rendering = Rendering(segment_id=segment_id, key=key, image_key=pixels, **facts)
    known = story.find(rendering.key)
    kept = story.reuse(known, segment_id) if known else story.keep(rendering, picture)
    story.set_plan(story.plan.replace_segment(replace(segment, locked=True)))
    return kept


def with_seed(plan: Plan, segment_id: str, seed: int) -> Plan:
    """The plan with this seed for one image. InputError when that image is locked."""
    segment = _image_segment(plan, segment_id)
    if segment.locked:
        raise InputError(f"{segment_id} is locked, so it stays as it is; unlock it in the plan, or choose another page")
    return plan.replace_segment(replace(segment, seed=seed))


def users_of(story: Story, segment_id: str) -> tuple[str, ...]:
    """The images that were drawn from this one, directly or through others, in the order of the plan."""
    found = {segment_id}
    while True:
        more = {
            image_id
            for image_id, rendering in story.renderings.items()
            if image_id not in found and any(used.source in found for used in rendering.references)
        }
        if not more:
            return tuple(image.id for image in story.plan.images if image.id in found and image.id != segment_id)
        found |= more


def _image_segment(plan: Plan, segment_id: str) -> ImageSegment:
    segment = plan.segment(segment_id)
    if not isinstance(segment, ImageSegment):
        raise InputError(f"{segment_id!r} is a text; only images can be changed")
    return segment
