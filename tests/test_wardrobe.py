"""Heroes wear the same on every page."""

import random

import pytest

from weaver_core.picturebook.captions import dense_prompt, parse_dense_prompt
from weaver_core.picturebook.splits import sample_scene
from weaver_core.picturebook.wardrobe import Wardrobe
from weaver_core.picturebook.world import WEARABLES


def clothes(prompt):
    said = parse_dense_prompt(prompt)
    return {(said[f"{n}colour"], said[f"{n}species"]): said[f"{n}wearable"] for n in ("", "second_")[:said["figures"]]}


def test_a_first_page_stays_as_it_is_and_dresses_every_later_page():
    rng = random.Random(5)
    for _ in range(300):
        scene = sample_scene(rng, figures=rng.choice((1, 2)))
        first = dense_prompt(scene, rng)
        worn = {(figure.character.colour, figure.character.species): figure.character.wearable for figure in scene.figures}
        wardrobe = Wardrobe("")
        assert wardrobe.keep(first) == first and clothes(first) == worn
        later = sample_scene(rng, figures=len(scene.figures))
        other = dense_prompt(later, rng)
        swapped = other
        for old, new in zip(later.figures, scene.figures):  # the same heroes, dressed like others
            swapped = swapped.replace(f"{old.character.colour} {old.character.species}", f"{new.character.colour} {new.character.species}", 1)
        if clothes(swapped).keys() == worn.keys():
            kept = wardrobe.keep(swapped)
            assert clothes(kept) == worn
            same = ("place", "time", "prop", "pose", "position", "second_pose", "second_position")
            assert {name: parse_dense_prompt(kept)[name] for name in same} == {name: parse_dense_prompt(swapped)[name] for name in same}


@pytest.mark.parametrize(("request_", "said", "kept"), [
    ("a red fox with a scarf", "A red fox stands, at night.", "A red fox wearing a scarf stands, at night."),
    ("a Red Fox called Pip, who wears a small blue cap", "A red fox wearing glasses stands.", "A red fox wearing a hat stands."),
    ("a fox in spectacles meets a cat", "A little red fox with a bow and a blue cat wave.", "A little red fox wearing glasses and a blue cat wave."),
    ("a ginger kitten wearing her tiara", "An orange cat waves.", "An orange cat wearing a crown waves."),
    ("a red fox finds a hat", "A red fox waves.", "A red fox waves."),
    ("a red fox with a scarf", "A red fox with a scarf waves, holding a kite.", "A red fox with a scarf waves, holding a kite."),
    ("a red fox with a scarf", "The same hero waves with a red kite.", "The same hero waves with a red kite."),
])  # fmt: skip
def test_what_the_request_tells_holds_from_the_first_page(request_, said, kept):
    assert Wardrobe(request_).keep(said) == kept


def test_what_was_told_last_holds_in_a_story_that_goes_on():
    wardrobe = Wardrobe("a red fox with a scarf", ["A red fox wearing a scarf sits.", "A red fox wearing a crown sits, with a blue cat."])
    assert wardrobe.keep("A blue cat wearing a hat and a red fox jump.") == "A blue cat and a red fox wearing a crown jump."
    assert all(Wardrobe(f"a red fox with a {worn}").keep("A red fox.") for worn in WEARABLES)
