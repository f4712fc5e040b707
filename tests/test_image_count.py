"""How many images the words of a request ask for."""

import random

import pytest

from weaver_core.image_count import asked_images
from weaver_core.picturebook import grammar


@pytest.mark.parametrize(("prompt", "count"), [
    ("A story in four pictures about Pip", 4), ("a blue fox, 3 images", 3), ("length: 12 pages", 12), ("Pictures: 5.", 5),
    ("It needs a single scene.", 1), ("so please give us eight nice images", 8), ("7 colourful hand-drawn illustrations", 7),
    ("Eine Geschichte in vier Bildern", 4), ("une histoire en trois images", 3), ("画一个故事，要四张图", 4), ("3枚の絵で", 3),
    ("6 IMAGES WANTED", 6), ("a three-panel comic", 3), ("four-page story", 4), ("a fox at the beach", None),
    ("two heroes in the pictures", None), ("these two in pictures", None), ("Draw 2 pictures, no, 3 pictures", None),
    ("the year 1995 in pictures", None), ("a 0 images story", None), ("version 2.3 images", None), ("page 4 of my book", None),
])
def test_a_number_before_a_word_for_images_counts(prompt, count):
    assert asked_images(prompt) == count


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_numbers_of_picture_book_requests_are_read(split):
    rng = random.Random(7)
    told = 0
    for _ in range(600):
        story = grammar.sample_story(rng, split=split)
        # "Draw a fox" means one picture without a number.
        if story.known["num_images"] and not (story.num_images == 1 and asked_images(story.request) is None):
            told += 1
            assert asked_images(story.request) == story.num_images, story.request
        else:
            assert asked_images(story.request) in (None, story.num_images), story.request
    assert told > 300


def test_any_text_gives_a_number_or_none():
    for text in ("", "\0", "9" * 500 + " images", "одна картинка", "()[]{}*+?", "十" * 100 + "张"):
        assert asked_images(text) is None or 1 <= asked_images(text) <= 99
