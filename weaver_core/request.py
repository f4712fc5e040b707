"""What the user asks for: text, pictures, how many images; checked once, with messages for the user."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from .errors import InputError
from .image_count import asked_images
from .image_shape import asked_aspect
from .pictures import image_key, read_picture
from .plan import CastMember, ImageSegment
from .segments import ILLEGAL, MAX_SEED, check_aspect, check_language, check_size, kind_of

MAX_WORDS = 2_000
MAX_CHARACTERS = 20_000
MAX_IMAGES = 64  # a picture book has 32 pages; above 64 no planner keeps one story together (our choice)
MAX_REFERENCES = 16
MAX_STYLE = 500
MAX_CAST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceImage:
    """A picture of the user's: RGB, with the name that plans call it by and the hash of its pixels."""

    name: str
    image: Image.Image
    key: str

    @classmethod
    def read(
        cls, source: str | Path | bytes | Image.Image, name: str | None = None
    ) -> tuple[ReferenceImage, list[str]]:
        """The picture in a file (path or bytes) or in memory, and what was changed about it.

        Its name is the file's stem unless given. InputError when it cannot be used.
        """
        shown = name or (Path(source).name if isinstance(source, (str, Path)) else "the picture")
        image, notes = read_picture(source, shown)
        if name is None:
            name = Path(source).stem if isinstance(source, (str, Path)) else "image"
        return cls(name=reference_name(name), image=image, key=image_key(image)), notes


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSettings:
    """How images are drawn; None = the visualizer's own default.

    guidance            how strongly the dense prompt is followed; 1 = no guidance
    reference_guidance  how strongly the references are followed; 1 = no guidance
    check_images        look at every image that was drawn, and draw one that is blank, a grid or a copy once more
    max_references      images that one image may be drawn from, and ...
    max_reference_tokens    ... how many of the visualizer's tokens they may have together; None = as many as it can
    """

    steps: int | None = None
    guidance: float | None = None
    reference_guidance: float | None = None
    check_images: bool = True
    max_references: int | None = None
    max_reference_tokens: int | None = None

    def __post_init__(self):
        if self.steps is not None and not (isinstance(self.steps, int) and 1 <= self.steps <= 1000):
            raise InputError(f"steps is {self.steps}; it must be a whole number in 1..1000")
        for name in ("guidance", "reference_guidance"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and 0 <= value <= 100):
                raise InputError(f"{name} is {value}; it must lie in 0..100")
        if not isinstance(self.check_images, bool):
            raise InputError(f"check_images is {str(self.check_images)[:40]}; it must be true or false")
        for name in ("max_references", "max_reference_tokens"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**31):
                raise InputError(f"{name} is {str(value)[:40]}; it must be a whole number, 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asks.

    num_images    None = as many as the prompt asks for in words ("in four pictures"); else the planner decides
    size, aspect  for images whose segment says neither; size wins; None = as the prompt asks for in words ("wide pictures"), else
                  the planner decides
    style         how all images shall look, in words: "watercolour, soft light"; "" = the planner decides
    cast          characters known beforehand; they join the plan's cast
    seed          decides everything that is left to chance
    """

    prompt: str
    images: tuple[ReferenceImage, ...] = ()
    num_images: int | None = None
    size: tuple[int, int] | None = None
    aspect: str | None = None
    language: str = "en"
    style: str = ""
    cast: tuple[CastMember, ...] = ()
    seed: int = 0

    @property
    def wanted_images(self) -> int | None:
        """How many images there shall be, by number or in words; None = the planner decides."""
        return self.num_images if self.num_images is not None else asked_images(self.prompt)

    @property
    def wanted_aspect(self) -> str | None:
        """The shape of images whose segment says none, as a ratio or in words; None = the planner decides, or `size` says it."""
        return self.aspect if self.aspect or self.size else asked_aspect(self.prompt)

    def size_and_aspect(self, segment: ImageSegment) -> tuple[tuple[int, int] | None, str | None]:
        """What an image's segment says of its size, else what the request says; size wins over aspect in both."""
        if segment.size or segment.aspect:
            return segment.size, segment.aspect
        return self.size, self.wanted_aspect

    def validated(self) -> tuple[Request, tuple[str, ...]]:
        """The request made safe to use, and sentences about what was changed. InputError when it cannot be used."""
        notes: list[str] = []
        if not isinstance(self.prompt, str):
            raise InputError(f"prompt: expected text, got {kind_of(self.prompt)}")
        prompt = self.prompt.strip()
        if ILLEGAL.search(prompt):
            prompt = ILLEGAL.sub(" ", prompt).strip()
            notes.append("the prompt holds control characters; they are read as spaces")
        if not prompt:
            raise InputError("the prompt is empty; say what the story is about, such as 'a fox who finds a kite'")
        num_words = len(prompt.split())
        if num_words > MAX_WORDS or len(prompt) > MAX_CHARACTERS:
            got = f"{num_words:,} words" if num_words > MAX_WORDS else f"{len(prompt):,} characters"
            raise InputError(
                f"the prompt has {got}; at most {MAX_WORDS:,} words ({MAX_CHARACTERS:,} characters) are read. Say in "
                "fewer words what the story is about; or, if the text is the story itself, put <imagine>...</imagine> "
                "where images belong and render it as a plan (weaver render PLAN.md). Nothing was written"
            )
        self._check_numbers()
        style = self._checked_style()
        self._check_cast()
        return replace(self, prompt=prompt, style=style, images=self._named_images(notes)), tuple(notes)

    def _checked_style(self) -> str:
        if not isinstance(self.style, str):
            raise InputError(f"style: expected text, got {kind_of(self.style)}")
        style = " ".join(ILLEGAL.sub(" ", self.style).split())
        if len(style) > MAX_STYLE:
            raise InputError(f"style: {len(style)} characters; at most {MAX_STYLE} are read. Say in fewer words how images shall look")
        return style

    def _check_cast(self) -> None:
        names = [member.name for member in self.cast]
        if len(names) > MAX_CAST:
            raise InputError(f"the cast has {len(names)} members; at most {MAX_CAST} can be given, and the planner adds others")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"the cast has {', '.join(twice[:5])} twice; every member has a name of its own")

    def _check_numbers(self) -> None:
        if self.num_images is not None:
            if not isinstance(self.num_images, int) or isinstance(self.num_images, bool):
                raise InputError(f"number of images: expected a whole number, got {kind_of(self.num_images)}")
            if not 1 <= self.num_images <= MAX_IMAGES:
                raise InputError(
                    f"number of images: {self.num_images} were asked for; 1 to {MAX_IMAGES} can be. A story needs at "
                    f"least one image, and beyond {MAX_IMAGES} no planner keeps it together: make several stories"
                )
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed: expected a whole number from 0 to 2^64-1, got {str(self.seed)[:40]}")
        try:
            check_size("size", self.size)
            check_aspect("aspect", self.aspect)
            check_language("language", self.language)
        except ValueError as error:
            raise InputError(str(error)) from None

    def _named_images(self, notes: list[str]) -> tuple[ReferenceImage, ...]:
        """The pictures under names that are unique and cannot be taken for segment ids."""
        if len(self.images) > MAX_REFERENCES:
            raise InputError(f"{len(self.images)} pictures were given; at most {MAX_REFERENCES} can be")
        named: dict[str, ReferenceImage] = {}
        for picture in self.images:
            name = reference_name(picture.name)
            if name in named:
                number = 2
                while f"{name}-{number}" in named:
                    number += 1
                notes.append(f"two pictures are named {name!r}; the second is called '{name}-{number}'")
                name = f"{name}-{number}"
            named[name] = replace(picture, name=name)
        return tuple(named.values())


def reference_name(name: str) -> str:
    """A picture's name in plain letters, never one that looks like an automatic segment id."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:48] or "image"
    return f"image-{plain}" if re.fullmatch(r"[ptPT][0-9]+|auto|none", plain) else plain
