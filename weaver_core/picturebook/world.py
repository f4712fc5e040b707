"""The picture-book world in words: what a scene can hold, and the record that says exactly what one scene holds.

Pure Python. A `Scene` is the single source of truth: the composer draws it, the captions describe it, the oracle
reader tries to recover it from pixels. Everything drawn is written here, and nothing else can be drawn.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

HEROES = ("fox", "cat", "rabbit", "bear", "dog", "frog", "mouse", "pig", "koala", "lion", "monkey", "robot")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
WEARABLES = ("scarf", "hat", "glasses", "crown", "bow")
PROPS = ("balloon", "kite", "umbrella", "ball", "flower", "gift", "apple", "book", "cake", "star", "guitar", "lollipop")
PLACES = ("meadow", "beach", "forest", "snow", "desert", "town", "castle", "room")
TIMES = ("day", "sunset", "night")
POSITIONS = ("left", "centre", "right")
POSES = ("standing", "waving", "jumping", "sitting")
# Pixels (width, height) of a picture per aspect ratio, in whole tokens of the visualizer (16 pixels): the square is in all of them, so
# figures are as large, and as sharp, in a wide or a tall picture.
SIZES = {"1:1": (128, 128), "4:3": (176, 128), "3:4": (128, 176)}


def size_of(aspect: str, side: int = 128) -> tuple[int, int]:
    """(width, height) in pixels of a picture of one aspect ratio; `side` is that of a square one.

    Raises   ValueError for an aspect ratio that is not in SIZES, or a side at which it has no whole tokens
    """
    if aspect not in SIZES:
        raise ValueError(f"aspect is {aspect!r}; picture-book pages are {', '.join(SIZES)}")
    width, height = (pixels * side / 128 for pixels in SIZES[aspect])
    if width % 16 or height % 16:
        raise ValueError(f"a {aspect} page beside squares of {side} pixels would have {width:g}x{height:g}, which are no multiples of 16; "
                         "use squares of 128 or 256 pixels")
    return int(width), int(height)


def _one_of(name: str, value, allowed: tuple[str, ...], *, optional: bool = False) -> None:
    if value in allowed or (optional and value is None):
        return
    choices = ", ".join(allowed) + (", or nothing" if optional else "")
    raise ValueError(f"{name} is {value!r}; the picture-book world knows {choices}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Character:
    """Who somebody is: the identity a reference image carries from page to page."""

    species: str
    colour: str
    wearable: str | None = None

    def __post_init__(self):
        _one_of("species", self.species, HEROES)
        _one_of("colour", self.colour, COLOURS)
        _one_of("wearable", self.wearable, WEARABLES, optional=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A character as it appears in one scene."""

    character: Character
    position: str = "centre"
    pose: str = "standing"

    def __post_init__(self):
        _one_of("position", self.position, POSITIONS)
        _one_of("pose", self.pose, POSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything one picture shows.

    No figure gives an empty place, one figure stands at any position, two stand left and right (in this order).
    The prop belongs to the single figure, lies between two, and is absent where there is no figure.
    `seed` draws the variations of scenery that no caption mentions; the same scene is always the same picture.
    """

    place: str
    time: str
    figures: tuple[Figure, ...] = ()
    prop: str | None = None
    seed: int = 0

    def __post_init__(self):
        _one_of("place", self.place, PLACES)
        _one_of("time", self.time, TIMES)
        _one_of("prop", self.prop, PROPS, optional=True)
        if len(self.figures) > 2:
            raise ValueError(f"a scene holds at most two figures, got {len(self.figures)}; put the others on the next page")
        if len(self.figures) == 2 and tuple(f.position for f in self.figures) != ("left", "right"):
            raise ValueError("two figures stand left and right, in this order; got "
                             + ", ".join(f.position for f in self.figures))
        if self.prop is not None and not self.figures:
            raise ValueError(f"the {self.prop} needs a figure beside it; add a figure or leave the prop out")

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict) -> Scene:
        figures = tuple(Figure(character=Character(**f["character"]), position=f["position"], pose=f["pose"])
                        for f in record["figures"])
        return cls(place=record["place"], time=record["time"], figures=figures, prop=record["prop"], seed=record["seed"])
