"""The eight places at three times of day, drawn once per size with a few variants of scenery each.

Drawn at twice the size and reduced. Coordinates are 128ths of the picture's width and height, lengths of sprites are
128ths of its shorter side, so a 4:3 page shows the same place. Land is drawn in daylight and tinted by the time of
day; sky, lamps and lit windows are not tinted.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .atlas import scaled
from .world import PLACES, TIMES

VARIANTS = 3
SKY = {"day": ((74, 174, 245), (196, 233, 252)), "sunset": ((240, 98, 110), (255, 203, 112)),
       "night": ((15, 20, 62), (46, 58, 122))}
# what daylight colours are multiplied with
TINT = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.80, 0.68), "night": (0.42, 0.49, 0.74)}
# plain sunset would turn snow into sand, and plain night the desert into a meadow
OWN_TINT = {("snow", "sunset"): (1.0, 0.86, 0.86), ("desert", "night"): (0.56, 0.47, 0.64)}
LIT = (255, 222, 110)
CREAM = (255, 252, 240)


def variant_count(place: str, time: str) -> int:
    """How many scenery variants a place has at a time."""
    _check(place, time)
    return VARIANTS


def background(place: str, time: str, variant: int, size: int | tuple[int, int] = 128) -> np.ndarray:
    """The empty place, uint8 (H, W, 3), read-only.

    size is one side or (width, height) in pixels. Raises ValueError for an unknown place, time or variant.
    """
    _check(place, time)
    if not 0 <= variant < VARIANTS:
        raise ValueError(f"variant is {variant}; {place} has the variants 0 to {VARIANTS - 1}")
    width, height = (size, size) if isinstance(size, int) else size
    array = np.asarray(picture(place, time, variant, width, height))
    array.setflags(write=False)
    return array


@lru_cache(maxsize=512)
def picture(place: str, time: str, variant: int, width: int, height: int) -> Image.Image:
    """`background` as a shared Pillow image: copy before drawing."""
    # the three times of one variant differ in light only: same random numbers
    page = Page(width, height, place, time, random.Random(PLACES.index(place) * 100 + variant))
    DRAW[place](page, variant)
    return page.finish()


def _check(place: str, time: str) -> None:
    if place not in PLACES:
        raise ValueError(f"place is {place!r}; the picture-book world knows {', '.join(PLACES)}")
    if time not in TIMES:
        raise ValueError(f"time is {time!r}; the picture-book world knows {', '.join(TIMES)}")


class Page:
    """One background in the making: sky below, land above it, lights on top."""

    def __init__(self, width: int, height: int, place: str, time: str, rng: random.Random):
        self.width, self.height, self.time, self.rng = width * 2, height * 2, time, rng
        self.unit = min(self.width, self.height) / 128
        self.tint = OWN_TINT.get((place, time), TINT[time])
        self.sky = Image.new("RGB", (self.width, self.height))
        self.land = Image.new("RGBA", (self.width, self.height))
        self.lights = Image.new("RGBA", (self.width, self.height))
        self.draw, self.glow = ImageDraw.Draw(self.land), ImageDraw.Draw(self.lights)

    def x(self, value: float) -> float:
        return value * self.width / 128

    def y(self, value: float) -> float:
        return value * self.height / 128

    def gradient(self, top, bottom, until: float = 128) -> None:
        rows = np.clip(np.arange(self.height) / max(1, self.y(until)), 0, 1)[:, None]
        column = np.asarray(top) * (1 - rows) + np.asarray(bottom) * rows
        self.sky = Image.fromarray(np.repeat(column[:, None], self.width, 1).round().astype(np.uint8), "RGB")

    def open_sky(self, sun_x: float, horizon: float, clouds=((26, 20, 24), (100, 14, 20)), stars: int = 26) -> None:
        """Sky with the sun high, the sun setting on the horizon, or the moon and stars."""
        self.gradient(*SKY[self.time], until=horizon)
        sky = ImageDraw.Draw(self.sky)
        u = self.unit
        if self.time == "day":
            self.fill_disc(sky, self.x(sun_x), self.y(17), 12 * u, (255, 240, 170))
            self.fill_disc(sky, self.x(sun_x), self.y(17), 9.5 * u, (255, 214, 48))
        elif self.time == "sunset":
            cx, cy = self.x(sun_x), self.y(horizon - 6)
            for radius, colour in ((30, (255, 176, 104)), (23, (255, 190, 104)), (16, (255, 236, 150))):
                self.fill_disc(sky, cx, cy, radius * u, colour)
        else:
            for _ in range(stars):
                x, y = self.rng.uniform(2, 126), self.rng.uniform(2, horizon - 4)
                self.fill_disc(sky, self.x(x), self.y(y), self.rng.choice((0.7, 0.9, 1.2)) * u, (255, 250, 214))
            cx, cy = self.x(sun_x), self.y(18)
            self.fill_disc(sky, cx, cy, 10 * u, (255, 244, 196))
            column = self.sky.getpixel((0, int(cy)))
            self.fill_disc(sky, cx + 5 * u, cy - 3 * u, 8.6 * u, column)
        for x, y, w in clouds if self.time != "night" else ():
            self._cloud(sky, x, y, w, (255, 255, 255) if self.time == "day" else (255, 196, 170))

    def _cloud(self, draw, x, y, w, colour) -> None:
        cx, cy, u = self.x(x), self.y(y), self.unit * w / 24
        for dx, dy, r in ((-8, 1, 4.5), (-2, -2.5, 6), (5, -1, 5.2), (10, 1.6, 3.8)):
            self.fill_disc(draw, cx + dx * u, cy + dy * u, r * u, colour)
        draw.rounded_rectangle((cx - 12 * u, cy, cx + 13.5 * u, cy + 5.6 * u), 2.8 * u, fill=colour)

    @staticmethod
    def fill_disc(draw, x, y, r, colour) -> None:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def disc(self, x, y, r, colour, ry=None) -> None:
        rx, ry = r * self.unit, (ry or r) * self.unit
        self.draw.ellipse((self.x(x) - rx, self.y(y) - ry, self.x(x) + rx, self.y(y) + ry), fill=colour)

    def box(self, x0, y0, x1, y1, colour, radius: float = 0, lit: bool = False) -> None:
        draw = self.glow if lit else self.draw
        draw.rounded_rectangle((self.x(x0), self.y(y0), self.x(x1), self.y(y1)), radius * self.unit, fill=colour)

    def polygon(self, points, colour) -> None:
        self.draw.polygon([(self.x(x), self.y(y)) for x, y in points], fill=colour)

    def hills(self, base: float, rise: float, colour, waves: float = 1.0, phase: float = 0.0) -> None:
        """A wavy ground from `base` down to the bottom edge."""
        points = [(x, base - rise * math.sin((x / 128 * waves + phase) * 2 * math.pi)) for x in range(-2, 132, 2)]
        self.polygon([(-2, 130), *points, (130, 130)], colour)

    def stand(self, name: str, x: float, bottom: float, size: float, flip: bool = False) -> None:
        """A scenery sprite `size` wide whose foot is at (x, bottom)."""
        image = scaled(f"scenery/{name}", size * self.unit / 48)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
        foot = image.getbbox()[3]
        place = (round(self.x(x) - image.width / 2), round(self.y(bottom) - foot))
        layer = Image.new("RGBA", self.land.size)
        layer.paste(image, place)
        self.land.alpha_composite(layer)

    def glow_dot(self, x: float, y: float, r: float) -> None:
        """A dot the time of day does not dim (a snowflake)."""
        self.fill_disc(self.glow, self.x(x), self.y(y), r * self.unit, (255, 255, 255, 230))

    def dots(self, count: int, top: float, bottom: float, colours, radius: float = 1.3) -> None:
        for _ in range(count):
            y = self.rng.uniform(top, bottom)
            nearness = (y - top) / max(1, bottom - top)
            self.disc(self.rng.uniform(2, 126), y, radius * (0.7 + 0.5 * nearness), self.rng.choice(colours))

    def finish(self) -> Image.Image:
        red, green, blue, alpha = self.land.split()
        factors = self.tint
        tinted = [band.point([round(v * f) for v in range(256)]) for band, f in zip((red, green, blue), factors)]
        page = self.sky.copy()
        page.paste(Image.merge("RGB", tinted), (0, 0), alpha)
        page.paste(self.lights, (0, 0), self.lights)
        return page.reduce(2)


def meadow(p: Page, v: int) -> None:
    p.open_sky((106, 22, 92)[v], 72, clouds=((28, 20, 26), (72, 28, 18)) if v != 1 else ((64, 18, 24), (108, 30, 20)))
    p.hills(70, 7, (150, 214, 108), 1.0, (0.1, 0.5, 0.3)[v])
    p.hills(82, 6, (118, 198, 84), 0.8, (0.6, 0.05, 0.8)[v])
    p.hills(98, 3, (92, 182, 66), 1.2, (0.2, 0.7, 0.4)[v])
    if v == 0:
        p.stand("deciduous-tree", 10, 92, 44)
        p.disc(122, 92, 11, (72, 156, 58), 8)
    elif v == 1:
        for x in range(-4, 132, 12):
            p.box(x, 76, x + 4, 93, CREAM, 1)
        p.box(-2, 79, 130, 82, CREAM)
        p.box(-2, 86, 130, 89, CREAM)
        p.stand("deciduous-tree", 116, 90, 36)
    else:
        p.stand("deciduous-tree", 118, 90, 44)
        p.stand("deciduous-tree", 4, 82, 28)
    p.dots(34, 98, 126, ((255, 255, 255), (255, 170, 210), (255, 255, 255), (214, 170, 255)), 1.5)


def beach(p: Page, v: int) -> None:
    p.open_sky((24, 100, 64)[v], 62, clouds=((84, 18, 24),) if v == 0 else ((34, 20, 24),))
    p.box(-2, 60, 130, 130, (34, 150, 214))
    p.box(-2, 74, 130, 130, (64, 184, 226))
    for _ in range(9):
        x, y = p.rng.uniform(4, 118), p.rng.uniform(64, 82)
        p.box(x, y, x + p.rng.uniform(5, 10), y + 1, (170, 226, 246), 0.5)
    if v != 2:
        p.stand("sailboat", (66, 84)[v], 70, 18)
    p.hills(88, 2.5, (236, 250, 252), 1.5, (0.1, 0.4, 0.7)[v])
    p.hills(91, 2.5, (250, 222, 150), 1.5, (0.1, 0.4, 0.7)[v])
    p.hills(108, 2, (243, 206, 126), 1.0, (0.5, 0.1, 0.3)[v])
    for x, size in (((110, 60),), ((18, 60),), ((12, 46), (114, 54)))[v]:
        p.stand("palm-tree", x, 100, size, flip=x < 64)
    p.stand("spiral-shell", (14, 112, 30)[v], 122, 9)
    p.dots(20, 100, 126, ((224, 184, 104), (255, 240, 196)), 0.9)


def forest(p: Page, v: int) -> None:
    p.open_sky((64, 44, 84)[v], 74, clouds=(), stars=26)
    for x in range(-4, 140, 8):
        p.disc(x + p.rng.uniform(-2, 2), 62 + p.rng.uniform(-5, 4), 8, (34, 96, 62), 14)
    p.hills(70, 2, (44, 104, 52), 2.2, 0.3)
    kinds = (("evergreen-tree",), ("deciduous-tree", "evergreen-tree"), ("deciduous-tree",))[v]
    for i, x in enumerate((27, 46, 64, 82, 101)):
        p.stand(kinds[i % len(kinds)], x + p.rng.uniform(-2, 2), 84 + p.rng.uniform(-3, 2), 36)
    p.hills(88, 2, (62, 122, 50), 1.4, 0.1)
    p.hills(104, 2, (78, 138, 58), 1.1, 0.5)
    # near trunks under a roof of leaves: we are inside the wood
    bark, shade = (118, 78, 54), (92, 60, 44)
    for x, foot, half in (((6, 108, 7), (121, 104, 6)), ((9, 104, 6), (124, 110, 7), (110, 96, 3.5)),
                          ((4, 106, 6), (20, 97, 3.5), (120, 108, 7)))[v]:
        right = [(x + half, 10), (x + half, foot - 8), (x + half + 4, foot + 2)]
        p.polygon([(x - half - 4, foot + 2), (x - half, foot - 8), (x - half, 10), *right], bark)
        p.polygon([(x + half * 0.3, foot + 2), (x + half * 0.3, 10), *right], shade)
    for colour, lower in (((40, 112, 50), 5), ((66, 148, 52), 0)):
        for x in range(-4, 136, 9):
            depth = 5 + 26 * abs(x / 64 - 1) ** 1.6
            p.disc(x + p.rng.uniform(-2, 2), depth - 14 + lower, 11, colour, 13)
    for x, y, size in (((20, 122, 13), (112, 118, 10)), ((108, 123, 13), (98, 126, 9)), ((14, 120, 12), (118, 124, 13)))[v]:
        p.stand("brown-mushroom", x, y, size)
    p.dots(16, 106, 126, ((100, 164, 72), (54, 112, 42)), 1.3)


def snow(p: Page, v: int) -> None:
    p.open_sky((102, 26, 64)[v], 72, clouds=((30, 22, 24),) if v != 1 else ((96, 20, 24),))
    peaks = ((30, 30, 34), (84, 40, 30)), ((96, 28, 36), (44, 42, 30)), ((20, 36, 32), (108, 34, 34), (64, 48, 24))
    for x, top, half in peaks[v]:
        p.polygon([(x - half, 84), (x, top), (x + half, 84)], (132, 156, 190))
        p.polygon([(x - half * 0.36, top + (84 - top) * 0.36), (x, top), (x + half * 0.36, top + (84 - top) * 0.36),
                   (x + half * 0.16, top + (84 - top) * 0.28), (x, top + (84 - top) * 0.4),
                   (x - half * 0.16, top + (84 - top) * 0.28)], (250, 253, 255))
    p.hills(78, 4, (214, 232, 248), 0.9, 0.2 + v * 0.3)
    for x, foot, size in (((12, 90, 32), (120, 84, 24)), ((8, 84, 24), (110, 88, 30)), ((4, 88, 30), (122, 90, 34)))[v]:
        snowy_tree(p, x, foot, size)
    p.hills(92, 3, (240, 248, 255), 1.1, 0.6 + v * 0.2)
    if v != 2:
        p.stand("snowman-without-snow", (117, 12)[v], 108, 24)
    for _ in range(44):
        p.glow_dot(p.rng.uniform(0, 128), p.rng.uniform(0, 126), p.rng.choice((0.8, 1.1, 1.4)))


def snowy_tree(p: Page, x: float, foot: float, size: float) -> None:
    s = size / 32
    p.box(x - 2.5 * s, foot - 8 * s, x + 2.5 * s, foot, (110, 78, 60))
    for level in range(3):
        y, half = foot - 5 * s - level * 9 * s, (15 - level * 3.6) * s
        p.polygon([(x - half, y), (x, y - 15 * s), (x + half, y)], (44, 120, 96))
        p.polygon([(x - half * 0.55, y - 6.8 * s), (x, y - 15 * s), (x + half * 0.55, y - 6.8 * s), (x, y - 9.5 * s)],
                  (248, 252, 255))


def desert(p: Page, v: int) -> None:
    p.open_sky((24, 100, 70)[v], 70, clouds=())
    for x, width, top in (((100, 44, 46),), ((24, 40, 44), (60, 22, 56)), ((112, 40, 50), (14, 34, 42)))[v]:
        rim = [(x - width * 0.36, top), (x + width * 0.36, top)]
        p.polygon([(x - width / 2, 82), *rim, (x + width / 2, 82)], (190, 96, 62))
        p.polygon([(x - width * 0.42, 66), *rim, (x + width * 0.42, 66)], (214, 116, 74))
    p.hills(78, 5, (238, 176, 96), 0.9, (0.1, 0.6, 0.35)[v])
    p.hills(90, 4, (228, 158, 78), 0.7, (0.5, 0.1, 0.8)[v])
    p.hills(104, 3, (216, 142, 66), 1.0, (0.0, 0.45, 0.2)[v])
    for x, foot, size in (((13, 100, 44), (120, 90, 22)), ((116, 102, 46), (10, 88, 20)), ((10, 92, 28), (119, 104, 42)))[v]:
        p.stand("cactus", x, foot, size)
    p.stand("rock", (112, 16, 34)[v], 124, 13)


def town(p: Page, v: int) -> None:
    p.open_sky((110, 16, 64)[v], 74, clouds=((60, 16, 22),), stars=18)
    walls = ((242, 196, 128), (220, 132, 112), (166, 190, 214), (236, 222, 190), (190, 162, 206))
    roofs = ((176, 66, 58), (110, 76, 84), (70, 96, 128))
    x, order = -6, list(range(5))
    p.rng.shuffle(order)
    for i in range(6):
        width, top = (24, 26, 23, 25, 24, 26)[i], (44, 36, 48, 40, 46, 38)[(i + v * 2) % 6]
        wall = walls[order[i % 5]]
        p.box(x, top, x + width - 1, 92, wall)
        if (i + v) % 2:
            p.polygon([(x - 2, top), (x + width / 2 - 0.5, top - 14), (x + width + 1, top)], roofs[i % 3])
        else:
            p.box(x - 1.5, top - 5, x + width + 0.5, top, roofs[(i + 1) % 3], 1)
        for row, wy in enumerate(range(top + 6, 78, 14)):
            for column, wx in enumerate((x + 4, x + width - 11)):
                lit = p.time != "day" and (i + row + column) % 3 != 0
                p.box(wx, wy, wx + 6, wy + 8, LIT if lit else (112, 160, 196), 0.6, lit=lit)
        p.box(x + width / 2 - 4, 80, x + width / 2 + 3, 92, (124, 78, 58), 1)
        x += width
    p.box(-2, 91, 130, 100, (206, 200, 196))
    p.box(-2, 99, 130, 101, (160, 154, 154))
    p.box(-2, 101, 130, 130, (126, 128, 138))
    for x in range(-4, 132, 24):
        p.box(x, 120, x + 12, 122.5, (240, 236, 220))
    for x in ((8, 121), (9, 120), (7, 122))[v]:
        street_lamp(p, x)


def street_lamp(p: Page, x: float) -> None:
    p.box(x - 1.2, 62, x + 1.2, 100, (52, 56, 70))
    p.box(x - 3, 97, x + 3, 100, (52, 56, 70), 1)
    if p.time == "night":
        for radius, alpha in ((13, 40), (9, 70)):
            p.fill_disc(p.glow, p.x(x), p.y(58), radius * p.unit, (255, 224, 130, alpha))
    p.box(x - 4, 53, x + 4, 63, (52, 56, 70), 2)
    p.box(x - 2.8, 54.5, x + 2.8, 61.5, LIT if p.time != "day" else (236, 240, 232), 1.4, lit=p.time != "day")


def castle(p: Page, v: int) -> None:
    p.open_sky((64, 50, 80)[v], 80, clouds=((30, 16, 20), (98, 24, 20)), stars=20)
    stone, shade, roof = (186, 184, 198), (150, 148, 168), ((150, 66, 140), (62, 92, 168), (176, 60, 70))[v]
    p.hills(86, 3, (120, 186, 96), 1.0, 0.2)
    towers = (((13, 26, 24), (115, 26, 24)), ((14, 20, 26), (114, 38, 24), (86, 30, 16)),
              ((12, 40, 24), (116, 18, 26), (42, 28, 16)))
    p.box(-2, 58, 130, 102, stone)
    for x in range(-2, 130, 10):
        p.box(x, 52, x + 6, 59, stone)
    for row, y in enumerate(range(64, 100, 9)):
        for x in range(-6 + 8 * (row % 2), 130, 16):
            p.box(x, y, x + 8, y + 1.4, shade)
    for x, top, width in towers[v]:
        p.box(x - width / 2, top + 12, x + width / 2, 102, (202, 200, 212))
        p.box(x + width / 4, top + 12, x + width / 2, 102, (172, 170, 186))
        p.polygon([(x - width / 2 - 3, top + 14), (x, top - 12), (x + width / 2 + 3, top + 14)], roof)
        p.box(x - 0.6, top - 20, x + 0.6, top - 10, (90, 84, 96))
        p.polygon([(x + 0.6, top - 20), (x + 9, top - 17), (x + 0.6, top - 14)], (255, 206, 70))
        lit = p.time != "day"
        p.box(x - 2.6, top + 24, x + 2.6, top + 34, LIT if lit else (84, 84, 112), 2.6, lit=lit)
    gate = (64, 46, 84)[v]
    p.box(gate - 13, 68, gate + 13, 102, shade, 12)
    p.box(gate - 10, 71, gate + 10, 102, (110, 74, 58), 10)
    p.hills(101, 1.5, (106, 178, 84), 1.0, 0.3)
    p.polygon([(gate - 11, 101), (gate + 11, 101), (gate + 34, 130), (gate - 34, 130)], (226, 204, 160))


def room(p: Page, v: int) -> None:
    wall, stripe = (((250, 226, 190), (245, 214, 172)), ((206, 230, 214), (192, 220, 202)),
                    ((222, 214, 240), (210, 200, 232)))[v]
    p.gradient((0, 0, 0), (0, 0, 0))
    p.box(-2, -2, 130, 100, wall)
    for x in range(-2, 130, 16):
        p.box(x, -2, x + 8, 92, stripe)
    p.box(-2, 92, 130, 97, (250, 246, 236))
    p.box(-2, 97, 130, 130, (196, 138, 90))
    for y in (104, 112, 121):
        p.box(-2, y, 130, y + 1, (172, 116, 72))
    for x, y in ((20, 97), (76, 97), (48, 105), (104, 105), (12, 113), (70, 113), (116, 122), (36, 122)):
        p.box(x, y, x + 1, y + 8, (172, 116, 72))
    p.disc(64, 117, 52, ((206, 96, 96), (84, 138, 190), (150, 110, 180))[v], 9)
    p.disc(64, 117, 45, ((232, 150, 140), (136, 182, 220), (190, 156, 214))[v], 6.8)
    window(p, (98, 30, 64)[v])
    if v == 0:
        p.stand("bed", 24, 107, 50)
        p.stand("framed-picture", 30, 44, 24)
    elif v == 1:
        p.stand("potted-plant", 10, 106, 30)
        p.stand("framed-picture", 84, 42, 24)
    else:
        p.stand("chair", 11, 108, 34)
        p.stand("framed-picture", 110, 44, 20)
    floor_lamp(p, (121, 118, 117)[v])


def window(p: Page, x: float) -> None:
    """A window through which the sky of the hour shows."""
    box = (x - 20, 10, x + 20, 54)
    p.box(box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3, (255, 255, 255), 1)
    top, bottom = (np.asarray(c, float) for c in SKY[p.time])
    y0, y1 = p.y(box[1]), p.y(box[3])
    for y in range(round(y0), round(y1)):
        colour = tuple(int(c) for c in top + (bottom - top) * (y - y0) / (y1 - y0)) + (255,)
        p.glow.rectangle((p.x(box[0]), y, p.x(box[2]), y), fill=colour)
    cx, u = p.x(x + 8), p.unit
    if p.time == "day":
        p.fill_disc(p.glow, cx, p.y(22), 6 * u, (255, 220, 60, 255))
    elif p.time == "sunset":
        p.fill_disc(p.glow, cx, p.y(44), 8 * u, (255, 238, 150, 255))
    else:
        p.fill_disc(p.glow, cx, p.y(22), 6 * u, (255, 244, 196, 255))
        for dx, dy in ((-14, 18), (-6, 30), (-13, 42), (4, 38), (14, 44), (-4, 16)):
            p.fill_disc(p.glow, p.x(x + dx), p.y(dy), 0.9 * u, (255, 250, 214, 255))
    frame = {"day": (255, 255, 255), "sunset": (255, 214, 180), "night": (104, 116, 170)}[p.time]
    p.box(x - 1.2, box[1], x + 1.2, box[3], frame, lit=True)
    p.box(box[0], 31, box[2], 33.4, frame, lit=True)
    curtain = (224, 112, 104)
    p.box(box[0] - 8, 5, box[2] + 8, 8, (150, 100, 70), 1)
    for side in (-1, 1):
        edge = x + side * 27
        p.polygon([(edge, 8), (edge - side * 10, 8), (edge - side * 3, 62), (edge + side * 1.5, 62)], curtain)


def floor_lamp(p: Page, x: float) -> None:
    p.box(x - 0.9, 62, x + 0.9, 106, (112, 84, 66))
    p.disc(x, 106, 6, (112, 84, 66), 1.8)
    lit = p.time != "day"
    if p.time == "night":
        for radius, alpha in ((24, 34), (16, 56)):
            p.fill_disc(p.glow, p.x(x), p.y(58), radius * p.unit, (255, 216, 120, alpha))
    shade = [(p.x(x - 9), p.y(66)), (p.x(x - 5), p.y(52)), (p.x(x + 5), p.y(52)), (p.x(x + 9), p.y(66))]
    (p.glow if lit else p.draw).polygon(shade, fill=LIT if lit else (250, 196, 92))


DRAW = {"meadow": meadow, "beach": beach, "forest": forest, "snow": snow, "desert": desert, "town": town, "castle": castle,
        "room": room}
