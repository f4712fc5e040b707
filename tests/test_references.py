"""Which references an image gets: always the first of a character, never a copy of a copy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weaver_core.errors import InputError
from weaver_core.plan import CastMember, ImageSegment, Plan
from weaver_core.references import POLICIES, choose_references
from weaver_core.visualizers.slots import slot_of, with_looks, with_slots


def story(*casts, cast=(), references=None):
    """A plan of images p1, p2, ... with these casts; `references` are those of the last one."""
    images = [
        ImageSegment(
            id=f"p{i}",
            prompt="x",
            cast=tuple(members.split()),
            references=references if references is not None and i == len(casts) else "auto",
        )
        for i, members in enumerate(casts, 1)
    ]
    return Plan(cast=tuple(cast), segments=tuple(images))


def chosen(plan, segment_id, *, drawn="p1 p2 p3 p4 p5", user="", budget=4, **more):
    choices, notes = choose_references(
        plan, plan.segment(segment_id), drawn=drawn.split(), user_images=user.split(), budget=budget, **more
    )
    return [choice.source for choice in choices], notes


def test_without_a_cast_every_image_looks_at_the_first():
    plan = story("", "", "")
    assert chosen(plan, "p1") == ([], ())
    assert chosen(plan, "p3") == (["p1"], ())


def test_without_a_cast_the_first_image_that_was_drawn_counts():
    assert chosen(story("", "", "", ""), "p4", drawn="p2 p3")[0] == ["p2"]


def test_without_a_cast_user_s_images_come_instead_of_the_first_image():
    assert chosen(story("", ""), "p1", user="robin mia")[0] == ["robin", "mia"]
    assert chosen(story("", ""), "p2", user="robin mia")[0] == ["robin", "mia"]


def test_two_heroes_take_two_slots_in_cast_order_from_their_first_appearances():
    plan = story("Robin", "Mia", "Robin Mia", "Mia Robin")
    assert chosen(plan, "p3")[0] == ["p1", "p2"]
    assert chosen(plan, "p4")[0] == ["p2", "p1"]


def test_a_hero_is_never_taken_from_a_later_copy():
    plan = story("Robin", "Robin", "Robin", "Robin")
    assert chosen(plan, "p4")[0] == ["p1"]


def test_heroes_introduced_by_one_image_share_a_slot():
    assert chosen(story("Robin Mia", "Robin Mia"), "p2")[0] == ["p1"]


def test_a_sheet_wins_over_a_first_appearance():
    cast = [CastMember(name="Robin", references=("sheet",))]
    plan = story("Robin", "Robin Mia", "Mia Robin", cast=cast)
    assert chosen(plan, "p1", user="sheet")[0] == ["sheet"]
    assert chosen(plan, "p3", user="sheet")[0] == ["p2", "sheet"]
    assert chosen(plan, "p3")[0] == ["p2", "p1"], "without the sheet, Robin's first appearance"


def test_user_s_images_of_nobody_come_before_drawn_ones():
    plan = story("Robin", "Robin")
    assert chosen(plan, "p2", user="photo", budget=1)[0] == ["photo"]
    assert chosen(plan, "p2", user="photo", budget=2)[0] == ["photo", "p1"]


def test_the_budget_is_kept():
    plan = story("A", "B", "C", "A B C")
    assert chosen(plan, "p4", budget=2)[0] == ["p1", "p2"]
    assert chosen(plan, "p4", budget=0) == ([], ())


def test_named_references_win_over_every_policy():
    plan = story("", "", "", references=("p2", "photo"))
    for policy in POLICIES:
        assert chosen(plan, "p3", user="photo other", policy=policy)[0] == ["p2", "photo"]
    assert chosen(story("", "", references=()), "p2", user="photo") == ([], ())


def test_a_cast_name_can_be_named_as_reference():
    plan = story("Robin", "Mia", "", references=("Mia",))
    assert chosen(plan, "p3")[0] == ["p2"]


@pytest.mark.parametrize(
    ("references", "drawn", "said"),
    [
        (("p3",), "p1", "is the image itself"),
        (("p2",), "p1", "has not been drawn"),
        (("ghost",), "p1", "is unknown (there is p1)"),
        (("Mia",), "p1", "has no picture yet"),
    ],
)
def test_wishes_that_cannot_be_met_are_said(references, drawn, said):
    plan = story("", "", "", references=references, cast=[CastMember(name="Mia")])
    sources, notes = chosen(plan, "p3", drawn=drawn)
    assert sources == [] and said in notes[0]


def test_a_later_image_cannot_be_a_reference():
    plan = Plan(
        segments=(ImageSegment(id="p1", prompt="x", references=("p2",)), ImageSegment(id="p2", prompt="y"))
    )
    sources, notes = chosen(plan, "p1", drawn="p1 p2")
    assert sources == [] and "comes later" in notes[0]


def test_more_named_references_than_the_budget_are_said():
    sources, notes = chosen(story("", "", "", references=("p1", "p2")), "p3", budget=1)
    assert sources == ["p1"] and "left out: p2" in notes[0]


def test_policies():
    plan = story("", "")
    assert chosen(plan, "p2", user="photo", policy="user")[0] == ["photo"]
    assert chosen(plan, "p2", policy="user")[0] == []
    assert chosen(plan, "p2", user="photo", policy="none")[0] == []
    with pytest.raises(InputError, match="policy is 'best'; it must be one of auto, user, cast, first, previous, none"):
        chosen(plan, "p2", policy="best")


def test_first_and_previous_image_are_those_that_were_drawn():
    plan = story("Robin", "Mia", "Robin", "Mia")
    assert chosen(plan, "p4", user="photo", policy="first")[0] == ["p1"]
    assert chosen(plan, "p4", user="photo", policy="previous")[0] == ["p3"]
    assert chosen(plan, "p4", drawn="p2", policy="first")[0] == chosen(plan, "p4", drawn="p2", policy="previous")[0] == ["p2"]


@pytest.mark.parametrize("policy", ["first", "previous"])
def test_the_first_image_itself_looks_at_the_user_s_pictures(policy):
    assert chosen(story("", ""), "p1", user="photo", policy=policy)[0] == ["photo"]


def test_cast_only_shows_whom_the_image_shows_and_nothing_else():
    plan = story("Robin", "Robin Mia", "", cast=[CastMember(name="Robin", references=("sheet",)), CastMember(name="Mia")])
    assert chosen(plan, "p2", user="sheet photo", policy="cast")[0] == ["sheet"]
    assert chosen(plan, "p3", user="sheet photo", policy="cast")[0] == ["sheet", "p2"], "an image that names nobody may show all"
    assert chosen(story("", ""), "p2", user="photo", policy="cast")[0] == []


def test_second_pictures_of_a_member_are_the_first_to_go():
    cast = [CastMember(name="Robin", references=("robin-1", "robin-2")), CastMember(name="Mia", references=("mia-1",))]
    plan = story("", cast=cast)
    assert chosen(plan, "p1", user="robin-1 robin-2 mia-1 photo", budget=3)[0] == ["robin-1", "mia-1", "photo"]


def test_a_budget_in_tokens_is_kept_as_well():
    plan = story("A", "B", "C", "A B C")
    sizes = {"p1": 64, "p2": 64, "p3": 16}
    for most, expected in ((None, ["p1", "p2", "p3"]), (144, ["p1", "p2", "p3"]), (143, ["p1", "p2"]), (64, ["p1"]), (63, [])):
        assert chosen(plan, "p4", max_tokens=most, tokens_of=lambda choice: sizes[choice.source])[0] == expected
    named = story("", "", "", references=("p1", "p2"))
    sources, notes = chosen(named, "p3", max_tokens=100, tokens_of=lambda choice: 64)
    assert sources == ["p1"] and "only 1 references can be used; left out: p2" in notes[0]


TWO = [CastMember(name="Robin", look="an orange fox"), CastMember(name="Mia", look="a grey cat"), CastMember(name="den", kind="place")]


def test_a_picture_of_two_says_so_and_their_looks_stay_in_the_words():
    plan = story("Robin Mia den", "Mia", "Robin Mia", "den", cast=TWO)

    def spoken(segment_id: str) -> str:
        segment = plan.segment(segment_id)
        choices, _ = choose_references(plan, segment, drawn=["p1", "p2", "p3"], user_images=(), budget=4)
        slots = [slot_of(choice) for choice in choices]
        return with_slots(with_looks(plan, segment, slots), slots, "image {}")

    prompt = plan.segment("p2").prompt
    assert spoken("p2") == f"Image 1 shows Mia and Robin. Draw a new picture in which Mia looks exactly as there: {prompt}\nMia: a grey cat"
    both = spoken("p3")
    assert both.startswith("Image 1 shows Robin and Mia. Draw a new picture in which Robin and Mia look exactly as there: ")
    assert both.endswith("Robin: an orange fox\nMia: a grey cat")
    assert spoken("p4").startswith("Image 1 shows den, Robin and Mia. Draw a new picture in which den looks exactly as there: ")


def test_a_picture_of_one_stands_for_the_look():
    plan = story("Robin den", "Robin", cast=TWO)
    (choice,), _ = choose_references(plan, plan.segment("p2"), drawn=["p1"], user_images=(), budget=4)
    assert (choice.member, choice.others, choice.beside) == ("Robin", (), ())
    assert with_looks(plan, plan.segment("p2"), [slot_of(choice)]) == plan.segment("p2").prompt


@given(st.lists(st.sets(st.sampled_from("ABC"), max_size=3).map(sorted).map(" ".join), min_size=1, max_size=6), st.integers(0, 4))  # fmt: skip
def test_references_always_lie_before_the_image_and_within_the_budget(casts, budget):
    plan = story(*casts)
    ids = [image.id for image in plan.images]
    for index, image in enumerate(plan.images):
        sources, _ = chosen(plan, image.id, drawn=" ".join(ids), user="photo", budget=budget)
        assert len(sources) == len(set(sources)) <= budget
        assert set(sources) <= {*ids[:index], "photo"}
