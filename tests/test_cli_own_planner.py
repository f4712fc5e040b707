"""`weaver plan` and `weaver story` with a planner of the user's own: tiny chat models of the real classes, and a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_chat_models
from bad_server import PLAN, BadServer

from weaver_core import cli
from weaver_core.plan import parse_markup
from weaver_core.story import StoryFolder

PROMPT = "A fox's day."
BRIEF = ("--max-tokens", "260", "--seed", "5", "--device", "cpu")


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory) -> Path:
    return tiny_chat_models.writing(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def lora(tmp_path_factory, chat_model) -> Path:
    return tiny_chat_models.lora_for(chat_model, tmp_path_factory.mktemp("lora"))


@pytest.fixture
def weaver(tmp_path, monkeypatch, capsys):
    """Runs a command that has to succeed, and returns standard output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> str:
        code = cli.main([*map(str, arguments)])
        out, err = capsys.readouterr()
        assert code == cli.OK, err
        return out

    return run


def planned(text: str, num_images: int = 2) -> str:
    plan, warnings = parse_markup(text)
    assert len(plan.images) == num_images and not warnings
    return text


def test_a_local_model_plans_in_four_bits_and_with_a_lora(weaver, chat_model, lora):
    """Every one of the four is a whole plan, and every one is another model's."""
    ask = ("plan", PROMPT, "--images", "2", "--planner", chat_model, *BRIEF)
    texts = [planned(weaver(*ask, *more)) for more in ((), ("--planner-4bit",), ("--planner-lora", lora), ("--planner-4bit", "--planner-lora", lora))]
    assert len(set(texts)) == 4
    assert weaver(*ask) == texts[0], "the same seed wrote another plan"


@pytest.mark.parametrize("seen", [False, True], ids=["4 bits and a LoRA", "a model that sees"])
def test_a_story_is_planned_by_a_local_model_and_drawn(weaver, chat_model, lora, pair_folder, tmp_path, seen):
    own = ("--planner", chat_model, "--planner-4bit", "--planner-lora", lora)
    if seen:
        own = ("--planner", tiny_chat_models.seeing("qwen3_vl", tmp_path / "sees"), "--planner-4bit")
    out = weaver("story", PROMPT, "--images", "2", "--out", "book", "--model", pair_folder, "--steps", "1", "--no-check-images", *own, *BRIEF)
    assert Path(out.strip().splitlines()[-1]).name == "story.html"
    with StoryFolder.open("book") as story:
        assert sorted(story.renderings) == sorted(image.id for image in story.plan.images) and len(story.renderings) == 2
        assert story.request.prompt == PROMPT


def test_temperature_and_length_reach_the_planner(weaver, chat_model):
    ask = ("plan", PROMPT, "--images", "1", "--planner", chat_model, "--device", "cpu", "--max-tokens", "150", "--temperature")
    assert weaver(*ask, "0", "--seed", "1") == weaver(*ask, "0", "--seed", "2") != weaver(*ask, "1.5", "--seed", "1")
    longer = weaver("plan", PROMPT, "--images", "1", "--planner", chat_model, "--device", "cpu", "--max-tokens", "600", "--seed", "1")
    assert len(longer) > len(weaver(*ask, "0.7", "--seed", "1"))


@pytest.mark.parametrize(("arguments", "message"), [
    (("--max-tokens", "0"), "max_tokens is 0; it must lie in 1..1000000"),
    (("--temperature", "9"), "temperature is 9.0; it must lie in 0..5"),
    (("--planner-4bit",), "--planner-4bit is for a model on this computer"),
    (("--planner", "no such folder"), "neither a folder nor a name"),
    (("--planner", "a/name", "--planner-lora", "nothing"), "nothing is no LoRA folder; it must hold adapter_config.json"),
])  # fmt: skip
def test_what_cannot_be_is_said_and_nothing_is_begun(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["story", PROMPT, *arguments, "--out", "book", "--device", "cpu"]) == cli.ERROR
    assert message in capsys.readouterr().err and not Path("book").exists()


def test_a_server_plans_and_its_key_is_in_no_file_and_no_line(weaver, pair_folder, tmp_path, monkeypatch):
    key = "weaver-test-key-1234567890"
    server = BadServer()
    monkeypatch.setenv("WEAVER_API_KEY", key)
    monkeypatch.delenv("WEAVER_API_URL", raising=False)
    try:
        ask = ("--images", "2", "--planner-url", server.url, "--planner-model", "fox-7b", "--seed", "3")
        text = weaver("plan", PROMPT, *ask, "--temperature", "0.2")
        assert planned(text) and "Robin's day" in text and server.asked[-1]["temperature"] == 0.2
        out = weaver("story", PROMPT, *ask, "--out", "book", "--model", pair_folder, "--steps", "1", "--device", "cpu", "--no-check-images", "--json")
    finally:
        server.close()
    assert json.loads(out)["title"] == "Robin's day" and server.keys[-1] == f"Bearer {key}"
    assert key not in out and not any(key.encode() in path.read_bytes() for path in Path("book").rglob("*") if path.is_file())
