"""A story as Markdown, with its pictures as PNG files in a folder beside it: `book.md` and `book-images/`.

The story's words stay words: whatever means something to Markdown or HTML is escaped. The plan is a comment at the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from ..durable import write_whole
from ..errors import StoryError
from ..pictures import encode_png
from ..story import Story
from .book import Book, Spread, picture_texts
from .files import whole_file

COMMENT = "weaver-plan"
_SPECIAL = re.compile(r"[\\`*_\[\]<>&~|$]")
_LINE_START = re.compile(r"^(?:(?P<mark>[#+\-=:])|(?P<number>[0-9]{1,9})(?P<after>[.)]))")
# Inside JSON these letters stand in strings only; without ">" no comment ends.
_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>"}


def write(story: Story, path: Path, *, workflow: Mapping[str, str], fonts: object) -> None:
    book = Book.of(story)
    folder = path.with_name(f"{path.stem}-images")
    with whole_file(path) as file:
        file.write(_head(book).encode())
        for spread in book.spreads:
            parts = [_escape_lines(paragraph) for paragraph in spread.paragraphs]
            if spread.image is not None:
                parts.append(_picture(book, spread, folder, workflow))
            file.write(("\n\n".join(parts) + "\n\n").encode())
        file.write(f"<!-- {COMMENT}\n{_safe_json(book)}\n-->\n".encode())


def _head(book: Book) -> str:
    # YAML reads JSON strings as they are.
    fields = {"title": book.title, "lang": book.language, "generator": "Weaver"}
    head = "".join(f"{name}: {json.dumps(text, ensure_ascii=False)}\n" for name, text in fields.items())
    names = f"*{' · '.join(map(_escape, book.names))}*\n\n" if book.names else ""
    return f"---\n{head}---\n\n# {_escape(book.title)}\n\n{names}"


def _picture(book: Book, spread: Spread, folder: Path, workflow: Mapping[str, str]) -> str:
    alt = " ".join(spread.image.prompt.split())
    if spread.image.id not in book.pictures:
        return f"> *{_escape(alt)}*"
    name = f"{spread.number:02}-{spread.image.id}.png"  # the number keeps ids apart that differ in small and capital letters
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise StoryError(f"{folder} is no folder, and the pictures belong there; move it, or choose another name")
    data = encode_png(book.pictures[spread.image.id], picture_texts(alt, workflow))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / name, data)
    return f"![{_escape(alt)}]({quote(folder.name)}/{name})"


def _escape(text: str) -> str:
    """One line of text that Markdown shows as it is, wherever it stands."""
    text = _SPECIAL.sub(lambda found: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(found[0], f"\\{found[0]}"), text)
    return _LINE_START.sub(lambda found: f"{found['number'] or ''}\\{found['mark'] or found['after']}", text)


def _escape_lines(paragraph: str) -> str:
    return "\\\n".join(map(_escape, paragraph.split("\n")))


def _safe_json(book: Book) -> str:
    return json.dumps(book.plan.to_json(), ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES)
