"""Load Diffusers Visualizer in a real ComfyUI, with a tiny Flux.2 Klein in models/diffusers."""

from __future__ import annotations

import io
import json

import pytest
import tiny_pipelines
from comfy_process import REPOSITORY, ComfyProcess
from graphs import PROBE_PACK, api_prompt, memory_probe, node_of, ran
from PIL import Image

MARKUP = """# Two friends
<imagine id="p1" cast="Robin" size="256x256">Robin the fox stands on a hill.</imagine>
<imagine id="p2" cast="Robin" size="256x256">Robin the fox sits at a river.</imagine>
"""
TRANSFORMER = "Flux2Transformer2DModel"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    process = ComfyProcess(tmp_path_factory.mktemp("pipelines"), extra_packs=(PROBE_PACK,))
    tiny_pipelines.save("flux2-klein", process.folder / "models" / "diffusers" / "FLUX.2-klein-4B")
    with process:
        yield process


@pytest.fixture(scope="module")
def shipped(host) -> dict:
    """The workflow as an API prompt, with small pages and the probe behind them."""
    workflow = json.loads((REPOSITORY / "workflows" / "story_with_diffusers.json").read_text(encoding="utf-8"))
    prompt = api_prompt(workflow, host.get("/object_info"))
    prompt[node_of(prompt, "WeaverWritePlan")]["inputs"]["markup"] = MARKUP
    prompt["probe"] = memory_probe([node_of(prompt, "WeaverVisualizePlan"), 0], TRANSFORMER)
    return prompt


def changed(prompt: dict, kind: str, **values) -> dict:
    prompt = json.loads(json.dumps(prompt))
    prompt[node_of(prompt, kind)]["inputs"] |= values
    return prompt


def test_the_workflow_draws_its_plan_and_frees_the_model_unless_it_is_kept(host, shipped):
    done = []
    run = ran(host, shipped, on_message=lambda kind, data: done.append(data["value"]) if kind == "progress" else None)
    assert run.output("probe")["alive"] == [0]
    assert 8 in done and sorted(done) == done, "two pages of four steps move one bar"
    page = max(host.output.rglob("images/p2-*.png"), key=lambda path: path.stat().st_mtime)
    assert Image.open(io.BytesIO(page.read_bytes())).size == (256, 256)
    journal = next(host.output.glob("weaver/*/story.jsonl")).read_text()
    assert '"visualizer": "diffusers-flux2-klein-' in journal.replace('":"', '": "') and '"source": "p1"' in journal.replace('":"', '": "')

    again = ran(host, changed(shipped, "WeaverVisualizePlan", steps=1))
    assert node_of(shipped, "WeaverLoadDiffusers") not in again.executed() and again.output("probe")["alive"] == [0]
    kept = ran(host, changed(changed(shipped, "WeaverLoadDiffusers", keep_loaded=True), "WeaverVisualizePlan", steps=2))
    assert kept.output("probe")["alive"] == [1]
    freed = ran(host, changed(shipped, "WeaverVisualizePlan", steps=3))
    assert freed.output("probe")["alive"] == [0], "what was kept leaves with the first run that does not want it"


def test_interrupt_stops_at_the_next_step_and_frees_the_model(host, shipped):
    def stop_early(kind, data):
        if kind == "progress" and data["value"] >= 2:
            host.post("/interrupt", {})

    slow = changed(shipped, "WeaverVisualizePlan", steps=150, seed=99)
    run = host.run(slow, on_message=stop_early)
    assert run.ended == "execution_interrupted"
    last = max(data["value"] for kind, data in run.messages if kind == "progress")
    assert last < 150
    assert ran(host, shipped).output("probe")["alive"] == [0]


@pytest.mark.parametrize(("kind", "values", "message"), [
    ("WeaverLoadDiffusers", {"quantization": "nf4", "offload": "group"}, "4-bit weights cannot come to the device layer by layer"),
    ("WeaverVisualizePlan", {"weaver_model": None}, "Weaver Plan got Flux.2 Klein (FLUX.2-klein-4B), which draws and cannot write"),
])  # fmt: skip
def test_what_cannot_be_is_said_in_a_sentence(host, shipped, kind, values, message):
    if kind == "WeaverLoadDiffusers":
        prompt = changed(shipped, kind, **values)
    else:
        prompt = {
            "1": shipped[node_of(shipped, "WeaverLoadDiffusers")],
            "2": {"class_type": "WeaverPlan", "inputs": {"weaver_model": ["1", 0], "prompt": "A fox", "num_images": 1, "seed": 1,
                                                         "temperature": 0.7}},
            "3": memory_probe(["2", 0], TRANSFORMER),
        }  # fmt: skip
    run = host.run(prompt)
    assert run.ended == "execution_error" and message in run.end["exception_message"]
