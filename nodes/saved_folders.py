"""Folders that our nodes have saved inside ComfyUI's output folder: which there are, and which one a name means.

A workflow may come from a stranger, so a name never leads out of the output folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..weaver_core.errors import InputError
from ..weaver_core.segments import ILLEGAL
from . import host

MAX_NAME = 250
_DEPTH = 3  # folders below the output folder in which they are looked for
_MAX_FOLDERS = 5_000  # that are looked into: the list is made anew whenever the page asks for the nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedKind:
    """What is saved: the word for it, the input that names it, the file that such a folder holds, and who writes it."""

    word: str
    input: str
    marker: str
    example: str
    made_by: str

    def names(self) -> list[str]:
        """The folders inside the output folder, newest first; drafts are not among them."""
        output, drafts = _output_folder(), host.drafts_folder()
        found: list[tuple[float, str]] = []
        level, num_looked_at = [output], 0
        for _ in range(_DEPTH):
            below: list[Path] = []
            for folder in level:
                try:
                    entries = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
                except OSError:
                    continue  # unreadable folders hold nothing to offer
                num_looked_at += len(entries)
                if num_looked_at > _MAX_FOLDERS:
                    below = []
                    break
                for path in (Path(entry.path) for entry in entries):
                    name = path.relative_to(output).as_posix()
                    if path == drafts or path.name.startswith(".") or ILLEGAL.search(name):
                        continue
                    marker = path / self.marker
                    if marker.is_file():
                        found.append((marker.stat().st_mtime, name))
                    else:
                        below.append(path)
            level = below
        return [name for _, name in sorted(found, reverse=True)]

    def folder(self, name: str) -> Path:
        """The folder with this name inside the output folder. InputError when there is none, or it leads elsewhere."""
        shown = repr(name[:60]) if isinstance(name, str) else type(name).__name__
        usable = (
            isinstance(name, str)
            and len(name) <= MAX_NAME
            and not ILLEGAL.search(name)
            and "\\" not in name
            and not PureWindowsPath(name).drive
            and not any(part in ("", ".", "..") for part in name.split("/"))
        )
        if not usable:
            raise InputError(
                f"{self.input} is {shown}; it must be the name of a folder inside ComfyUI's output folder, such as {self.example}"
            )
        path = _output_folder() / name
        try:
            inside = path.resolve().is_relative_to(_output_folder().resolve())
            marker = path / self.marker
            there = inside and marker.is_file() and not marker.is_symlink()
        except (OSError, RuntimeError):  # a name that is too long for the disk; links in a circle
            inside, there = True, False
        if not inside:
            raise InputError(f"{self.input} {shown} leads out of ComfyUI's output folder; copy the {self.word} into it")
        if not there:
            others = self.names()[:5]
            known = f"there is {', '.join(others)}" if others else f"there is none yet: {self.made_by} writes one"
            raise InputError(f"there is no {self.word} {shown} in ComfyUI's output folder; {known}")
        return path

    def is_usable(self, name: object) -> bool | str:
        """For `validate_inputs`: True, or what is wrong. Instead of ComfyUI's own check of the list, which would refuse what
        lies deeper, and says less."""
        if isinstance(name, str):
            try:
                self.folder(name)
            except InputError as error:
                return str(error)
        return True


def _output_folder() -> Path:
    return host.drafts_folder().parent
