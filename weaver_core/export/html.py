"""A story as one HTML page that needs nothing else: text and pictures side by side, as in a picture book.

Light and dark, narrow and wide, on screen and on paper; no script. What the story says is text wherever it stands, and
the page's own security policy forbids everything but its style and its pictures. The plan is inside as a block of data
(a `script` element of type application/json, which no browser runs).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from ..picture_faults import fault_sentence
from ..plan import Plan
from ..story import Story
from .book import Book, Spread, embedded_files, encode_picture
from .files import whole_file

_HERE = Path(__file__).parent
_WIDE = 1.45  # width / height from which a picture stands above its text, as on the printed page
# Inside JSON these letters stand in strings only, where an escape means the same; so no element can end in the data.
_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def html_page(plan: Plan, images: Mapping[str, Image.Image]) -> str:
    """The page, with the images (by segment id) inside; an image that is missing shows its dense prompt."""
    return "".join(_pieces(Book(plan, images), {}))


def write_html(story: Story, path: str | Path) -> Path:
    """Writes the story's page (whole or not at all) and returns its path. A story without a plan gives an empty page."""
    path = Path(path)
    _write(Book.of(story), path, {})
    return path


def write(story: Story, path: Path, *, workflow: Mapping[str, str], fonts: object) -> None:
    _write(Book.of(story), path, workflow)


def _write(book: Book, path: Path, workflow: Mapping[str, str]) -> None:
    with whole_file(path) as file:
        for piece in _pieces(book, workflow):
            file.write(piece.encode())


def _pieces(book: Book, workflow: Mapping[str, str]) -> Iterator[str]:
    """The page in pieces; a picture is read when the piece that holds it is asked for."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css = (_HERE / "story.css").read_text(encoding="utf-8")
    return environment.get_template("story.html.jinja").generate(
        book=book,
        css=Markup(css),  # our own file
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        pages=({"words": spread.paragraphs, "figure": _figure(book, spread)} for spread in book.spreads),
        data={
            name.removesuffix(".json"): Markup(_safe_json(text))
            for name, text in embedded_files(book.plan, workflow).items()
        },
    )


def _figure(book: Book, spread: Spread) -> dict | None:
    if spread.image is None:
        return None
    if spread.image.id not in book.pictures:
        return {"prompt": spread.image.prompt, "source": "", "width": 0, "height": 0, "wide": False, "verdict": None, "fault": ""}
    image = book.pictures[spread.image.id]
    data, media_type, _ = encode_picture(image)
    return {
        "prompt": spread.image.prompt,
        "source": f"data:{media_type};base64,{base64.b64encode(data).decode()}",
        "width": image.width,
        "height": image.height,
        "wide": image.width > _WIDE * image.height,
        "verdict": book.verdicts.get(spread.image.id),
        "fault": fault_sentence("The picture", fault) if (fault := book.faults.get(spread.image.id)) else "",
    }


def _safe_json(data: bytes) -> str:
    """The JSON in the fewest letters, without any that mean something to HTML."""
    return json.dumps(json.loads(data), ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES)
