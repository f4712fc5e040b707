"""Pictures by content: the same pixels are kept once, under their hash, whoever brings them."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

from PIL import Image

from weaver_core.durable import write_whole
from weaver_core.errors import InputError
from weaver_core.pictures import encode_png, image_key


class PictureStore:
    """A folder of PNG files. A file is there whole or not at all; several processes may write."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def put(self, image: Image.Image) -> str:
        """Keeps an RGB picture and returns its key."""
        key = image_key(image)
        path = self.path(key)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, encode_png(image))
        return key

    def get(self, key: str) -> Image.Image:
        """The picture, RGB. InputError when it is not there any more."""
        try:
            with Image.open(self.path(key)) as image:
                return image.convert("RGB")
        except OSError as error:
            raise InputError(f"the picture store has lost {self.path(key)} ({error.strerror or error}); delete the work folder's journal "
                             "and build again") from None

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.png"

    def link(self, key: str, target: Path) -> None:
        """The picture under another name, instead of one that had it before: a hard link where the disk has them, else a copy."""
        source = self.path(key)
        if target.exists() and (os.path.samefile(source, target) or filecmp.cmp(source, target, shallow=False)):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
