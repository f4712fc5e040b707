"""Which references an image is drawn with, under a budget.

Drawing every page from the page before lets small faults grow into another hero (edits of edits drift), so a character
is always shown to the visualizer as it was first: its sheet, the user's picture, or its first appearance.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .errors import InputError
from .plan import ImageSegment, Plan

POLICIES = ("auto", "user", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceChoice:
    """One reference slot: the source's name, what kind it is ("user" or "image"), and whom it is there for ("" = all)."""

    source: str
    kind: str
    member: str = ""


def choose_references(
    plan: Plan,
    segment: ImageSegment,
    *,
    drawn: Collection[str],
    user_images: Sequence[str],
    budget: int,
    policy: str = "auto",
) -> tuple[tuple[ReferenceChoice, ...], tuple[str, ...]]:
    """The references in slot order (at most `budget`), and sentences about wishes that could not be met.

    drawn         ids of the images drawn so far; only those before the segment in the plan are considered
    user_images   names of the user's pictures
    policy        "auto", "user" (the user's pictures only) or "none"; what a segment names itself always wins

    "auto": for each member of the image's cast, in order, its own references (sheet, user's picture), else its first
    appearance in the story; user's pictures that belong to no member come between the two. Where the image names
    no cast: the user's pictures, else the story's first image. One source takes one slot.
    """
    if policy not in POLICIES:
        raise InputError(f"reference policy is {policy!r}; it must be one of {', '.join(POLICIES)}")
    chooser = _Chooser(plan, segment, drawn, user_images)
    if segment.references != "auto":
        choices = chooser.explicit(segment.references)
    elif policy == "none":
        choices = []
    elif policy == "user":
        choices = [ReferenceChoice(source=name, kind="user") for name in user_images]
    else:
        choices = chooser.automatic()
    by_source: dict[str, ReferenceChoice] = {}
    for choice in choices:
        by_source.setdefault(choice.source, choice)
    unique = tuple(by_source.values())
    notes = chooser.notes
    if segment.references != "auto" and len(unique) > budget:
        left_out = ", ".join(choice.source for choice in unique[budget:])
        notes.append(f"{segment.id}: only {budget} references can be used; left out: {left_out}")
    return unique[:budget], tuple(notes)


class _Chooser:
    def __init__(self, plan: Plan, segment: ImageSegment, drawn: Collection[str], user_images: Sequence[str]):
        self.plan = plan
        self.segment = segment
        self.user_images = tuple(user_images)
        self.notes: list[str] = []
        images = plan.images
        index = next((i for i, image in enumerate(images) if image.id == segment.id), len(images))
        self.earlier = [image for image in images[:index] if image.id in drawn]

    def automatic(self) -> list[ReferenceChoice]:
        users = [ReferenceChoice(source=name, kind="user") for name in self._unbound_user_images()]
        if not self.segment.cast:
            everything = [ReferenceChoice(source=name, kind="user") for name in self.user_images]
            first = [ReferenceChoice(source=image.id, kind="image") for image in self.earlier[:1]]
            return everything or first
        own: list[ReferenceChoice] = []
        appearances: list[ReferenceChoice] = []
        for name in self.segment.cast:
            choice = self._own_reference(name)
            if choice:
                own.append(choice)
            elif choice := self._first_appearance(name):
                appearances.append(choice)
        if users:
            return own + users + appearances
        # Slot order is cast order, whichever kind of reference a member has.
        order = {name: i for i, name in enumerate(self.segment.cast)}
        return sorted(own + appearances, key=lambda choice: order[choice.member])

    def explicit(self, names: tuple[str, ...]) -> list[ReferenceChoice]:
        choices = []
        for name in names:
            choice = self._named(name) or self._own_reference(name) or self._first_appearance(name)
            if choice:
                choices.append(choice)
            else:
                self.notes.append(f"{self.segment.id}: reference {name!r} {self._why_not(name)}; drawn without it")
        return choices

    def _named(self, name: str, member: str = "") -> ReferenceChoice | None:
        """The source with exactly this name."""
        if any(image.id == name for image in self.earlier):
            return ReferenceChoice(source=name, kind="image", member=member)
        if name in self.user_images:
            return ReferenceChoice(source=name, kind="user", member=member)
        return None

    def _own_reference(self, member: str) -> ReferenceChoice | None:
        for other in self.plan.cast:
            if other.name == member:
                found = (self._named(name, member) for name in other.references)
                return next((choice for choice in found if choice), None)
        return None

    def _first_appearance(self, member: str) -> ReferenceChoice | None:
        for image in self.earlier:
            if member in image.cast:
                return ReferenceChoice(source=image.id, kind="image", member=member)
        return None

    def _unbound_user_images(self) -> list[str]:
        bound = {name for member in self.plan.cast for name in member.references}
        return [name for name in self.user_images if name not in bound]

    def _why_not(self, name: str) -> str:
        if name == self.segment.id:
            return "is the image itself"
        images = [image.id for image in self.plan.images]
        if name in images:
            index = images.index(self.segment.id) if self.segment.id in images else len(images)
            return "comes later in the story" if images.index(name) > index else "has not been drawn"
        if any(member.name == name for member in self.plan.cast):
            return "has no picture yet"
        known = ", ".join([*self.user_images, *(image.id for image in self.earlier)]) or "nothing"
        return f"is unknown (there is {known})"
