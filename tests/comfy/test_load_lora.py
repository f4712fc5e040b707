"""Load LoRA in a real ComfyUI: its pages are those of the library bit for bit, and the weights are whole again afterwards."""

from __future__ import annotations

import io

import pytest
import torch
from graphs import node_of
from PIL import Image
from safetensors.torch import save_file

from weaver_core.model.checkpoint import WeaverModel
from weaver_core.model.lora import with_loras
from weaver_core.plan import parse_markup
from weaver_core.planners.native import NativePlanner
from weaver_core.request import RenderSettings, Request
from weaver_core.visualizers.native import NativeVisualizer
from weaver_core.weave import weave_plan

MARKUP = "# Robin\n<imagine seed=\"5\">A small orange fox sits in a den, soft morning light.</imagine>\n"


@pytest.fixture(scope="module")
def loras(comfy):
    """Two LoRAs for the shipped pair and one for something else, in models/loras."""
    folder = comfy.folder / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    twin = WeaverModel.from_pretrained().visualizer
    generator = torch.Generator().manual_seed(0)
    for name, layers, alpha in (("one", ("blocks.0.qkv", "blocks.3.down"), None), ("two", ("blocks.0.qkv", "blocks.5.out"), 2.0)):
        tensors = {}
        for layer in layers:
            rows, columns = twin.get_submodule(layer).weight.shape
            tensors[f"diffusion_model.{layer}.lora_A.weight"] = 0.1 * torch.randn(4, columns, generator=generator)
            tensors[f"diffusion_model.{layer}.lora_B.weight"] = 0.1 * torch.randn(rows, 4, generator=generator)
            if alpha is not None:
                tensors[f"diffusion_model.{layer}.alpha"] = torch.tensor(alpha)
        save_file(tensors, folder / f"weaver-{name}.safetensors")
    save_file({"lora_unet_input_blocks_1.lora_up.weight": torch.ones(2, 2)}, folder / "weaver-foreign.safetensors")
    return folder


def graph(loras: list[tuple[str, float]]) -> dict:
    prompt = {"model": {"class_type": "WeaverLoadModel", "inputs": {"model": "picture-book (embedded)", "dtype": "float32", "device": "cpu"}},
              "plan": {"class_type": "WeaverWritePlan", "inputs": {"markup": MARKUP}}}
    last = ["model", 0]
    for number, (name, strength) in enumerate(loras):
        prompt[f"lora{number}"] = {"class_type": "WeaverLoadLora", "inputs": {
            "weaver_model": last, "lora": f"weaver-{name}.safetensors", "strength": strength}}
        last = [f"lora{number}", 0]
    prompt["draw"] = {"class_type": "WeaverVisualizePlan", "inputs": {
        "weaver_model": last, "plan": ["plan", 0], "seed": 1, "steps": 2, "guidance": 0, "reference_guidance": 0, "check_images": False}}
    prompt["show"] = {"class_type": "PreviewImage", "inputs": {"images": ["draw", 1]}}
    return prompt


def page_of(comfy, prompt) -> bytes:
    run = comfy.run(prompt)
    assert run.ended == "execution_success", run.end
    shown = run.output(node_of(prompt, "PreviewImage"))["images"][0]
    path = comfy.folder / shown["type"] / shown["subfolder"] / shown["filename"]
    return Image.open(io.BytesIO(path.read_bytes())).convert("RGB").tobytes()


def page_of_library(folder, loras: list[tuple[str, float]]) -> bytes:
    model = WeaverModel.from_pretrained(device="cpu", dtype=torch.float32)
    model = with_loras(model, [(folder / f"weaver-{name}.safetensors", strength) for name, strength in loras])
    plan, _ = parse_markup(MARKUP)
    events = weave_plan(plan, NativeVisualizer(model), planner=NativePlanner(model), request=Request(prompt=plan.title or "a story", seed=1),
                        settings=RenderSettings(steps=2, check_images=False))
    return next(event.image for event in events if hasattr(event, "rendering") and hasattr(event, "image")).tobytes()


def test_chained_loras_draw_what_the_library_draws_and_leave_the_model_as_it_was(comfy, loras):
    chain = [("one", 1.0), ("two", -0.5)]
    with_two, bare, with_one = (page_of(comfy, graph(names)) for names in (chain, [], chain[:1]))
    assert len({with_two, bare, with_one}) == 3
    assert with_two == page_of_library(loras, chain)
    assert bare == page_of_library(loras, [])
    assert with_one == page_of_library(loras, chain[:1])


def test_a_file_for_another_model_is_refused_with_a_sentence(comfy, loras):
    run = comfy.run(graph([("foreign", 1.0)]))
    assert run.ended == "execution_error"
    assert "does not fit this visualizer: 1 of its 1 keys name none of its layers" in str(run.end)
