"""The oracle reader recovers scenes from pixels alone, also from spoilt ones, and its score can fail."""

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from weaver_core.picturebook.compose import hero_boxes, render, render_array
from weaver_core.picturebook.reader import ATTRIBUTES, compare, measure, read, read_many
from weaver_core.picturebook.splits import sample_scene
from weaver_core.picturebook.world import Scene


def _spoil(image, rng):
    """Blur of one pixel, down to 96 and up again, a little noise: what a small autoencoder does to a picture."""
    image = image.filter(ImageFilter.GaussianBlur(1)).resize((96, 96), Image.Resampling.BILINEAR).resize((128, 128), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(rng.randrange(2 ** 31)).normal(0, 8, (128, 128, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("aspect", "scenes"), [("1:1", 150), ("4:3", 60), ("3:4", 60)])
def test_every_attribute_of_true_scenes_is_read(aspect, scenes):
    scores = measure(scenes, seed=4242, aspect=aspect)
    assert min(scores[name] for name in ATTRIBUTES) >= 0.98, scores


def test_spoilt_pictures_are_still_read():
    scores = measure(40, seed=777, distort=_spoil)
    assert min(scores[name] for name in ATTRIBUTES) >= 0.95, scores


def test_shuffled_labels_score_near_chance():
    rng = random.Random(11)
    scenes = [sample_scene(rng, split="any", figures=1) for _ in range(25)]
    readings = read_many([render(scene) for scene in scenes])
    wrong = [compare(reading, scene) for reading, scene in zip(readings, scenes[1:] + scenes[:1])]
    assert np.mean([same["place"] for same in wrong]) < 0.5
    assert np.mean([same["species"] for same in wrong]) < 0.4
    assert not any(all(same.values()) for same in wrong)


def test_an_empty_place_has_nobody_and_arrays_read_like_images():
    scene = Scene(place="castle", time="sunset", seed=5)
    reading = read(render_array(scene))
    assert (reading.place, reading.time, reading.count, reading.prop) == ("castle", "sunset", 0, None)
    assert reading == read(render(scene))


def test_a_picture_of_something_else_fits_badly():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    true = render(sample_scene(random.Random(3), figures=1))
    assert read(noise).fit > 0.5 > 0.2 > read(true).fit


@pytest.mark.parametrize("size", [256, (352, 256), (256, 352)])
def test_larger_pictures_are_read_at_the_readers_size(size):
    scene = sample_scene(random.Random(8), figures=2)
    reading = read(render(scene, size))
    assert all(compare(reading, scene).values())
    width, height = (size, size) if isinstance(size, int) else size
    for figure, box in zip(reading.figures, hero_boxes(scene, size)):  # in 128ths of the sides, whatever the size
        assert figure.box == pytest.approx([side * 128 / full for side, full in zip(box, (width, height) * 2)], abs=3)


def test_a_wrong_array_is_refused_with_its_shape():
    with pytest.raises(ValueError, match=r"\(4, 4\).*uint8 \(height, width, 3\)"):
        read(np.zeros((4, 4), np.uint8))
