"""What a prompt says about its references: which picture shows whom. The same words on every road that reads prompts.

A member of the cast whom no reference shows is described in words; words about one whom a reference shows would contradict it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..plan import ImageSegment, Plan


class Shown(Protocol):
    """Whom a reference is there for ("" = all), and whether it is a picture of the user's."""

    @property
    def member(self) -> str: ...
    @property
    def is_user(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """See `Shown`."""

    member: str = ""
    is_user: bool = False


def with_looks(plan: Plan, segment: ImageSegment, shown: Collection[str]) -> str:
    """The dense prompt, with the look of everybody whom it shows and no reference does; `shown` are those whom one shows."""
    looks = [
        f"{member.name}: {member.look}"
        for name in segment.cast
        for member in plan.cast
        if member.name == name and name not in shown and member.look and member.look not in segment.prompt
    ]
    return "\n".join([segment.prompt, *looks])


def with_slots(prompt: str, slots: Sequence[Shown], label: str) -> str:
    """The prompt behind a sentence that says what is in which reference slot: "Image 1 is Robin, image 2 is Mia."

    label   how the model counts pictures, such as "image {}"
    """
    if not slots:
        return prompt
    return told(prompt, slots, ", ".join(f"{label.format(number)} {_role(slot)}" for number, slot in enumerate(slots, 1)))


def side_by_side(prompt: str, slots: Sequence[Shown]) -> str:
    """As `with_slots`, for models that know one picture: the references stand in it side by side."""
    if len(slots) < 2:
        return with_slots(prompt, slots, "the picture")
    places = ["on the left of the picture", *(["in the middle"] * (len(slots) - 2)), "on the right of the picture"]
    if len(slots) > 3:
        places = [f"at place {number} from the left" for number in range(1, len(slots) + 1)]
    sides = [f"{place} is {slot.member or 'what to be consistent with'}" for place, slot in zip(places, slots, strict=True)]
    return told(prompt, slots, ", ".join(sides))


def told(prompt: str, slots: Sequence[Shown], sentence: str) -> str:
    """The prompt behind a sentence about its references; our choice of words: a new picture, same looks."""
    names = [slot.member for slot in slots if slot.member]
    same = f"{_joined(names)} {'looks' if len(names) == 1 else 'look'}" if names else "everybody looks"
    return f"{sentence[0].upper()}{sentence[1:]}. Draw a new picture in which {same} exactly as there: {prompt}"


def _role(slot: Shown) -> str:
    if slot.member:
        return f"is {slot.member}"
    return "shows what to be consistent with" if slot.is_user else "is an earlier picture of the same story"


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
