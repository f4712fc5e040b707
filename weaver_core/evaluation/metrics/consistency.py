"""How alike a document's images are, in any embedder's eyes, and whether that is a merit.

For unit vectors e_t of a document's images: self, adjacent, anchor, worst, drift; lift = self - mean cosine with the
images of the system's other documents (a system that always draws the same has none); diversity, the guard against
copies, comes with every lift. `entity` looks only at pairs of images that name the same entity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ...picture_checks import fingerprint, same_picture
from ..records import Document, MetricRecord, Prompt
from .embedders import Embedder
from .pixels import read_image


class ConsistencyMetric:
    """The numbers above under the names "<embedder>:self" and so on, and "<embedder>:diversity" beside them."""

    def __init__(self, embedder: Embedder):
        self.embedder = embedder
        self.name = f"consistency ({embedder.name})"

    def measure(self, prompts: dict[str, Prompt], documents: Sequence[Document], folder: Path) -> list[MetricRecord]:
        vectors, prints = [], []
        for document in documents:
            images = [read_image(folder, block) for block in document.images]
            seen = [image for image in images if image is not None]
            found = iter(self.embedder.images(seen))
            vectors.append([None if image is None else next(found) for image in images])
            prints.append([None if image is None else fingerprint(image) for image in images])
        everything = [vector for one in vectors for vector in one if vector is not None]
        total, count = np.sum(everything, 0) if everything else 0.0, len(everything)
        records = []
        for document, own, seen in zip(documents, vectors, prints):
            values = similarities(own)
            values["lift"] = _lift(own, values["self"], total, count)
            values["entity"] = entity_similarity(own, list(named_entities(prompts[document.prompt_id], document)))
            values["diversity"], flags = diversity(seen)
            # The guard travels with what it guards: nobody shall read a lift that copies have earned without seeing them.
            guard = () if values["diversity"] in (None, 1.0) else (f"low_diversity:{values['diversity']:.2f}",)
            by_image = {"anchor": [None if v is None or own[0] is None else float(v @ own[0]) for v in own]} if own else {}
            for name, value in values.items():
                records.append(MetricRecord(
                    prompt_id=document.prompt_id, system=document.system, metric=f"{self.embedder.name}:{name}", value=value,
                    by_image=tuple(by_image.get(name, ())),
                    flags=tuple(flags) if name == "diversity" else guard if name in ("lift", "self") else (),
                ))  # fmt: skip
        return records


def similarities(vectors: Sequence[np.ndarray | None]) -> dict[str, float | None]:
    """self, adjacent, anchor, worst and drift of unit vectors (None = an image that could not be read).

    None where there are too few images: two for all but drift, which needs three (two points beyond the anchor).
    """
    names = ("self", "adjacent", "anchor", "worst", "drift")
    places = [t for t, vector in enumerate(vectors) if vector is not None]
    if len(places) < 2:
        return dict.fromkeys(names)
    unit = np.stack([vectors[t] for t in places]).astype(np.float64)
    cosine = unit @ unit.T
    pairs = cosine[np.triu_indices(len(unit), 1)]
    neighbours = [cosine[i, i + 1] for i in range(len(places) - 1) if places[i + 1] == places[i] + 1]
    anchor = cosine[0, 1:]
    return {
        "self": float(pairs.mean()),
        "adjacent": float(np.mean(neighbours)) if neighbours else None,
        "anchor": float(anchor.mean()),
        "worst": float(pairs.min()),
        "drift": slope(places[1:], anchor) if len(anchor) > 1 else None,
    }


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the ordinary least squares line of y over x."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / (x * x).sum())


def diversity(prints: Sequence[tuple | None]) -> tuple[float | None, list[str]]:
    """1 - share of near-duplicate pairs, and flags "copy:2" for images that an earlier one shows already."""
    seen = [(t, one) for t, one in enumerate(prints) if one is not None]
    if len(seen) < 2:
        return None, []
    pairs = [(s, t) for i, (s, a) in enumerate(seen) for t, b in seen[i + 1 :] if same_picture(a, b)]
    return 1 - len(pairs) / (len(seen) * (len(seen) - 1) / 2), [f"copy:{t}" for t in sorted({t for _, t in pairs})]


def named_entities(prompt: Prompt, document: Document) -> Iterable[set[str]]:
    """Per image the recurring entities that its dense prompt names; without a dense prompt, the text before it."""
    names = [entity.name for entity in prompt.entities if entity.recurs]
    before = ""
    for block in document.blocks:
        if block.type == "text":
            before = block.text
            continue
        said = (block.dense_prompt or before).lower()
        yield {name for name in names if re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", said)}


def entity_similarity(vectors: Sequence[np.ndarray | None], named: Sequence[set[str]]) -> float | None:
    """Mean cosine over the pairs of images that name an entity in common; None without such a pair."""
    found = [float(vectors[s] @ vectors[t]) for s in range(len(vectors)) for t in range(s + 1, len(vectors))
             if named[s] & named[t] and vectors[s] is not None and vectors[t] is not None]  # fmt: skip
    return float(np.mean(found)) if found else None


def _lift(own, self_similarity: float | None, total, count: int) -> float | None:
    own = [vector for vector in own if vector is not None]
    others = count - len(own)
    if self_similarity is None or not others:
        return None
    mine = np.sum(own, 0)
    return self_similarity - float(mine @ (total - mine)) / (len(own) * others)
