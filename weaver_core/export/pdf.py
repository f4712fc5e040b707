"""A story as a picture book to print: A4 sheets, text beside its picture, tagged for screen readers (PDF/UA-1).

The plan, and ComfyUI's workflow when there is one, are attached files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..story import Story
from .book import Book, embedded_files
from .files import whole_file
from .typesetting import typesetting


def write(story: Story, path: Path, *, workflow: Mapping[str, str], fonts: str | Path | None) -> None:
    book = Book.of(story)
    with typesetting(book, paper="", attached=embedded_files(book.plan, workflow), fonts=fonts) as setter:
        data = setter.pdf()
    with whole_file(path) as file:
        file.write(data)
