"""Heroes keep the names of the request."""

import random

import pytest

from weaver_core.picturebook.grammar import sample_story
from weaver_core.picturebook.names import Names
from weaver_core.picturebook.story_words import MORE_NAMES, NAMES


@pytest.mark.parametrize(("request_", "names"), [
    ("Amelia the blue cat goes home", ["Amelia"]),
    ("A story about Captain Whiskers, a red fox", ["Captain Whiskers"]),
    ("a red fox named Hiroshi and a bear called Kunigunde", ["Hiroshi", "Kunigunde"]),
    ("Meet Sophie, the little red fox", ["Sophie"]),
    ("The brave lion Aslan sleeps", ["Aslan"]),
    ("Sophie and Amélie, the two heroes in the pictures", ["Sophie", "Amélie"]),
    ("Jean-Luc is a yellow dog", ["Jean-Luc"]),
    ("Hiroshi (a small red fox) at the beach", ["Hiroshi"]),
    ("Once the red fox slept. Yesterday the cat came. Then the dog", []),
    ("Red Fox the lion and The Blue Cat", []),
    ("amelia the blue cat", []),
    ("A red fox at the beach in four pictures", []),
])  # fmt: skip
def test_names_are_found_and_come_back(request_, names):
    found = Names(request_)
    assert sorted(found.stand_ins) == sorted(names)
    assert len(set(found.stand_ins.values())) == len(names) and set(found.stand_ins.values()) <= {*NAMES}
    assert not any(name in found.known(request_) for name in names)
    assert found.back(found.known(request_)) == request_


def test_known_names_are_told_as_they_are_but_never_as_the_very_first_word():
    assert Names("Pip the fox").told("Pip the fox") == "Story: Pip the fox"
    assert Names("A fox named Pip").told("A fox named Pip") == "A fox named Pip"
    cast = Names("x", ["Robin", "Zaphod"])
    assert cast.told("Robin and Zaphod go") == f"Story: Robin and {cast.stand_ins['Zaphod']} go"


def test_a_stand_in_is_nobody_of_the_request():
    told = "Amelia the cat meets " + ", ".join(NAMES[:-1])
    assert Names(told).stand_ins == {"Amelia": NAMES[-1]}


def test_more_names_than_the_planner_knows_are_told_as_they_are():
    crowd = ", ".join(f"{first}{second}x the fox" for first in ("Qua", "Zre", "Vlo", "Xim", "Jyb") for second in "abcdefghijkl")
    assert len(Names(crowd).all) == 60 and len(Names(crowd).stand_ins) == len(NAMES)
    assert Names(crowd).back(Names(crowd).told(crowd)) == f"Story: {crowd}"
    assert Names("Amelia the cat meets " + ", ".join(NAMES)).stand_ins == {}


@pytest.mark.parametrize("seed", range(20))
def test_a_stream_is_translated_whatever_its_pieces(seed):
    rng = random.Random(seed)
    names = Names("Amelia the cat and Captain Whiskers, a red fox")
    text = "# Amelia's Day\nAmelia and Captain Whiskers, <imagine>A blue cat.</imagine>Ameliaz said: Amelia"
    told, pieces = names.known(text), []
    while told:
        size = rng.randint(1, 5)
        pieces.append(told[:size])
        told = told[size:]
    assert "".join(names.streamed(pieces)) == text


def test_names_of_the_training_stay():
    rng = random.Random(8)
    for _ in range(1000):
        story = sample_story(rng)
        made_up = set(Names(story.request).stand_ins) - {*NAMES, *MORE_NAMES}
        assert made_up <= set(story.cast), (story.request, made_up)
