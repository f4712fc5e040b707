"""What the name of a model stands for: a folder that was trained anew is another model, and the keys of shards and answers must tell."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def weights_of(place: str | Path) -> str:
    """A hash of the weights in a folder or a file; "" for a name that is no place on this disk, such as the hub's."""
    place = Path(place)
    if not place.exists():
        return ""
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    return _hash(place, tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache
def _hash(place: Path, stamps: tuple) -> str:
    """Reading gigabytes takes a while: once for a process, unless a file was written since."""
    from weaver_core.model.checkpoint import weights_fingerprint

    if place.is_dir():
        return weights_fingerprint([place])
    with open(place, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
