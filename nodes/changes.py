"""What the nodes that change a story share: the story that comes in stays as it was, a changed one goes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..weaver_core.changes import ChangedStory
from ..weaver_core.story import Story
from .drafts import open_draft
from .values import DrawnImage, WovenStory


@contextmanager
def changing(story: WovenStory) -> Iterator[ChangedStory]:
    """The story to be changed. Its new images are kept in a draft, where they are found again after a restart."""
    drawn = {image_id: (image.rendering, image.path) for image_id, image in story.images.items()}
    with open_draft(story.request, story.settings, visualizer="changes", made_with=story.made_with) as draft:
        yield ChangedStory(story.plan, story.request, drawn, draft, settings=story.settings, policy=story.policy)


def changed(story: ChangedStory, before: WovenStory) -> WovenStory:
    """What goes out: the plan and the images as they are now."""
    images = {
        image.id: DrawnImage(rendering=story.renderings[image.id], path=story.path(image.id))
        for image in story.plan.images
        if image.id in story.renderings
    }
    return WovenStory(
        plan=story.plan, request=before.request, settings=before.settings, made_with=before.made_with, images=images,
        policy=before.policy,
    )  # fmt: skip


def stale_notes(story: Story) -> list[str]:
    """A sentence for every image that was drawn from an earlier version of another."""
    return [
        f"{mark.segment_id} is stale: it was drawn from "
        + (f"an earlier {' and '.join(mark.changed)}" if mark.changed else f"{' and '.join(mark.through)}, which is stale")
        for mark in story.stale()
    ]
