"""What a native pair loses when one part is taken from it, without training anything anew: the switches, by name.

    backend = ablated("no words", planner, visualizer)      # a back end like any other

Each answers the same prompts with the same seeds, so plans are equal where the planner is not what changes, and pictures
are compared prompt by prompt. In a pair that was trained *with* a part, taking it away shows how much that pair leans on
it, not what a pair trained without it would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import InputError
from ..model.dpcw import empty_context
from ..request import RenderSettings
from ..visualizers import Shot
from .backends.library import LibraryBackend

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..planners.native import NativePlanner
    from ..visualizers.native import NativeVisualizer

FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """One switch: what it does, in words, and how."""

    text: str
    mode: str = "plan-first"
    policy: str = "auto"
    settings: RenderSettings = RenderSettings()
    planner: Callable | None = None
    visualizer: Callable | None = None


class WindowOfAnotherPage:
    """A native planner that hands over the window of the neighbouring page; a story of one image has no other."""

    def __init__(self, planner: NativePlanner):
        self._planner = planner
        self.max_images = planner.max_images

    def write(self, request, history, *, options, cancel) -> Iterator[str]:
        return self._planner.write(request, history, options=options, cancel=cancel)

    def context(self, plan, segment, request, *, history=()):
        images = plan.images
        here = [image.id for image in images].index(segment.id)
        other = here + 1 if here + 1 < len(images) else here - 1
        return self._planner.context(plan, images[max(0, other)], request, history=history)


class _Ablated:
    """A native visualizer under another name."""

    name = ""

    def __init__(self, visualizer: NativeVisualizer):
        self._visualizer = visualizer
        self.capabilities = visualizer.capabilities
        self.fingerprint = f"{visualizer.fingerprint} {self.name}"

    def render(self, shot: Shot, *, on_step, cancel) -> Image:
        return self._visualizer.render(shot, on_step=on_step, cancel=cancel)


class WithoutWords(_Ablated):
    """Sees an empty window: neither its tokens nor the pooled vector, only references."""

    name = "without words"

    def render(self, shot: Shot, *, on_step, cancel) -> Image:
        config = self._visualizer.model.visualizer.config
        like = shot.context.values[0]
        nothing = empty_context(len(shot.context.keys), config.num_kv_heads, config.head_dim, device=like.device, dtype=like.dtype)
        return super().render(replace(shot, context=nothing, guidance=1.0), on_step=on_step, cancel=cancel)


class WithoutPooledWindow(_Ablated):
    """The window is attended to as always; the pooled vector that joins the time modulation is that of no words."""

    name = "without the pooled window"

    def __init__(self, visualizer: NativeVisualizer):
        if visualizer.model.visualizer.pooled_window is None:
            raise InputError("this visualizer has no pooled window to take away; leave 'no pooled window' out")
        super().__init__(visualizer)

    def render(self, shot: Shot, *, on_step, cancel) -> Image:
        with self._unpooled():
            return super().render(shot, on_step=on_step, cancel=cancel)

    @contextmanager
    def _unpooled(self):
        def nothing(module, _, pooled_BW):
            return module.nothing.to(pooled_BW.dtype).expand_as(pooled_BW)

        hook = self._visualizer.model.visualizer.pooled_window.register_forward_hook(nothing)
        try:
            yield
        finally:
            hook.remove()


ABLATIONS = {
    FULL: Ablation(text="the pair as it ships"),
    "no references": Ablation(text="no image looks at an earlier one or at the user's pictures", policy="none"),
    "given pictures only": Ablation(text="earlier images are no references", policy="user"),
    "no words": Ablation(text="the window is empty; images look at references only", visualizer=WithoutWords),
    "window of another page": Ablation(text="each image is drawn under the window of the page beside it", planner=WindowOfAnotherPage),
    "no pooled window": Ablation(text="the window is attended to, its pooled vector is left out", visualizer=WithoutPooledWindow),
    "text guidance 1": Ablation(text="words are followed without guidance", settings=RenderSettings(guidance=1.0)),
    "reference guidance 1": Ablation(text="references are followed without guidance", settings=RenderSettings(reference_guidance=1.0)),
    "4 steps": Ablation(text="4 denoising steps", settings=RenderSettings(steps=4)),
    "8 steps": Ablation(text="8 denoising steps", settings=RenderSettings(steps=8)),
    "no second drawing": Ablation(text="images that look wrong are kept as they came", settings=RenderSettings(check_images=False)),
    "closed-loop": Ablation(text="the planner sees every image before it writes on", mode="closed-loop"),
}
"""In the order of the tables; the first is what the others are held against."""


def ablated(name: str, planner: NativePlanner, visualizer: NativeVisualizer, *, model: str) -> LibraryBackend:
    """The back end of one ablation. InputError for a name that is not known, or a part that the pair does not have."""
    if name not in ABLATIONS:
        raise InputError(f"there is no ablation {name!r}; there are {', '.join(ABLATIONS)}")
    ablation = ABLATIONS[name]
    return LibraryBackend(
        ablation.planner(planner) if ablation.planner else planner,
        ablation.visualizer(visualizer) if ablation.visualizer else visualizer,
        model=model if name == FULL else f"{model}, {name}", mode=ablation.mode, policy=ablation.policy, settings=ablation.settings,
    )  # fmt: skip
