"""Measures what `picture_checks.grid_shape` finds and whom it blames; the numbers in picture_seams.py come from here.

    python tests/measure_collages.py --seed 1 --singles 60 --collages 24 [--photos FOLDER]

Single pictures: true scenes of the picture-book world, drawings made here (with windows, houses, streets, flags), crops of
the photographs in a folder. Each is also seen through a cross of bars, as behind a window. Collages are made of them.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from weaver_core.picture_checks import grid_shape  # noqa: E402
from weaver_core.picturebook.compose import render  # noqa: E402
from weaver_core.picturebook.splits import sample_scene  # noqa: E402

SIDE = 192
LAYOUTS = ((2, 2), (3, 3), (2, 1))
Maker = Callable[[random.Random], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--singles", type=int, default=60, help="single pictures, and windows, of each kind")
    parser.add_argument("--collages", type=int, default=24, help="collages of each kind, layout and gutter")
    parser.add_argument("--photos", type=Path, help="a folder of photographs")
    options = parser.parse_args()
    makers: dict[str, Maker] = {"scenes": scene, "drawings": drawing}
    if options.photos:
        photos = [Image.open(path).convert("RGB") for path in sorted(options.photos.iterdir())]
        makers["photographs"] = lambda rng: crop(rng, rng.choice(photos))
    for name, make in makers.items():
        rng = random.Random(f"{options.seed} {name}")
        singles = [make(rng) for _ in range(options.singles)]
        print(f"{name}: blamed {count(singles)} of {len(singles)}, seen through bars "
              f"{count([through_bars(rng, one) for one in singles])} of {len(singles)}", flush=True)  # fmt: skip
        for layout in LAYOUTS:
            for kind in ("plain", "gutter"):
                pages = [collage(rng, singles, layout, gutter=kind == "gutter") for _ in range(options.collages)]
                print(f"  {layout[0]} x {layout[1]} {kind}: {count(pages, layout)} of {len(pages)}", flush=True)
    large = singles[0].resize((1024, 1024))
    started = time.process_time()
    for _ in range(10):
        grid_shape(large)
    print(f"{(time.process_time() - started) * 100:.0f} ms of CPU for a picture of 1024 x 1024")


def count(pictures: list[Image.Image], layout: tuple[int, int] | None = None) -> int:
    """How many are called a collage, or one of this layout."""
    found = [grid_shape(picture) for picture in pictures]
    return sum(shape is not None if layout is None else shape == layout for shape in found)


def scene(rng: random.Random) -> Image.Image:
    return render(sample_scene(rng, split="any", figures=rng.choice((1, 1, 2))))


def crop(rng: random.Random, photo: Image.Image) -> Image.Image:
    side = int(min(photo.size) * rng.uniform(0.4, 1.0))
    x, y = rng.randrange(photo.width - side + 1), rng.randrange(photo.height - side + 1)
    return photo.crop((x, y, x + side, y + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def drawing(rng: random.Random) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), colour(rng, 120))
    rng.choice((landscape, room, street, flag, shapes))(rng, ImageDraw.Draw(picture))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))) if rng.random() < 0.5 else picture


def landscape(rng: random.Random, pen: ImageDraw.ImageDraw) -> None:
    ground = rng.randrange(70, 130)
    pen.rectangle((0, ground, SIDE, SIDE), fill=colour(rng))
    tops = [(x, ground - rng.randrange(60)) for x in range(0, SIDE + 32, 32)]
    pen.polygon([(0, ground), *tops, (SIDE, ground)], fill=colour(rng))
    for _ in range(rng.randrange(6)):
        x, top = rng.randrange(SIDE), rng.randrange(20, ground)
        pen.rectangle((x, top, x + 6, ground + 12), fill=colour(rng))
        pen.ellipse((x - 16, top - 16, x + 22, top + 24), fill=colour(rng))


def room(rng: random.Random, pen: ImageDraw.ImageDraw) -> None:
    floor = rng.randrange(110, 155)
    pen.rectangle((0, floor, SIDE, SIDE), fill=colour(rng))
    x, y, width, height = rng.randrange(10, 80), rng.randrange(10, 40), rng.randrange(60, 110), rng.randrange(50, 80)
    frame = colour(rng)
    pen.rectangle((x, y, x + width, y + height), fill=colour(rng, 150), outline=frame, width=4)
    pen.rectangle((x + width // 2 - 2, y, x + width // 2 + 2, y + height), fill=frame)
    pen.rectangle((x, y + height // 2 - 2, x + width, y + height // 2 + 2), fill=frame)
    pen.rectangle((rng.randrange(90), floor - 30, SIDE - 20, floor + 14), fill=colour(rng))


def street(rng: random.Random, pen: ImageDraw.ImageDraw) -> None:
    x = 0
    while x < SIDE:
        width, top, lamp = rng.randrange(24, 60), rng.randrange(15, 100), colour(rng, 180)
        pen.rectangle((x, top, x + width, SIDE), fill=colour(rng))
        for wx in range(x + 5, x + width - 6, 13):
            for wy in range(top + 7, SIDE - 30, 16):
                pen.rectangle((wx, wy, wx + 5, wy + 8), fill=lamp)
        x += width
    pen.rectangle((0, SIDE - 22, SIDE, SIDE), fill=colour(rng))


def flag(rng: random.Random, pen: ImageDraw.ImageDraw) -> None:
    stripes, lying = rng.choice((2, 3, 5)), rng.random() < 0.5
    for number in range(stripes):
        low, high = number * SIDE // stripes, (number + 1) * SIDE // stripes
        pen.rectangle((0, low, SIDE, high) if lying else (low, 0, high, SIDE), fill=colour(rng))
    x = rng.randrange(40, 150)
    pen.ellipse((x - 24, 72, x + 24, 120), fill=colour(rng))


def shapes(rng: random.Random, pen: ImageDraw.ImageDraw) -> None:
    for _ in range(rng.randrange(4, 24)):
        (left, right), (top, bottom) = (sorted(rng.sample(range(SIDE), 2)) for _ in "xy")
        rng.choice((pen.ellipse, pen.rectangle))((left, top, right, bottom), fill=colour(rng))


def through_bars(rng: random.Random, picture: Image.Image) -> Image.Image:
    window = picture.resize((SIDE, SIDE))
    pen, half, bar, middle = ImageDraw.Draw(window), rng.randrange(1, 8), colour(rng), SIDE // 2
    pen.rectangle((middle - half, 0, middle + half - 1, SIDE), fill=bar)
    pen.rectangle((0, middle - half, SIDE, middle + half - 1), fill=bar)
    return window


def collage(rng: random.Random, singles: list[Image.Image], layout: tuple[int, int], *, gutter: bool) -> Image.Image:
    """Panels cut to shape from the middles of unlike pictures; `gutter`: 1 to 6 hundredths wide, at times also as a border."""
    columns, rows = layout
    side = rng.choice((128, 160, 192, 256))
    wide = max(1, side * rng.randrange(1, 7) // 100) if gutter else 0
    edge = wide if rng.random() < 0.4 else 0
    page = Image.new("RGB", (side, side), rng.choice(("white", "black", (235, 230, 220), (40, 40, 60))))
    width, height = ((side - 2 * edge - wide * (number - 1)) / number for number in (columns, rows))
    for number, panel in enumerate(rng.sample(singles, columns * rows)):
        x, y = edge + number % columns * (width + wide), edge + number // columns * (height + wide)
        box = round(x), round(y), round(x + width), round(y + height)
        size = box[2] - box[0], box[3] - box[1]
        scale = max(size[0] / panel.width, size[1] / panel.height)
        left, top = (panel.width - size[0] / scale) / 2, (panel.height - size[1] / scale) / 2
        page.paste(panel.resize(size, Image.Resampling.LANCZOS, (left, top, panel.width - left, panel.height - top)), box[:2])
    return page


def colour(rng: random.Random, darkest: int = 30) -> tuple[int, int, int]:
    return tuple(rng.randrange(darkest, 250) for _ in "rgb")


if __name__ == "__main__":
    main()
