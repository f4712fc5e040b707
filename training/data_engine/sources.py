"""What a build begins with: a list, cheap to make, of topics, requests, picture files and videos. Reading comes later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data_engine.record import Record, digest
from weaver_core.errors import InputError

KINDS = ("topics", "requests", "folder", "video")
PICTURES = frozenset(".png .jpg .jpeg .webp .gif .bmp .tif .tiff .avif".split())
VIDEOS = frozenset(".mp4 .mkv .webm .mov .avi .m4v".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One source. `path` counts from the recipe's folder."""

    kind: str  # "topics" and "requests" (a text a line), "folder" (pictures), "video" (a file or a folder of them)
    path: str = ""
    items: tuple[str, ...] = ()  # topics or requests, written into the recipe
    language: str = "en"  # of requests
    groups: bool = True  # "folder": each folder inside shows one subject; false = pictures belong to no group yet
    every_s: float = 1.0  # "video": seconds between two frames
    most_frames: int = 200  # "video": of one file
    cut: float = 0.6  # "video": a new clip begins where two frames share less of their colours than this (0 to 1; no cut: above 0.8)

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if bool(self.path) == bool(self.items):
            raise ValueError("path or items must be given, one of them")
        if self.items and self.kind not in ("topics", "requests"):
            raise ValueError(f"items are for topics and requests; a {self.kind} needs a path")
        if self.every_s <= 0 or self.most_frames < 1:
            raise ValueError(f"every_s is {self.every_s:g} and most_frames {self.most_frames}; both must be above 0")


def list_source(source: SourceConfig, number: int, folder: Path) -> Iterator[Record]:
    """The records of one source, in an order that does not change. InputError when it cannot be read, or holds nothing."""
    if source.kind in ("topics", "requests"):
        name = source.kind[:-1]
        for index, text in enumerate(source.items or _read_texts(folder / source.path)):
            language = {"language": source.language} if name == "request" else {}
            yield Record(id=f"{number}-{name}-{index:06}", fields={"kind": name, name: text, **language})
        return
    root = (folder / source.path).resolve()
    suffixes = PICTURES if source.kind == "folder" else VIDEOS
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not paths:
        raise InputError(f"{root} holds no {'pictures' if source.kind == 'folder' else 'videos'} ({', '.join(sorted(suffixes))})")
    captions = _captions(root) if source.kind == "folder" and root.is_dir() else {}
    for path in paths:
        inside = path.relative_to(root).as_posix() if path != root else path.name
        about = path.stat()
        fields = {"kind": source.kind, "path": str(path), "stamp": f"{about.st_size}-{about.st_mtime_ns}", "source": number}
        if source.kind == "folder":
            text = captions.get(inside) or _text_beside(path)
            fields |= ({"caption": text} if text else {}) | ({"group": f"{number}-{path.parent.relative_to(root).as_posix()}"}
                                                             if source.groups and path.parent != root else {})
        yield Record(id=f"{number}-{inside}", fields=fields)


def listing_key(source: SourceConfig) -> str:
    return digest(source.kind, source.every_s, source.most_frames, source.cut)


def _read_texts(path: Path) -> list[str]:
    """Lines of a text file, or `topic`, `request` or `text` of the objects of a .jsonl file."""
    try:
        lines = [(number, line.strip()) for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1)]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path} holds nothing; write one topic or request a line")
    return [_text_of(line, f"{path}:{number}") if path.suffix == ".jsonl" else line for number, line in lines]


def _text_of(line: str, where: str) -> str:
    try:
        data = json.loads(line)
        return str(next(data[key] for key in ("topic", "request", "text") if data.get(key)))
    except (ValueError, StopIteration, AttributeError, RecursionError):
        raise InputError(f"{where}: expected an object with 'topic', 'request' or 'text', got {line[:60]!r}") from None


def _captions(root: Path) -> dict[str, str]:
    """What a metadata.jsonl in the folder says: file_name -> prompt, or text, as Hugging Face datasets call it."""
    path = root / "metadata.jsonl"
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        try:
            data = json.loads(line) if line.strip() else {}
            text = data.get("prompt") or data.get("text")
            found |= {str(data["file_name"]): str(text)} if text else {}
        except (ValueError, KeyError, AttributeError, RecursionError):
            raise InputError(f"{path}:{number}: expected an object with 'file_name' and 'prompt' (or 'text'), got {line[:60]!r}") from None
    return found


def _text_beside(path: Path) -> str:
    beside = path.with_suffix(".txt")
    try:
        return " ".join(beside.read_text(encoding="utf-8-sig").split()) if beside.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""
