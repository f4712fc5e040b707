"""Cross entropy of answers: scores only where there is a label, a bounded number of them at once, and packed sequences kept apart.

Axes: B rows, T tokens, D width, K tokens with a loss, V vocabulary, E excluded words.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from training.estimate import LOSS_CHUNK
from training.packing import IGNORED


def answer_loss(
    head, hidden_BTD: Tensor, labels_BT: Tensor, softcap: float | None = None, excluded_BTE: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Loss of every answer token, and whether the likeliest token is right. Shapes   (K,), (K,) bool

    excluded_BTE   words that a label's position must not be taught to be wrong: they are left out of its softmax; -1 is none

    A vocabulary of 150,000 words times a few thousand tokens would be the largest thing in memory, so scores of more than
    LOSS_CHUNK tokens are computed chunk by chunk, and again in the backward pass.
    """
    wanted_BT = labels_BT[:, 1:] != IGNORED
    labels_K = labels_BT[:, 1:][wanted_BT]
    hidden_KD = hidden_BTD[:, :-1][wanted_BT]
    excluded_KE = labels_K.new_empty(len(labels_K), 0) if excluded_BTE is None else excluded_BTE[:, 1:][wanted_BT]
    if len(labels_K) <= LOSS_CHUNK:
        return _chunk_loss(head, hidden_KD, labels_K, excluded_KE, softcap)
    parts = [checkpoint(_chunk_loss, head, *chunk, softcap, use_reentrant=False)
             for chunk in zip(*(values.split(LOSS_CHUNK) for values in (hidden_KD, labels_K, excluded_KE)))]
    losses, rights = zip(*parts)
    return torch.cat(losses), torch.cat(rights)


def _chunk_loss(
    head, hidden_KD: Tensor, labels_K: Tensor, excluded_KE: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    logits_KV = head(hidden_KD).float()
    if softcap is not None:
        logits_KV = softcap * torch.tanh(logits_KV / softcap)
    token_N, place_N = (excluded_KE >= 0).nonzero(as_tuple=True)
    if len(token_N):
        logits_KV = logits_KV.index_put((token_N, excluded_KE[token_N, place_N]), logits_KV.new_tensor(-torch.inf))
    return F.cross_entropy(logits_KV, labels_K, reduction="none"), logits_KV.detach().argmax(-1) == labels_K


def packed_positions(lengths: list[int], rope_positions_3T: Tensor | None, device) -> Tensor:
    """The one mask rule of packing: positions that begin at 0 with every sequence. transformers makes the block-diagonal causal
    mask of them, dense for SDPA or a block mask for FlexAttention.

    rope_positions_3T   positions of models whose images have rows and columns, which restart in the same way
    Shapes   returns (1, T), or (4, 1, T): the rule's positions, then time, y and x
    """
    text_1T = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    return text_1T if rope_positions_3T is None else torch.cat([text_1T[None], rope_positions_3T[:, None]])


@torch.no_grad()
def keeps_apart(base, positions, device, vocabulary: int) -> bool:
    """Whether a network computes two packed sequences as it computes each alone: asked of the model itself, not of a list of names."""
    generator = torch.Generator().manual_seed(0)
    pieces = [torch.randint(0, vocabulary, (1, length), generator=generator).to(device) for length in (7, 5)]
    try:
        together = base(input_ids=torch.cat(pieces, 1), position_ids=positions([7, 5]), use_cache=False).last_hidden_state
        alone = base(input_ids=pieces[1], position_ids=positions([5]), use_cache=False).last_hidden_state
    except (TypeError, ValueError, RuntimeError, NotImplementedError, IndexError):
        return False
    return bool((together[:, 7:] - alone).float().norm() < 0.02 * alone.float().norm())
