"""What pixels alone tell about a document's images: blank, collage, colours that jump from page to page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from ...picture_checks import is_blank, is_grid
from ...pictures import read_picture
from ..records import Block, Document, MetricRecord, Prompt
from ..run_folder import inside

_COLLAGE_WANTED = re.compile(
    r"\b(?:comic|collage|grid|panels?|storyboard|contact sheet|photo strip|manga|2 ?[x×] ?2)\b|漫画|拼图|分镜", re.IGNORECASE
)


def read_image(folder: Path, block: Block) -> Image.Image | None:
    """A block's picture as RGB; None when it is missing, broken or lies outside the folder (structure says so)."""
    try:
        return read_picture(inside(Path(folder), block.path), block.path)[0]
    except InputError:
        return None


class PixelMetric:
    """not_blank, not_grid, palette and hue; flags such as "blank:0" and "grid:2" name the image (from 0)."""

    name = "pixels"

    def measure(self, prompts: dict[str, Prompt], documents: Sequence[Document], folder: Path) -> list[MetricRecord]:
        return [record for document in documents for record in self._one(prompts[document.prompt_id], document, folder)]

    def _one(self, prompt: Prompt, document: Document, folder: Path):
        images = [read_image(folder, block) for block in document.images]
        seen = [image for image in images if image is not None]
        blank = [None if image is None else not is_blank(image) for image in images]
        wanted = bool(_COLLAGE_WANTED.search(prompt.text))
        whole = [None if image is None else wanted or not is_grid(image) for image in images]
        pairs = len(seen) > 1

        def record(name, value, by_image=(), flags=()):
            return MetricRecord(prompt_id=document.prompt_id, system=document.system, metric=name, value=value,
                                by_image=tuple(by_image), flags=tuple(flags))  # fmt: skip

        for name, fault, good in (("not_blank", "blank", blank), ("not_grid", "grid", whole)):
            values = [None if one is None else float(one) for one in good]
            known = [value for value in values if value is not None]
            flags = [f"{fault}:{i}" for i, one in enumerate(good) if one is False]
            yield record(name, float(np.mean(known)) if known else None, values, flags)
        yield record("palette", mean_likeness([palette(image) for image in seen]) if pairs else None)
        yield record("hue", mean_likeness([hues(image) for image in seen]) if pairs else None)


def palette(image: Image.Image) -> np.ndarray:
    """Unit vector: square roots of a soft histogram of colours, 5 levels a channel. The product of two is their overlap."""
    return _soft_histogram(_small(image, "RGB") / 255 * 4, (5, 5, 5), (False, False, False))


def hues(image: Image.Image) -> np.ndarray:
    """Unit vector of a soft histogram over 12 hues (a circle) and 4 levels of saturation; darkness and greys weigh little."""
    hsv = _small(image, "HSV")
    weight = 0.05 + hsv[:, 1] / 255 * hsv[:, 2] / 255
    places = np.stack([hsv[:, 0] / 256 * 12, hsv[:, 1] / 255 * 3], 1)
    return _soft_histogram(places, (12, 4), (True, False), weight)


def mean_likeness(vectors: list[np.ndarray]) -> float:
    """Mean product over all pairs of unit vectors."""
    total = np.sum(vectors, 0)
    n = len(vectors)
    return float((total @ total - sum(v @ v for v in vectors)) / (n * (n - 1)))


def _small(image: Image.Image, mode: str) -> np.ndarray:
    return np.asarray(image.resize((32, 32), Image.Resampling.BOX).convert(mode), np.float32).reshape(-1, 3)


def _soft_histogram(places: np.ndarray, shape: tuple[int, ...], circular: tuple[bool, ...], weight=None) -> np.ndarray:
    """Counts in which a value between two bins is shared among them; a small change of colour is then a small change."""
    weight = np.ones(len(places), np.float32) if weight is None else weight
    counts = np.zeros(shape, np.float32)
    low = np.floor(places).astype(int)
    part = places - low
    for corner in np.ndindex(*(2,) * len(shape)):
        share, index = weight.copy(), []
        for axis, up in enumerate(corner):
            share *= part[:, axis] if up else 1 - part[:, axis]
            bins = low[:, axis] + up
            index.append(bins % shape[axis] if circular[axis] else np.minimum(bins, shape[axis] - 1))
        np.add.at(counts, tuple(index), share)
    return np.sqrt(counts / counts.sum()).ravel()
