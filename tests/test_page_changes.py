"""Changes of single pages as the book view writes them: read with care, applied to the plan they were made for, and to no other."""

from __future__ import annotations

import json

import pytest

from weaver_core.errors import InputError
from weaver_core.page_changes import MAX_CHANGES, drawn_from, read_page_changes, with_page_changes
from weaver_core.plan import parse_markup

PLAN, _ = parse_markup("""# Robin and Mia
<cast name="Robin"><cast name="Mia">
One. <imagine cast="Robin">A fox.</imagine> Two. <imagine cast="Robin, Mia">A fox and a cat.</imagine>
Three. <imagine locked="true">A moon.</imagine>
""")


def changed(*changes: dict):
    return with_page_changes(PLAN, read_page_changes(json.dumps(changes)))


def test_each_field_changes_its_page_and_no_other():
    plan, holding, notes = changed(
        {"page": "p1", "of": "A fox.", "seed": 7, "prompt": "A red fox."}, {"page": "p2", "of": "A fox and a cat.", "reference": "p1"}
    )
    assert notes == [] and [change.page for change in holding] == ["p1", "p2"]
    assert (plan.images[0].prompt, plan.images[0].seed) == ("A red fox.", 7)
    assert plan.images[1].references == ("p1", "Mia") and plan.images[1].seed == "auto"
    assert plan.images[2] == PLAN.images[2] and plan.texts == PLAN.texts


def test_a_change_of_another_story_does_not_slip_in_and_is_told():
    plan, holding, notes = changed({"page": "p1", "of": "A dragon.", "seed": 7}, {"page": "p9", "of": "A fox.", "locked": True})
    assert plan == PLAN and holding == () and "p1, p9" in notes[0]


def test_a_lock_is_added_to_those_of_the_plan():
    plan, _, _ = changed({"page": "p1", "of": "A fox.", "locked": True}, {"page": "p3", "of": "A moon.", "seed": 2})
    assert [image.locked for image in plan.images] == [True, False, True]


def test_a_page_drawn_from_another_keeps_those_whom_that_one_does_not_show():
    assert drawn_from(PLAN, PLAN.images[1], "p1") == ("p1", "Mia")
    assert drawn_from(PLAN, PLAN.images[0], "p2") == ("p2",)


@pytest.mark.parametrize("text", ["", "  \n", "[]"])
def test_nothing_is_no_change(text):
    assert read_page_changes(text) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"), ("{}", "expected a list"), ("[1]", r"page_changes\[0\]: expected an object"),
        ('[{"page": "p1"}]', "of: missing"), ('[{"page": "../p1", "of": "x"}]', "no segment id"),
        ('[{"page": "p1", "of": "x", "sede": 1}]', "did you mean 'seed'"), ('[{"page": "p1", "of": "x", "seed": -1}]', "seed"),
        ('[{"page": "p1", "of": "x", "seed": 1.5}]', "seed"), ('[{"page": "p1", "of": "x", "locked": 1}]', "locked"),
        ('[{"page": "p1", "of": "x", "prompt": " "}]', "prompt"), ('[{"page": "p1", "of": "x", "kept": {"draft": "d"}}]', "kept.key"),
        ('[{"page": "p1", "of": "x", "kept": {"draft": "d", "key": "../../k"}}]', "kept.key"), ("[NaN]", "NaN"),
        ("[" * 100_000, "nested"), ('["' + "x" * MAX_CHANGES + '"]', "at most"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_changes_is_refused_with_its_place(text, message):
    with pytest.raises(InputError, match=message):
        read_page_changes(text)
