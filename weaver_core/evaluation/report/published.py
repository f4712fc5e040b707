"""Scores that others published. They are printed greyed and never compared with: other prompts, another judge."""

from __future__ import annotations

from collections.abc import Sequence

from ..opening_profile import CRITERIA
from ..records import DIMENSIONS

WEAVERBENCH = {  # arXiv 2603.25706, its own table: PA, NC, CC, IC, CP
    "Wan-Weaver": (8.71, 8.33, 8.50, 8.13, 8.46),
    "Nano Banana": (8.53, 8.19, 8.53, 8.38, 8.29),
    "Emu3.5": (7.65, 7.55, 7.56, 7.50, 7.41),
    "Anole": (4.14, 3.76, 3.77, 3.42, 3.64),
    "Orthus": (2.47, 1.88, 1.69, 1.51, 1.91),
}
# OpenING's released scores: Overall, half of the 95 % interval and the number of outputs recomputed from its records.
OPENING = {
    "Human": (8.57, 0.20, 132),
    "GPT-4o+DALL-E 3": (8.20, 0.26, 133),
    "Gemini1.5+Flux": (7.23, 0.33, 133),
    "SEED-X": (5.84, 0.41, 155),
    "Anole": (5.75, 0.35, 166),
    "SEED-LLaMA": (5.19, 0.34, 148),
    "Emu2": (4.96, 0.36, 159),
    "GILL": (4.55, 0.33, 156),
    "Show-o": (4.41, 0.31, 156),
    "MiniGPT-5": (4.12, 0.31, 142),
    "NExT-GPT": (3.95, 0.34, 142),
}


def published(dims: Sequence[str]) -> list[dict]:
    """Published rows with these dimensions: {"name", "scores": by dimension, "overall", "note"}; [] when there are none."""
    if tuple(dims) == DIMENSIONS:
        return [
            {"name": name, "scores": dict(zip(dims, scores, strict=True)), "overall": sum(scores) / len(scores), "note": "512 prompts"}
            for name, scores in WEAVERBENCH.items()
        ]
    if tuple(dims) == CRITERIA:
        return [
            {"name": name, "scores": {}, "overall": overall, "note": f"± {half:.2f}, {n} outputs"}
            for name, (overall, half, n) in OPENING.items()
        ]
    return []
