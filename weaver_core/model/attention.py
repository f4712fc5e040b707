"""Who sees whom in the Twin DiT, said once (paper: generalized causal multi-modal self-attention).

A shot is one image to draw. Around it lie three kinds of tokens: the *window* (planner keys and values: they are
looked at and never look), the *references* (clean images, each blind to everything but itself, so that its keys do
not depend on the step, the target or the page) and the *target* (the noise being drawn). `visible` is the rule.
Packed training turns it into a mask; the cached path of `twin_dit` obeys it by construction, and a test holds both equal.

Axes: B batch, H query heads, G key/value heads, T query tokens, K key tokens, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, REFERENCE, TARGET, PADDING = 0, 1, 2, 3


@dataclass(slots=True)
class TokenMap:
    """What every token of a packed sequence is.

    Shapes   all (B, T) integers. `shot` numbers the images to draw; `kind` is one of the constants above;
             `image` tells one reference of a shot from another (0 for window and target)
    """

    shot: Tensor
    kind: Tensor
    image: Tensor

    @staticmethod
    def cat(maps: list[TokenMap]) -> TokenMap:
        return TokenMap(*(torch.cat([getattr(m, name) for m in maps], dim=1) for name in ("shot", "kind", "image")))

    @staticmethod
    def block(shot_B: Tensor, kind: int, image: int, length: int) -> TokenMap:
        shot = shot_B[:, None].expand(-1, length)
        return TokenMap(shot, torch.full_like(shot, kind), torch.full_like(shot, image))


def visible(query: TokenMap, key: TokenMap) -> Tensor:
    """The mask rule: True where a query token may look at a key token.

    Shapes   query (B, T), key (B, K); returns (B, 1, T, K), bool
    Source   paper section 2 (window, references beside the noise); references blind to each other: our choice
    """
    q_shot, q_kind, q_image = (part[:, :, None] for part in (query.shot, query.kind, query.image))
    k_shot, k_kind, k_image = (part[:, None, :] for part in (key.shot, key.kind, key.image))
    target_looks = (q_kind == TARGET) & (k_kind != PADDING)
    reference_looks = (q_kind == REFERENCE) & (k_kind == REFERENCE) & (q_image == k_image)
    return ((q_shot == k_shot) & (target_looks | reference_looks))[:, None]


def attend(q_BHTD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, mask: Tensor | None = None) -> Tensor:
    """Grouped-query attention.

    Shapes   mask broadcasts to (B, H, T, K), True = may look, or None for no mask at all; returns (B, T, H * D)
    """
    batch, heads, tokens, size = q_BHTD.shape
    groups = k_BGKD.shape[1]
    k_BGKD, v_BGKD = k_BGKD.to(q_BHTD.dtype), v_BGKD.to(q_BHTD.dtype)
    if heads != groups and (mask is None or mask.shape[2] == 1):
        # Query heads of one group become more rows of one attention: keys are read once and never copied.
        rows = q_BHTD.reshape(batch, groups, heads // groups * tokens, size)
        one = _attend_written_out if torch.is_grad_enabled() and rows.device.type == "cpu" else F.scaled_dot_product_attention
        out = one(rows, k_BGKD, v_BGKD, attn_mask=mask).view(batch, heads, tokens, size)
    else:
        out = F.scaled_dot_product_attention(q_BHTD, k_BGKD, v_BGKD, attn_mask=mask, enable_gqa=heads != groups)
    return out.transpose(1, 2).reshape(batch, tokens, heads * size)


def _attend_written_out(q_BGTD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, attn_mask: Tensor | None) -> Tensor:
    """The same attention in single operations: its backward pass on a CPU takes half the time of the fused kernel's."""
    scores = (q_BGTD * q_BGTD.shape[-1] ** -0.5) @ k_BGKD.transpose(-1, -2)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).to(v_BGKD.dtype) @ v_BGKD
