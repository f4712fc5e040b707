"""What chat models put around a plan goes; the plan stays, wherever the stream is cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weaver_core.planners.stream_cleaning import ImageGate, StreamCleaner

PLAN = "# T\nText one.\n<imagine>A fox.</imagine>\nEnd."
FRAGMENTS = ["<think>", "</think>", "```", "```md", "\n", "# T", "Sure!", "Here is:", "I'm sorry, ", "<imagine>", "</imagine>", " a", "---",
             "Let me know if", "let me ", "know if", " \n", "<|im_end|>", "Okay, so", "<", "`", "好的", "x" * 45, "-", "**"]  # fmt: skip


def clean(text: str, size: int | None = None, **how) -> tuple[str, str]:
    cleaner = StreamCleaner(**how)
    pieces = [text] if size is None else [text[i : i + size] for i in range(0, len(text), size)]
    return "".join(map(cleaner.feed, pieces)) + cleaner.close(), cleaner.refusal


@pytest.mark.parametrize("around", [
    "{}", "Sure! Here is your story:\n\n{}", "Certainly.\n\n{}", "好的，这是你的故事：\n{}", "Gerne! Hier ist die Geschichte:\n{}",
    "<think>hm <imagine>x</imagine></think>\n\n{}", "Okay, the user wants a story. # draft\n</think>\n{}",
    "```markdown\n{}\n```\nThis story has one image. Let me know!", "Here's the plan\n---\n{}\n---\n",
    "{}\n\nLet me know if you want more!", "{}<|im_end|>", "{}\nI hope you enjoy it!<|eot_id|>",
    "{}\n\nI hope you like the story!\n\nLet me know if you’d like changes.\n",
])  # fmt: skip
def test_what_stands_around_a_plan_goes(around):
    text = around.format(PLAN)
    for size in (None, 1, 2, 3, 7):
        cleaned, refusal = clean(text, size)
        assert cleaned.strip() == PLAN and not refusal


@pytest.mark.parametrize("text", [
    "Once upon a time.", "Sure, said the fox.\nAnd ran.", "I'm sorry, said the fox.\n<imagine>A fox.</imagine>",
    "# T\nI hope you are well, said the fox. <imagine>A.</imagine>", "Okay, the user of the lamp was a genie.", "*Once* upon a time.",
    "# T\nHere is: a list.\n- one\n- two", "# T\n1 < 2 and <b>bold</b>", "# T\n`code` stays",
    "# T\nI hope you sleep well, said the owl.\nThe end.", "# T\nIf you'd like, said the owl, stay here.\n",
    "# T\nFeel free to come in, said the owl.", "# T\nLet me know if you find it, said the owl.\nAnd the fox ran.",
    "# T\nLet me know if you find it.\n\n<imagine>A fox.</imagine>\nThe end.", "# T\nLet me know if you " + 90 * "really " + "come.",
])  # fmt: skip
def test_a_story_that_only_looks_so_stays(text):
    for size in (None, 1, 3, 7):
        assert clean(text, size) == (text, "")


def test_no_more_than_a_farewell_is_waited_for():
    cleaner = StreamCleaner()
    given = cleaner.feed("# T\nLet me know if you find it, said the owl.\n")
    assert given == "# T\n"
    assert cleaner.feed("The fox ran.\n") == "Let me know if you find it, said the owl.\nThe fox ran.\n"
    assert cleaner.feed("Let me know if " + "you come " * 90).startswith("Let me know if you come")


def test_a_story_in_a_fence_may_go_on_after_it():
    assert clean(f"```\n{PLAN}\n```\nmore\n<imagine>B</imagine>")[0] == f"{PLAN}\nmore\n<imagine>B</imagine>"


@pytest.mark.parametrize("text", ["I'm sorry, but I can't help with that.", "I cannot create this content.", "抱歉，我无法回答。",
                                  "As an AI language model, I"])  # fmt: skip
def test_a_refusal_is_told_apart(text):
    assert clean(text, 3) == ("", text)
    assert clean(text, continued=True) == (text, "")


def test_a_thought_that_began_before_the_first_word_goes_too():
    assert clean(f"a fox...</think>\n{PLAN}", thinking=True)[0] == PLAN


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=9), st.integers(1, 5), st.booleans())
def test_where_the_stream_is_cut_makes_no_difference(fragments, size, continued):
    text = "".join(fragments)
    assert clean(text, size, continued=continued) == clean(text, continued=continued)


LONG = {
    "short lines": lambda n: "# T\n" + "a fox.\n" * (n // 7),
    "one line": lambda n: "# T\n" + "a fox and " * (n // 10),
    "angles": lambda n: "# T\n" + "a <b> " * (n // 6),
    "a thought without its tags": lambda n: "Okay, the user wants a fox." + " hm" * (n // 3),
    "a thought that is closed late": lambda n: "Okay, the user wants a fox." + "\nhm" * (n // 3) + "</think>" + PLAN,
    "a refusal that never ends": lambda n: "I'm sorry, but I cannot." + "\nno" * (n // 3),
    "a greeting before nothing": lambda n: "Sure!\n" + "\n" * n + PLAN,
    "white space": lambda n: " " * n + PLAN,
    "farewells": lambda n: "# T\n" + "Let me know if you come.\n\n" * (n // 26),
    "a line of dashes": lambda n: "# T\n" + "-" * n,
    "a fence with a long name": lambda n: "# T\n```" + " " * n + "x y",
    "after the fence": lambda n: f"```\n{PLAN}\n```\n" + "more and more. " * (n // 15),
}  # fmt: skip


@pytest.mark.clock
@pytest.mark.parametrize("size", [None, 64], ids=["in one piece", "in small pieces"])
@pytest.mark.parametrize("kind", LONG)
def test_an_answer_twice_as_long_takes_twice_as_long(kind, size):
    def seconds(length: int) -> float:
        text = LONG[kind](length)

        def once() -> float:
            begun = time.process_time()
            clean(text, size)
            return time.process_time() - begun

        return min(once() for _ in range(3))

    shorter, longer = seconds(2**18), seconds(2**19)
    print(f"{kind}: {shorter:.3f} s, {longer:.3f} s")
    # Work that grows with the square of the length would take four times as long.
    assert longer <= 3 * shorter + 0.05, "the time does not grow with the length alone"


@given(st.sampled_from(sorted(LONG)), st.integers(4000, 9000), st.integers(500, 5000))
def test_where_a_long_stream_is_cut_makes_no_difference(kind, length, size):
    text = LONG[kind](length)
    assert clean(text, size) == clean(text) == clean(text, 7)


@given(st.text(alphabet="abc <imagine>/\n", max_size=80), st.integers(1, 9))
def test_a_plan_without_suspicious_words_comes_through_whole(text, size):
    assert clean("# T\n" + text, size)[0] == "# T\n" + text


@given(st.lists(st.sampled_from(["<imagine>", "</imagine>", "<imagine id='p1'>", "a", "<", "</imagin", ">", "\n"]), max_size=14),
       st.integers(1, 5), st.integers(0, 3))  # fmt: skip
def test_the_gate_keeps_out_what_begins_after_the_last_wanted_image(fragments, size, most):
    text = "".join(fragments)
    gate = ImageGate(most)
    through = "".join(gate.feed(text[i : i + size]) for i in range(0, len(text), size)) + gate.close()
    assert text.startswith(through) and gate.num_images <= most
    assert gate.cut or through == text
    assert not gate.cut or text[len(through):].startswith("<imagine")
