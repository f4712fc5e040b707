"""Changes to single pages, as the book view keeps them in a workflow: a seed, a dense prompt, a lock, a reference.

    [{"page": "p3", "of": "A fox at the beach.", "seed": 4711}, {"page": "p4", "of": "A fox sleeps.", "reference": "p3"}]

A change belongs to the dense prompt it was made for (`of`): pages are called p1, p2, ... in every story, and a change of one
story must not slip into another. The text may come from a stranger's workflow, so everything in it is checked and bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .errors import InputError
from .plan import ImageSegment, Plan, build_checked, check_keys, load_json
from .segments import check_id, check_seed, check_text

MAX_CHANGES = 2**20  # characters of JSON: some hundred edited pages
_KEY = re.compile(r"[0-9a-f]{32,64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPicture:
    """Where the picture of a locked page lies: a draft's folder name, and the rendering's key in it."""

    draft: str
    key: str

    def __post_init__(self):
        check_text("draft", self.draft)
        if not isinstance(self.key, str) or not _KEY.match(self.key):
            raise ValueError("key: expected the key of a drawn picture")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageChange:
    """What is different about one image; None = as the plan says.

    page        the image segment's id
    of          the dense prompt that the plan has for it; for another one the change does not hold
    locked      the picture stays, whatever else changes; `kept` says which picture
    reference   an earlier page that this one is drawn from
    """

    page: str
    of: str
    prompt: str | None = None
    seed: int | None = None
    locked: bool = False
    kept: KeptPicture | None = None
    reference: str | None = None

    def __post_init__(self):
        check_id("page", self.page)
        object.__setattr__(self, "of", check_text("of", self.of))
        if self.prompt is not None:
            object.__setattr__(self, "prompt", check_text("prompt", self.prompt))
        if self.seed is not None:
            check_seed("seed", self.seed)
        if not isinstance(self.locked, bool):
            raise ValueError("locked: expected true or false")
        if self.reference is not None:
            check_id("reference", self.reference)


def read_page_changes(text: str) -> tuple[PageChange, ...]:
    """The changes in this JSON text; () for an empty one. InputError names what is wrong in it."""
    if not text.strip():
        return ()
    if len(text) > MAX_CHANGES:
        raise InputError(f"page_changes has {len(text):,} characters; at most {MAX_CHANGES:,} are read. Clear it")
    try:
        data = load_json(text, "page_changes")
        if not isinstance(data, list):
            raise ValueError("page_changes: expected a list such as the book view writes; clear it")
        return tuple(_change(f"page_changes[{index}]", item) for index, item in enumerate(data))
    except ValueError as error:
        raise InputError(str(error)) from None


def with_page_changes(plan: Plan, changes: Iterable[PageChange]) -> tuple[Plan, tuple[PageChange, ...], list[str]]:
    """The changed plan, the changes that hold for it, and a sentence about those that do not."""
    images = {image.id: image for image in plan.images}
    holding = tuple(change for change in changes if change.page in images and images[change.page].prompt == change.of)
    passed = [change.page for change in changes if change not in holding]
    for change in holding:
        plan = plan.replace_segment(_changed(plan, images[change.page], change))
    notes = []
    if passed:
        notes.append(
            f"changes of {', '.join(passed)} were made for other dense prompts and are passed over; the book view clears them"
        )
    return plan, holding, notes


def _changed(plan: Plan, segment: ImageSegment, change: PageChange) -> ImageSegment:
    return replace(
        segment,
        prompt=change.prompt or segment.prompt,
        seed=segment.seed if change.seed is None else change.seed,
        locked=segment.locked or change.locked,
        references=segment.references if change.reference is None else drawn_from(plan, segment, change.reference),
    )


def drawn_from(plan: Plan, segment: ImageSegment, reference: str) -> tuple[str, ...]:
    """The references of a page that is drawn from another: that one first, then those of its cast whom that one does not show."""
    shown = next((image.cast for image in plan.images if image.id == reference), ())
    return (reference, *(name for name in segment.cast if name not in shown and name != reference))


def _change(path: str, data: object) -> PageChange:
    check_keys(path, data, required=("page", "of"), optional=("prompt", "seed", "locked", "kept", "reference"))
    if data.get("kept") is not None:
        data = data | {"kept": build_checked(KeptPicture, f"{path}.kept", data["kept"], ("draft", "key"), ())}
    return build_checked(PageChange, path, data, ("page", "of"), ("prompt", "seed", "locked", "kept", "reference"))
