"""What a planner is. Implementations live beside this file and are imported only when they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..plan import ImageSegment, Plan
    from ..request import Request

    HistoryItem = str | Image
    """Markup exactly as it was written, or an image that was drawn from the dense prompt before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerOptions:
    """How a planner writes.

    max_tokens    it stops there, whatever it was saying
    temperature   0 = always the likeliest word
    seed          same seed, request and history: same text
    num_images    how many images are wanted (still to come, when there is a history); None = the planner decides
    continued     the history is a whole story that had come to its end; go on with it
    """

    max_tokens: int = 4096
    temperature: float = 0.7
    seed: int = 0
    num_images: int | None = None
    continued: bool = False

    def __post_init__(self):
        if not 1 <= self.max_tokens <= 1_000_000:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must lie in 1..1000000")
        if not 0 <= self.temperature <= 5:
            raise ValueError(f"temperature is {self.temperature}; it must lie in 0..5")
        if self.num_images is not None and self.num_images < 0:
            raise ValueError(f"num_images is {self.num_images}; it must be 0 or more, or None")


@runtime_checkable
class Planner(Protocol):
    """Writes the plan as a stream of markup.

    `max_images` is the largest number of images that it was made for, None where there is no such number.

    `write` yields pieces of markup as they come and ends with the story. `history` is () at the beginning. In the
    closed loop it holds what was written so far and the images drawn, in order: ("# Title ... <imagine>..</imagine>
    <BOI>", image, "more text ... <BOI>", image); the planner goes on from there, and the caller stops listening
    after the next `</imagine>`. It asks `cancel()` between tokens, and simply stops when that is true.
    """

    max_images: int | None

    def write(
        self,
        request: Request,
        history: tuple[HistoryItem, ...],
        *,
        options: PlannerOptions,
        cancel: Callable[[], bool],
    ) -> Iterator[str]: ...


@runtime_checkable
class FeaturePlanner(Planner, Protocol):
    """A planner whose features the visualizer reads (the native planner).

    `context` returns what the visualizer's `Shot.context` carries for this image: the dense prompt context window.
    It is asked right before the image is drawn. When the planner has just written the plan it is a slice of the
    generation cache (no second pass); for a plan that was edited or read from a folder it is computed by a prefill of
    `plan.to_bare_markup()` up to this image. `history` is () except in the closed loop, where it holds what `write`
    was given and wrote up to and including this image's dense prompt.
    """

    def context(
        self, plan: Plan, segment: ImageSegment, request: Request, *, history: tuple[HistoryItem, ...] = ()
    ) -> object | None: ...


@runtime_checkable
class SeeingPlanner(Planner, Protocol):
    """A planner that can also be asked about pictures (those of the user's own).

    `answer` returns the model's whole answer to one question about `images` (() = about none), thoughts taken away. `schema` is the JSON
    schema that the answer is to have; it is only forced where that is possible, so the answer may be anything. InputError
    when the model cannot see.
    """

    def answer(
        self,
        question: str,
        images: Sequence[Image],
        *,
        options: PlannerOptions,
        cancel: Callable[[], bool],
        schema: dict | None = None,
    ) -> str: ...
