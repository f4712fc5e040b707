"""Rotary positions with three axes (time, y, x): the planner's M-RoPE, undone and applied, and the visualizer's own.

Axes: B batch, H heads, T tokens, D head size, F = D / 2 frequencies.
Positions are `positions_3BT`: one row each for time, y and x. Text has the same number on all three.

Two layouts say which frequency turns with which axis. `chunked` is Qwen2.5-VL's: the first section of frequencies is
time, the next y, the next x; the planner's cached keys are rotated by it. `interleaved` deals the axes out in turn, so
that every axis gets fast and slow frequencies: with the chunked layout the x axis has only slow ones and hardly tells
neighbouring patches apart (our choice for the visualizer's own tokens).
"""

from __future__ import annotations

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]


def axis_of_frequency(num_frequencies: int, sections: tuple[int, int, int] | None) -> Tensor:
    """Which axis turns each frequency: chunked by `sections`, or interleaved where there are none."""
    if sections is None:
        return torch.arange(num_frequencies) % 3
    if sum(sections) != num_frequencies:
        raise ValueError(f"mrope sections {tuple(sections)} cover {sum(sections)} frequencies, the head has {num_frequencies}")
    return torch.tensor([axis for axis, count in enumerate(sections) for _ in range(count)])


def rotation(positions_3BT: Tensor, head_dim: int, theta: float, sections: tuple[int, int, int] | None = None) -> Rotation:
    """Cosine and sine that turn a head at the given positions.

    Shapes   positions (3, B, T); returns two (B, 1, T, head_dim), float32
    Source   Qwen2-VL M-RoPE for `sections`; interleaved axes are our choice
    """
    num_frequencies = head_dim // 2
    device = positions_3BT.device
    frequency_F = theta ** (-torch.arange(num_frequencies, device=device, dtype=torch.float32) / num_frequencies)
    axis_F = axis_of_frequency(num_frequencies, sections).to(device)
    angle_BTF = positions_3BT.float()[axis_F].permute(1, 2, 0) * frequency_F
    angle_B1TD = torch.cat([angle_BTF, angle_BTF], dim=-1)[:, None]
    return angle_B1TD.cos(), angle_B1TD.sin()


def rotate(x_BHTD: Tensor, rotation: Rotation) -> Tensor:
    """Turn keys or queries; the same pairs of channels (d, d + D/2) as transformers' `rotate_half`."""
    cos, sin = (part.to(x_BHTD.dtype) for part in rotation)
    first, second = x_BHTD.chunk(2, dim=-1)
    return x_BHTD * cos + torch.cat([-second, first], dim=-1) * sin


def unrotate(x_BHTD: Tensor, rotation: Rotation) -> Tensor:
    """Undo `rotate`."""
    cos, sin = rotation
    return rotate(x_BHTD, (cos, -sin))


def image_positions(time_B: Tensor, height: int, width: int, origin_B: Tensor | None = None) -> Tensor:
    """Positions of one image's tokens: its time, and its rows and columns counted from `origin`.

    Shapes   time_B (B,), origin_B (B,) or None for 0; returns (3, B, height * width), row-major
    """
    origin_B = torch.zeros_like(time_B) if origin_B is None else origin_B
    y = torch.arange(height, device=time_B.device).repeat_interleave(width)
    x = torch.arange(width, device=time_B.device).repeat(height)
    return torch.stack([
        (time_B + origin_B)[:, None].expand(-1, height * width),
        origin_B[:, None] + y,
        origin_B[:, None] + x,
    ])
