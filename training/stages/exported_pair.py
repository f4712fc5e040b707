"""Training samples by the very classes that draw later: a native pair out of a stage's parts, equal to its export bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from weaver_core.model.checkpoint import SamplingDefaults, WeaverModel, default_dtype, load_autoencoder, read_index, weights_fingerprint
from weaver_core.model.lora import LowRank, add_to_weights
from weaver_core.pictures import image_key
from weaver_core.plan import Plan
from weaver_core.planners.native import NativePlanner
from weaver_core.request import Request
from weaver_core.segments import ImageSegment
from weaver_core.visualizers import Shot
from weaver_core.visualizers.native import NativeVisualizer


class ExportedPair:
    """Draws prompts that stand alone as `weaver` and the nodes would, in the number format that they take here."""

    def __init__(self, settings, planner, tokenizer, twin, layers: dict[str, LowRank] | None):
        device = planner.device
        dtype = default_dtype(device)
        twin = nn.Module.to(twin, dtype=dtype)
        if layers:
            add_to_weights(twin, [(layers, 1.0)])
        vae = load_autoencoder(Path(settings.autoencoder), device=device, dtype=dtype)
        self.model = WeaverModel(planner, tokenizer, twin, vae, sampling_of(settings))
        self._planner, self._visualizer, self._sample = NativePlanner(self.model), NativeVisualizer(self.model), settings.sample

    def draw(self, prompt: str, *, size: tuple[int, int], seed: int, references: tuple[Image.Image, ...] = ()) -> Image.Image:
        """`size` is (width, height) in pixels."""
        segment = ImageSegment(id="p1", prompt=prompt)
        context = self._planner.context(Plan(segments=(segment,)), segment, Request(prompt=prompt))
        shot = Shot(prompt=prompt, size=size, seed=seed, steps=self._sample.steps, guidance=self._sample.text_guidance,
                    reference_guidance=self._sample.reference_guidance, references=references,
                    reference_keys=tuple(map(image_key, references)), context=context)
        return self._visualizer.render(shot, on_step=lambda *_: None, cancel=lambda: False)

    @staticmethod
    def fingerprint_of(settings) -> str:
        """Of the weights that a LoRA was trained on: a hash of the twin's files."""
        return weights_fingerprint([Path(settings.init)])


def sampling_of(settings) -> SamplingDefaults:
    """A whole pair's own way to sample; for loose parts what the config says."""
    folder = Path(settings.planner)
    if (folder / "model_index.json").is_file():
        return read_index(folder)
    side = settings.data.image_size
    return replace(SamplingDefaults(), shift=settings.sample.shift, image_size=side, sizes=((side, side),), size_multiple=16)
