"""Quality of single pictures, their perceptual hashes, and their embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.data_engine.record import Outcome, Record, Rejected
from training.data_engine.stages import Stage
from training.data_engine.vectors import spelled
from weaver_core.errors import InputError
from weaver_core.picture_checks import grid_shape, is_blank, phash


class CheckPicture(Stage):
    """Picture -> the same with its perceptual hash, or the reason why nothing good is learned from it."""

    version = 2

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        least_side: int = 256  # pixels
        most_aspect: float = 2.5  # long side over short side
        least_sharpness: float = 20.0  # variance of the Laplacian on a sheet of 256 pixels; a photograph out of focus has below 10
        most_text: float = 0.25  # share of the picture that lies under lines of letters; 1 = do not look
        drops_grids: bool = True  # collages of panels

    def one(self, record: Record) -> Iterable[Outcome]:
        image, wanted = self.tools.store.get(record.fields["picture"]), self.settings
        width, height = image.size
        if min(width, height) < wanted.least_side:
            raise Rejected("too small", f"{width} x {height} pixels; at least {wanted.least_side} on each side are asked for")
        if max(width, height) > wanted.most_aspect * min(width, height):
            raise Rejected("too long", f"{width} x {height} pixels; the long side may be {wanted.most_aspect:g} times the short one")
        if is_blank(image):
            raise Rejected("blank")
        if wanted.drops_grids and (shape := grid_shape(image)):
            raise Rejected("collage", f"{shape[0]} x {shape[1]} panels")
        if (found := sharpness(image)) < wanted.least_sharpness:
            raise Rejected("blurred", f"sharpness {found:.1f}; at least {wanted.least_sharpness:g} is asked for")
        if wanted.most_text < 1 and (share := text_share(image)) > wanted.most_text:
            raise Rejected("full of text", f"{share:.0%} lie under lines of letters; at most {wanted.most_text:.0%} may")
        return [record.with_fields(hash=np.packbits(phash(image)).tobytes().hex(), width=width, height=height)]


class Embed(Stage):
    """Picture -> the same with a unit vector that says what it shows."""

    embeds = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        pass

    def shard(self, records: Sequence[Record]) -> list[Outcome]:
        vectors = self.tools.embedder.images([self.tools.store.get(record.fields["picture"]) for record in records])
        return [record.with_fields(embedding=spelled(vector)) for record, vector in zip(records, vectors)]


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian of the grey picture, its long side brought to 256 pixels (Pech-Pacheco et al. 2000)."""
    grey = image.convert("L")
    grey.thumbnail((256, 256), Image.Resampling.BOX)
    g = np.asarray(grey, np.float32)
    return float((4 * g[1:-1, 1:-1] - g[:-2, 1:-1] - g[2:, 1:-1] - g[1:-1, :-2] - g[1:-1, 2:]).var())


def text_share(image: Image.Image) -> float:
    """The share of a picture that lies under lines of letters: rows of at least six small, equally high marks side by side.

    Our own rule: marks are connected spots that differ from the mean around them; letters of one line share their height
    and stand close. Screenshots, posters and pages of books have above 0.3, pictures with a sign or a caption below 0.1.
    """
    try:
        from scipy import ndimage
    except ImportError:
        raise InputError('to look for text needs scipy: pip install "wan-weaver[data]"; or set most_text = 1.0') from None
    grey = image.convert("L")
    grey.thumbnail((512, 512), Image.Resampling.LANCZOS)
    g = np.asarray(grey, np.float32)
    around = ndimage.uniform_filter(g, 31)
    shares = (_text_area(ndimage, marks) for marks in (g < around - 25, g > around + 25))
    return max(shares) / g.size


def _text_area(ndimage, marks: np.ndarray) -> float:
    labels, _ = ndimage.label(marks, np.ones((3, 3)))
    boxes = [(y.start, y.stop, x.start, x.stop) for y, x in ndimage.find_objects(labels)]
    letters = sorted((b for b in boxes if 3 <= b[1] - b[0] <= 40 and 1 <= b[3] - b[2] <= 60), key=lambda b: b[2])
    lines: list[list[tuple]] = []
    for box in letters:
        height = box[1] - box[0]
        for line in reversed(lines[-400:]):
            last = line[-1]
            other = last[1] - last[0]
            overlap = min(box[1], last[1]) - max(box[0], last[0])
            is_as_high = overlap >= 0.5 * min(height, other) and max(height, other) <= 2.2 * min(height, other)
            if is_as_high and -2 <= box[2] - last[3] <= 1.2 * max(height, other):
                line.append(box)
                break
        else:
            lines.append([box])
    return float(sum((max(b[1] for b in line) - min(b[0] for b in line)) * (line[-1][3] - line[0][2]) for line in lines if len(line) >= 6))
