"""Does every image fit its own dense prompt better than the document's other ones?

Needs no calibration, and sees at once what happens without dense prompt context windows: pictures that fit the story but
not their own page. Alike pages are no fault: where two dense prompts fit equally, both count by half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..records import Document, MetricRecord, Prompt
from .embedders import Embedder
from .pixels import read_image

Likeness = Callable[[Sequence[Image.Image], Sequence[str]], np.ndarray]
"""Images and texts -> (images, texts): how well each image fits each text."""


class OwnPromptMetric:
    """"<name>:margin" and "<name>:recall", per image in `by_image`; None with fewer than two dense prompts."""

    def __init__(self, name: str, likeness: Likeness):
        self.name = f"own prompt ({name})"
        self._prefix, self._likeness = name, likeness

    def measure(self, prompts: dict[str, Prompt], documents: Sequence[Document], folder: Path) -> list[MetricRecord]:
        records = []
        for document in documents:
            shown = [(i, read_image(folder, block), block.dense_prompt) for i, block in enumerate(document.images) if block.dense_prompt]
            shown = [one for one in shown if one[1] is not None]
            margins, hits = [], []
            if len(shown) > 1:
                margins, hits = retrieval(self._likeness([image for _, image, _ in shown], [said for *_, said in shown]))
            for name, values in (("margin", margins), ("recall", hits)):
                by_image: list[float | None] = [None] * len(document.images)
                for (i, *_), value in zip(shown, values):
                    by_image[i] = float(value)
                records.append(MetricRecord(
                    prompt_id=document.prompt_id, system=document.system, metric=f"{self._prefix}:{name}",
                    value=float(np.mean(values)) if len(values) else None, by_image=tuple(by_image),
                    flags=tuple(f"other_page:{i}" for (i, *_), hit in zip(shown, hits) if hit == 0) if name == "recall" else (),
                ))  # fmt: skip
        return records


def retrieval(likeness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per image t of a square matrix: own likeness - mean of the others, and 1 / (number of best) if the own is among them."""
    own = np.diag(likeness)
    others = (likeness.sum(1) - own) / (len(likeness) - 1)
    best = likeness >= likeness.max(1, keepdims=True) - 1e-6
    return own - others, np.where(np.diag(best), 1 / best.sum(1), 0.0)


def embedder_likeness(embedder: Embedder) -> Likeness:
    def likeness(images: Sequence[Image.Image], texts: Sequence[str]) -> np.ndarray:
        return embedder.images(images) @ embedder.texts(texts).T

    return likeness
