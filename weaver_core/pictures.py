"""Pictures that come from outside: read with limits, brought to plain RGB, and told apart by their pixels."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from .errors import InputError

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # none of them runs another program
MAX_BYTES = 256 * 2**20
MAX_PIXELS = 100_000_000  # decoded: 300 MB; more is refused before it is decoded
MAX_PICTURE_SIDE = 2048  # larger pictures are made smaller: no visualizer looks at more
MIN_PICTURE_SIDE = 8


def image_key(image: Image.Image) -> str:
    """32 hex digits that are equal exactly when two RGB images have the same size and pixels."""
    digest = hashlib.sha256(f"RGB {image.width}x{image.height}\n".encode())
    digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()[:32]


def encode_png(image: Image.Image, texts: Mapping[str, str] | None = None) -> bytes:
    """The image as a PNG file, with texts in it by keyword (ComfyUI reads its workflow from there)."""
    buffer = io.BytesIO()
    info = PngInfo()
    for keyword, text in (texts or {}).items():
        info.add_text(keyword, text)
    image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def read_picture(source: str | Path | bytes | Image.Image, name: str = "") -> tuple[Image.Image, list[str]]:
    """A user's picture as RGB, and what was changed about it (sentences for the user).

    The first frame of an animation, turned upright by its EXIF mark, transparency laid on white, the longer side at
    most MAX_PICTURE_SIDE pixels. InputError when it is missing, broken, no picture, or too large to decode.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "the picture")
    if isinstance(source, Image.Image):
        return _to_plain(source, name)
    data = _read_bytes(Path(source), name) if isinstance(source, (str, Path)) else source
    if len(data) > MAX_BYTES:
        raise InputError(f"{name}: {len(data) >> 20} MB; at most {MAX_BYTES >> 20} MB are read. Make it smaller")
    Image.init()
    known = [format for format in FORMATS if format in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning; the limit below is ours
            image = Image.open(io.BytesIO(data), formats=known)
            return _to_plain(image, name)
    except UnidentifiedImageError:
        kinds = ", ".join(format for format in known if format not in ("MPO", "PPM"))
        raise InputError(f"{name}: not a picture that can be read; use one of {kinds}") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: far too many pixels; at most {MAX_PIXELS // 10**6} million are read") from None
    except InputError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files
        raise InputError(f"{name}: the picture is broken ({error}); open it in an editor and save it again") from None


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{name}: is a folder; a picture file was expected")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{name}: {path.stat().st_size >> 20} MB; at most {MAX_BYTES >> 20} MB are read. Make it smaller"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, InputError):
            raise
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(f"{name}: cannot be read: {reason}") from None


def _to_plain(image: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    notes: list[str] = []
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: {width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are read. Make it smaller"
        )
    if min(width, height) < MIN_PICTURE_SIDE:
        raise InputError(f"{name}: {width} x {height} pixels; at least {MIN_PICTURE_SIDE} on each side are needed")
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"{name} is animated; its first frame is used")
        image.seek(0)
    if image.format == "JPEG" and max(width, height) > 2 * MAX_PICTURE_SIDE:
        image.draft("RGB", (MAX_PICTURE_SIDE, MAX_PICTURE_SIDE))  # decodes at a fraction: less memory
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")  # 16-bit greys would be clipped
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    image = image.convert("RGB")
    if max(width, height) > MAX_PICTURE_SIDE:
        image.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE), Image.Resampling.LANCZOS)
        notes.append(f"{name} is {width} x {height} pixels; it is used at {image.width} x {image.height}")
        if min(image.size) < MIN_PICTURE_SIDE:
            raise InputError(f"{name}: {width} x {height} pixels is too narrow; crop it to what it shows")
    return image, notes
