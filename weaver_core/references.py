"""Which references an image is drawn with, under a budget.

Drawing every page from the page before lets small faults grow into another hero (edits of edits drift), so a character
is always shown to the visualizer as it was first: its sheet, the user's picture, or its first appearance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from .errors import InputError
from .plan import ImageSegment, Plan

# What each policy shows an image for which the plan names no references; a member is "known" by its own pictures (a sheet, the
# user's), else by its first appearance in the story.
POLICIES = {
    "auto": "everybody whom the image shows as they are known, and the user's other pictures; without a cast the user's "
    "pictures, else the first image",
    "user": "the user's pictures only",
    "cast": "everybody whom the image shows as they are known, and nothing else; without a cast all characters of the story",
    "first": "the story's first image, or the user's pictures for that one itself",
    "previous": "the image before it, or the user's pictures for the first",
    "none": "nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceChoice:
    """One reference slot: the source's name, what kind it is ("user" or "image"), and whom it is there for ("" = all).

    others   further members whom it is there for
    beside   who else can be seen in it
    """

    source: str
    kind: str
    member: str = ""
    others: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def choose_references(
    plan: Plan,
    segment: ImageSegment,
    *,
    drawn: Collection[str],
    user_images: Sequence[str],
    budget: int,
    policy: str = "auto",
    max_tokens: int | None = None,
    tokens_of: Callable[[ReferenceChoice], int] | None = None,
) -> tuple[tuple[ReferenceChoice, ...], tuple[str, ...]]:
    """The references in slot order (at most `budget`), and sentences about wishes that could not be met.

    drawn         ids of the images drawn so far; only those before the segment in the plan are considered
    user_images   names of the user's pictures
    policy        one of POLICIES; what a segment names itself always wins
    max_tokens    of all references together, as `tokens_of` counts them; None = no such limit

    "auto": for each member of the image's cast, in order, its own references (sheet, user's picture), else its first
    appearance in the story; user's pictures that belong to no member come between the two. Where the image names
    no cast: the user's pictures (of every member the first before a second one), else the story's first image. One
    source takes one slot.
    """
    if policy not in POLICIES:
        raise InputError(f"reference policy is {policy!r}; it must be one of {', '.join(POLICIES)}")
    chooser = _Chooser(plan, segment, drawn, user_images)
    if segment.references != "auto":
        choices = chooser.explicit(segment.references)
    else:
        choices = chooser.by_policy(policy)
    unique = chooser.one_slot_each(choices)
    notes = chooser.notes
    num_used = _num_within(unique[:budget], max_tokens, tokens_of)
    if segment.references != "auto" and len(unique) > num_used:
        left_out = ", ".join(choice.source for choice in unique[num_used:])
        notes.append(f"{segment.id}: only {num_used} references can be used; left out: {left_out}")
    return unique[:num_used], tuple(notes)


def _num_within(choices: Sequence[ReferenceChoice], max_tokens: int | None, tokens_of) -> int:
    """How many of the first choices fit into so many tokens."""
    if max_tokens is None or tokens_of is None:
        return len(choices)
    num_tokens = 0
    for count, choice in enumerate(choices):
        num_tokens += tokens_of(choice)
        if num_tokens > max_tokens:
            return count
    return len(choices)


class _Chooser:
    def __init__(self, plan: Plan, segment: ImageSegment, drawn: Collection[str], user_images: Sequence[str]):
        self.plan = plan
        self.segment = segment
        self.user_images = tuple(user_images)
        self.notes: list[str] = []
        images = plan.images
        index = next((i for i, image in enumerate(images) if image.id == segment.id), len(images))
        self.earlier = [image for image in images[:index] if image.id in drawn]

    def by_policy(self, policy: str) -> list[ReferenceChoice]:
        if policy == "auto":
            return self.automatic()
        if policy == "cast":
            known = (self._own_reference(name) or self._first_appearance(name) for name in self._shown())
            return [choice for choice in known if choice]
        if policy in ("first", "previous") and self.earlier:
            image = self.earlier[0 if policy == "first" else -1]
            return [ReferenceChoice(source=image.id, kind="image")]
        return [] if policy == "none" else self._all_user_images()

    def automatic(self) -> list[ReferenceChoice]:
        users = [ReferenceChoice(source=name, kind="user") for name in self._unbound_user_images()]
        if not self.segment.cast:
            first = [ReferenceChoice(source=image.id, kind="image") for image in self.earlier[:1]]
            return self._all_user_images() or first
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
        # Slot order is cast order, whichever kind of reference a member has; heroes come before places, which matter less.
        places = {member.name for member in self.plan.cast if member.kind == "place"}
        order = {name: (name in places, i) for i, name in enumerate(self.segment.cast)}
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

    def one_slot_each(self, choices: Sequence[ReferenceChoice]) -> tuple[ReferenceChoice, ...]:
        """The sources in order, each once, with all whom it is there for and all whom it shows."""
        members: dict[str, dict[str, None]] = {}
        first: dict[str, ReferenceChoice] = {}
        for choice in choices:
            first.setdefault(choice.source, choice)
            members.setdefault(choice.source, {}).setdefault(choice.member)
        found = []
        for source, choice in first.items():
            others = tuple(name for name in members[source] if name and name != choice.member)
            beside = tuple(name for name in self._characters_in(source) if name not in members[source])
            found.append(replace(choice, others=others, beside=beside if choice.member else ()))
        return tuple(found)

    def _characters_in(self, source: str) -> tuple[str, ...]:
        """Whom an earlier image shows, places and things aside; of the user's pictures nothing is known."""
        things = {member.name for member in self.plan.cast if member.kind != "character"}
        return tuple(name for image in self.earlier if image.id == source for name in image.cast if name not in things)

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

    def _shown(self) -> tuple[str, ...]:
        """Whom the image shows; everybody where it does not say, heroes before places."""
        members = sorted(self.plan.cast, key=lambda member: member.kind == "place")
        return self.segment.cast or tuple(member.name for member in members)

    def _all_user_images(self) -> list[ReferenceChoice]:
        """All of the user's pictures; where not all can be used, second pictures of a member are the first to go."""
        second = {name for member in self.plan.cast for name in member.references[1:]}
        second -= {member.references[0] for member in self.plan.cast if member.references}
        ordered = sorted(self.user_images, key=lambda name: name in second)
        return [ReferenceChoice(source=name, kind="user") for name in ordered]

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
