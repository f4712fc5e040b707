"""Pictures of a run as small JPEGs inside the page; each file is read once, and none lies outside its folder."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from ...errors import WeaverError
from ...pictures import read_picture
from ..importers.files import picture_path

THUMBNAIL_SIDE = 320


@dataclass(frozen=True, slots=True)
class Picture:
    """source "": it cannot be shown, and `problem` says why."""

    source: str
    width: int = 0
    height: int = 0
    problem: str = ""


class Thumbnails:
    """Pictures by folder and path, made small (the longer side at most `side` pixels)."""

    def __init__(self, side: int = THUMBNAIL_SIDE):
        self._side = side
        self._made: dict[tuple[Path, str], Picture] = {}

    def get(self, folder: Path, path: str) -> Picture:
        key = (folder, path)
        if key not in self._made:
            self._made[key] = self._make(folder, path)
        return self._made[key]

    def _make(self, folder: Path, path: str) -> Picture:
        try:
            image, _ = read_picture(picture_path(folder, path, "picture"), path)
        except WeaverError as error:
            return Picture("", problem=str(error).replace(str(folder), "the run folder"))  # no machine's paths in a page
        image.thumbnail((self._side, self._side))
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=84)
        source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        return Picture(source, image.width, image.height)
