"""The printed book, set by Typst: what the PDF and the pages of the comic archive have in common.

Typst sees a temporary folder alone: the template `book.typ`, the story's words as JSON, and its pictures at print size,
which are written there one after the other. It holds them decoded while it works: at most 6 MB a page (measured: 32
pages of 1024 x 1024 pixels need 0.2 GB, whatever the story's own pictures are). It writes tagged PDF and checks it
against PDF/UA-1, so a letter that no font has is an error that it names.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from ..errors import InputError
from .book import Book, Spread, runs_right_to_left

_TEMPLATE = Path(__file__).parent / "book.typ"
PRINT_SIDE = 1400  # pixels of the longer side: 240 dpi on its half of a sheet
MIN_PRINT_SIDE = 1000  # smaller pictures are enlarged here, smoothly; viewers and printers would show squares
PAGE_PPI = 160  # of a page as a picture: 1871 x 1323 pixels
_LONG_WORD = 24  # letters after which a word may be broken: so many of the widest fit into every column
# Letters of scripts that are broken between words of spaces only: not Thai and its neighbours, East Asia, emoji.
_SPACED = (
    r"[^\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    r"\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00010000-\U0010ffff]"
)
_BREAKABLE = re.compile(f"{_SPACED}{{{_LONG_WORD}}}(?=({_SPACED}))")
_WORD = re.compile(f"{_SPACED}+")

_LATIN = "Libertinus Serif"  # comes with Typst: every language in Latin, Greek or Cyrillic letters has it everywhere
# Families that systems have, serif before sans: Debian and others (Noto, Source Han, IPA), macOS, Windows.
_EAST_ASIAN = {
    "ja": ("Noto Serif CJK JP", "Source Han Serif JP", "Hiragino Mincho ProN", "BIZ UDPMincho", "Yu Mincho", "MS PMincho",
           "IPAexMincho", "Noto Sans CJK JP", "Yu Gothic", "MS Gothic"),
    "zh-hans": ("Noto Serif CJK SC", "Source Han Serif SC", "Songti SC", "SimSun", "Noto Sans CJK SC", "PingFang SC",
                "Microsoft YaHei", "WenQuanYi Zen Hei"),
    "zh-hant": ("Noto Serif CJK TC", "Source Han Serif TC", "Songti TC", "PMingLiU", "Noto Sans CJK TC", "PingFang TC",
                "Microsoft JhengHei"),
    "ko": ("Noto Serif CJK KR", "Source Han Serif KR", "AppleMyungjo", "Batang", "Noto Sans CJK KR", "Malgun Gothic"),
}  # fmt: skip
_OTHERS = ("Noto Serif", "DejaVu Serif", "DejaVu Sans", "Noto Color Emoji", "Apple Color Emoji", "Segoe UI Emoji")
_NO_LETTER = re.compile(r'the text `"(.+?)"` could not be displayed')
_ESCAPED = re.compile(r"\\u\{([0-9a-f]{1,6})\}")  # how Typst spells letters that are not for printing
_EAST_ASIAN_NAMES = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")  # how Unicode names of their letters begin
_FIRST_EMOJI = 0x1F000


class Typesetter:
    """A book in Typst's folder. Use `typesetting(...)`, which removes the folder again."""

    def __init__(self, folder: Path, fonts):
        from typst import Compiler

        self._compiler = Compiler(input=folder / "book.typ", root=folder, font_paths=fonts)

    def pdf(self, **inputs: str) -> bytes:
        """The document as PDF/UA-1. InputError names letters that no font has."""
        return self._compile("pdf", inputs, pdf_standards=["ua-1"])

    def page(self, number: int) -> list[bytes]:
        """One spread (0 = the title page) as PNG files; more than one when its text is very long."""
        pages = self._compile("png", {"only": str(number)}, ppi=PAGE_PPI)
        return pages if isinstance(pages, list) else [pages]

    def _compile(self, format: str, inputs: dict[str, str], **options):
        from typst import TypstError

        try:
            return self._compiler.compile(format=format, sys_inputs=inputs, **options)
        except TypstError as error:
            texts = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), "".join(_NO_LETTER.findall(error.diagnostic)))
            if texts:
                raise InputError(_no_font_for(list(dict.fromkeys(texts)))) from None
            raise


@contextmanager
def typesetting(book: Book, *, paper: str, attached: Mapping[str, bytes], fonts: str | Path | None) -> Iterator[Typesetter]:
    """A typesetter for the book.

    paper      colour of the sheets such as "#fbf6ea"; "" = none, as for printing
    attached   files for the PDF to carry, by name
    fonts      a folder with fonts that are looked at first
    """
    installed, own = _fonts(fonts)
    with tempfile.TemporaryDirectory(prefix="weaver-") as name:
        folder = Path(name)
        shutil.copyfile(_TEMPLATE, folder / "book.typ")
        for file, data in attached.items():
            (folder / file).write_bytes(data)
        sizes = {spread.image.id: _write_picture(folder, book, spread) for spread in book.spreads if _is_drawn(book, spread)}
        spreads = [_spread(spread, sizes) for spread in book.spreads]
        lang, region = _language(book.plan.language)
        cover = next((spread["picture"] for spread in spreads if spread["picture"]), None)
        data = {
            "title": book.title,
            "title-lines": _printable(book.title),
            "title-rtl": runs_right_to_left(book.title),
            "names": _printable(" · ".join(book.names)),
            "credit": book.credit,
            "ornament": "❦",
            "paper": paper,
            "lang": lang,
            "region": region,
            "rtl": book.is_rtl,
            "fonts": _families(book.plan.language, set(installed.families()), own),
            "cover": cover,
            "spreads": spreads,
            "attached": {file: f"Opens again in Weaver: {file}" for file in attached},
        }
        (folder / "book.json").write_text(json.dumps(data), encoding="utf-8")
        yield Typesetter(folder, installed)


def _is_drawn(book: Book, spread: Spread) -> bool:
    return spread.image is not None and spread.image.id in book.pictures


def _spread(spread: Spread, sizes: dict[str, tuple[int, int]]) -> dict:
    picture = None
    if spread.image is not None and spread.image.id in sizes:
        width, height = sizes[spread.image.id]
        picture = {"file": f"{spread.number}.jpg", "width": width, "height": height, "alt": spread.image.prompt}
    paragraphs = [
        {"lines": [_printable(line) for line in paragraph.split("\n")], "rtl": runs_right_to_left(paragraph)}
        for paragraph in spread.paragraphs
    ]
    missing = _printable(spread.image.prompt) if spread.image is not None and picture is None else None
    return {
        "number": spread.number, "paragraphs": paragraphs, "longest": _longest_word(paragraphs), "picture": picture,
        "missing": missing,
    }  # fmt: skip


def _write_picture(folder: Path, book: Book, spread: Spread) -> tuple[int, int]:
    """Writes a spread's picture at print size; returns its own size, which has its true aspect ratio."""
    image = book.pictures[spread.image.id]
    size, longer = image.size, max(image.size)
    side = min(max(longer, MIN_PRINT_SIDE), PRINT_SIDE)
    if side != longer:
        shape = tuple(max(1, round(length * side / longer)) for length in size)
        image = image.resize(shape, Image.Resampling.LANCZOS)
    image.convert("RGB").save(folder / f"{spread.number}.jpg", quality=92, subsampling=0)
    return size


def _printable(text: str) -> str:
    """The text on one line, with places to break very long words: soft hyphens between letters, else zero-width spaces."""
    return _BREAKABLE.sub(
        lambda found: found[0] + ("\u00ad" if (found[0][-1] + found[1]).isalpha() else "\u200b"), " ".join(text.split())
    )


def _longest_word(paragraphs: list[dict]) -> str:
    """The longest piece that is never broken; letters are only so small that it fits into its column."""
    lines = (line for paragraph in paragraphs for line in paragraph["lines"])
    words = (word for line in lines for part in re.split("[\u00ad\u200b]", line) for word in _WORD.findall(part))
    return max(words, key=len, default="")


# ---- fonts


def _fonts(folder: str | Path | None):
    """All fonts that may be used, and the families of the user's own folder."""
    try:
        from typst import Fonts
    except ImportError:
        raise ImportError('pdf and cbz need typst: pip install "wan-weaver[export]"') from None
    if folder is None:
        return Fonts(), ()
    if not Path(folder).is_dir():
        raise InputError(f"{folder} is no folder; give one with font files (.ttf, .otf, .ttc) in it")
    own = Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=[str(folder)]).families()
    if not own:
        raise InputError(f"{folder} has no font that can be read; put .ttf, .otf or .ttc files there")
    return Fonts(font_paths=[str(folder)]), tuple(own)


def _families(language: str, installed: set[str], own: tuple[str, ...]) -> list[dict]:
    """Which families are tried, in this order. Typst looks through all others itself after them."""
    script = _east_asian(language)
    asian = [name for name in _EAST_ASIAN.get(script, ()) if name in installed]
    others = [name for names in _EAST_ASIAN.values() for name in names if name in installed and name not in asian]
    latin = [{"name": _LATIN, "latin-only": True}] if asian else []  # or Chinese quotation marks would be narrow ones
    names = [*own, *asian, _LATIN, *(name for name in _OTHERS if name in installed), *others]
    return latin * (not own) + [{"name": name, "latin-only": False} for name in dict.fromkeys(names)]


def _east_asian(language: str) -> str:
    language = language.lower()
    if language.split("-")[0] == "zh":
        return "zh-hant" if re.match(r"zh-(hant|tw|hk|mo)\b", language) else "zh-hans"
    return language.split("-")[0]


def _language(language: str) -> tuple[str, str | None]:
    """Language and region as Typst wants them: two or three letters, and two."""
    primary, *rest = language.split("-")
    region = next((part.upper() for part in rest if len(part) == 2 and part.isalpha()), None)
    if primary.lower() == "zh" and region is None:
        region = "TW" if _east_asian(language) == "zh-hant" else "CN"
    return (primary.lower() if len(primary) in (2, 3) else "und"), region


def _no_font_for(letters: list[str]) -> str:
    shown = " ".join(letters[:12]) + (" …" if len(letters) > 12 else "")
    codes = ", ".join(f"U+{ord(letter):04X}" for letter in letters[:4]) + (", …" if len(letters) > 4 else "")
    packages = sorted({_package_for(letter) for letter in letters})
    return (
        f"no font here has {shown} ({codes}); install one that has, such as Noto (on Debian: apt-get install "
        f"{' '.join(packages)}), or name a folder that holds one (--fonts). HTML and EPUB need none"
    )


def _package_for(letter: str) -> str:
    if unicodedata.name(letter, "").startswith(_EAST_ASIAN_NAMES):
        return "fonts-noto-cjk"
    return "fonts-noto-color-emoji" if _FIRST_EMOJI <= ord(letter) < 0x20000 else "fonts-noto-core"
