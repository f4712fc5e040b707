"""Latents of pictures on disk, each under a key of everything that affects it: nothing is computed twice, nothing stale is read.

A key holds the picture's bytes, the size it is cut to and how, and the autoencoder's weights and config. A file is
`<first two digits>/<key>.safetensors` with one tensor `latent` (C, Y, X).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.torch import save
from torch import Tensor

from weaver_core.durable import write_whole
from weaver_core.errors import InputError
from weaver_core.model.checkpoint import weights_fingerprint
from weaver_core.pictures import read_picture

CUT = "read_picture, ImageOps.fit centred, Lanczos; float32"  # another way to cut is another key


@dataclass(frozen=True, slots=True)
class Cut:
    """A picture as it is trained on: the file, and (width, height) in pixels."""

    path: Path
    size: tuple[int, int]

    def pixels(self) -> np.ndarray:
        """uint8 (H, W, 3): scaled to cover the size and cut in the middle, as the visualizer does with references."""
        return np.array(ImageOps.fit(read_picture(self.path)[0], self.size, Image.Resampling.LANCZOS))


class LatentCache:
    """Latents of one autoencoder in a folder that several runs may share."""

    def __init__(self, folder: str | Path, autoencoder: str | Path):
        self.folder = Path(folder)
        autoencoder = Path(autoencoder)
        self._coder = (weights_fingerprint([autoencoder]), (autoencoder / "config.json").read_bytes())
        self._files: dict[Path, str] = {}

    def path_of(self, cut: Cut) -> Path:
        if cut.path not in self._files:
            self._files[cut.path] = hashlib.sha256(cut.path.read_bytes()).hexdigest()
        facts = (self._files[cut.path], cut.size, CUT, self._coder)
        key = hashlib.sha256(repr(facts).encode()).hexdigest()[:40]
        return self.folder / key[:2] / f"{key}.safetensors"

    def fill(self, cuts: Iterable[Cut], encode: Callable[[Tensor], Tensor]) -> str:
        """Compute what is missing by `encode(pixels (1, H, W, 3)) -> (1, C, Y, X)`; returns a line that says how much that was."""
        wanted = list(dict.fromkeys(cuts))
        missing = [cut for cut in wanted if not self.path_of(cut).is_file()]
        for cut in missing:
            path = self.path_of(cut)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, save({"latent": encode(torch.from_numpy(cut.pixels())[None])[0].cpu().contiguous()}))
        return f"latents: {len(missing)} computed, {len(wanted) - len(missing)} found in {self.folder}"

    def read(self, cut: Cut) -> np.ndarray:
        """(C, Y, X), float32. InputError where `fill` has not been, or a file is damaged."""
        path = self.path_of(cut)
        try:
            return load_file(path)["latent"]
        except FileNotFoundError:
            raise InputError(f"the latents of {cut.path} are not in {self.folder}; run training/train.py with --cache-only, or start anew") from None
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}); delete it, and it is made again") from None
