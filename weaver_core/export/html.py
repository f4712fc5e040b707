"""A story as one HTML page that needs nothing else: text and pictures side by side, as in a picture book.

Light and dark, narrow and wide, on screen and on paper; no script. What the story says is text wherever it stands, and
the page's own security policy forbids everything but its style and its pictures.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ..durable import write_whole
from ..pictures import encode_png
from ..plan import Page, Plan
from ..story import Story

_HERE = Path(__file__).parent
MAX_PNG_SIDE = 512  # larger pictures are put in as JPEG, or a book of 32 pages would have 60 MB


def html_page(plan: Plan, images: Mapping[str, Image.Image]) -> str:
    """The page, with the images (by segment id) inside; an image that is missing shows its dense prompt."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css = (_HERE / "story.css").read_text(encoding="utf-8")
    return environment.get_template("story.html.jinja").render(
        language=plan.language,
        title=plan.title or "A story",
        css=Markup(css),  # our own file
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        pages=[_page(page, images) for page in plan.pages()],
    )


def write_html(story: Story, path: str | Path) -> Path:
    """Writes the story's page (whole or not at all) and returns its path."""
    plan = story.plan or Plan()
    images = {segment.id: story.image(segment.id) for segment in plan.images if segment.id in story.renderings}
    write_whole(Path(path), html_page(plan, images).encode())
    return Path(path)


def _page(page: Page, images: Mapping[str, Image.Image]) -> dict:
    paragraphs = [part.strip() for text in page.texts for part in re.split(r"\n\s*\n", text.text)]
    figure = None
    if page.image is not None:
        image = images.get(page.image.id)
        figure = {
            "prompt": page.image.prompt,
            "source": _data_uri(image) if image is not None else "",
            "width": image.width if image is not None else 0,
            "height": image.height if image is not None else 0,
        }
    return {"words": paragraphs, "figure": figure}


def _data_uri(image: Image.Image) -> str:
    if max(image.size) <= MAX_PNG_SIDE:
        return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=92)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
