"""What happens while a story is woven; everybody who shows or checks a story consumes these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .critic import Verdict
from .plan import ImageSegment, Plan
from .rendering import Rendering
from .story import Story

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """More text, as it is written. kind is "title" (whole), "text" or "prompt" (pieces of the segment)."""

    text: str
    kind: str
    segment_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlanned:
    """A dense prompt is complete; `index` counts the story's images from 0."""

    segment: ImageSegment
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReady:
    """The whole plan is there (in the closed loop: after the last image)."""

    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """The visualizer has done `step` of `total` steps of an image; a preview when it gives one."""

    segment_id: str
    step: int
    total: int
    preview: Image | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReady:
    """An image is drawn and stored, or was there already (`cached`). `path` is None for a story in memory."""

    segment_id: str
    index: int
    image: Image
    rendering: Rendering
    path: Path | None
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageJudged:
    """The critic has looked at a drawing of an image, the first one or a later `attempt`; `redraws` = it asks for another."""

    segment_id: str
    attempt: int
    image: Image
    verdict: Verdict
    redraws: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Warning:
    """Something the user should know; the story goes on. Line and column where it is about markup."""

    message: str
    segment_id: str = ""
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The end. `missing` are the ids of images that could not be drawn."""

    story: Story
    missing: tuple[str, ...]


Event = TextDelta | ImagePlanned | PlanReady | StepProgress | ImageJudged | ImageReady | Warning | Finished
