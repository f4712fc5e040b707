"""Embeddings of pictures: made by SigLIP, CLIP or DINOv2 (or the built-in embedder), and spelled as texts in records."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from training.data_engine.record import Record
from weaver_core.errors import InputError


def open_embedder(folder: str, device: str):
    """The embedder in a folder as transformers saves it; "" = the built-in one, which knows colours and textures only."""
    from weaver_core.evaluation.metrics.embedders import BuiltinEmbedder, TransformersEmbedder

    return TransformersEmbedder(folder, device=None if device == "auto" else device) if folder else BuiltinEmbedder()


def spelled(vector_D: np.ndarray) -> str:
    """A vector as text: half precision, base64."""
    return base64.b64encode(vector_D.astype("<f2").tobytes()).decode()


def vectors_of(records: Sequence[Record]) -> np.ndarray:
    """Unit vectors (N, D) of records. InputError where a record has none."""
    if missing := next((record.id for record in records if "embedding" not in record.fields), None):
        raise InputError(f"{missing} has no embedding; put a stage of kind 'embed' before this one")
    found = np.stack([np.frombuffer(base64.b64decode(record.fields["embedding"]), "<f2") for record in records]).astype(np.float32)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
