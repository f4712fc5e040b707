"""A story as all formats see it: title page, spreads, and pictures that are read when they are needed."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from PIL import Image

from ..critic import Verdict
from ..pictures import encode_png
from ..plan import Plan
from ..segments import ImageSegment
from ..story import Story

MAX_PNG_SIDE = 512  # larger pictures go in as JPEG where a reader sees them, or a book of 32 pages would have 60 MB
RIGHT_TO_LEFT = frozenset({"ar", "arc", "ckb", "dv", "fa", "he", "ps", "sd", "syr", "ug", "ur", "yi"})

# The few words that a book has besides the story's own. Other languages get English.
_LABELS = {
    "en": ("A story", "Told and drawn with Weaver", "Contents", "Page {}"),
    "de": ("Eine Geschichte", "Erzählt und gezeichnet mit Weaver", "Inhalt", "Seite {}"),
    "fr": ("Une histoire", "Raconté et dessiné avec Weaver", "Sommaire", "Page {}"),
    "es": ("Un cuento", "Contado y dibujado con Weaver", "Índice", "Página {}"),
    "it": ("Una storia", "Raccontato e disegnato con Weaver", "Indice", "Pagina {}"),
    "ja": ("おはなし", "お話と絵：Weaver", "目次", "{}ページ"),
    "zh": ("一个故事", "故事与绘图：Weaver", "目录", "第 {} 页"),
    "zh-hant": ("一個故事", "故事與繪圖：Weaver", "目錄", "第 {} 頁"),
}
_BCP47 = re.compile(r"[a-z]{2,3}(-[a-z]{4})?(-([a-z]{2}|[0-9]{3}))?(-([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Two facing pages: paragraphs (lines inside one end with a newline), and an image or none."""

    number: int
    paragraphs: tuple[str, ...]
    image: ImageSegment | None


class StoryPictures(Mapping[str, Image.Image]):
    """The drawn images of a story by segment id, each read anew when it is asked for."""

    def __init__(self, story: Story):
        self._story = story

    def __getitem__(self, segment_id: str) -> Image.Image:
        if segment_id not in self._story.renderings:
            raise KeyError(segment_id)
        return self._story.image(segment_id)

    def __contains__(self, segment_id: object) -> bool:
        return segment_id in self._story.renderings

    def __iter__(self) -> Iterator[str]:
        return iter(self._story.renderings)

    def __len__(self) -> int:
        return len(self._story.renderings)


class Book:
    """What a format writes down.

    language   a tag that every reader accepts ("und" when the plan's is none)
    names      the characters, for the title page
    cover      the id of the first image that is drawn, or None
    verdicts   what a critic found in an image, by segment id
    faults     what an image looks wrong by (picture_faults.py), by segment id
    """

    def __init__(self, plan: Plan, pictures: Mapping[str, Image.Image], verdicts: Mapping[str, Verdict] = MappingProxyType({}),
                 faults: Mapping[str, str] = MappingProxyType({})):
        self.plan = plan
        self.pictures = pictures
        self.verdicts = verdicts
        self.faults = faults
        self.language = plan.language if _BCP47.match(plan.language) else _primary(plan.language)
        self.is_rtl = _primary(plan.language) in RIGHT_TO_LEFT
        self.untitled, self.credit, self.contents, self._page = _labels(plan.language)
        self.title = plan.title or self.untitled
        self.names = tuple(member.name for member in plan.cast if member.kind == "character")
        self.spreads = tuple(
            Spread(
                number=number,
                paragraphs=tuple(part for text in page.texts for part in _paragraphs(text.text)),
                image=page.image,
            )
            for number, page in enumerate(plan.pages(), 1)
        )
        self.cover = next((image.id for image in plan.images if image.id in pictures), None)

    @classmethod
    def of(cls, story: Story) -> Book:
        """The book of a story; without a plan it is empty."""
        verdicts = {segment_id: rendering.verdict for segment_id, rendering in story.renderings.items() if rendering.verdict}
        faults = {segment_id: rendering.fault for segment_id, rendering in story.renderings.items() if rendering.fault}
        return cls(story.plan or Plan(), StoryPictures(story), verdicts, faults)

    def page_label(self, number: int) -> str:
        """"Page 3" in the story's language."""
        return self._page.format(number)

    def line_label(self, spread: Spread) -> str:
        """The first words of a spread, for a table of contents."""
        words = " ".join(spread.paragraphs[0].split()) if spread.paragraphs else ""
        return f"{spread.number}. {_clipped(words, 60)}" if words else self.page_label(spread.number)


def encode_picture(image: Image.Image) -> tuple[bytes, str, str]:
    """The picture for a reader's screen: bytes, media type, and the ending of its file."""
    if max(image.size) <= MAX_PNG_SIDE:
        return encode_png(image), "image/png", ".png"
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=92)
    return buffer.getvalue(), "image/jpeg", ".jpg"


def picture_texts(alt: str, workflow: Mapping[str, str]) -> dict[str, str]:
    """The texts of a picture that is a PNG of its own: its description, and ComfyUI's workflow."""
    return {"Description": alt, **{keyword: text for keyword, text in workflow.items() if keyword != "Description"}}


def embedded_files(plan: Plan, workflow: Mapping[str, str]) -> dict[str, bytes]:
    """What every format carries inside, by file name: the plan, and ComfyUI's workflow when there is one."""
    files = {"plan.json": plan.dumps().encode()}
    if "workflow" in workflow:
        files["workflow.json"] = workflow["workflow"].encode()
    return files


def runs_right_to_left(text: str) -> bool:
    """Whether the first letter that has a direction is of a script such as Arabic or Hebrew."""
    for letter in text:
        kind = unicodedata.bidirectional(letter)
        if kind in ("L", "R", "AL"):
            return kind != "L"
    return False


def _paragraphs(text: str) -> list[str]:
    """Paragraphs with one space between words, no empty lines; every kind of line end is a newline."""
    parts = re.split(r"\n\s*\n", "\n".join(text.splitlines()))
    lines = (filter(None, (" ".join(line.split()) for line in part.split("\n"))) for part in parts)
    return [paragraph for paragraph in map("\n".join, lines) if paragraph]


def _primary(language: str) -> str:
    primary = language.split("-")[0].lower()
    return primary if len(primary) in (2, 3) else "und"


def _labels(language: str) -> tuple[str, str, str, str]:
    if re.match(r"zh-(hant|tw|hk|mo)\b", language, re.IGNORECASE):
        return _LABELS["zh-hant"]
    return _LABELS.get(_primary(language), _LABELS["en"])


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
