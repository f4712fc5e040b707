"""Draw a `Scene`: background, figures with their clothes, one prop. Pillow and numpy only, deterministic in the scene.

Building blocks are public, because the oracle reader draws its hypotheses with them: `background`, `figure_sprite`,
`prop_sprite`, `layout`, `standing_place`, `prop_place`. Lengths inside a figure are figure units; a standing figure is 84 units from sole to scalp.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .atlas import scaled, sprite
from .backgrounds import background, picture, variant_count
from .world import POSES, PROPS, Character, Scene

__all__ = ["background", "variant_count", "figure_sprite", "prop_sprite", "layout", "standing_place", "prop_place", "render",
           "render_array", "hero_boxes", "prop_box", "Layout", "FigurePlacement", "PropPlacement", "FIGURE_HEIGHT", "PAIR_HEIGHT"]

FIGURE_HEIGHT, PAIR_HEIGHT = 84, 73  # of a standing figure, in 128ths of the picture's shorter side
GROUND = 117  # where feet stand in the square at the bottom of a page, in 128ths of it
SINGLE_X = {"left": 38, "centre": 63, "right": 90}
PAIR_X = {"left": 31, "right": 97}
PAD = 12  # room around the 84x120 body canvas for a hat above and an outline
CANVAS = (84 + 2 * PAD, 120 + 2 * PAD)
FOOT = (42 + PAD, 117 + PAD)
HEAD_LEFT, HEAD_TOP = 42 - 25, 31.0
SITTING_DROP, JUMP_LIFT = 9, 8
OUTLINE = (255, 250, 240)

# Beside a single figure, in 128ths: ground props by (distance from the figure's middle, size), standing at its feet; held
# ones by (distance, height of the centre above the ground, size), at the hand, so they jump with the figure.
GROUND_PROPS = {"ball": (34, 30), "gift": (34, 32), "cake": (34, 33), "apple": (33, 28), "guitar": (34, 42),
                "umbrella": (35, 40)}
HELD_PROPS = {"balloon": (38, 50, 42), "kite": (40, 54, 38), "flower": (32, 28, 34), "book": (31, 24, 32),
              "star": (33, 30, 33), "lollipop": (33, 31, 34)}
# Between two figures there is room above the heads and below them, not at cheek height
PAIR_TOP = {"balloon": (32, 38), "kite": (30, 36)}  # centre y from the top, size
PAIR_PROP_SIZE = 30


@dataclass(frozen=True, slots=True)
class FigurePlacement:
    """`figure_sprite(character, pose, height, flip)` with its anchor (between the feet, on the ground) at (x, y)."""

    character: Character
    pose: str
    height: int
    flip: bool
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class PropPlacement:
    """`prop_sprite(prop, size)` centred at (x, y)."""

    prop: str
    size: int
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Layout:
    place: str
    time: str
    variant: int
    width: int
    height: int
    figures: tuple[FigurePlacement, ...]
    prop: PropPlacement | None


def render(scene: Scene, size: int | tuple[int, int] = 128) -> Image.Image:
    """The scene as an RGB picture. size: one side, or (width, height), in pixels, multiples of 8, at least 32.

    Raises   ValueError for any other size
    """
    plan = layout(scene, size)
    page = picture(plan.place, plan.time, plan.variant, plan.width, plan.height).copy()
    for figure in plan.figures:
        shadow, (ax, ay) = _shadow(figure.height, figure.pose == "jumping")
        page.paste(shadow, (figure.x - ax, figure.y - ay), shadow)
    for figure in plan.figures:
        image, (ax, ay), _ = _figure(figure.character, figure.pose, figure.height, figure.flip)
        page.paste(image, (figure.x - ax, figure.y - ay), image)
    if plan.prop:
        image = _prop(plan.prop.prop, plan.prop.size)
        page.paste(image, (plan.prop.x - image.width // 2, plan.prop.y - image.height // 2), image)
    return page


def render_array(scene: Scene, size: int | tuple[int, int] = 128) -> np.ndarray:
    """`render` as uint8 (H, W, 3), writable."""
    return np.array(render(scene, size))


def layout(scene: Scene, size: int | tuple[int, int] = 128) -> Layout:
    """Where `render` puts everything, in whole pixels. The scene's seed decides the scenery variant."""
    width, height = _size(size)
    rng = random.Random(scene.seed)
    variant = rng.randrange(variant_count(scene.place, scene.time))
    pair = len(scene.figures) == 2
    figures = []
    for figure in scene.figures:
        x, y, tall = standing_place(figure.position, pair, width, height)
        flip = figure.position == "right"  # the hand that holds something points to the middle of the picture
        _, anchor, box = _figure(figure.character, figure.pose, tall, flip)
        x, y = _inside(x, y, anchor, box, width, height)
        figures.append(FigurePlacement(figure.character, figure.pose, tall, flip, x, y))
    prop = _place_prop(scene.prop, figures, width, height) if scene.prop else None
    return Layout(scene.place, scene.time, variant, width, height, tuple(figures), prop)


def standing_place(position: str, pair: bool, width: int, height: int) -> tuple[int, int, int]:
    """Where a figure's feet are (x, y), before it is moved inside the picture, and how tall it is standing; all in pixels."""
    # Three places and two sizes, without jitter: a figure's latents are then a few sharp patterns, and a small
    # visualizer spends itself on who it is, not on where exactly its outline runs. On a page that is not square they are the
    # square's patterns moved by whole tokens, for the same reason: learned on one shape, known on all (`grid_embedding`).
    side = min(width, height)
    token, spare = side / 8, (width - side) // (side // 8)
    moved = spare // 3 if position == "left" and not pair else (spare + 1) // 2
    x = (PAIR_X if pair else SINGLE_X)[position] * side / 128 + moved * token
    tall = (PAIR_HEIGHT if pair else FIGURE_HEIGHT) * side / 128
    return round(x), round(GROUND * side / 128) + height - side, round(tall)


def prop_place(prop: str, figures, unit: float) -> tuple[int, int, int]:
    """A prop's centre (x, y), before it is moved inside the picture, and its size, in pixels: between two figures or beside one.

    figures: one or two, each with x, y, height, pose and flip as a `FigurePlacement` has them.
    unit: pixels of a 128th of the picture's shorter side.
    """
    if len(figures) == 2:
        x = (figures[0].x + figures[1].x) / 2
        ground = max(f.y for f in figures)
        centre, size = PAIR_TOP.get(prop, (GROUND - PAIR_PROP_SIZE / 2, PAIR_PROP_SIZE))
        y = ground + (centre - GROUND) * unit
    else:
        figure = figures[0]
        side = -1 if figure.flip else 1
        if prop in GROUND_PROPS:
            offset, size = GROUND_PROPS[prop]
            y = figure.y + (1.5 - size / 2) * unit
        else:
            offset, above, size = HELD_PROPS[prop]
            lift = JUMP_LIFT * figure.height / FIGURE_HEIGHT if figure.pose == "jumping" else 0
            y = figure.y - above * unit - lift
        x = figure.x + side * offset * unit
    return round(x), round(y), round(size * unit)


def _place_prop(prop: str, figures, width: int, height: int) -> PropPlacement:
    x, y, size = prop_place(prop, figures, min(width, height) / 128)
    image = _prop(prop, size)
    x, y = _inside(x, y, (size // 2, size // 2), image.getbbox(), width, height)
    return PropPlacement(prop, size, x, y)


def _inside(x: int, y: int, anchor, box, width: int, height: int) -> tuple[int, int]:
    """(x, y) moved as little as needed for the sprite's box to lie in the picture; anchor and box count from its corner."""
    left, top, right, bottom = box
    x = max(anchor[0] - left, min(x, width - right + anchor[0]))
    return x, max(anchor[1] - top, min(y, height - bottom + anchor[1]))


def figure_sprite(character: Character, pose: str, height: int, flip: bool = False) -> tuple[np.ndarray, tuple[int, int]]:
    """A figure alone, RGBA uint8 (h, w, 4), read-only, and its anchor (x, y): the point on the ground between its feet.

    height is that of the same figure standing, in pixels; a jumping one is drawn above its anchor. flip: the prop's hand is
    at the left. Raises ValueError for an unknown pose or a height below 8 pixels.
    """
    if pose not in POSES:
        raise ValueError(f"pose is {pose!r}; the picture-book world knows {', '.join(POSES)}")
    if height < 8:
        raise ValueError(f"height is {height} pixels; a figure needs at least 8")
    image, anchor, _ = _figure(character, pose, height, flip)
    array = np.asarray(image)
    array.setflags(write=False)
    return array, anchor


def prop_sprite(prop: str, size: int) -> np.ndarray:
    """A prop alone with its outline, RGBA uint8 (size, size, 4), read-only. Raises ValueError for an unknown prop."""
    if prop not in PROPS:
        raise ValueError(f"prop is {prop!r}; the picture-book world knows {', '.join(PROPS)}")
    array = np.asarray(_prop(prop, size))
    array.setflags(write=False)
    return array


def hero_boxes(scene: Scene, size: int | tuple[int, int] = 128) -> list[tuple[int, int, int, int]]:
    """The figures' boxes (x0, y0, x1, y1) in pixels, ends exclusive, in the scene's order."""
    plan = layout(scene, size)
    boxes = []
    for f in plan.figures:
        _, (ax, ay), box = _figure(f.character, f.pose, f.height, f.flip)
        boxes.append(_clip(box, f.x - ax, f.y - ay, plan))
    return boxes


def prop_box(scene: Scene, size: int | tuple[int, int] = 128) -> tuple[int, int, int, int] | None:
    """The prop's box (x0, y0, x1, y1) in pixels, ends exclusive; None without a prop."""
    plan = layout(scene, size)
    if plan.prop is None:
        return None
    image = _prop(plan.prop.prop, plan.prop.size)
    return _clip(image.getbbox(), plan.prop.x - image.width // 2, plan.prop.y - image.height // 2, plan)


def _clip(box, left: int, top: int, plan: Layout) -> tuple[int, int, int, int]:
    return (max(0, box[0] + left), max(0, box[1] + top), min(plan.width, box[2] + left), min(plan.height, box[3] + top))


def _size(size: int | tuple[int, int]) -> tuple[int, int]:
    width, height = (size, size) if isinstance(size, int) else size
    if width % 8 or height % 8 or min(width, height) < 32:
        raise ValueError(f"size is {width}x{height}; sides must be multiples of 8, at least 32 pixels")
    return width, height


@lru_cache(maxsize=4096)
def _figure(character: Character, pose: str, height: int, flip: bool):
    """The outlined figure on its canvas, its anchor, and its box on the canvas.

    Layers carry their own outlines, all pasted first: the outline of a union is the union of outlines, so a new
    combination of layers needs no new dilation.
    """
    scale = height / FIGURE_HEIGHT
    layers = [(f"body/{pose}/{character.colour}", 0.0, 0.0, flip)]
    drop = SITTING_DROP if pose == "sitting" else 0
    lift = JUMP_LIFT if pose == "jumping" else 0
    layers.append((f"head/{character.species}/{character.colour}", HEAD_LEFT, HEAD_TOP + drop, False))
    top_x, top_y = sprite(f"glasses/{character.species}").anchors["head_top"]
    if character.wearable == "glasses":
        layers.append((f"glasses/{character.species}", HEAD_LEFT, HEAD_TOP + drop, False))
    elif character.wearable in ("hat", "crown"):
        # a hat's brim and a crown's rim overlap the scalp a little
        rim = {"hat": 28.0, "crown": 26.0}[character.wearable]
        layers.append((f"wearable/{character.wearable}", HEAD_LEFT + top_x - 16, HEAD_TOP + drop + top_y - rim, False))
    elif character.wearable is not None:
        layers.append((f"wearable/{character.wearable}", 0.0, float(drop), flip and character.wearable == "scarf"))
    canvas = Image.new("RGBA", (round(CANVAS[0] * scale), round(CANVAS[1] * scale)))
    placed = []
    for name, x, y, mirrored in layers:
        spot = (round((x + PAD) * scale), round((y + PAD - lift) * scale))
        placed.append((*_outlined(name, scale, mirrored), spot))
    for image, outline, margin, (x, y) in placed:
        canvas.alpha_composite(outline, (x - margin, y - margin))
    for image, outline, margin, spot in placed:
        canvas.alpha_composite(image, spot)
    return canvas, (round(FOOT[0] * scale), round(FOOT[1] * scale)), canvas.getbbox()


@lru_cache(maxsize=2048)
def _outlined(name: str, scale: float, mirrored: bool) -> tuple[Image.Image, Image.Image, int]:
    """A scaled layer, its widened silhouette in the outline's colour, and by how much that is larger at each side."""
    image = scaled(name, scale)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image, *_silhouette(image, scale)


def _silhouette(image: Image.Image, scale: float) -> tuple[Image.Image, int]:
    radius = 1.3 * scale
    margin = int(np.ceil(radius)) + 1
    alpha = Image.new("L", (image.width + 2 * margin, image.height + 2 * margin))
    alpha.paste(image.getchannel("A"), (margin, margin))
    # widen at four times the size: whole pixels would be too coarse for a thin line
    big = alpha.resize((alpha.width * 4, alpha.height * 4), Image.Resampling.BILINEAR)
    big = big.filter(ImageFilter.GaussianBlur(radius * 2.2)).point(lambda v: min(255, max(0, (v - 18) * 8)))
    alpha = ImageChops.lighter(alpha, big.reduce(4))
    outline = Image.new("RGBA", alpha.size, (*OUTLINE, 0))
    outline.putalpha(alpha)
    return outline, margin


@lru_cache(maxsize=256)
def _prop(prop: str, size: int) -> Image.Image:
    margin = max(1, round(size / 16))
    image = scaled(f"prop/{prop}", (size - 2 * margin) / 32)
    outline, extra = _silhouette(image, size / 30)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(outline, (margin - extra, margin - extra))
    canvas.alpha_composite(image, (margin, margin))
    return canvas


@lru_cache(maxsize=64)
def _shadow(height: int, jumping: bool) -> tuple[Image.Image, tuple[int, int]]:
    scale = height / FIGURE_HEIGHT * 4
    rx, ry = (15, 2.6) if jumping else (23, 4)
    width, tall = round(rx * 2 * scale / 4) * 4 + 8, round(ry * 2 * scale / 4) * 4 + 8
    alpha = Image.new("L", (width, tall))
    ImageDraw.Draw(alpha).ellipse((4, 4, width - 5, tall - 5), fill=70)
    image = Image.new("RGBA", (width // 4, tall // 4), (20, 16, 50, 0))
    image.putalpha(alpha.reduce(4))
    return image, (image.width // 2, image.height // 2 - round(0.5 * scale / 4))
