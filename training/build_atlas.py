"""Rasterise the picture-book art once: Fluent Emoji flat faces, props and scenery, and our own bodies and clothes.

    python -m training.build_atlas <unpacked @iconify-json/fluent-emoji-flat package> [--out weaver_core/picturebook/art]

Development only (needs `resvg_py`): users get the committed atlas and need Pillow alone. The art is MIT, Copyright (c)
Microsoft Corporation; the bodies, the scarf, the bow and the glasses are drawn here. All lengths are figure units: a
standing figure is 84 units tall, one unit is one pixel for a single figure at 128 px.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from pathlib import Path

import resvg_py
from PIL import Image

from weaver_core.picturebook.world import COLOURS, HEROES, POSES, PROPS

PIXELS_PER_UNIT = 2.25
HEAD_UNITS = 50.0
BODY_UNITS = (84, 120)  # the canvas bodies, scarf and bow are drawn on; feet at (42, 117)

# main, dark, light: far apart in hue or lightness, so that no two are confused at 128 px
RAMPS = {
    "red": ("#e3262e", "#9c0f1f", "#ff8078"),
    "orange": ("#ff8a14", "#c25400", "#ffc07a"),
    "yellow": ("#ffdc2b", "#d19a00", "#fff3a0"),
    "green": ("#2db84a", "#14702c", "#98e69a"),
    "blue": ("#2b86f2", "#1747a3", "#93c8ff"),
    "purple": ("#8a4ad9", "#56259b", "#c9a3f7"),
    "pink": ("#ff80c4", "#d13a8b", "#ffc9e6"),
}
CREAM = "#fff0d2"

# Per species: icon, which fills become main / dark / light / cream, and the anchors in the icon's 32-unit box
# (head_top: where a hat sits; eyes: left and right). Everything not named keeps its own colour.
SPECIES = {
    "fox": ("fox", {"#ff822d": 0, "#ff6723": 1, "#ffdea7": CREAM}, (15.5, 9.5), ((12, 18.5), (19, 18.5))),
    "cat": ("cat-face", {"#ffb02e": 0, "#ff822d": 2, "#ff6723": 1}, (16, 11), ((12, 18.5), (20, 18.5))),
    "rabbit": ("rabbit-face", {"#cdc4d6": 0, "#b4acbc": 1, "#ff8687": "#ffc4cf"}, (16, 11), ((12, 18.5), (20, 18.5))),
    "bear": ("bear", {"#a56953": 0, "#8c5543": 1, "#f3ad61": CREAM}, (16, 7.5), ((12, 16.3), (20, 16.3))),
    "dog": ("dog-face", {"#f3c07b": 0, "#6d4534": 1, "#ffdea7": CREAM}, (16, 6), ((13, 13.5), (19, 13.5))),
    "frog": ("frog", {"#00d26a": 0, "#fcd53f": CREAM, "#fff478": "#ffffff"}, (16, 3.2), ((9.5, 8.5), (22.5, 8.5))),
    "mouse": ("mouse-face", {"#cdc4d6": 0, "#b4acbc": 1, "#ff8687": "#ffc4cf"}, (16, 11.5), ((12, 22.5), (20, 22.5))),
    "pig": ("pig-face", {"#ff8687": 0, "#fbb8ab": 2, "#f92f60": 1}, (16, 6), ((12, 15.5), (20, 15.5))),
    "koala": ("koala", {"#9b9b9b": 0, "#636363": 2}, (16, 6.5), ((10, 17.5), (22, 17.5))),
    "lion": ("lion", {"#ffb02e": 0, "#6d4534": 1, "#d3883e": 2, "#f3c07b": CREAM, "#ffdea7": "#ffffff"},
             (16, 6), ((12, 14.5), (20, 14.5))),
    "monkey": ("monkey-face", {"#7d4533": 0, "#e39d89": "#ffd9b8"}, (16, 7.5), ((13, 15.5), (19, 15.5))),
    "robot": ("robot", {"#cdc4d6": 0, "#f8312f": 1, "#ffb02e": 1}, (16, 6), ((10.2, 14.5), (21.8, 14.5))),
}
PROP_ICONS = dict(balloon="balloon", kite="kite", umbrella="umbrella", ball="soccer-ball", flower="sunflower",
                  gift="wrapped-gift", apple="red-apple", book="open-book", cake="birthday-cake", star="glowing-star",
                  guitar="guitar", lollipop="lollipop")
SCENERY = ("deciduous-tree", "evergreen-tree", "palm-tree", "cactus", "brown-mushroom", "snowman-without-snow", "bed",
           "potted-plant", "spiral-shell", "rock", "sailboat", "framed-picture", "chair")


def rasterise(body: str, box: tuple[float, float], pixels: tuple[int, int]) -> Image.Image:
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {box[0]} {box[1]}" width="{pixels[0]}" '
           f'height="{pixels[1]}">{body}</svg>')
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=pixels[0], height=pixels[1]))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def recolour(body: str, fills: dict, ramp: tuple[str, str, str]) -> str:
    for fill, role in fills.items():
        if f'"{fill}"' not in body:
            raise ValueError(f"the icon has no fill {fill}; the art package is not the expected version 1.2.6")
        body = body.replace(f'"{fill}"', f'"@{role}"')
    for role in fills.values():
        body = body.replace(f'"@{role}"', f'"{ramp[role] if isinstance(role, int) else role}"')
    return body


def body_svg(pose: str, ramp: tuple[str, str, str]) -> str:
    """Torso, arms, legs and belly in the 84x120 box. The arm at the right is the one beside the prop."""
    main, dark, light = ramp

    def limb(path: str, width: float = 8.5) -> str:
        return (f'<path d="{path}" stroke="{dark}" stroke-width="{width + 2}" stroke-linecap="round" fill="none"/>'
                f'<path d="{path}" stroke="{main}" stroke-width="{width}" stroke-linecap="round" fill="none"/>')

    def paw(x: float, y: float, rx: float, ry: float, fill: str = main) -> str:
        return f'<ellipse cx="{x}" cy="{y}" rx="{rx}" ry="{ry}" fill="{fill}" stroke="{dark}" stroke-width="1"/>'

    down = ("M31 84 Q24 89 22 97", "M53 84 Q60 89 62 97")
    up = ("M31 85 Q18 82 11.5 67", "M53 85 Q66 82 72.5 67")
    drop = 9 if pose == "sitting" else 0
    torso = (f'<path transform="translate(0 {drop})" d="M31 76 Q42 72 53 76 Q60 90 57 102 Q55 108 42 108 Q29 108 27 102 '
             f'Q24 90 31 76Z" fill="{main}" stroke="{dark}" stroke-width="1"/>'
             f'<ellipse transform="translate(0 {drop})" cx="42" cy="95" rx="9.5" ry="10.5" fill="{light}"/>'
             f'<path transform="translate(0 {drop})" d="M31 77.5 Q42 83 53 77.5 L52 74 H32Z" fill="{dark}"/>')
    if pose == "standing":
        return (limb("M36 103 V112") + limb("M48 103 V112") + paw(34, 113.5, 7, 3.5) + paw(50, 113.5, 7, 3.5)
                + limb(down[0]) + limb(down[1]) + torso)
    if pose == "waving":
        return (limb("M36 103 V112") + limb("M48 103 V112") + paw(34, 113.5, 7, 3.5) + paw(50, 113.5, 7, 3.5)
                + limb(up[0]) + paw(11, 65, 5.5, 5.5, light) + limb(down[1]) + torso)
    if pose == "jumping":
        return (limb("M35 102 Q29 106 25 111") + limb("M49 102 Q55 106 59 111")
                + paw(22.5, 112, 6.5, 4) + paw(61.5, 112, 6.5, 4)
                + limb(up[0]) + limb(up[1]) + paw(11, 65, 5.5, 5.5, light) + paw(73, 65, 5.5, 5.5, light) + torso)
    if pose == "sitting":
        legs = "".join(limb(f"M{42 + s * 7} 111 L{42 + s * 17} 112", 8) + paw(42 + s * 20, 110.5, 6.5, 7)
                       + paw(42 + s * 20, 112, 3.6, 4, light) for s in (-1, 1))
        return limb("M31 92 Q24 96 23 103") + limb("M53 92 Q60 96 61 103") + torso + legs
    raise ValueError(f"pose is {pose!r}; bodies are drawn for {', '.join(POSES)}")


def scarf_svg() -> str:
    band = "M27 77.5 Q42 85 57 77.5 L58.5 84 Q42 92.5 25.5 84Z"
    tail = "M48 84 L56.5 82 L60 102 L50.5 103.5Z"
    stripes = "".join(f'<path d="M{x} 70 L{x - 1} 96" stroke="#0f8f93" stroke-width="4.2"/>'
                      for x in (30.5, 38.5, 46.5, 54.5))
    rungs = "".join(f'<path d="M44 {y} L64 {y - 2}" stroke="#0f8f93" stroke-width="3.4"/>' for y in (91, 98))
    outline = 'fill="none" stroke="#123c4c" stroke-width="1.5" stroke-linejoin="round"'
    return (f'<clipPath id="b"><path d="{band}"/></clipPath><clipPath id="t"><path d="{tail}"/></clipPath>'
            f'<path d="{tail}" fill="#ffffff"/><g clip-path="url(#t)">{rungs}</g><path d="{tail}" {outline}/>'
            f'<path d="{band}" fill="#ffffff"/><g clip-path="url(#b)">{stripes}</g><path d="{band}" {outline}/>')


def bow_svg() -> str:
    wing = "M42 83 Q33 72 26 76 Q23.5 83 26 90 Q33 94 42 83Z"
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="1.5" fill="#fff"/>' for x, y in ((29.5, 79.5), (29.5, 86), (34.5, 83)))
    half = f'<path d="{wing}" fill="#241a52" stroke="#fff" stroke-width="1.3" stroke-linejoin="round"/>{dots}'
    return (half + f'<g transform="translate(84 0) scale(-1 1)">{half}</g>'
            '<rect x="38.5" y="79" width="7" height="8.4" rx="2.6" fill="#ffcf3a" stroke="#241a52" stroke-width="1.2"/>')


def glasses_svg(eyes) -> str:
    """Round glasses in a head's 32-unit box; lenses are half see-through so that the eyes stay visible."""
    (x0, y0), (x1, y1) = eyes
    spread = max(x1 - x0, 9.8)
    middle, y = (x0 + x1) / 2, (y0 + y1) / 2
    xs = (middle - spread / 2, middle + spread / 2)
    bridge = (f'<path d="M{xs[0] + 4} {y - 0.4} Q{middle} {y - 1.8} {xs[1] - 4} {y - 0.4}" fill="none" '
              'stroke="#1b1436" stroke-width="1.5"/>')
    lenses = [f'<circle cx="{x}" cy="{y}" r="4.9" fill="none" stroke="#ffffff" stroke-width="1"/>'
              f'<circle cx="{x}" cy="{y}" r="4.2" fill="#c4e9ff" fill-opacity="0.38" stroke="#1b1436" stroke-width="1.4"/>'
              for x in xs]
    return bridge + "".join(lenses)


def build(package: Path, out: Path) -> None:
    icons = json.loads((package / "icons.json").read_text())["icons"]
    sprites: list[tuple[str, Image.Image, dict]] = []

    def add(name, body, box, units, **extra):
        pixels = tuple(round(u * PIXELS_PER_UNIT) for u in units)
        sprites.append((name, rasterise(body, box, pixels), {"units": list(units), **extra}))

    head = HEAD_UNITS / 32
    for species in HEROES:
        icon, fills, top, eyes = SPECIES[species]
        for colour in COLOURS:
            add(f"head/{species}/{colour}", recolour(icons[icon]["body"], fills, RAMPS[colour]), (32, 32),
                (HEAD_UNITS, HEAD_UNITS), category="head")
        add(f"glasses/{species}", glasses_svg(eyes), (32, 32), (HEAD_UNITS, HEAD_UNITS), category="wearable",
            head_top=[top[0] * head, top[1] * head], eyes=[[x * head, y * head] for x, y in eyes])
    for pose in POSES:
        for colour in COLOURS:
            add(f"body/{pose}/{colour}", body_svg(pose, RAMPS[colour]), BODY_UNITS, BODY_UNITS, category="body")
    add("wearable/scarf", scarf_svg(), BODY_UNITS, BODY_UNITS, category="wearable")
    add("wearable/bow", bow_svg(), BODY_UNITS, BODY_UNITS, category="wearable")
    add("wearable/hat", icons["top-hat"]["body"], (32, 32), (32, 32), category="wearable")
    add("wearable/crown", icons["crown"]["body"], (32, 32), (32, 32), category="wearable")
    for prop in PROPS:
        add(f"prop/{prop}", icons[PROP_ICONS[prop]]["body"], (32, 32), (32, 32), category="prop")
    for name in SCENERY:
        add(f"scenery/{name}", icons[name]["body"], (32, 32), (48, 48), category="scenery")
    pack(sprites, out)
    print(f"{len(sprites)} sprites, {(out / 'atlas.png').stat().st_size / 1024:.0f} KiB in {out}")


def pack(sprites, out: Path, width: int = 1536) -> None:
    """Shelf packing of the trimmed sprites; the table keeps each one's offset, so a sprite keeps its own box."""
    table, shelves = {}, []
    order = []
    for name, image, extra in sprites:
        left, top, right, bottom = image.getbbox()
        row = {"size": list(image.size), "offset": [left, top], **extra}
        order.append((name, image.crop((left, top, right, bottom)), row))
    order.sort(key=lambda item: -item[1].height)
    x = y = shelf = 0
    for name, image, extra in order:
        if x + image.width > width:
            x, y, shelf = 0, y + shelf + 1, 0
        shelves.append((image, x, y))
        table[name] = {"box": [x, y, x + image.width, y + image.height], **extra}
        x, shelf = x + image.width + 1, max(shelf, image.height)
    atlas = Image.new("RGBA", (width, y + shelf))
    for image, x, y in shelves:
        atlas.paste(image, (x, y))
    out.mkdir(parents=True, exist_ok=True)
    # flat art has few colours, but a 256-colour palette would merge the seven identity colours' edges: keep full RGBA
    atlas.save(out / "atlas.png", optimize=True)
    rows = ",\n".join(f"{json.dumps(n)}: {json.dumps(table[n])}" for n in sorted(table))
    (out / "atlas.json").write_text("{\n" + rows + "\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="folder of the unpacked npm package, holding icons.json")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "weaver_core/picturebook/art")
    arguments = parser.parse_args()
    build(arguments.package, arguments.out)
    notice = Path(__file__).parent.parent / "NOTICE"
    if notice.exists():
        shutil.copy(notice, arguments.out / "NOTICE")


if __name__ == "__main__":
    main()
