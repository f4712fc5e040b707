"""What the page needs to show a story as a book; pictures by the names under which ComfyUI serves them."""

from __future__ import annotations

from ..weaver_core.plan import Page
from ..weaver_core.rendering import Stale, stale_images
from . import host
from .values import DrawnImage, WovenStory


def book(story: WovenStory) -> dict:
    """The whole story: title, language and pages."""
    renderings = {image.id: story.images[image.id].rendering for image in story.plan.images if image.id in story.images}
    stale = {mark.segment_id: mark for mark in stale_images(renderings)}
    return {
        "title": story.plan.title,
        "language": story.plan.language,
        "pages": [
            page_facts(page, story.images.get(page.image.id), stale.get(page.image.id)) if page.image else page_facts(page)
            for page in story.plan.pages()
        ],
    }


def page_facts(page: Page, drawn: DrawnImage | None = None, stale: Stale | None = None) -> dict:
    """One page: its texts, and what is known about its picture.

    Seeds go as text, because JavaScript has no whole numbers above 2^53.
    """
    image = page.image
    return {
        "id": image.id if image else None,
        "texts": [text.text for text in page.texts],
        "prompt": image.prompt if image else None,
        "locked": bool(image and image.locked),
        "picture": None if drawn is None else _picture(drawn),
        "stale": None if stale is None else list(stale.changed or stale.through),
    }


def _picture(drawn: DrawnImage) -> dict:
    folder, rendering = drawn.path.parent.parent, drawn.rendering
    facts = host.view_of(drawn.path) | {
        "size": list(rendering.size),
        "seed": str(rendering.seed_used),
        "fault": rendering.fault,  # what it looks wrong by, "" = nothing
        "references": [
            {"name": used.source, "picture": _view_of_users_picture(folder / "references" / f"{used.source}-{used.key[:12]}.png")}
            for used in rendering.references
        ],
    }
    # Where a lock finds the picture again; a story that does not lie in the drafts cannot be changed page by page anyway.
    in_drafts = folder.parent == host.drafts_folder()
    return facts | {"kept": {"draft": folder.name, "key": rendering.key} if in_drafts else None}


def _view_of_users_picture(path) -> dict | None:
    return host.view_of(path) if path.is_file() else None
