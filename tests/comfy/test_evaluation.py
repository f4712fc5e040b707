"""The three evaluation nodes, and `weaver eval run --backend comfy`, with a real ComfyUI."""

from __future__ import annotations

import json

import pytest
from judge_server import JudgeServer

from weaver_core.cli import main
from weaver_core.evaluation.run_folder import RunFolder

MARKUP = """# Pip at the beach
<cast name="Pip">
Pip runs. <imagine cast="Pip">A small red fox stands on the left, at the beach by day.</imagine>
Pip sits. <imagine cast="Pip">A small red fox sits on the right, at the beach by day.</imagine>
"""
MODEL = {"class_type": "WeaverLoadModel", "inputs": {"model": "picture-book (embedded)", "dtype": "auto", "device": "cpu"}}
FEW_STEPS = {"steps": 2, "guidance": 0, "reference_guidance": 0}
TEXT_ONLY = "story-021"  # asks for two images


@pytest.fixture
def judge():
    server = JudgeServer()
    yield server
    server.close()


def visualize(seed: int) -> dict:
    return {"class_type": "WeaverVisualizePlan", "inputs": {"weaver_model": ["1", 0], "plan": ["2", 0], "seed": seed} | FEW_STEPS}


def text_of(source: list) -> dict:
    return {"class_type": "PreviewAny", "inputs": {"source": source}}


def test_stories_are_measured_judged_and_compared(comfy, judge):
    run = comfy.run({
        "1": MODEL,
        "2": {"class_type": "WeaverWritePlan", "inputs": {"markup": MARKUP}},
        "3": visualize(5),
        "4": visualize(6),
        "10": {"class_type": "WeaverEvaluateStory", "inputs": {"story": ["3", 0]}},
        "11": text_of(["10", 1]),
        "20": {"class_type": "WeaverJudgeStory", "inputs": {
            "story": ["3", 0], "url": judge.url, "model": "eye-1", "mode": "joint", "timeout_s": 30,
        }},
        "21": text_of(["20", 0]),
        "22": text_of(["20", 2]),
        "30": {"class_type": "WeaverCompareStories", "inputs": {
            "story_a": ["3", 0], "story_b": ["4", 0], "name_a": "five", "name_b": "six", "filename_prefix": "compare/seeds",
        }},
    })  # fmt: skip
    assert run.ended == "execution_success", run.end
    measures = json.loads(run.output("11")["text"][0])["values"]
    assert measures["image_count"] == 1.0 and 0.0 <= measures["builtin:diversity"] <= 1.0
    assert "image_count: 1.00" in run.output("10")["text"][0]
    scores = json.loads(run.output("22")["text"][0])["values"]
    assert len(judge.requests) == 1 and float(run.output("21")["text"][0]) == pytest.approx(scores["Overall"])
    (file,) = run.output("30")["text"]
    page = (comfy.output / file).read_text(encoding="utf-8")
    assert file.startswith("compare/seeds_") and page.count("data:image/") >= 4 and "five" in page and "six" in page


def test_the_command_line_measures_a_workflow(comfy, judge, tmp_path, capsys):
    workflow = {
        "1": MODEL,
        "2": {"class_type": "WeaverPlan", "_meta": {"title": "prompt"},
              "inputs": {"weaver_model": ["1", 0], "prompt": "", "num_images": 0, "seed": 0, "temperature": 0.7}},
        "3": visualize(0),
        "4": {"class_type": "WeaverPreviewStory", "inputs": {"story": ["3", 0]}},
    }  # fmt: skip
    (tmp_path / "story_api.json").write_text(json.dumps(workflow))
    command = ["eval", "run", "--dataset", "weaver-style", "--ids", TEXT_ONLY, "--judge-url", judge.url, "--judge-model", "eye-1",
               "--out", str(tmp_path / "run"), "--backend", "comfy", "--comfy-url", comfy.url, "--workflow", str(tmp_path / "story_api.json"),
               "--set", "seed=3.seed", "--set", "num_images=2.num_images"]  # fmt: skip
    assert main(command) == 0, capsys.readouterr().err
    run = RunFolder.open(tmp_path / "run")
    (document,) = run.documents()
    assert document.finish == "stop" and len(document.images) == 2 and any(block.type == "text" for block in document.blocks)
    assert all(image.dense_prompt and (run.folder / image.path).is_file() for image in document.images)
    assert (tmp_path / "run" / "report.html").is_file() and len(judge.requests) == len(run.judge_records()) == 5
    assert main([*command, "--quiet"]) == 0 and len(judge.requests) == 5, "a repeated run asks for nothing"
