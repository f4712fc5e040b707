"""Stories as files for readers: HTML, Markdown, PDF, EPUB and CBZ, each of which opens again as a plan (`reading.py`).

Pictures are read from the story one at a time, when their page is written; no format keeps them all in memory decoded
(the PDF's typesetter does, at print size: `typesetting.py`). Nothing in a file depends on when or where it was made, so
equal stories give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ..errors import InputError
from ..story import Story

__all__ = ["FORMATS", "Format", "export_story"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of file. `module` holds `write(story, path, *, workflow, fonts)`."""

    name: str
    ending: str
    description: str
    module: str

    @property
    def write(self) -> Callable[..., None]:
        return import_module(self.module, __package__).write


FORMATS = {
    item.name: item
    for item in (
        Format(name="html", ending=".html", description="one page for the browser, pictures inside", module=".html"),
        Format(name="pdf", ending=".pdf", description="a picture book to print, one sheet a page", module=".pdf"),
        Format(name="epub", ending=".epub", description="an e-book that follows the reader's letter size", module=".epub"),
        Format(name="cbz", ending=".cbz", description="a comic archive: every page as a picture", module=".cbz"),
        Format(name="md", ending=".md", description="Markdown with a folder of pictures beside it", module=".markdown"),
    )
}


def export_story(
    story: Story,
    path: str | Path,
    format: str,
    *,
    workflow: Mapping[str, str] | None = None,
    fonts: str | Path | None = None,
) -> Path:
    """Writes the story as one file (whole or not at all) and returns its path; Markdown has a folder beside it.

    format     one of FORMATS
    workflow   the texts that ComfyUI's Save Image puts into a PNG, by keyword ("prompt", "workflow"), each JSON
    fonts      a folder with fonts for `pdf` and `cbz`, looked at before the system's own

    An image that is not drawn yet is represented by its dense prompt. InputError when the format is unknown, the path
    cannot be one, or no font has the letters of the story; StoryError when the file cannot be written; ImportError
    with the command that installs what a format needs.
    """
    if format not in FORMATS:
        raise InputError(f"format is {format!r}; it must be one of {', '.join(FORMATS)}")
    if story.plan is None:
        raise InputError("the story has no plan yet, so there is nothing to export; finish it with 'weaver resume'")
    if "\0" in str(path):
        raise InputError(f"{str(path)[:80]!r} is no file name; leave the NUL character out")
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the file to write, such as {path / ('story' + FORMATS[format].ending)}")
    FORMATS[format].write(story, path, workflow=_checked_workflow(workflow or {}), fonts=fonts)
    return path


def _checked_workflow(workflow: Mapping[str, str]) -> Mapping[str, str]:
    for keyword, text in workflow.items():
        try:
            json.loads(text)
        except (TypeError, ValueError, RecursionError):
            raise InputError(
                f"workflow[{keyword[:40]!r}] is no JSON text; give what ComfyUI writes into its pictures"
            ) from None
    return workflow
