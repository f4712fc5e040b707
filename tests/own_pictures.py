"""Twenty real photographs with captions, as a user's folder: those that the package scikit-image brings along, nothing is fetched."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

CAPTIONS = {
    "astronaut.png": "A smiling woman in an orange space suit sits before a flag and a model of a shuttle.",
    "brick.png": "A wall of bricks, seen from the front.",
    "camera.png": "A man in a dark coat looks through a camera on a tripod, on a lawn, black and white.",
    "cell.png": "A single round cell under a microscope, grey.",
    "chelsea.png": "The face of a brown tabby cat with green eyes.",
    "clock_motion.png": "A clock, blurred by a movement of the camera.",
    "coffee.png": "A cup of coffee with a spoon on a wooden table, seen from above.",
    "coins.png": "Rows of old coins on a dark ground.",
    "color.png": "Fields of many colours beside each other.",
    "grass.png": "Short grass, seen from above.",
    "gravel.png": "Grey gravel, seen from above.",
    "hubble_deep_field.jpg": "Many small galaxies and stars on a black sky.",
    "ihc.png": "Stained tissue in brown and blue under a microscope.",
    "moon.png": "The ground of the moon with craters, grey.",
    "motorcycle_left.png": "A red motorcycle stands in a garage, between tools.",
    "motorcycle_right.png": "A red motorcycle stands in a garage, seen a little from the right.",
    "page.png": "A page of a book with text and a drawing, in uneven light.",
    "retina.jpg": "The inside of an eye, orange with red veins.",
    "rocket.jpg": "A white rocket lifts off from its pad at night.",
    "text.png": "Handwriting on paper.",
}


def picture_folder(folder: Path) -> Path:
    """The pictures in a folder, and a caption beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, caption in CAPTIONS.items():
        shutil.copy(str(files("skimage") / "data" / name), folder / name)
        (folder / name).with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
    return folder
