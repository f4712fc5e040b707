"""What chat models are told: short, right in itself, and the same in every round of the closed loop."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
from PIL import Image

from weaver_core.errors import InputError
from weaver_core.plan import CastMember, parse_markup
from weaver_core.planners import PlannerOptions
from weaver_core.planners.instruction import build_messages, choose_examples, load_instruction, missing_images_message
from weaver_core.planners.json_answer import answer_of_plan, answer_schema, markup_of_answer
from weaver_core.request import ReferenceImage, Request

EXAMPLES = load_instruction().examples
FOX = Request(prompt="A fox finds a kite.")


def messages(request=FOX, history=(), num_images=4, **how):
    return build_messages(request, history, PlannerOptions(num_images=num_images), **how)


def text_of(message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


# ---- the examples


def test_there_are_examples_of_one_to_eight_images_in_three_languages():
    assert sorted(example.num_images for example in EXAMPLES) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {example.language for example in EXAMPLES} == {"en", "zh", "de"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.num_images}-{example.language}")
def test_an_example_is_a_plan_without_fault(example):
    plan, warnings = parse_markup(example.plan)
    assert not warnings and plan.title and plan.language == example.language
    assert [image.id for image in plan.images] == [f"p{i + 1}" for i in range(example.num_images)]
    assert all(image.aspect for image in plan.images)
    assert {name for image in plan.images for name in image.cast} == {member.name for member in plan.cast}
    assert {name for member in plan.cast for name in member.references} == set(example.pictures)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.num_images}-{example.language}")
def test_a_look_is_said_in_the_first_image_and_in_no_other(example):
    plan, _ = parse_markup(example.plan)
    for member in plan.cast:
        shown = [image.prompt.lower() for image in plan.images if member.name in image.cast]
        assert bool(member.look) != bool(member.references)
        if member.look:
            first, *later = shown
            assert member.look.lower() in first
            details = re.split(r" with ", member.look.lower(), maxsplit=1)[-1]
            assert not [prompt for prompt in later if details in prompt or member.look.lower() in prompt]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.num_images}-{example.language}")
def test_dense_prompts_are_english_and_texts_in_the_example_s_language(example):
    plan, _ = parse_markup(example.plan)
    assert all(image.prompt.isascii() for image in plan.images)
    if example.language == "zh":
        assert all(re.search("[\u4e00-\u9fff]", text.text) for text in plan.texts)


# ---- the conversation


@pytest.mark.parametrize("num_images", [None, 1, 2, 3, 4, 5, 6, 7, 8, 20])
def test_a_conversation_is_short_enough_for_small_models(num_images):
    """About 1,600 tokens at 3.5 characters each, of the 4,096 that a small server has by default."""
    assert sum(len(text_of(message)) for message in messages(num_images=num_images)) < 5_600


def test_turns_alternate_and_end_with_the_request():
    roles = [message["role"] for message in messages()]
    assert roles[0] == "system" and roles[1:] == ["user", "assistant"] * ((len(roles) - 2) // 2) + ["user"]
    assert text_of(messages()[-1]) == "A fox finds a kite.\n\nImages: exactly 4 (p1 to p4)."


@pytest.mark.parametrize(("request_", "num_images", "first"), [
    (FOX, 4, (4, "en")),
    (Request(prompt="一只狐狸"), 2, (2, "zh")),
    (Request(prompt="Ein Fuchs", language="de"), 7, (7, "de")),
])  # fmt: skip
def test_the_nearest_example_stands_next_to_the_request(request_, num_images, first):
    last = choose_examples(load_instruction(), request_, num_images)
    assert any((example.num_images, example.language) == first for example in last)


@pytest.mark.parametrize("num_images", [None, 1, 2, 3, 4, 5, 6, 7, 8])
def test_examples_for_an_english_request_are_english(num_images):
    assert {example.language for example in choose_examples(load_instruction(), FOX, num_images)} == {"en"}


def test_wishes_are_said_each_on_a_line_of_its_own():
    picture, _ = ReferenceImage.read(Image.new("RGB", (64, 64), "red"), "robin")
    request = Request(prompt="Ein Tag.", language="de", aspect="4:3", images=(picture,),
                      cast=(CastMember(name="Robin", look="a fox", references=("robin",)),))  # fmt: skip
    assert text_of(messages(request)[-1]).split("\n\n", 1)[1].splitlines() == [
        "Images: exactly 4 (p1 to p4).", "Language of title and text: de.", "All images are 4:3: leave the aspect out.",
        "Pictures from the user, in this order: robin.", "Known already; use these names, and write no cast line for them:",
        "- Robin: a fox (picture: robin)"]  # fmt: skip


def test_pictures_go_along_as_small_data_uris():
    picture, _ = ReferenceImage.read(Image.new("RGB", (2000, 1000), "red"), "robin")
    parts = messages(Request(prompt="A day.", images=(picture,)))[-1]["content"]
    head, data = parts[0]["image_url"]["url"].split(",")
    assert head == "data:image/jpeg;base64" and Image.open(io.BytesIO(base64.b64decode(data))).size == (1024, 512)


def test_a_model_that_cannot_see_gets_texts_only():
    picture, _ = ReferenceImage.read(Image.new("RGB", (64, 64), "red"), "robin")
    history = ("# T\n<imagine>A fox.</imagine><BOI>", picture.image)
    told = messages(Request(prompt="A day.", images=(picture,)), history, picture_part=None)
    assert all(isinstance(message["content"], str) for message in told) and "robin" in told[-3]["content"]


def test_every_round_of_the_closed_loop_begins_with_the_round_before():
    red, blue = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    history = ("# T\nOne.\n<imagine>A.</imagine><BOI>", red, "Two.\n<imagine>B.</imagine><BOI>", blue)
    rounds = [messages(history=history[:length], num_images=4 - length // 2) for length in (0, 2, 4)]
    for earlier, later in zip(rounds, rounds[1:]):
        assert later[: len(earlier)] == earlier and len(later) == len(earlier) + 2
    assert "still to come: 2, the next is p3" in text_of(rounds[2][-1]) and "<BOI>" not in str(rounds[2])


def test_the_last_round_asks_for_the_end():
    history = ("# T\n<imagine>A.</imagine><BOI>", Image.new("RGB", (16, 16)))
    assert "All images are there" in text_of(messages(history=history, num_images=0)[-1])


def test_an_image_that_could_not_be_drawn_still_counts():
    history = ("# T\n<imagine>A.</imagine><BOI>", "Two.\n<imagine>B.</imagine><BOI>", Image.new("RGB", (16, 16)))
    told = messages(history=history, num_images=1)
    assert isinstance(told[-3]["content"], str) and "the next is p3" in text_of(told[-1])


def test_missing_images_are_asked_for_by_number():
    assert missing_images_message(2, 3)["content"].startswith("2 images are still missing.")
    assert '<imagine id="p4"' in missing_images_message(2, 3)["content"]


def test_an_unknown_version_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="there is v1"):
        load_instruction("../v1")


# ---- the JSON form


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.num_images}-{example.language}")
def test_an_example_in_json_is_the_same_plan(example):
    plan, _ = parse_markup(example.plan)
    again, warnings = parse_markup(markup_of_answer(json.dumps(answer_of_plan(plan))))
    assert again == plan and not warnings


def test_the_json_form_shows_no_markup():
    told = messages(form="json")
    assert not any("<imagine" in text_of(message) for message in told)
    json.loads(told[2]["content"])


def test_the_schema_asks_for_every_key_and_for_the_number_of_pages():
    schema = answer_schema(3)
    assert schema["required"] == list(schema["properties"]) and schema["properties"]["pages"]["minItems"] == 3
    assert "minItems" not in answer_schema(None)["properties"]["pages"]


@pytest.mark.parametrize("answer", ["", "no", "[]", "{}", '{"pages": 3}', '{"pages": []}', '{"pages": [{"image": ""}]}', "[" * 100_000])
def test_what_is_no_answer_is_refused(answer):
    with pytest.raises(ValueError):
        markup_of_answer(answer)


def test_an_answer_with_wrong_kinds_loses_only_those():
    answer = {"title": 7, "language": "no language", "cast": [3, {"name": ""}, {"name": "A\u0000"}, {"name": "A"}], "ending": ["x"],
              "pages": [{"image": "A fox.", "cast": "A", "aspect": "9:1", "text": None}, 5, {"text": "Two.\u0000", "image": "B"}]}
    plan, warnings = parse_markup(markup_of_answer(json.dumps(answer)))
    assert not warnings and [image.prompt for image in plan.images] == ["A fox.", "B"] and plan.texts[0].text == "Two."
