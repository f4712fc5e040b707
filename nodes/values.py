"""What travels along the wires between our nodes. All of it is immutable: ComfyUI keeps outputs and uses them again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..weaver_core.errors import StoryError
from ..weaver_core.pictures import read_picture
from ..weaver_core.plan import Plan
from ..weaver_core.rendering import Rendering
from ..weaver_core.request import RenderSettings, Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..weaver_core.model.checkpoint import WeaverModel
    from ..weaver_core.planners.native import NativePlanner
    from ..weaver_core.visualizers.diffusers_visualizer import DiffusersVisualizer
    from ..weaver_core.visualizers.native import NativeVisualizer


@dataclass(frozen=True, eq=False, kw_only=True)
class HostedModel:
    """WEAVER_MODEL: a native pair in ComfyUI's care, or a visualizer alone, which moves itself and has no planner.

    patcher   what ComfyUI's memory management moves and unloads
    keeps     of a model that moves itself: whether it stays in memory after a run; None = ComfyUI moves it
    """

    name: str
    embedded: bool
    model: WeaverModel | None
    planner: NativePlanner | None
    visualizer: NativeVisualizer | DiffusersVisualizer
    patcher: object | None
    keeps: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceChoosing:
    """WEAVER_REFERENCES: which references images are drawn from, and how many; None = as many as the visualizer can."""

    policy: str
    max_references: int | None
    max_reference_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStory:
    """WEAVER_PLAN: a plan, and the request that it answers."""

    plan: Plan
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesSoFar:
    """What one Keep Page hands to the next: sentences for the user about the pages that are done, and whether the critic can judge."""

    notes: tuple[str, ...] = ()
    critic_fails: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnImage:
    """One drawn image of a story: what it was drawn from, and where its PNG lies."""

    rendering: Rendering
    path: Path

    def read(self) -> Image:
        """Its pixels. StoryError when the file is gone."""
        if not self.path.is_file():
            raise StoryError(
                f"the drawn page {self.path.name} is no longer in {self.path.parent}; draw it again: change the seed of "
                "Visualize Plan, or free ComfyUI's node cache, and run"
            )
        return read_picture(self.path)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class WovenStory:
    """WEAVER_STORY: a plan with its drawn images by segment id; `policy` chose the references where the plan does not say."""

    plan: Plan
    request: Request
    settings: RenderSettings
    made_with: str
    images: dict[str, DrawnImage]
    policy: str = "auto"
