"""Page changes: what the buttons of the book view write into the node that draws, and what that node does with it."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..weaver_core.errors import InputError, StoryError
from ..weaver_core.page_changes import PageChange, read_page_changes, with_page_changes
from ..weaver_core.plan import Plan
from ..weaver_core.story import StoryFolder
from .drafts import draft_named
from .schema import fitted
from .values import DrawnImage


def page_changes_inputs(when: str = "When a page has changed") -> list:
    """The changes, and whether pages that used a changed one follow."""
    return [
        fitted(io.Boolean.Input, "redraw_stale", default=False, optional=True, advanced=True,
               tooltip=f"{when}, also draw those pages anew that used it as a reference."),
        fitted(io.String.Input, "page_changes", default="", optional=True, advanced=True,
               tooltip="What the buttons of Preview Story have changed: seeds, dense prompts, locks and references of "
               "single pages. Empty = nothing; the book view writes and clears it."),
    ]  # fmt: skip


def page_changes_are_usable(text) -> bool | str:
    """For `validate_inputs`: True, or what is wrong."""
    typed = text[0] if isinstance(text, list) and text else text
    try:
        read_page_changes(typed if isinstance(typed, str) else "")
    except InputError as error:
        return str(error)
    return True


def changed_plan(plan: Plan, text: str, notes: list[str]) -> tuple[Plan, tuple[PageChange, ...]]:
    """The plan as the book view has changed it, and the changes that hold; what is to be told is added to `notes`."""
    plan, changes, told = with_page_changes(plan, read_page_changes(text))
    notes += told
    if changes:
        notes.append(f"changed in the book view: {', '.join(change.page for change in changes)}")
    return plan, changes


def bring_locked_pages(draft: StoryFolder, changes: tuple[PageChange, ...], notes: list[str]) -> None:
    """Makes the pictures of locked pages those of the draft, also where they were drawn for another seed or size."""
    for change in changes:
        if not (change.locked and change.kept):
            continue
        current = draft.renderings.get(change.page)
        if current is not None and current.key == change.kept.key:
            continue
        if known := draft.find(change.kept.key):
            draft.reuse(known, change.page)
            continue
        try:
            _bring(draft, change)
        except StoryError:
            notes.append(f"the locked picture of {change.page} is no longer in weaver-drafts; the page is drawn anew")


def _bring(draft: StoryFolder, change: PageChange) -> None:
    """InputError for a draft's name that leads elsewhere, StoryError when the picture is not there."""
    if change.kept.draft == draft.folder.name:
        raise StoryError("not in this draft")
    with draft_named(change.kept.draft, read_only=True) as source:
        rendering = source.find(change.kept.key)
        if rendering is None:
            raise StoryError("not in that draft")
        image = DrawnImage(rendering=rendering, path=source.folder / rendering.file).read()
    draft.keep(replace(rendering, segment_id=change.page), image)
