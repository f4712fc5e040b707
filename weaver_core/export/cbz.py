"""A story as a comic archive: every page as a PNG, set as in the PDF on paper of a warm colour, with ComicInfo.xml.

What the pages say and show is in the summary of ComicInfo.xml too, and every PNG carries its picture's description and
ComfyUI's workflow as ComfyUI's own pictures do.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from ..pictures import encode_png
from ..story import Story
from .book import Book, Spread, embedded_files, picture_texts
from .files import Archive, whole_file
from .typesetting import typesetting

PAPER = "#fbf6ea"


def write(story: Story, path: Path, *, workflow: Mapping[str, str], fonts: str | Path | None) -> None:
    book = Book.of(story)
    with typesetting(book, paper=PAPER, attached={}, fonts=fonts) as setter:
        setter.pdf(pictures="no")  # says which letters no font has; a picture of a page would show boxes for them
        with whole_file(path) as file, Archive(file) as archive:
            pages = []
            for number, alt in _pages(book):
                for data in setter.page(number):
                    name = f"{len(pages):03}.png"  # counted through: long texts make more pages, and readers sort by name
                    with Image.open(io.BytesIO(data)) as image:
                        data = encode_png(image.convert("RGB"), picture_texts(alt, workflow))
                        pages.append((*image.size, len(data)))
                    archive.add(name, data, packed=False)
            archive.add("ComicInfo.xml", _comic_info(book, pages))
            for name, data in embedded_files(book.plan, workflow).items():
                archive.add(name, data)


def _pages(book: Book) -> Iterator[tuple[int, str]]:
    """The number of every page, 0 for the title page, and what it says and shows."""
    yield 0, book.title
    for spread in book.spreads:
        yield spread.number, _told(spread)


def _told(spread: Spread) -> str:
    shown = (f"[{' '.join(spread.image.prompt.split())}]",) if spread.image is not None else ()
    return "\n".join((*spread.paragraphs, *shown))


def _comic_info(book: Book, pages: list[tuple[int, int, int]]) -> bytes:
    """ComicInfo.xml of version 2.0; the order of its elements is the schema's."""
    root = ElementTree.Element("ComicInfo")
    fields = {
        "Title": book.title,
        "Summary": "\n\n".join(map(_told, book.spreads)),
        "Notes": book.credit,
        "PageCount": str(len(pages)),
        "LanguageISO": book.language,
        "Manga": "YesAndRightToLeft" if book.is_rtl else "No",
        "Characters": ", ".join(name.replace(",", " ") for name in book.names),
    }
    for name, text in fields.items():
        if text:
            ElementTree.SubElement(root, name).text = text
    listed = ElementTree.SubElement(root, "Pages")
    for index, (width, height, num_bytes) in enumerate(pages):
        ElementTree.SubElement(
            listed, "Page", Image=str(index), Type="FrontCover" if index == 0 else "Story", ImageSize=str(num_bytes),
            ImageWidth=str(width), ImageHeight=str(height),
        )  # fmt: skip
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
