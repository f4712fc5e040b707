"""The shape of images, out of the words of a request."""

import pytest

from weaver_core.image_shape import asked_aspect
from weaver_core.request import Request


@pytest.mark.parametrize(("prompt", "aspect"), [
    ("A fox at the beach in three wide pictures", "4:3"),
    ("A fox. Four wide watercolour illustrations, please", "4:3"),
    ("a bear in landscape format", "4:3"),
    ("a bear, Landscape-Orientation, 4 images", "4:3"),
    ("a cat in five tall images", "3:4"),
    ("a cat in portrait mode", "3:4"),
    ("six square pages about a dog", "1:1"),
    ("A fox at the beach, in 16:9", "16:9"),
    ("A fox at the beach, aspect ratio: 3:2.", "3:2"),
    ("three 9:16 pictures of a fox", "9:16"),
    ("Ein Fuchs am Strand, vier Bilder im Querformat", "4:3"),
    ("Ein Fuchs, hochformatige Bilder", "3:4"),
    ("Quadratische Bilder von einem Hund", "1:1"),
    ("Un renard, quatre images, format paysage", "4:3"),
    ("Un renard au format 4:3", "4:3"),
    ("一只狐狸的故事,四张横版图", "4:3"),
    ("きつねの話、縦長の絵を4枚", "3:4"),
    ("three wide pictures, four more wide pictures", "4:3"),
])  # fmt: skip
def test_words_and_ratios_are_read(prompt, aspect):
    assert asked_aspect(prompt) == aspect


@pytest.mark.parametrize("prompt", [
    "A fox at the beach in three pictures",
    "A fox swims through a wide river",
    "A tall bear and a square box",
    "A portrait of a fox in four pictures",
    "A fox paints a wide picture of the sea",
    "The foxes won 3:2 against the bears",
    "They meet at 4:30 and leave at 16:9 something",
    "A landscape with hills in four pictures",
    "wide pictures first, then tall pictures",
    "Worldwide pictures of a fox",
    "1:1000 is the scale of the map in 4:35 hours",
    "",
])  # fmt: skip
def test_what_is_no_shape_of_images_is_left_to_the_planner(prompt):
    assert asked_aspect(prompt) is None


def test_what_is_set_wins_over_words():
    words = "a fox in three wide pictures"
    assert Request(prompt=words).wanted_aspect == "4:3"
    assert Request(prompt=words, aspect="1:1").wanted_aspect == "1:1"
    assert Request(prompt=words, size=(64, 128)).wanted_aspect is None
    assert Request(prompt="a fox", size=(64, 128), aspect="4:3").wanted_aspect == "4:3"  # size wins where both are said, as ever
