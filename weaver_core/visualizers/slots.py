"""What a prompt says about its references: which picture shows whom. The same words on every road that reads prompts.

A member of the cast whom no reference shows is described in words; words about one whom a reference shows would contradict it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..plan import ImageSegment, Plan
    from ..references import ReferenceChoice


class Shown(Protocol):
    """Whom a reference is there for ("" = all), who else, who can be seen beside them, and whether it is a picture of the user's."""

    @property
    def member(self) -> str: ...
    @property
    def others(self) -> tuple[str, ...]: ...
    @property
    def beside(self) -> tuple[str, ...]: ...
    @property
    def is_user(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """See `Shown`."""

    member: str = ""
    others: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    is_user: bool = False


def slot_of(choice: ReferenceChoice) -> Slot:
    return Slot(member=choice.member, others=choice.others, beside=choice.beside, is_user=choice.kind == "user")


def with_looks(plan: Plan, segment: ImageSegment, slots: Iterable[Shown]) -> str:
    """The dense prompt, with the look of everybody whom it shows and no reference shows alone.

    A picture of two does not say who is who; their looks do.
    """
    alone = {slot.member for slot in slots if not slot.others and not slot.beside}
    looks = [
        f"{member.name}: {member.look}"
        for name in segment.cast
        for member in plan.cast
        if member.name == name and name not in alone and member.look and member.look not in segment.prompt
    ]
    return "\n".join([segment.prompt, *looks])


def whom(slot: Shown) -> str:
    """What a prompt says of a reference, for the key of the image that is drawn under it."""
    return f"{_role(slot)}, for {_joined(_members(slot))}" if slot.member else ""


def with_slots(prompt: str, slots: Sequence[Shown], label: str) -> str:
    """The prompt behind a sentence that says what is in which reference slot: "Image 1 is Robin, image 2 shows Mia and Tom."

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
    sides = [f"{place} {_are(slot)} {_joined(_seen(slot)) or 'what to be consistent with'}" for place, slot in zip(places, slots, strict=True)]
    return told(prompt, slots, ", ".join(sides))


def told(prompt: str, slots: Sequence[Shown], sentence: str) -> str:
    """The prompt behind a sentence about its references; our choice of words: a new picture, same looks."""
    names = list(dict.fromkeys(name for slot in slots for name in _members(slot)))
    same = f"{_joined(names)} {'looks' if len(names) == 1 else 'look'}" if names else "everybody looks"
    return f"{sentence[0].upper()}{sentence[1:]}. Draw a new picture in which {same} exactly as there: {prompt}"


def _role(slot: Shown) -> str:
    if slot.member:
        return f"shows {_joined(_seen(slot))}" if slot.others or slot.beside else f"is {slot.member}"
    return "shows what to be consistent with" if slot.is_user else "is an earlier picture of the same story"


def _members(slot: Shown) -> list[str]:
    """Whom the reference is there for."""
    return [slot.member, *slot.others] if slot.member else []


def _seen(slot: Shown) -> list[str]:
    return [*_members(slot), *slot.beside]


def _are(slot: Shown) -> str:
    return "are" if len(_seen(slot)) > 1 else "is"


def _joined(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
