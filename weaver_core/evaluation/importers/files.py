"""Files of a benchmark folder: JSON read with the file and line in every error, pictures that never lie elsewhere."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from ...durable import write_whole
from ...errors import InputError
from ...pictures import FORMATS, encode_png, read_picture
from ..records import Block, Document, InputBlock, file_sha256
from ..run_folder import inside

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}\Z")


def picture_path(folder: Path, name: Any, where: str) -> Path:
    """The file that `name`, from a stranger's file, means inside the folder; it need not exist.

    Raises   InputError for what is no plain relative path, or leads out of the folder (also by a link)
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: expected the path of a picture, got {name!r}"[:200])
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name or any(ord(sign) < 32 for sign in name):
        raise InputError(f"{where}: the picture's path {name[:120]!r} leads out of {folder}; it must be a plain path inside it")
    try:
        return inside(folder, parts.as_posix())
    except InputError as error:  # a link
        raise InputError(f"{where}: {error}") from None


def input_image(folder: Path, name: Any, where: str) -> InputBlock:
    """A prompt's image block for a picture of the folder. InputError when it is missing or no picture."""
    path = picture_path(folder, name, where)
    picture_size(path, where)
    return InputBlock(type="image", path=path.relative_to(folder).as_posix(), sha256=file_sha256(path))


def image_block(folder: Path, name: Any, where: str) -> Block:
    """A document's image block for a picture of the folder: hash and size read from the file, path relative to the folder."""
    path = picture_path(folder, name, where)
    width, height = picture_size(path, where)
    return Block(type="image", path=path.relative_to(folder).as_posix(), sha256=file_sha256(path), width=width, height=height)


def picture_size(path: Path, where: str) -> tuple[int, int]:
    """Width and height in pixels from the file's head. InputError when it is no picture."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    except FileNotFoundError:
        raise InputError(f"{where}: there is no picture {path}") from None
    except Exception as error:  # decoders fail in many ways on damaged files
        raise InputError(f"{where}: {path} is no picture that can be read ({error})") from None


def write_picture(folder: Path, block: Block, target: Path, where: str) -> None:
    """Writes a document's picture in the format of the target's ending (.jpg or .png); same format: the same bytes."""
    from PIL import Image

    source = picture_path(folder, block.path, where)
    wanted = {".jpg": "JPEG", ".png": "PNG"}[target.suffix]
    try:
        with Image.open(source, formats=FORMATS) as image:
            same = image.format == wanted
    except Exception as error:
        raise InputError(f"{where}: {source} is no picture that can be read ({error})") from None
    if same:
        write_whole(target, source.read_bytes())
        return
    picture, _ = read_picture(source)
    if wanted == "PNG":
        write_whole(target, encode_png(picture))
    else:
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=95)
        write_whole(target, buffer.getvalue())


def safe_name(name: str, what: str) -> str:
    """The name when it can be a file name everywhere. InputError otherwise."""
    if not _SAFE_NAME.match(name):
        raise InputError(f"{what} {name[:100]!r} cannot be a file name; use letters, digits, spaces and ._+- (at most 100)")
    return name


def read_json(path: Path) -> Any:
    """Parsed JSON of a file, a byte-order mark allowed. InputError naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: no valid JSON ({error})") from None


def read_lines(path: Path) -> list[tuple[str, dict]]:
    """All objects of a JSONL file with where they stand ("file:line"). InputError naming file and line."""
    rows = []
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{where}: no valid JSON ({error})") from None
                if not isinstance(value, dict):
                    raise InputError(f"{where}: expected a JSON object, got {type(value).__name__}")
                rows.append((where, value))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    return rows


def need(value: dict, key: str, kind: type, where: str) -> Any:
    """value[key], which must be of this kind. InputError otherwise."""
    if key not in value:
        raise InputError(f"{where}: the key {key!r} is missing")
    if not isinstance(value[key], kind):
        raise InputError(f"{where}: {key}: expected {kind.__name__}, got {type(value[key]).__name__}")
    return value[key]


def by_prompt(documents: Iterable[Document]) -> dict[str, Document]:
    """Documents by the id of their prompt. InputError when a prompt was answered twice."""
    found: dict[str, Document] = {}
    for document in documents:
        if document.prompt_id in found:
            raise InputError(f"two documents answer the prompt {document.prompt_id}; give those of one system and one seed")
        found[document.prompt_id] = document
    return found
