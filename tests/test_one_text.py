"""A planner behind one text in and one text out: the plan is cleaned, counted, and asked for what is missing."""

from __future__ import annotations

import pytest
from bad_server import PLAN
from PIL import Image

from weaver_core.errors import WeaverError
from weaver_core.plan import parse_markup
from weaver_core.planners import Planner, PlannerOptions, SeeingPlanner
from weaver_core.planners.one_text import OneTextPlanner
from weaver_core.request import ReferenceImage, Request
from weaver_core.weave import PlanReady, write_plan

REQUEST = Request(prompt="A fox's day.", num_images=2)


class Model:
    """Answers what it was told to, in order."""

    def __init__(self, *answers: str):
        self.answers, self.asked, self.shown = list(answers), [], []

    def __call__(self, text, pictures, options):
        self.asked.append(text)
        self.shown.append(pictures)
        return self.answers.pop(0)


def write(model: Model, num_images=2, request=REQUEST, history=()) -> str:
    planner = OneTextPlanner(model, "the text encoder")
    assert isinstance(planner, Planner) and isinstance(planner, SeeingPlanner)
    text = "".join(planner.write(request, history, options=PlannerOptions(num_images=num_images), cancel=lambda: False))
    model.notes = planner.notes
    return text


@pytest.mark.parametrize("around", ["{}", "<think>hm</think>\n{}", "Sure! Here is your story:\n\n{}", "```\n{}\n```"])
def test_a_plan_comes_out(around):
    model = Model(around.format(PLAN))
    assert write(model).strip() == PLAN.strip() and not model.notes
    (asked,) = model.asked
    assert asked.startswith("### Instruction") and "A fox's day." in asked and asked.endswith("### Answer\n")
    assert asked.count("### Request") >= 2, "it has no example to follow"


def test_the_loop_makes_a_plan_of_it():
    events = list(write_plan(REQUEST, OneTextPlanner(Model(PLAN), "x")))
    assert len(next(event.plan for event in events if isinstance(event, PlanReady)).images) == 2


def test_images_that_are_missing_are_asked_for_once():
    model = Model(PLAN, 'Night.\n<imagine id="p3">Stars.</imagine>')
    plan, _ = parse_markup(write(model, 4))
    assert len(plan.images) == 3 and "the planner wrote 2 of 4 images" in model.notes[0]
    assert "2 images are still missing" in model.asked[1] and PLAN.strip() in model.asked[1]


def test_an_image_that_is_cut_off_is_closed_and_counts():
    model = Model(PLAN.split("</imagine>\nGood")[0])
    plan, warnings = parse_markup(write(model))
    assert len(plan.images) == 2 and not warnings and len(model.asked) == 1


def test_what_comes_after_the_last_image_is_left_out():
    model = Model(PLAN + "<imagine>A third.</imagine>")
    assert len(parse_markup(write(model))[0].images) == 2 and "went on after 2 images" in model.notes[0]


def test_a_refusal_and_an_empty_answer_are_told_apart():
    with pytest.raises(WeaverError, match="refused: \"I'm sorry"):
        write(Model("I'm sorry, I cannot do that."))
    with pytest.raises(WeaverError, match="wrote no plan within 4096 tokens"):
        write(Model(" "))
    with pytest.raises(WeaverError, match="thought and wrote no plan; allow more"):
        write(Model("<think>hm"))


def test_pictures_of_the_request_and_the_story_so_far_go_along_in_one_size():
    picture, _ = ReferenceImage.read(Image.new("RGB", (60, 20), "red"), "robin")
    model = Model("And <imagine>a fox sleeps.</imagine>")
    write(model, 1, Request(prompt="a fox", images=(picture,)), ("# T\n<imagine>A fox.</imagine><BOI>", Image.new("RGB", (30, 30), "blue")))
    red, blue = model.shown[0]
    assert red.size == blue.size and red.getpixel((384, 384)) == (255, 0, 0) and blue.getpixel((384, 384)) == (0, 0, 255)
    assert "<imagine>A fox.</imagine>" in model.asked[0] and "robin" in model.asked[0]
