"""A story as an EPUB 3 book: one chapter file a spread, letters as large as the reader likes, pictures described.

Written by templates and the standard library's ZIP: the package format is a handful of small files, and the library
for it is under the AGPL. The tests run EPUBCheck on it. Plan and workflow lie in META-INF, where readers do not look.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from ..story import Story
from .book import Book, Spread, embedded_files, encode_picture
from .files import Archive, whole_file

_HERE = Path(__file__).parent
_CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
  <rootfiles><rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>
"""


def write(story: Story, path: Path, *, workflow: Mapping[str, str], fonts: object) -> None:
    book = Book.of(story)
    environment = _environment()

    def page(template: str, **values: object) -> str:
        return environment.get_template(f"{template}.jinja").render(book=book, **values)

    with whole_file(path) as file, Archive(file) as archive:
        archive.add("mimetype", "application/epub+zip", packed=False)
        archive.add("META-INF/container.xml", _CONTAINER)
        for name, data in embedded_files(book.plan, workflow).items():
            archive.add(f"META-INF/{name}", data)
        archive.add("EPUB/book.css", (_HERE / "epub.css").read_bytes())
        pictures = []
        for spread in book.spreads:
            picture = _add_picture(archive, book, spread)
            if picture is not None:
                pictures.append(picture)
            archive.add(f"EPUB/{_file(spread)}", page("epub_page.xhtml", spread=spread, picture=picture))
        cover = next((picture for picture in pictures if picture["segment"] == book.cover), None)
        chapters = [{"file": _file(spread), "label": book.line_label(spread)} for spread in book.spreads]
        archive.add("EPUB/title.xhtml", page("epub_title.xhtml", cover=cover))
        archive.add("EPUB/nav.xhtml", page("epub_nav.xhtml", chapters=chapters))
        archive.add("EPUB/package.opf", page("epub_package.opf", identifier=_identifier(book), chapters=chapters,
                                             pictures=pictures, cover=cover))


def _environment():
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _file(spread: Spread) -> str:
    return f"page-{spread.number:03}.xhtml"


def _add_picture(archive: Archive, book: Book, spread: Spread) -> dict | None:
    if spread.image is None or spread.image.id not in book.pictures:
        return None
    image = book.pictures[spread.image.id]
    data, media_type, ending = encode_picture(image)
    name = f"images/{spread.number:03}{ending}"
    archive.add(f"EPUB/{name}", data, packed=False)
    return {
        "segment": spread.image.id, "file": name, "type": media_type, "width": image.width, "height": image.height,
        "alt": " ".join(spread.image.prompt.split()),
    }  # fmt: skip


def _identifier(book: Book) -> str:
    """The same for the same plan: a book whose pictures are drawn anew is another edition of it."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"weaver-plan:{book.plan.dumps()}").urn
