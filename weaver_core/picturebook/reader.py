"""The oracle reader: what a picture shows, from its pixels alone, by drawing hypotheses and comparing. Nothing is trained.

Steps   1. the background (place, time, variant) with the smallest clipped difference at quarter size;
        2. who could stand where: bodies of every pose and colour at the five positions of the layout, at quarter size;
        3. per candidate at half size: where exactly, how tall, which species, which clothes, pose and colour again;
        4. one figure, two or none: what explains most of the picture;
        5. the prop, where the layout would put it.
Differences are sums over RGB clipped at CAP, so a wrong patch costs no more than its area; half size (means over 2 x 2
pixels, sprites placed to the full pixel before) forgives noise and slight blur. Our choice throughout;
`measure` says how well it reads true scenes. Pillow and numpy only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import log

import numpy as np
from PIL import Image

from .compose import (FIGURE_HEIGHT, PAIR_X, SINGLE_X, background, figure_sprite, prop_place, prop_sprite, render, standing_place,
                      variant_count)
from .splits import sample_scene
from .world import COLOURS, HEROES, PLACES, POSES, PROPS, SIZES, TIMES, WEARABLES, Character, Scene

CAP = 160.0                                               # of a pixel's difference summed over RGB (0 to 765)
SLOTS = tuple(("single", side) for side in SINGLE_X) + tuple(("pair", side) for side in PAIR_X)
# A figure or prop must explain at least this share of the difference that drawing it makes: 1 for a perfect match, -1 where
# there is nothing like it. Measured on 500 scenes: absent props reach -0.68, present ones in spoilt pictures 0.35.
FIGURE_GAIN, PROP_GAIN = -0.1, -0.1
CLEARLY = 1.7                                             # one figure or two is settled early where one explains so much more
ATTRIBUTES = ("place", "time", "count", "species", "colour", "wearable", "position", "pose", "prop")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFigure:
    """A figure as read. `box` is its sprite's (x0, y0, x1, y1) in 128ths of the picture's sides; `margins` as in Reading."""

    species: str
    colour: str
    wearable: str | None
    position: str
    pose: str
    box: tuple[int, int, int, int]
    margins: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a picture shows. A margin in [0, 1] says how much better the answer explains the pixels than the next best one.

    `fit` is the mean clipped difference per pixel between the picture and the reader's own drawing, over CAP: about 0 for a
    true scene, near 1 for something else altogether.
    """

    place: str
    time: str
    figures: tuple[ReadFigure, ...]
    prop: str | None
    margins: dict[str, float]
    fit: float

    @property
    def count(self) -> int:
        return len(self.figures)


def read(image: Image.Image | np.ndarray) -> Reading:
    """What a picture shows.

    Shapes   a Pillow image of any mode and size, or uint8 (H, W, 3); it is brought to the nearest of the world's SIZES
    Raises   ValueError for an array of another shape or type
    """
    pixels_3HW = _pixels(image)
    small = _reduce(pixels_3HW, 4)
    size = pixels_3HW.shape[2], pixels_3HW.shape[1]
    place, time, variant, margins = _read_background(small, size)
    base = _background(place, time, variant, size)
    page = _Page(pixels_3HW, base)
    candidates = _body_candidates(small, _reduce(base, 4), size)
    single, left, right = (max((_placed(page, c) for c in candidates[key]), key=lambda f: f.gain) for key in ("single", "left", "right"))
    one, two = single.gain, left.gain + right.gain
    if one > CLEARLY * two:
        hypotheses = ([single],)
    elif two > CLEARLY * one:
        hypotheses = ([left, right],)
    else:
        hypotheses = ([single], [left, right])
    for hypothesis in hypotheses:
        for guess in hypothesis:
            _dress(page, guess)
    figures, margins["count"] = _choose_count(page, hypotheses)
    for figure in figures:
        page.draw(figure.sprite())
    prop, margins["prop"] = _read_prop(page, figures)
    if prop is not None:                                  # the prop may cover a part of the figure: look at clothes again
        figures = [_again(pixels_3HW, base, figures, i, prop) for i in range(len(figures))]
        page.draw(prop)
    return Reading(place=place, time=time, prop=prop[1][0] if prop else None, margins=margins, fit=float(page.error.mean() / CAP),
                   figures=tuple(f.report(size) for f in figures))


def read_many(images) -> list[Reading]:
    """`read` for each of some images; templates and backgrounds are drawn once per process."""
    return [read(image) for image in images]


def compare(reading: Reading, scene: Scene) -> dict[str, bool]:
    """Per attribute, whether a reading says what the scene holds. With another number of figures their attributes are wrong."""
    same = {"place": reading.place == scene.place, "time": reading.time == scene.time, "count": reading.count == len(scene.figures),
            "prop": reading.prop == scene.prop}
    pairs = list(zip(reading.figures, scene.figures)) if same["count"] else []
    for name in ("species", "colour", "wearable"):
        same[name] = same["count"] and all(getattr(r, name) == getattr(f.character, name) for r, f in pairs)
    for name in ("position", "pose"):
        same[name] = same["count"] and all(getattr(r, name) == getattr(f, name) for r, f in pairs)
    return {name: same[name] for name in ATTRIBUTES}


def measure(n: int = 2000, seed: int = 90_210, *, aspect: str = "1:1", split: str = "any", distort=None) -> dict[str, float]:
    """Share of true scenes of one aspect ratio read right, per attribute and for all of them at once ("scene").

    `distort(image, rng)` may spoil each picture first.
    """
    rng = random.Random(seed)
    right = dict.fromkeys((*ATTRIBUTES, "scene"), 0)
    for _ in range(n):
        scene = sample_scene(rng, split=split)
        image = render(scene, SIZES[aspect])
        same = compare(read(image if distort is None else distort(image, rng)), scene)
        for name, value in same.items():
            right[name] += value
        right["scene"] += all(same.values())
    return {name: value / n for name, value in right.items()}


# ------------------------------------------------------------------------------------------------- pixels and templates

def _pixels(image) -> np.ndarray:
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"the picture is an array {image.shape} of {image.dtype}; give uint8 (height, width, 3) or a Pillow image")
        image = Image.fromarray(image)
    image = image.convert("RGB")
    size = min(SIZES.values(), key=lambda wh: abs(log(wh[0] / wh[1]) - log(image.width / image.height)))
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(image, dtype=np.float32).transpose(2, 0, 1))


def _reduce(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Mean over factor x factor pixels of the last two axes."""
    *lead, height, width = pixels.shape
    return pixels.reshape(*lead, height // factor, factor, width // factor, factor).mean((-3, -1))


@lru_cache(maxsize=512)
def _background(place: str, time: str, variant: int, size: tuple[int, int]) -> np.ndarray:
    return np.ascontiguousarray(background(place, time, variant, size).astype(np.float32).transpose(2, 0, 1))


@lru_cache(maxsize=len(SIZES))
def _small_backgrounds(size: tuple[int, int]):
    names = [(p, t, v) for p in PLACES for t in TIMES for v in range(variant_count(p, t))]
    return names, np.stack([_reduce(_background(*name, size), 4) for name in names])


def _read_background(small: np.ndarray, size: tuple[int, int]):
    names, stack = _small_backgrounds(size)
    error = np.minimum(np.abs(stack - small).sum(1), CAP).mean((1, 2))
    best = int(error.argmin())
    place, time, variant = names[best]
    margins = {}
    for i, name in enumerate(("place", "time")):
        others = [e for n, e in zip(names, error) if n[i] != names[best][i]]
        margins[name] = float((min(others) - error[best]) / CAP)
    return place, time, variant, margins


@lru_cache(maxsize=len(SIZES))
def _body_templates(size: tuple[int, int]):
    """Bodies below the chin (they are the same for every species) at quarter size: the candidates and, per candidate, its
    coverage and its colours times coverage."""
    names, alphas, colours = [], [], []
    for slot, (kind, side) in enumerate(SLOTS):
        x, ground, height = standing_place(side, kind == "pair", *size)
        for pose in POSES:
            for colour in COLOURS:
                rgba, (ax, ay) = figure_sprite(Character(species="cat", colour=colour), pose, height, side == "right")
                page = np.zeros((4, size[1], size[0]), np.float32)
                sheet = rgba.astype(np.float32).transpose(2, 0, 1) / 255
                chin = ay - round((34 + (8 if pose == "jumping" else -7 if pose == "sitting" else 0)) * height / FIGURE_HEIGHT)
                sheet = sheet * (np.arange(sheet.shape[1]) >= chin)[None, :, None]
                _paste(page, sheet, x - ax, ground - ay)
                alpha = page[3]
                names.append((slot, pose, colour))
                alphas.append(_reduce(alpha, 4))
                colours.append(_reduce(page[:3] * alpha, 4) * 255)
    return names, np.stack(alphas), np.stack(colours)


def _paste(page: np.ndarray, sheet: np.ndarray, x: int, y: int) -> None:
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + sheet.shape[2], page.shape[2]), min(y + sheet.shape[1], page.shape[1])
    page[:, y0:y1, x0:x1] = sheet[:, y0 - y:y1 - y, x0 - x:x1 - x]


def _body_candidates(small: np.ndarray, base: np.ndarray, size: tuple[int, int]) -> dict[str, list]:
    """The most likely (slot, pose, colour): three poses per slot, each in its best colour."""
    names, alpha_NHW, colour_N3HW = _body_templates(size)
    rest = base - small
    after = np.abs(rest + colour_N3HW - alpha_NHW[:, None] * base)
    gain = np.minimum(np.abs(rest).sum(0), CAP).sum() - np.minimum(after.sum(1), CAP).sum((1, 2))
    found: dict[str, list] = {"single": [], "left": [], "right": []}
    for i in np.argsort(-gain):
        kind, side = SLOTS[names[i][0]]
        found_here = found["single" if kind == "single" else side]
        if sum(n[0] == names[i][0] for n in found_here) < 3 and names[i][:2] not in (n[:2] for n in found_here):
            found_here.append(names[i])
    return found


@lru_cache(maxsize=4000)
def _figure_sheet(species: str, colour: str, wearable: str | None, pose: str, height: int, flip: bool):
    rgba, (ax, ay) = figure_sprite(Character(species=species, colour=colour, wearable=wearable), pose, height, flip)
    return _cut(rgba, ax, ay)


@lru_cache(maxsize=200)
def _prop_sheet(prop: str, size: int):
    return _cut(prop_sprite(prop, size), size // 2, size // 2)


def _cut(rgba: np.ndarray, ax: int, ay: int):
    """A sprite cut to its own box, RGBA (h, w, 4), and where its corner is, relative to its anchor."""
    rows, columns = np.flatnonzero(rgba[..., 3].any(1)), np.flatnonzero(rgba[..., 3].any(0))
    y0, y1, x0, x1 = (int(v) for v in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return np.ascontiguousarray(rgba[y0:y1, x0:x1]), x0 - ax, y0 - ay


@lru_cache(maxsize=6000)
def _halved(maker, key: tuple, odd_x: int, odd_y: int):
    """A sheet at half size for a corner at an even or odd pixel: colours times coverage (3, h, w) and coverage (h, w)."""
    rgba = maker(*key)[0]
    height, width = ((n + odd + 1) // 2 * 2 for n, odd in zip(rgba.shape[:2], (odd_y, odd_x)))
    sheet = np.zeros((4, height, width), np.float32)
    sheet[:, odd_y:odd_y + rgba.shape[0], odd_x:odd_x + rgba.shape[1]] = rgba.transpose(2, 0, 1)
    sheet[3] /= 255
    sheet[:3] *= sheet[3]
    sheet = _reduce(sheet, 2)
    return sheet[:3], sheet[3]


class _Page:
    """The picture at half size, what is drawn of it so far, and the clipped difference of the two.

    A sprite is (maker, key, x, y): a sheet function, its arguments, and where its anchor is in full pixels. Where `hidden`,
    nothing speaks for or against a sprite.
    """

    def __init__(self, pixels_3HW: np.ndarray, base_3HW: np.ndarray, hidden: np.ndarray | None = None):
        self.size = pixels_3HW.shape[2], pixels_3HW.shape[1]  # width and height at full size
        self.pixels, self.drawn, self.hidden = _reduce(pixels_3HW, 2), _reduce(base_3HW, 2), hidden
        self._compare()

    def _compare(self) -> None:
        self.rest = self.drawn - self.pixels
        if self.hidden is not None:
            self.rest[:, self.hidden] = 0
        self.error = np.minimum(np.abs(self.rest).sum(0), CAP)

    def gain(self, sprite, step: int = 1) -> float:
        """How much of the difference goes away when this sprite is drawn; `step` 2 looks at a quarter of the points."""
        rows, columns, colours, alpha = self._where(sprite, step)
        change = colours - alpha * self.drawn[:, rows, columns]
        if self.hidden is not None:
            change[:, self.hidden[rows, columns]] = 0
        after = np.abs(self.rest[:, rows, columns] + change)
        after = np.minimum(after[0] + after[1] + after[2], CAP)
        return float(self.error[rows, columns].sum() - after.sum()) * step * step

    def contrast(self, sprite) -> float:
        """How much drawing this sprite changes: the gain of a perfect match."""
        rows, columns, colours, alpha = self._where(sprite, 1)
        return max(1.0, float(np.minimum(np.abs(colours - alpha * self.drawn[:, rows, columns]).sum(0), CAP).sum()))

    def draw(self, sprite) -> None:
        rows, columns, colours, alpha = self._where(sprite, 1)
        self.drawn[:, rows, columns] += colours - alpha * self.drawn[:, rows, columns]
        self._compare()

    def cover(self, sprite) -> np.ndarray:
        """Where a sprite covers the picture, boolean, at half size."""
        rows, columns, _, alpha = self._where(sprite, 1)
        covered = np.zeros(self.error.shape, bool)
        covered[rows, columns] = alpha > 0.3
        return covered

    def _where(self, sprite, step):
        maker, key, x, y = sprite
        _, dx, dy = maker(*key)
        colours, alpha = _halved(maker, key, (x + dx) % 2, (y + dy) % 2)
        left, top = (x + dx) // 2, (y + dy) // 2
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + alpha.shape[1], self.size[0] // 2), min(top + alpha.shape[0], self.size[1] // 2)
        rows, columns = slice(y0, y1, step), slice(x0, x1, step)
        inside = (slice(y0 - top, y1 - top, step), slice(x0 - left, x1 - left, step))
        return rows, columns, colours[(slice(None), *inside)], alpha[inside]


# ----------------------------------------------------------------------------------------------------------- figures

@dataclass(slots=True)
class _Guess:
    slot: int
    pose: str
    colour: str
    species: str = "cat"
    wearable: str | None = None
    height: int = 0
    x: int = 0
    y: int = 0
    gain: float = float("-inf")
    margins: dict = field(default_factory=dict)

    @property
    def flip(self) -> bool:
        return SLOTS[self.slot][1] == "right"

    def start(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(x, y) and height with which the layout begins for its slot."""
        kind, side = SLOTS[self.slot]
        return standing_place(side, kind == "pair", *size)

    def sprite(self, dx: int = 0, dy: int = 0):
        return _figure_sheet, (self.species, self.colour, self.wearable, self.pose, self.height, self.flip), self.x + dx, self.y + dy

    def report(self, size: tuple[int, int]) -> ReadFigure:
        maker, key, x, y = self.sprite()
        rgba, dx, dy = maker(*key)
        corners = zip((x + dx, y + dy, x + dx + rgba.shape[1], y + dy + rgba.shape[0]), size * 2)
        return ReadFigure(species=self.species, colour=self.colour, wearable=self.wearable, position=SLOTS[self.slot][1], pose=self.pose,
                          box=tuple(round(pixel * 128 / side) for pixel, side in corners), margins=self.margins)


def _placed(page: _Page, candidate) -> _Guess:
    """A candidate body (with any head) moved to where it explains the most."""
    slot, pose, colour = candidate
    guess = _Guess(slot=slot, pose=pose, colour=colour)
    guess.x, guess.y, guess.height = guess.start(page.size)
    _move(page, guess, reach=4, stride=2, step=2)
    return guess


def _dress(page: _Page, guess: _Guess) -> None:
    """Find species, clothes, height and the exact place, one thing at a time; then look at all of them again."""
    heights = tuple(guess.start(page.size)[2] + d for d in (-3, 0, 3))
    plain, glasses = replace(guess, margins={}), replace(guess, wearable="glasses", margins={})
    for rival in (plain, glasses):                        # glasses hide the eyes, and with them who it is
        _best(page, rival, species=HEROES)
        _move(page, rival, reach=1, stride=1)
    best = max((plain, glasses), key=lambda r: r.gain)
    guess.species, guess.wearable, guess.x, guess.y = best.species, best.wearable, best.x, best.y
    _best(page, guess, wearable=(None, *WEARABLES))
    _best(page, guess, height=heights)
    _move(page, guess, reach=1, stride=1)
    _other_pose(page, guess, heights)
    for name, options in (("pose", POSES), ("colour", COLOURS), ("species", HEROES), ("wearable", (None, *WEARABLES))):
        guess.margins[name] = _best(page, guess, **{name: options})
    if min(guess.margins["species"], guess.margins["wearable"]) < 0.06 or guess.gain < 0.75 * page.contrast(guess.sprite()):
        _look_closely(page, guess, heights)
    _move(page, guess, reach=1, stride=1)


def _look_closely(page: _Page, guess: _Guess, heights) -> None:
    """Where two answers are close, let each likely one find its own place and height before they are compared."""
    rivals = [replace(guess, species=s, wearable=w) for s in HEROES for w in dict.fromkeys((guess.wearable, None, "glasses"))]
    for rival in rivals:
        rival.gain = page.gain(rival.sprite())
    rivals = sorted(rivals, key=lambda r: -r.gain)[:5]
    for rival in rivals:
        _move(page, rival, reach=2, stride=1, step=2)
        _best(page, rival, height=heights)
        _move(page, rival, reach=1, stride=1)
        _best(page, rival, wearable=(None, *WEARABLES))
    best = max(rivals, key=lambda r: r.gain)
    for name in ("species", "wearable", "height", "x", "y", "gain"):
        setattr(guess, name, getattr(best, name))
    for name, options in (("species", HEROES), ("wearable", (None, *WEARABLES))):
        guess.margins[name] = _best(page, guess, **{name: options})


def _other_pose(page: _Page, guess: _Guess, heights) -> None:
    """Sitting low and standing high look alike around the head: try the other one from the usual ground."""
    if guess.pose not in ("sitting", "standing"):
        return
    rival = replace(guess, pose="standing" if guess.pose == "sitting" else "sitting", y=guess.start(page.size)[1], margins={})
    _move(page, rival, reach=3, stride=1, step=2)
    _best(page, rival, height=heights)
    _move(page, rival, reach=1, stride=1)
    if rival.gain > guess.gain:
        guess.pose, guess.x, guess.y, guess.height, guess.gain = rival.pose, rival.x, rival.y, rival.height, rival.gain


def _move(page: _Page, guess: _Guess, *, reach: int, stride: int, step: int = 1) -> None:
    shifts = range(-reach, reach + 1, stride)
    guess.gain, dx, dy = max((page.gain(guess.sprite(dx, dy), step), dx, dy) for dx in shifts for dy in shifts)
    guess.x, guess.y = guess.x + dx, guess.y + dy


def _best(page: _Page, guess: _Guess, **choice) -> float:
    """Set one attribute to its best option; returns by how much that beats the second, relative to the gain (at most 1)."""
    (name, options), = choice.items()
    gains = []
    for option in options:
        setattr(guess, name, option)
        gains.append(page.gain(guess.sprite()))
    order = np.argsort(gains)
    setattr(guess, name, options[order[-1]])
    guess.gain = gains[order[-1]]
    return min(1.0, float((gains[order[-1]] - gains[order[-2]]) / max(guess.gain, 1.0)))


def _choose_count(page: _Page, hypotheses) -> tuple[list[_Guess], float]:
    """The hypothesis that explains the most, if every figure of it explains enough, and by how much it beats the next."""
    options = [(0.0, [])] + [(sum(f.gain for f in figures), figures) for figures in hypotheses
                             if all(f.gain > FIGURE_GAIN * page.contrast(f.sprite()) for f in figures)]
    options.sort(key=lambda option: option[0])
    best = options[-1][0]
    second = options[-2][0] if len(options) > 1 else 0.0
    return options[-1][1], float((best - second) / max(best, 1.0))


def _again(pixels, base, figures: list[_Guess], index: int, prop) -> _Guess:
    """Clothes, species and pose of one figure once more: the other one drawn, what the prop covers left out."""
    page = _Page(pixels, base)
    page.hidden = page.cover(prop)
    for i, other in enumerate(figures):
        if i != index:
            page.draw(other.sprite())
    page._compare()
    guess = figures[index]
    for name, options in (("wearable", (None, *WEARABLES)), ("species", HEROES), ("pose", POSES)):
        guess.margins[name] = _best(page, guess, **{name: options})
    return guess


# -------------------------------------------------------------------------------------------------------------- props

def _read_prop(page: _Page, figures: list[_Guess]):
    """The prop's sprite or None, and the margin; tried where the layout would put each prop, a few pixels around."""
    if not figures:
        return None, 1.0
    scores = []
    for prop in PROPS:
        x, y, size = _prop_spot(prop, figures, *page.size)
        for stride in (2, 1):
            tries = [(_prop_sheet, (prop, size), x + dx, y + dy) for dx in (-stride, 0, stride) for dy in (-stride, 0, stride)]
            gain, _, x, y = max((page.gain(sprite), *sprite[1:]) for sprite in tries)
        scores.append((gain, (_prop_sheet, (prop, size), x, y)))
    scores.sort(key=lambda score: score[0])
    gain, sprite = scores[-1]
    share = gain / page.contrast(sprite)
    if share < PROP_GAIN:
        return None, min(1.0, PROP_GAIN - share)
    return sprite, min(1.0, max(0.0, share - PROP_GAIN), (gain - scores[-2][0]) / max(abs(gain), 1.0))


def _prop_spot(prop: str, figures: list[_Guess], width: int, height: int) -> tuple[int, int, int]:
    """Centre and size that the layout gives a prop beside or between these figures."""
    x, y, size = prop_place(prop, figures, min(width, height) / 128)
    half = size // 2
    return min(max(x, half), width - half), min(max(y, half), height - half), size
