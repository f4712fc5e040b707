"""Drawing latents under a window and references with guidance: the one sampler of nodes, CLI, trainers and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .dpcw import DensePromptContext
from .flow import Guidance, sample
from .twin_dit import ReferenceCache, TwinDiT, Window


@torch.no_grad()
def draw(
    twin: TwinDiT,
    context: DensePromptContext,
    references: Sequence[ReferenceCache],
    noise_BCYX: Tensor,
    *,
    guidance: Guidance,
    steps: int,
    shift: float,
    on_step: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Latents of B images, each under its own window and its own row of every reference.

    All guidance branches run as one batch over one assembled context: words and references are prepared once, not once a step.
    Shapes   context has B rows; references have B rows or one; noise (B, C, Y, X); returns (B, C, Y, X), float32
    """
    branches = guidance.branches(bool(references))
    window = _per_branch(twin.read_window(context), [words for words, _, _ in branches], twin)
    batch = noise_BCYX.shape[0]
    copies = torch.arange(batch, device=noise_BCYX.device).repeat(len(branches))
    seen = torch.tensor([sees for _, sees, _ in branches], device=noise_BCYX.device).repeat_interleave(batch)
    shared = [cache if cache.keys[0].shape[0] == 1 else cache.rows(copies) for cache in references]
    assembled = twin.assemble(window, shared, seen[:, None].expand(-1, len(shared)) if shared else None)
    dtype = twin.dtype

    def predict(noisy: Tensor, time: Tensor) -> Tensor:
        return twin(noisy.to(dtype), time, assembled)

    return sample(predict, noise_BCYX, steps=steps, shift=shift, weights=[weight for _, _, weight in branches],
                  kind=twin.config.prediction, on_step=on_step)


def _per_branch(window: Window, sees_words: Sequence[bool], twin: TwinDiT) -> Window:
    """The window once per guidance branch, branch-major; branches without words see none of it."""
    count, batch = len(sees_words), window.mask.shape[0]
    words = torch.tensor(sees_words, device=window.mask.device).repeat_interleave(batch)
    pooled = None
    if window.pooled is not None:
        pooled = torch.where(words[:, None], window.pooled.repeat(count, 1), twin.pooled_window.nothing.to(window.pooled.dtype))
    return Window(tuple(k.repeat(count, 1, 1, 1) for k in window.keys), tuple(v.repeat(count, 1, 1, 1) for v in window.values),
                  window.mask.repeat(count, 1) & words[:, None], pooled, window.end.repeat(count))
