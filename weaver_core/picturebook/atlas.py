"""The picture-book sprites, read from `art/atlas.png` and `art/atlas.json` (Pillow only; built by training/build_atlas.py).

Art: Fluent Emoji flat, MIT, Copyright (c) Microsoft Corporation; see `art/NOTICE`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

ART = Path(__file__).parent / "art"


@dataclass(frozen=True, slots=True)
class Sprite:
    """One drawing in its full box. `units` is its width and height in figure units (a standing figure is 84 tall)."""

    name: str
    image: Image.Image
    units: tuple[float, float]
    anchors: dict


@lru_cache(maxsize=1)
def load() -> dict[str, Sprite]:
    """All sprites by name ("head/fox/red", "body/waving/blue", "wearable/hat", "prop/kite", "scenery/cactus" ...).

    Raises   FileNotFoundError if the atlas is missing, ValueError if table and picture do not belong together
    """
    table = json.loads((ART / "atlas.json").read_text(encoding="utf-8"))
    with Image.open(ART / "atlas.png") as file:
        atlas = file.convert("RGBA")
    sprites = {}
    for name, row in table.items():
        left, top, right, bottom = row["box"]
        if right > atlas.width or bottom > atlas.height:
            raise ValueError(f"{name} lies at {row['box']}, outside the {atlas.width}x{atlas.height} atlas; "
                             "atlas.png and atlas.json are from different builds, run training/build_atlas.py again")
        image = Image.new("RGBA", tuple(row["size"]))
        image.paste(atlas.crop((left, top, right, bottom)), tuple(row["offset"]))
        anchors = {key: row[key] for key in ("head_top", "eyes") if key in row}
        sprites[name] = Sprite(name, image, tuple(row["units"]), anchors)
    return sprites


def sprite(name: str) -> Sprite:
    """One sprite by name; ValueError names the category's sprites if there is none."""
    sprites = load()
    if name not in sprites:
        category = name.split("/")[0] + "/"
        known = [n for n in sprites if n.startswith(category)] or sorted({n.split("/")[0] for n in sprites})
        raise ValueError(f"no sprite {name!r} in the atlas; it has {', '.join(known)}")
    return sprites[name]


@lru_cache(maxsize=2048)
def scaled(name: str, pixels_per_unit: float) -> Image.Image:
    """One sprite resized to `pixels_per_unit`, RGBA. The returned image is shared: do not draw on it."""
    source = sprite(name)
    size = tuple(max(1, round(u * pixels_per_unit)) for u in source.units)
    # Pillow premultiplies RGBA while resizing, so edges do not darken
    return source.image.resize(size, Image.Resampling.BOX if size[0] * 2 < source.image.width else Image.Resampling.LANCZOS)
