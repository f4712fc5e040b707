"""What a judge is shown of a request and an answer: only what a dimension needs, with every text fenced as data.

The fence carries a code that is a hash of all texts in the message, so no text can hold it and close the fence.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...pictures import read_picture
from ..records import Document, Prompt, file_sha256
from ..run_folder import inside
from . import rubric
from .cache import ReplyCache

PROFILES = ("long768", "squash512")
"""How images are sent: long side at most 768 with their shape kept, or squashed to 512 x 512 as OpenING does."""

CAPTION = 160
_QUALITY = 92


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image of the message: its file, and the hash that the file must have ("" = any)."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class _Data:
    """A text that somebody else wrote."""

    text: str


Part = str | _Data | ImagePart


@dataclass(frozen=True, slots=True)
class Message:
    """The question to a judge: system text, parts in order, the schema of the answer."""

    system: str
    parts: tuple[str | ImagePart, ...]
    schema: dict

    @property
    def images(self) -> list[ImagePart]:
        return [part for part in self.parts if isinstance(part, ImagePart)]

    def content_hash(self, profile: str, cache: ReplyCache | None) -> str:
        """Hash of everything that is sent; images by the bytes that they are sent as."""
        parts = [["image", sent_hash(part, profile, cache)] if isinstance(part, ImagePart) else part for part in self.parts]
        return hashlib.sha256(json.dumps([self.system, parts, self.schema], sort_keys=True).encode()).hexdigest()

    def to_chat(self, profile: str) -> list[dict]:
        """Chat messages of the OpenAI form."""
        content: list[dict] = []
        for part in self.parts:
            if isinstance(part, ImagePart):
                data = base64.b64encode(processed(part, profile)).decode()
                content.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}})
            else:
                content.append({"type": "text", "text": part})
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]


# ---- messages


def score_message(prompt: Prompt, document: Document, folder: Path, dims: Sequence[str]) -> Message:
    """The question for these dimensions; one dimension gets only the evidence that it needs."""
    only = dims[0] if len(dims) == 1 else ""
    parts: list[Part] = ["THE REQUEST"]
    for number, block in enumerate(prompt.input, 1):
        if block.type == "text" and only != "IC":
            parts.append(_Data(block.text))
        elif block.type == "image" and only != "CP":
            parts += [f"[request image, part {number}]", ImagePart(inside(folder, block.path), block.sha256)]
    if only in ("", "PA", "CP"):
        parts.append(_facts(prompt, document))
    parts.append("THE ANSWER" if only != "IC" else "THE ANSWER'S IMAGES, each with the text in front of it in short")
    parts += _answer(document, folder, only)
    parts.append(rubric.question(dims))
    return Message(rubric.SYSTEM, _fenced(parts), rubric.schema(dims))


def pair_message(prompt: Prompt, first: Document, second: Document, folders: tuple[Path, Path, Path]) -> Message:
    """Which is better, the answer shown first ("A") or second ("B")? `folders` of the prompt's, A's and B's images."""
    parts: list[Part] = ["THE REQUEST"]
    for block in prompt.input:
        parts.append(_Data(block.text) if block.type == "text" else ImagePart(inside(folders[0], block.path), block.sha256))
    for name, document, folder in (("A", first, folders[1]), ("B", second, folders[2])):
        parts += [f"ANSWER {name}", *_answer(document, folder, "", f" of answer {name}"), f"END OF ANSWER {name}"]
    parts.append(f"{rubric.PAIR_QUESTION}\n\n{rubric.CLOSING_PAIR}")
    return Message(rubric.SYSTEM, _fenced(parts), rubric.PAIR_SCHEMA)


def _answer(document: Document, folder: Path, only: str, whose: str = "") -> list[Part]:
    parts: list[Part] = []
    said = ""
    number = 0
    for block in document.blocks:
        if block.type == "text":
            said = block.text
            if only != "IC":
                parts.append(_Data(block.text))
            continue
        number += 1
        size = f" ({block.width} x {block.height})" if block.width else ""
        if only == "CP":
            parts.append(f"[image {number}{whose} stands here{size}; it is not shown for this question]")
            continue
        parts.append(f"[image {number}{whose}]")
        if only == "IC" and said:
            parts.append(_Data(_caption(said)))
            said = ""
        parts.append(ImagePart(inside(folder, block.path), block.sha256))
    return parts or ["(the answer is empty)"]


def _facts(prompt: Prompt, document: Document) -> str:
    want = prompt.want
    number = str(want.images_min) if want.images_min == want.images_max else f"{want.images_min} to {want.images_max}"
    said = "as the request says" if want.explicit else "the request leaves the number open"
    end = {"stop": "it ended by itself", "length": "it was cut off at its length limit"}.get(document.finish, "it broke off")
    order = " ".join("T" if block.type == "text" else "I" for block in document.blocks)
    return (
        f"FACTS: {number} images are expected ({said}). The answer has {len(document.images)} images and "
        f"{len(document.texts)} texts, in this order (T text, I image): {order or 'none'}; {end}."
    )


def _caption(text: str) -> str:
    """The last line of the text in front of an image, in short."""
    line = " ".join(text.strip().splitlines()[-1:]).strip()
    return line if len(line) <= CAPTION else line[: CAPTION - 1] + "…"


def _fenced(parts: Sequence[Part]) -> tuple[str | ImagePart, ...]:
    digest = hashlib.sha256("\0".join(part.text for part in parts if isinstance(part, _Data)).encode(errors="replace"))
    code = digest.hexdigest()[:16]
    return tuple(
        f"BEGIN DATA {code}\n{_clean(part.text)}\nEND DATA {code}" if isinstance(part, _Data) else part for part in parts
    )


def _clean(text: str) -> str:
    """Without what chat templates could take for their own marks, and without lone surrogates."""
    return re.sub(r"<\|([^|<>]{1,40})\|>", r"< |\1| >", text).encode(errors="replace").decode()


# ---- images


def processed(part: ImagePart, profile: str) -> bytes:
    """The JPEG that is sent. InputError when the file is missing or another one than the document says."""
    if not part.path.is_file():
        raise InputError(f"the image {part.path.name} is missing in {part.path.parent}")
    if part.sha256 and file_sha256(part.path) != part.sha256:
        raise InputError(f"the image {part.path.name} is another one than its document says")
    image, _ = read_picture(part.path)
    if profile == "squash512":
        image = image.resize((512, 512))
    else:
        image.thumbnail((768, 768))  # never larger than it is
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


def sent_hash(part: ImagePart, profile: str, cache: ReplyCache | None) -> str:
    """Hash of `processed`, remembered under the file's own hash."""
    source = f"{part.sha256}/{profile}" if part.sha256 else ""
    known = cache.sent_image(source) if cache and source else None
    if known is None:
        known = hashlib.sha256(processed(part, profile)).hexdigest()
        if cache and source:
            cache.keep_sent_image(source, known)
    return known
