"""Files that appear whole or not at all although they are written piece by piece, and archives with no time in them."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..durable import sync_folder
from ..errors import StoryError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to; it gets its name when everything is on disk. StoryError when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise StoryError(f"{path} cannot be written: {error.strerror or error}") from None


class Archive:
    """A ZIP file whose bytes depend on what is in it alone: no clock, no machine, the order of adding."""

    def __init__(self, file: BinaryIO):
        self._zip = zipfile.ZipFile(file, "w")

    def add(self, name: str, data: bytes | str, *, packed: bool = True) -> None:
        """`packed=False` for what is compressed already, and for EPUB's first file."""
        entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        entry.create_system = 3  # Unix, wherever it is written
        entry.external_attr = 0o644 << 16
        self._zip.writestr(entry, data)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_) -> None:
        self._zip.close()
