"""What a visualizer is. Implementations live beside this file and are imported only when they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .slots import Slot

if TYPE_CHECKING:
    from PIL.Image import Image

    OnStep = Callable[[int, int, Image | None], None]
    """Called after every step with (steps done, steps in all, preview or None)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a visualizer can do, and what it does when not told otherwise.

    max_references       reference images per shot; 0 = none
    default_size         (width, height) in pixels
    sizes                the only sizes it can draw; () = every size on the grid
    size_multiple        sides are multiples of this many pixels ...
    min_side, max_side   ... between these
    needs_context        it must be given a planner's features (`Shot.context`)
    edits                it can follow "change this picture" with one reference
    steps, guidance, reference_guidance    the defaults
    token_side           one of its tokens stands for a square of so many pixels a side
    """

    max_references: int
    default_size: tuple[int, int]
    sizes: tuple[tuple[int, int], ...] = ()
    size_multiple: int = 16
    min_side: int = 64
    max_side: int = 2048
    needs_context: bool = False
    edits: bool = False
    steps: int = 20
    guidance: float = 1.0
    reference_guidance: float = 1.0
    token_side: int = 16

    def reference_tokens(self, size: tuple[int, int]) -> int:
        """How many tokens a reference of this size has."""
        width, height = self.fit_size(size, None)
        return -(-width // self.token_side) * -(-height // self.token_side)

    def fit_size(self, size: tuple[int, int] | None, aspect: str | None) -> tuple[int, int]:
        """The size to draw for a wanted size, or aspect ratio, or neither: the nearest that this visualizer can.

        Nearest means the closest aspect ratio first and then the closest number of pixels; an aspect ratio alone keeps
        the pixels of the default size.
        """
        if size is not None:
            width, height = size
        elif aspect is not None:
            across, down = (int(number) for number in aspect.split(":"))
            area = self.default_size[0] * self.default_size[1]
            width, height = sqrt(area * across / down), sqrt(area * down / across)
        else:
            return self.default_size
        if self.sizes:
            return min(
                self.sizes,
                key=lambda wh: (
                    round(abs(log(wh[0] / wh[1]) - log(width / height)), 6),
                    abs(wh[0] * wh[1] - width * height),
                ),
            )
        # Shrink or grow both sides alike first, so that the limits do not bend the picture more than they must.
        scale = max(min(1.0, self.max_side / max(width, height)), self.min_side / min(width, height))
        return self._snap(width * scale), self._snap(height * scale)

    def _snap(self, side: float) -> int:
        step = self.size_multiple
        low, high = -(-self.min_side // step) * step, self.max_side // step * step
        return max(low, min(high, round(side / step) * step))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """Everything a visualizer is told about one image.

    `references` are RGB images in slot order, `reference_keys` their content hashes (equal key = equal pixels, so
    anything computed from a reference may be kept under it), `slots` whom they show. `context` is the planner's features or None. `size` is
    one that the visualizer's capabilities allow.
    """

    prompt: str
    size: tuple[int, int]
    seed: int
    steps: int
    guidance: float
    reference_guidance: float
    references: tuple[Image, ...] = ()
    reference_keys: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = ()
    context: object | None = None


@runtime_checkable
class Visualizer(Protocol):
    """Draws one image.

    `fingerprint` changes whenever the same shot would give another image (other weights, other class): it is part of
    the key under which a drawn image is kept. `render` returns an RGB image of `shot.size`; it asks `cancel()` at
    every step and raises `errors.Cancelled` when that is true. It may be called from another thread than the one that
    made it, never from two at once. One that has something to say about how it drew keeps sentences in `notes`, anew with
    every `render`.
    """

    capabilities: Capabilities
    fingerprint: str

    def render(self, shot: Shot, *, on_step: OnStep, cancel: Callable[[], bool]) -> Image: ...
