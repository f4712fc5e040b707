"""What chat models are told, so that they write plans: a versioned instruction, examples, and the request itself.

The texts lie in `instructions/<version>/` and never change under one version: a story made with it can be made again.
Examples go along as a finished conversation, because small models copy a form more surely than they follow a rule;
only those nearest to the request in language and number of images do, so that the whole stays small.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..plan import parse_markup
from .json_answer import answer_of_plan

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..request import Request
    from . import HistoryItem, PlannerOptions

VERSION = "v1"
MAX_EXAMPLES_LENGTH = 3_600  # characters of all examples together, about 1,000 tokens (our choice)
MAX_SIDE = 1024  # of pictures shown to a planner: it has to recognise them, not to draw them
FORMS = ("markup", "json")

_OTHER_LANGUAGE = 3  # images by which an example may be further off for being in the request's language (our choice)
_FOLDER = Path(__file__).parent / "instructions"
_HAN = re.compile("[\u4e00-\u9fff]")
_KANA_OR_HANGUL = re.compile("[\u3040-\u30ff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A request and the plan that answers it."""

    language: str
    prompt: str
    pictures: tuple[str, ...]
    plan: str

    @property
    def num_images(self) -> int:
        return self.plan.count("<imagine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One version of the instruction. `system` and the formats are texts for the model."""

    version: str
    system: str
    format_markup: str
    format_json: str
    examples: tuple[Example, ...]

    def system_text(self, form: str = "markup") -> str:
        text = self.system.replace("{format}", self.format_markup if form == "markup" else self.format_json)
        story, references = '<story language="CODE"> after the title', 'references="PICTURE"'
        if form == "json":
            story, references = '"language": "CODE"', '"references": ["PICTURE"]'
        return text.replace("{language_form}", story).replace("{references_form}", references)


@lru_cache
def load_instruction(version: str = VERSION) -> Instruction:
    """The instruction of this version; InputError names the versions there are."""
    known = sorted(path.name for path in _FOLDER.iterdir() if (path / "system.md").is_file())
    if version not in known:
        raise InputError(f"there is no instruction {version!r}; there is {', '.join(known)}")
    folder = _FOLDER / version
    text = {name: (folder / f"{name}.md").read_text(encoding="utf-8").strip()
            for name in ("system", "format_markup", "format_json")}  # fmt: skip
    examples = tuple(_read_example(path) for path in sorted((folder / "examples").glob("*.md")))
    return Instruction(version=version, examples=examples, **text)


def _read_example(path: Path) -> Example:
    head, _, plan = path.read_text(encoding="utf-8").partition("\n---\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    pictures = tuple(name for name in fields.get("pictures", "").split(", ") if name)
    return Example(language=fields["language"], prompt=fields["prompt"], pictures=pictures, plan=plan.strip())


# ---- messages


def data_uri_part(image: Image) -> dict:
    """A picture as OpenAI-compatible servers take it: a JPEG in a data URI, at most MAX_SIDE pixels on its longer side."""
    image = image.convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}


def build_messages(
    request: Request,
    history: Sequence[HistoryItem],
    options: PlannerOptions,
    *,
    form: str = "markup",
    version: str = VERSION,
    picture_part: Callable[[Image], dict] | None = data_uri_part,
) -> list[dict]:
    """The conversation to be answered with the plan, or with its continuation after `history`.

    Roles are system, then user and assistant in turn, ending with user. `content` is a text, or a list of OpenAI-style
    parts where a picture goes along.

    form           "markup", or "json" (see json_answer.py)
    picture_part   turns a picture into a content part; None = the model cannot see: pictures are named only
    """
    if form not in FORMS:
        raise InputError(f"form is {form!r}; it must be one of {', '.join(FORMS)}")
    instruction = load_instruction(version)
    num_written = count_images(history)
    total = None if options.num_images is None else num_written + options.num_images
    messages = [{"role": "system", "content": instruction.system_text(form)}]
    for example in choose_examples(instruction, request, total):
        messages.append({"role": "user", "content": _example_request(example)})
        messages.append({"role": "assistant", "content": _spelled(example.plan, form)})
    asked = _asked(request.prompt, total, [picture.name for picture in request.images], **_wishes(request))
    pictures = [picture.image for picture in request.images]
    messages.append(_user_message(asked, pictures, picture_part))
    return messages + _history_messages(history, total, picture_part)


def choose_examples(instruction: Instruction, request: Request, num_images: int | None) -> tuple[Example, ...]:
    """Up to two examples near to the request in language and number of images, the nearest last."""
    language, wanted = _language_of(request), num_images or 4

    def distance(example: Example) -> tuple:
        # A small model that sees another language is more easily led astray than by another number.
        others = _OTHER_LANGUAGE * (example.language != language)
        return (abs(example.num_images - wanted) + others, bool(example.pictures) != bool(request.images), example.language != "en")

    ranked = sorted(instruction.examples, key=distance)
    chosen = ranked[:1]
    room = MAX_EXAMPLES_LENGTH - len(chosen[0].plan)
    chosen += [example for example in ranked if example not in chosen and len(example.plan) <= room][:1]
    return tuple(reversed(chosen))


def missing_images_message(num_missing: int, num_written: int) -> dict:
    """Asks for images that an answer was to have and has not."""
    images = "1 image is" if num_missing == 1 else f"{num_missing} images are"
    return {"role": "user", "content": f"{images} still missing. Go on with the story right after its last line, from "
            f'<imagine id="p{num_written + 1}" on: text and {num_missing} more <imagine>...</imagine>. Repeat nothing.'}


def count_images(history: Sequence[HistoryItem]) -> int:
    """Dense prompts that were written, whether they could be drawn or not."""
    return sum(len(re.findall("</imagine>", item, re.IGNORECASE)) for item in history if isinstance(item, str))


def _language_of(request: Request) -> str:
    """The language to show examples in. "en" is also what stands there when nobody said anything."""
    language = request.language.lower().split("-")[0]
    if language == "en" and _HAN.search(request.prompt) and not _KANA_OR_HANGUL.search(request.prompt):
        return "zh"
    return language


def _wishes(request: Request) -> dict:
    return {
        "language": request.language if request.language != "en" else None,
        "aspect": "x".join(map(str, request.size)) if request.size else request.wanted_aspect,
        "style": request.style,
        "cast": [(member.name, member.look, member.outfits, member.references) for member in request.cast],
    }


def _asked(prompt: str, num_images: int | None, pictures: Sequence[str], *, language=None, aspect=None, style="", cast=()) -> str:
    """The request in words: what the user said, then one line per fact."""
    lines = [prompt, ""]
    if num_images is not None:
        numbered = "none" if num_images == 0 else "p1" if num_images == 1 else f"p1 to p{num_images}"
        lines.append(f"Images: exactly {num_images} ({numbered}).")
    if language:
        lines.append(f"Language of title and text: {language}.")
    if aspect:
        lines.append(f"All images are {aspect}: leave the aspect out.")
    if style:
        lines.append(f"Style of all images, to be said in every dense prompt: {style}")
    if pictures:
        lines.append(f"Pictures from the user, in this order: {', '.join(pictures)}.")
    if cast:
        lines.append("Known already; use these names, and write no cast line for them:")
        for name, look, outfits, references in cast:
            worn = f" (may wear: {', '.join(outfits)})" if outfits else ""
            shown = f" (picture: {', '.join(references)})" if references else ""
            lines.append(f"- {name}{': ' if look else ''}{look}{worn}{shown}")
    return "\n".join(lines).strip()


def _example_request(example: Example) -> str:
    return _asked(example.prompt, example.num_images, example.pictures)


def _spelled(markup: str, form: str) -> str:
    return markup if form == "markup" else json.dumps(answer_of_plan(parse_markup(markup)[0]), ensure_ascii=False)


def _user_message(text: str, pictures: Sequence[Image], picture_part) -> dict:
    if not pictures or picture_part is None:
        return {"role": "user", "content": text}
    return {"role": "user", "content": [*(picture_part(picture) for picture in pictures), {"type": "text", "text": text}]}


def _history_messages(history: Sequence[HistoryItem], total: int | None, picture_part) -> list[dict]:
    """What was written as the assistant's turns, what was drawn as answers to them.

    Every turn stays the same in the following rounds, so that servers can keep what they have read of it.
    """
    messages: list[dict] = []
    num_written, text, pictures = 0, "", []

    def answer() -> None:
        if text:
            messages.append({"role": "assistant", "content": text})
            left = None if total is None else total - num_written
            messages.append(_user_message(_go_on(num_written, left, bool(pictures) and picture_part is not None), pictures,
                                          picture_part))  # fmt: skip

    for item in history:
        if not isinstance(item, str):
            pictures.append(item)
            continue
        answer()
        text, pictures = re.sub("<BOI>", "", item, flags=re.IGNORECASE).strip(), []
        num_written += count_images([item])
    answer()
    return messages


def _go_on(num_written: int, left: int | None, shown: bool) -> str:
    drawn = f"This is p{num_written} as it was drawn. " if shown else ""
    if left is None:
        return f"{drawn}Go on with the story right after it; when it has ended, write nothing more."
    if left <= 0:
        return f"{drawn}All images are there. End the story in one or two sentences, without another image."
    return f"{drawn}Go on with the story right after it. Images still to come: {left}, the next is p{num_written + 1}."
