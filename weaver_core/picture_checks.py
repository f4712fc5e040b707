"""What is wrong with a picture, seen from its pixels alone: blank, a grid of panels, a copy of another page.

Plain functions on Pillow images, numpy only; the slowest (`grid_shape`) takes 16 ms of one core at 1024 x 1024. The weave
loop, the metrics and the oracle use the same ones. They name faults that interleaved generators are known for (almost blank
pages, one 2 x 2 collage in every place, near-copies) and rather miss one than blame a good picture: window panes, chessboards,
bookshelves, symmetrical pictures and a scenery that comes back page after page are all right. Thresholds are our choice,
measured on such pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from .picture_seams import SIDE, seam_at, seam_shape

BLANK_SPREAD = 4.0  # grey levels that are left once a linear shading is taken away
BLANK_ENTROPY = 0.15  # bits; one small dot on paper has 0.05, a thin line drawing 0.5
REPEAT, REPEAT_LEAD = 0.4, 0.1  # likeness of halves both ways, and its lead over every smaller shift (a chessboard has none)
COPY, COPY_LEAD, COPY_SEAM = 0.85, 0.3, 0.6  # the same where halves repeat one way only; rank of the seam between them
HASH_DISTANCE = 8  # of 64 bits
CHANGED_LEVEL, CHANGED_SHARE = 24.0, 0.02  # of 16 x 16 cells, how many may differ by more than so many levels


def blankness(image: Image.Image) -> tuple[float, float]:
    """Spread (grey levels) and entropy (bits) of what a picture shows beyond one colour or a linear shading."""
    pixels = _pixels(image, 48).reshape(-1, 3)
    left = pixels - _plane(48) @ (_plane_inverse(48) @ pixels)
    levels = np.round(left / 12).astype(np.int64).clip(-31, 31) + 31
    counts = np.bincount(levels @ (4096, 64, 1))
    share = counts[counts > 0] / len(levels)
    return float(left.std(0).max()), float(max(0.0, -(share * np.log2(share)).sum()))


def is_blank(image: Image.Image) -> bool:
    """Whether a picture shows (almost) nothing: one colour, a plain shading, faint noise, or a speck on a bare sheet."""
    spread, entropy = blankness(image)
    return spread < BLANK_SPREAD or entropy < BLANK_ENTROPY


def grid_shape(image: Image.Image) -> tuple[int, int] | None:
    """(columns, rows) of a collage of equal panels: (3, 3), (2, 2) or (2, 1); None for one picture.

    Two signs. Seams (picture_seams.py): along the whole width and height, where panels would meet and nowhere else, the
    picture changes more than at any other line, and past any gutter it is another picture. Repetition: halves look alike,
    and more so than at any smaller shift; both ways, or one way, nearly to the pixel and with a seam between them (one
    picture twice, side by side, is called (2, 2) as well). The measured numbers stand in picture_seams.py.
    """
    pixels = _pixels(image, SIDE)
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    shape = seam_shape(pixels, turned)
    if shape is not None:
        return shape
    (across, lead_across), (down, lead_down) = _repeat(pixels), _repeat(turned)
    if min(across, down) >= REPEAT and min(lead_across, lead_down) >= REPEAT_LEAD:
        return 2, 2
    # Two pages of one story, each of them twice: halves repeat one way only, but nearly to the pixel and with a seam between.
    for likeness, lead, laid in ((across, lead_across, pixels), (down, lead_down, turned)):
        if likeness >= COPY and lead >= COPY_LEAD and seam_at(laid, 2).rank >= COPY_SEAM:
            return 2, 2
    return None


def is_grid(image: Image.Image) -> bool:
    return grid_shape(image) is not None


def near_duplicates(images: Sequence[Image.Image]) -> list[tuple[int, int]]:
    """The pairs (i, j), i < j, of pictures that show the same: equal but for size, compression, noise or a slight blur.

    A perceptual hash (of gradients or of frequencies) must nearly agree, and hardly any place may have changed: the same
    scenery with another hero, another pose or another thing in it is a new picture, and so is a recoloured one.
    """
    prints = [fingerprint(image) for image in images]
    return [(i, j) for i in range(len(prints)) for j in range(i + 1, len(prints)) if same_picture(prints[i], prints[j])]


def fingerprint(image: Image.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dHash and pHash (64 booleans each) and the picture's 16 x 16 cells (RGB), for `same_picture`."""
    return dhash(image), phash(image), _pixels(image, 16)


def same_picture(a, b) -> bool:
    """Whether two fingerprints are of near-duplicates."""
    if min(int((a[0] != b[0]).sum()), int((a[1] != b[1]).sum())) > HASH_DISTANCE:
        return False
    changed = (np.abs(a[2] - b[2]).max(2) > CHANGED_LEVEL).mean()
    return bool(changed <= CHANGED_SHARE)


def dhash(image: Image.Image) -> np.ndarray:
    """64 booleans: whether brightness rises to the right, on a 9 x 8 sheet."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS), np.float32)
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def phash(image: Image.Image) -> np.ndarray:
    """64 booleans: which of the 8 x 8 lowest cosine frequencies of a 32 x 32 sheet lie above their median."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float32)
    low = (_cosines() @ grey @ _cosines().T)
    return (low > np.median(low)).ravel()


# ---- parts


def _pixels(image: Image.Image, side: int) -> np.ndarray:
    """The picture squeezed to side x side, float (side, side, 3), 0 to 255; every pixel the mean of what it covers."""
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BOX), np.float32)


@lru_cache(maxsize=2)
def _plane(side: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return np.stack([np.ones_like(x), x, y], -1).reshape(-1, 3).astype(np.float32)


@lru_cache(maxsize=2)
def _plane_inverse(side: int) -> np.ndarray:
    return np.linalg.pinv(_plane(side)).astype(np.float32)


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """The first 8 rows of the cosine transform of length 32."""
    k, n = np.mgrid[0:8, 0:32]
    return np.cos(np.pi * k * (2 * n + 1) / 64).astype(np.float32)


def _repeat(pixels: np.ndarray) -> tuple[float, float]:
    """How much the right half looks like the left one (correlation), and by how much that beats every smaller shift.

    Every row's mean is taken away first: sky over ground looks the same at any shift.
    """
    side = pixels.shape[1] // 2
    small = pixels.reshape(side, 2, side, 2, 3).mean((1, 3))
    flat = small - small.mean(1, keepdims=True)
    if flat.std() < BLANK_SPREAD:
        return 0.0, 0.0

    def likeness(shift: int) -> float:
        a, b = flat[:, : side - shift].ravel(), flat[:, shift:].ravel()
        return float(a @ b / max(1e-6, np.sqrt((a @ a) * (b @ b))))

    half = max(likeness(shift) for shift in range(side // 2 - 1, side // 2 + 2))
    return half, half - max(abs(likeness(shift)) for shift in range(side // 8, side * 3 // 8 + 1))
