"""The command line, in a folder of its own, with a native pair of random weights (what it draws is noise, and that is fine)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from weaver_core import cli
from weaver_core.plan import Plan, parse_markup
from weaver_core.request import Request
from weaver_core.story import StoryFolder
from weaver_core.terminal import Display

ROOT = Path(__file__).resolve().parents[1]
PLAN = """# Two pages
One. <imagine>A small blue fox sits on the left.</imagine>
Two. <imagine>A red bear at night.</imagine>
"""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    from tiny_pair import tiny_pair

    folder = tmp_path_factory.mktemp("model")
    tiny_pair().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def weaver(tmp_path, monkeypatch, capsys, model_folder):
    """Runs a command with the tiny model; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=True):
        extra = ["--model", model_folder] if model else []
        if model and arguments[0] in ("story", "render"):
            extra += ["--steps", "2"]
        code = cli.main([*arguments, *extra])
        return code, *capsys.readouterr()

    return run


def drawn(folder):
    with StoryFolder.open(folder) as story:
        return {segment_id: story.image(segment_id).tobytes() for segment_id in story.renderings}


# ---- drawing a plan


def test_a_plan_becomes_a_page_and_the_last_line_says_where(weaver, tmp_path):
    Path("plan.md").write_text(PLAN)
    code, out, err = weaver("render", "plan.md")
    assert code == cli.OK
    assert out.splitlines()[-1] == "stories/two-pages/story.html"
    page = (tmp_path / "stories/two-pages/story.html").read_text()
    assert page.count("data:image/png") == 2 and "One." in page
    assert "p2: drawn (2 of 2)" in err


def test_a_changed_page_alone_is_drawn_again(weaver):
    Path("plan.md").write_text(PLAN)
    weaver("render", "plan.md", "--out", "book")
    before = drawn("book")
    Path("plan.md").write_text(PLAN.replace("A red bear", "A green frog"))
    code, _, err = weaver("render", "plan.md", "--out", "book")
    after = drawn("book")
    assert code == cli.OK and "p1: drawn before" in err and "p2: drawn (" in err
    assert [after[i] == before[i] for i in ("p1", "p2")] == [True, False]
    with pytest.raises(SystemExit):
        weaver("render", "plan.md", "--only")
    code, out, err = weaver("render", "plan.md", "--out", "other", "--only", "p2")
    assert code == cli.INCOMPLETE and "1 of 2 images are missing (p1)" in err


def test_a_plan_drawn_twice_comes_out_the_same_from_any_spelling(weaver, monkeypatch):
    plan, _ = parse_markup(PLAN)
    Path("plan.json").write_text(plan.dumps())
    Path("plan.md").write_bytes(b"\xef\xbb\xbf" + PLAN.encode())
    assert weaver("render", "plan.json", "--out", "a")[0] == cli.OK
    assert weaver("render", "plan.md", "--out", "b")[0] == cli.OK
    assert drawn("a") == drawn("b")


def test_json_tells_everything_and_nothing_else(weaver):
    Path("plan.md").write_text(PLAN)
    Image.new("RGB", (64, 64), "orange").save("robin.png")
    # what random weights draw may well look blank
    drawing = ("--size", "640x480", "--seed", "5", "--no-check-images")
    code, out, err = weaver("render", "plan.md", "--json", "--image", "robin.png", *drawing)
    result = json.loads(out)
    assert code == cli.OK and err == ""
    assert (result["title"], result["seed"], result["missing"]) == ("Two pages", 5, [])
    assert [image["references"] for image in result["images"]] == [["robin"], ["robin"]]
    assert all(Path(image["file"]).is_file() for image in result["images"]) and Path(result["page"]).is_file()
    assert result["warnings"] == ["640 x 480 cannot be drawn; the nearest that this visualizer can is 128 x 128"]


def test_images_that_cannot_be_drawn_are_missing_and_the_exit_code_says_so(weaver):
    Path("plan.md").write_text("One. <imagine>" + "fox " * 60_000 + "</imagine>")
    code, out, err = weaver("render", "plan.md", "--out", "book")
    assert code == cli.INCOMPLETE
    assert "p1 could not be drawn: the planner would have to read" in err
    assert "'weaver resume book' tries again" in err and out.strip().endswith("story.html")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe\x00", "is not text in UTF-8 (byte 0)"),
        (b"", "holds no images; put <imagine>what it shows</imagine>"),
        (b"Only text.", "holds no images"),
        (b"<imagine></imagine>", "holds no images"),
    ],
)
def test_files_that_are_no_plan_are_refused(weaver, content, said):
    Path("plan.md").write_bytes(content)
    code, _, err = weaver("render", "plan.md")
    assert code == cli.ERROR and said in err and not Path("stories").exists()


def test_json_that_is_no_plan_is_refused_with_its_path(weaver):
    Path("plan.json").write_text('{"format": "weaver-plan", "version": 1, "segments": [{"type": "image", "id": "p1", "promt": "x"}]}')
    code, _, err = weaver("render", "plan.json")
    assert code == cli.ERROR and "segments[0].promt: unknown key; did you mean 'prompt'?" in err


# ---- a whole story


def test_a_prompt_becomes_a_story_that_resume_finds_finished(weaver):
    code, out, err = weaver("story", "a red fox at the beach", "--images", "1", "--seed", "3", "--out", "book")
    assert code == cli.OK and out.splitlines()[-1] == "book/story.html"
    assert "seed 3, story folder book" in err
    with StoryFolder.open("book") as folder:
        assert len(folder.plan.images) == 1 and folder.finished and folder.request.seed == 3
    before = Path("book/story.jsonl").read_bytes()
    code, out, err = weaver("resume", "book")
    assert code == cli.OK and "p1: drawn before" in err
    assert Path("book/story.jsonl").read_bytes() == before
    assert weaver("story", "another", "--out", "book")[0] == cli.ERROR


def test_plan_prints_markup_that_render_takes(weaver):
    code, out, _ = weaver("plan", "a red fox at the beach", "--images", "1", "--seed", "3")
    plan, warnings = parse_markup(out)
    assert code == cli.OK and len(plan.images) == 1 and warnings == []
    code, as_json, _ = weaver("plan", "a red fox at the beach", "--images", "1", "--seed", "3", "--json")
    assert Plan.loads(as_json) == plan


def test_resume_asks_for_the_model_that_the_story_was_made_with(weaver, model_folder):
    Path("plan.md").write_text(PLAN)
    weaver("render", "plan.md", "--out", "book")
    code, _, err = weaver("resume", "book", model=False)
    assert code == cli.ERROR and f"was made with the model in {model_folder}; give it again (--model" in err


def test_resume_asks_for_the_lora_that_the_story_was_made_with(weaver, tmp_path, model_folder):
    import torch
    from safetensors.torch import save_file

    from weaver_core.model.checkpoint import WeaverModel

    twin = WeaverModel.from_pretrained(model_folder).visualizer
    rows, columns = twin.blocks[0].qkv.weight.shape
    lora = tmp_path / "style.safetensors"
    name = "diffusion_model.blocks.0.qkv"
    save_file({f"{name}.lora_A.weight": torch.ones(2, columns), f"{name}.lora_B.weight": torch.ones(rows, 2)}, lora)
    Path("plan.md").write_text(PLAN)
    assert weaver("render", "plan.md", "--out", "book", "--lora", f"{lora}:0.5")[0] == cli.OK
    code, _, err = weaver("resume", "book", model=False)
    assert code == cli.ERROR and f"and the LoRA {lora}:0.5; give it again" in err
    images = sorted(Path("book/images").iterdir())
    assert weaver("resume", "book", "--lora", f"{lora}:0.5")[0] == cli.OK and sorted(Path("book/images").iterdir()) == images


def test_a_story_that_is_there_keeps_its_request(weaver):
    Path("plan.md").write_text(PLAN)
    weaver("render", "plan.md", "--out", "book")
    code, _, err = weaver("render", "plan.md", "--out", "book", "--seed", "9")
    assert code == cli.ERROR and "holds a story already, with its own seed; leave --seed out" in err


# ---- what cannot be


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["story", "  "], "the prompt is empty"),
        (["story", "fox " * 10_000], "the prompt has 10,000 words"),
        (["story", "a fox", "--images", "0"], "0 were asked for; 1 to 64 can be"),
        (["story", "a fox", "--images", "500"], "500 were asked for"),
        (["story", "a fox", "--image", "nowhere.png"], "nowhere.png: cannot be read: no such file"),
        (["story", "a fox", "--image", "."], "is a folder"),
        (["story", "a fox", "--language", "Klingon!"], "is no language code"),
        (["story", "a fox", "--device", "banana"], "device 'banana' cannot be used here"),
        (["render", "nowhere.md"], "nowhere.md cannot be read"),
        (["resume", "nowhere"], "nowhere is no folder"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_writes_nothing(weaver, arguments, said):
    code, out, err = weaver(*arguments)
    assert code == cli.ERROR and out == ""
    assert said in err and "Traceback" not in err
    assert os.listdir() == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["stori"], ["story"], ["story", "x", "--size", "big"], ["story", "x", "--aspect", "1:0"], ["story", "x", "--mode", "z"]],
)
def test_wrong_usage_has_its_own_exit_code(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == cli.USAGE and "usage: weaver" in capsys.readouterr().err


def test_debug_shows_where_an_error_came_from(weaver):
    from weaver_core.errors import InputError

    with pytest.raises(InputError):
        weaver("story", "", "--debug")


def test_a_missing_model_folder_is_said(weaver, tmp_path):
    code, _, err = weaver("story", "a fox", "--model", str(tmp_path / "nowhere"), model=False)
    assert code == cli.ERROR and "there is no model folder" in err


def test_words_that_the_small_world_does_not_know_are_said(capsys):
    display = Display()
    cli._warn_of_unknown_words(Request(prompt="a dragon on the moon"), display)
    err = capsys.readouterr().err
    assert "dragon" in err and "fox" in err and display.warnings


@pytest.mark.parametrize("command", [[], ["story"], ["plan"], ["render"], ["resume"], ["scores"]])
def test_help_is_there(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "usage: weaver" in text
    if not command:
        assert "exit codes: 0 everything done" in text and "weaver resume" in text


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert re.match(r"weaver (\d+\.\d+\.\d+|\(not installed\))", capsys.readouterr().out)


# ---- Ctrl-C


def test_ctrl_c_keeps_what_is_drawn_and_resume_goes_on(weaver, tmp_path, model_folder):
    Path("plan.md").write_text(PLAN)
    assert weaver("render", "plan.md", "--out", "whole")[0] == cli.OK
    command = [sys.executable, "-m", "weaver_core.cli", "render", str(tmp_path / "plan.md"), "--out", "cut"]
    command += ["--model", model_folder, "--steps", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            assert not any(name in line for name in ("torchao", "bitsandbytes", "gemm_4bit", "pytree")), "libraries talk of one another"
            if line.startswith("p1: drawn"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        code = process.wait(timeout=120)
    finally:
        process.kill()
    assert "Traceback" not in rest
    if code == cli.INTERRUPTED:  # the second image may have been faster than the signal
        assert "stopped; go on with: weaver resume cut" in rest
    else:
        assert code == cli.OK
    assert weaver("resume", "cut")[0] == cli.OK
    assert drawn("cut") == drawn("whole")


def test_ctrl_c_before_anything_was_begun_says_so(weaver, monkeypatch):
    def interrupted(options, writer):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_load_pair", interrupted)
    code, _, err = weaver("story", "a fox")
    assert code == cli.INTERRUPTED and "stopped; nothing was begun" in err and os.listdir() == []
