"""ComfyUI's IMAGE tensors and our pictures. Shapes: IMAGE is (batch, height, width, 3 or 4), float in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..weaver_core.errors import InputError
from ..weaver_core.request import ReferenceImage

if TYPE_CHECKING:
    from PIL.Image import Image


def to_tensor(image: Image):
    """A picture as an IMAGE of one, shape (1, height, width, 3)."""
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0)[None]


def reference_images(batches: list | None, node: str, prefix: str) -> tuple[tuple[ReferenceImage, ...], list[str]]:
    """The pictures of a list of IMAGE batches, and sentences about what was changed. InputError for what is no IMAGE."""
    pictures: list[ReferenceImage] = []
    notes: list[str] = []
    for batch in batches or ():
        for image in _to_pictures(batch, node):
            picture, changed = ReferenceImage.read(image, f"{prefix}-{len(pictures) + 1}")
            pictures.append(picture)
            notes += changed
    return tuple(pictures), notes


def _to_pictures(batch, node: str) -> list[Image]:
    import torch
    from PIL import Image

    if batch is None:
        return []
    if not isinstance(batch, torch.Tensor) or batch.ndim not in (3, 4) or batch.shape[-1] not in (1, 3, 4):
        shape = tuple(batch.shape) if isinstance(batch, torch.Tensor) else type(batch).__name__
        raise InputError(f"{node} got {shape} as a picture; it needs an IMAGE such as the output of Load Image")
    batch = batch[None] if batch.ndim == 3 else batch
    bytes_BHWC = (batch.detach().float().nan_to_num(0).clamp(0, 1) * 255).round().byte().cpu().numpy()
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[bytes_BHWC.shape[-1]]
    return [Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode) for pixels in bytes_BHWC]
