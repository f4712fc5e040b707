"""Judge-free measures of documents. Every value is oriented so that higher is better; `DESCRIPTIONS` says what each one is.

Numbers of consistency can be gamed by copying: read `lift` together with `diversity`, always.
"""

from __future__ import annotations

from ..records import Metric

DESCRIPTIONS = {
    "image_count": "share of the wanted number of images that came, 1 when it is right",
    "clean_blocks": "share of blocks without a fault: empty, leaked tag, text cut off, file missing",
    "finished": "1 when the answer ended by itself",
    "has_images": "1 when there is any image",
    "has_text": "1 when there is any text",
    "not_blank": "share of images that show something",
    "not_grid": "share of images that are one picture, not a collage (1 where the prompt asks for one)",
    "palette": "likeness of the images' colours, 0 to 1",
    "hue": "likeness of the images' hues and of how saturated they are, 0 to 1",
    "diversity": "1 - share of pairs of images that are near-duplicates",
    "self": "mean cosine over all pairs of images",
    "adjacent": "mean cosine of neighbouring images",
    "anchor": "mean cosine of the first image with the others",
    "worst": "cosine of the most different pair",
    "drift": "slope of the cosine with the first image over the image index; below 0: the story wanders off",
    "lift": "self - mean cosine with the images of the same system's other documents",
    "entity": "mean cosine over pairs of images whose dense prompts name the same entity",
    "margin": "likeness of images to their own dense prompts - to the document's other ones",
    "recall": "share of images that are nearest to their own dense prompt (R@1)",
}
"""By the part of the metric's name behind the colon; the part before it names the embedder ("builtin:lift")."""


def default_metrics(embedder=None) -> list[Metric]:
    """What needs no judge, no weights and no network; with an `embedder` (metrics/embedders.py) also what it can tell."""
    from .consistency import ConsistencyMetric
    from .embedders import BuiltinEmbedder
    from .own_prompt import OwnPromptMetric, embedder_likeness
    from .pixels import PixelMetric
    from .structure import StructureMetric

    metrics: list[Metric] = [StructureMetric(), PixelMetric(), ConsistencyMetric(BuiltinEmbedder())]
    if embedder is not None:
        metrics.append(ConsistencyMetric(embedder))
        if embedder.reads_text:
            metrics.append(OwnPromptMetric(embedder.name, embedder_likeness(embedder)))
    return metrics
