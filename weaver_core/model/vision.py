"""Pictures as the planner's ViT reads them: flattened patches and the grid they come from.

Axes: B batch, N patches of all pictures, P values of one patch.
"""

from __future__ import annotations

import numpy as np


def merged_grid(height: int, width: int, vision_config) -> tuple[int, int]:
    """Rows and columns of a picture's merged ViT tokens.

    Raises   ValueError if a side is no multiple of patch size times merge size
    """
    unit = vision_config.patch_size * vision_config.spatial_merge_size
    if height < unit or width < unit or height % unit or width % unit:
        raise ValueError(f"a picture of {width}x{height} pixels; the planner needs multiples of {unit}: resize it")
    return height // unit, width // unit


def image_patches(pixels_BHWC: np.ndarray, vision_config) -> tuple[np.ndarray, np.ndarray]:
    """ViT input of pictures of one size.

    Shapes   pixels uint8 (B, H, W, 3); returns patches float32 (N, P) and grids int64 (B, 3) of unmerged patches
    Units    patch values in [-1, 1]; a picture stands for `temporal_patch_size` equal frames
    Source   order of Qwen2-VL's image processor; the plain scaling to [-1, 1] is our choice
    """
    patch, merge, frames = vision_config.patch_size, vision_config.spatial_merge_size, vision_config.temporal_patch_size
    batch, height, width, channels = pixels_BHWC.shape
    rows, columns = merged_grid(height, width, vision_config)
    x = pixels_BHWC.astype(np.float32) / 127.5 - 1
    x = x.reshape(batch, rows, merge, patch, columns, merge, patch, channels)
    # tokens by (row, column, row in the merged cell, column in it); inside a patch (channel, frame, y, x)
    x = x.transpose(0, 1, 4, 2, 5, 7, 3, 6)[:, :, :, :, :, :, None]
    x = np.broadcast_to(x, (*x.shape[:6], frames, patch, patch))
    grid = np.array([[1, rows * merge, columns * merge]] * batch, dtype=np.int64)
    return x.reshape(batch * rows * columns * merge * merge, -1), grid
