"""The native visualizer: a Twin DiT under the planner's window, with reference caches that last over pages."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import Cancelled, InputError
from ..model.checkpoint import WeaverModel
from ..model.dpcw import DensePromptContext
from ..model.flow import Guidance
from ..model.latents import to_latents, to_pixels
from ..model.sampler import draw
from ..model.twin_dit import ReferenceCache
from . import Capabilities, Shot

if TYPE_CHECKING:
    from . import OnStep

REFERENCE_BUDGET = 512 * 2**20  # bytes of encoded references that stay for other pages; the oldest leave first
PREVIEW_SECONDS = 0.3  # between two previews: decoding at every step took a sixth of the picture-book's drawing time


class NativeVisualizer:
    """Draws shots with the visualizer of a native pair. See `visualizers.Visualizer`."""

    def __init__(self, model: WeaverModel, *, reference_budget: int = REFERENCE_BUDGET):
        self.model = model
        self.fingerprint = model.fingerprint
        defaults = model.defaults
        # A small pair draws the few sizes that it learned; a large one every size on its grid, at the pixels of its first.
        grid = {"size_multiple": defaults.size_multiple} if defaults.size_multiple else {"sizes": tuple(map(tuple, defaults.sizes))}
        self.capabilities = Capabilities(
            max_references=defaults.max_references, default_size=tuple(defaults.sizes[0]), **grid,
            needs_context=True, token_side=8 * model.visualizer.config.patch, edits=True, steps=defaults.steps, guidance=defaults.text_guidance,
            reference_guidance=defaults.reference_guidance)
        self._references: OrderedDict[tuple[str, tuple[int, int]], ReferenceCache] = OrderedDict()
        self._budget = reference_budget

    def render(self, shot: Shot, *, on_step: OnStep, cancel: Callable[[], bool]) -> Image.Image:
        """One image. Raises InputError without a context, Cancelled at the step after `cancel()` turns true."""
        if not isinstance(shot.context, DensePromptContext):
            raise InputError("the native visualizer reads its planner's features and got none; connect the planner of the same model")
        self._check(cancel)
        width, height = shot.size
        references = [self._reference(image, key) for image, key in zip(shot.references, shot.reference_keys, strict=True)]

        shown = time.monotonic()

        def step(done: int, total: int, clean_BCYX: Tensor) -> None:
            nonlocal shown
            self._check(cancel)
            preview = None
            if done < total and time.monotonic() - shown >= PREVIEW_SECONDS:
                preview, shown = self._picture(clean_BCYX), time.monotonic()
            on_step(done, total, preview)

        latents = draw(
            self.model.visualizer, shot.context.to(self.model.device), references, self._noise(width, height, shot.seed),
            guidance=Guidance(text=shot.guidance, reference=shot.reference_guidance), steps=shot.steps,
            shift=self.model.defaults.shift, on_step=step)
        return self._picture(latents)

    def save_memory(self) -> str:
        """See `out_of_memory.Frugal`."""
        if not self._references:
            return ""
        self._references.clear()
        return "references that were encoded for other pages are given up"

    def _noise(self, width: int, height: int, seed: int) -> Tensor:
        """Drawn on the CPU, so that a seed gives the same picture on every device."""
        channels = self.model.visualizer.config.latent_channels
        generator = torch.Generator().manual_seed(seed % 2**63)
        return torch.randn(1, channels, height // 8, width // 8, generator=generator).to(self.model.device)

    def _reference(self, image: Image.Image, key: str) -> ReferenceCache:
        """An encoded reference, from the cache if its pixels were encoded before; drawn-size pixels, in its own aspect ratio."""
        size = self.capabilities.fit_size(None, f"{image.width}:{image.height}")
        place = (key, size)
        if place in self._references:
            self._references.move_to_end(place)
            return self._references[place]
        encoded = self._encode(ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS))
        self._references[place] = encoded
        while len(self._references) > 1 and sum(cache.num_bytes for cache in self._references.values()) > self._budget:
            self._references.popitem(last=False)
        return encoded

    @torch.no_grad()
    def _encode(self, image: Image.Image) -> ReferenceCache:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.model.device)
        latents = to_latents(self.model.vae, pixels.float() / 127.5 - 1)
        return self.model.visualizer.encode_references(latents.to(self.model.dtype))

    @torch.no_grad()
    def _picture(self, latents_BCYX: Tensor) -> Image.Image:
        pixels = to_pixels(self.model.vae, latents_BCYX)[0]
        return Image.fromarray(((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy())

    @staticmethod
    def _check(cancel: Callable[[], bool]) -> None:
        if cancel():
            raise Cancelled()
