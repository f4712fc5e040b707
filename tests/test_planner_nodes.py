"""Which models Plan with a Local Model offers, and that a key goes only to the server it is for."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest

from weaver_core.planners import http_address

REPOSITORY = Path(__file__).resolve().parents[1]
SERVER_NODE = REPOSITORY / "nodes" / "plan_with_server.py"


@pytest.fixture
def roots(tmp_path):
    return [tmp_path / "first", tmp_path / "second"]


@pytest.fixture
def host(roots, monkeypatch):
    """nodes/host.py with the folders of `roots` as models/LLM; of ComfyUI there is only what its import needs."""
    folder_paths = types.ModuleType("folder_paths")
    folder_paths.get_folder_paths = {"LLM": [str(root) for root in roots]}.__getitem__
    comfy = types.ModuleType("comfy")
    comfy.model_management, comfy.utils = types.ModuleType("comfy.model_management"), types.ModuleType("comfy.utils")
    spec = importlib.util.spec_from_file_location(
        "weaver_pack", REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
    )
    pack = importlib.util.module_from_spec(spec)
    stand_ins = {"weaver_pack": pack, "folder_paths": folder_paths, "comfy": comfy,
                 "comfy.model_management": comfy.model_management, "comfy.utils": comfy.utils}  # fmt: skip
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(pack)
    yield importlib.import_module("weaver_pack.nodes.host")
    for name in [name for name in sys.modules if name.startswith("weaver_pack.")]:
        del sys.modules[name]


def model(folder: Path, *, weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / weights).write_bytes(b"")
    return folder


def test_a_folder_with_config_and_safetensors_is_offered_under_its_path(host, roots):
    direct = model(roots[0] / "SmolLM2")
    below = model(roots[0] / "Qwen-VL" / "Qwen3-VL-4B-Instruct", weights="model-00001-of-00002.safetensors")
    cached = model(roots[0] / "models--a--b" / "snapshots" / "0123abcd")
    assert host.planner_names() == ["Qwen-VL/Qwen3-VL-4B-Instruct", "SmolLM2", "models--a--b/snapshots/0123abcd"]
    assert [host.planner_path(name) for name in host.planner_names()] == [below, direct, cached]


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.pth", "readme.md"])
def test_a_folder_without_safetensors_is_not_offered(host, roots, weights):
    model(roots[0] / "old", weights=weights)
    assert host.planner_names() == []


def test_gguf_files_are_offered_and_projectors_are_not(host, roots):
    roots[0].mkdir()
    for name in ("fox-Q4_K_M.gguf", "mmproj-fox-f16.gguf", "notes.txt"):
        (roots[0] / name).write_bytes(b"")
    assert host.planner_names() == ["fox-Q4_K_M.gguf"]
    assert host.planner_path("fox-Q4_K_M.gguf") == roots[0] / "fox-Q4_K_M.gguf"


def test_what_lies_inside_a_model_is_part_of_it(host, roots):
    model(model(roots[0] / "fox") / "draft")
    assert host.planner_names() == ["fox"]


def test_hidden_folders_are_left_alone_and_a_folder_that_holds_itself_ends(host, roots):
    model(roots[0] / ".cache" / "fox")
    (roots[0] / "loop").symlink_to(roots[0], target_is_directory=True)
    model(roots[0] / "owl")
    assert host.planner_names() == ["loop/loop/owl", "loop/owl", "owl"]


def test_of_two_models_of_one_name_the_first_folder_has_it(host, roots):
    first, _ = model(roots[0] / "fox"), model(roots[1] / "fox")
    model(roots[1] / "owl")
    assert host.planner_names() == ["fox", "owl"] and host.planner_path("fox") == first


def lora(folder: Path, base: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize("base", ["owl", "Qwen/owl", "/where/it/was/trained/Qwen/owl/", r"C:\\models\\owl"])
def test_a_lora_is_offered_and_brings_the_model_that_it_names(host, roots, base):
    owl, mine = model(roots[0] / "Qwen" / "owl"), lora(roots[1] / "my-stories", base)
    assert host.planner_names() == ["Qwen/owl", "my-stories"]
    assert host.planner_and_lora("my-stories") == (owl, mine) and host.planner_and_lora("Qwen/owl") == (owl, None)


def test_of_two_models_the_lora_has_the_one_whose_maker_it_names(host, roots):
    model(roots[0] / "Other" / "owl")
    owl = model(roots[0] / "Qwen" / "owl")
    assert host.planner_and_lora(lora(roots[0] / "mine", "Qwen/owl").name)[0] == owl


@pytest.mark.parametrize(("base", "message"), [
    ("Qwen/fox", "the LoRA mine is for fox, which is not under models/LLM"), ("mine", "is for mine, which is not"),
    (None, "does not say which model"), ("", "does not say which model"), (7, "does not say which model"),
])  # fmt: skip
def test_a_lora_without_its_model_is_told_in_a_sentence(host, roots, base, message):
    model(roots[0] / "owl")
    lora(roots[0] / "mine", base)
    with pytest.raises(ValueError, match=message):
        host.planner_and_lora("mine")


@pytest.mark.parametrize("name", ["../outside", "fox/../../outside", "", ".", "nothing"])
def test_a_name_that_is_not_offered_has_no_path(host, roots, name):
    model(roots[0] / "fox")
    model(roots[0].parent / "outside")
    with pytest.raises(ValueError, match="no chat model .* under models/LLM; there is fox"):
        host.planner_path(name)
    with pytest.raises(ValueError, match="there is fox"):
        host.planner_path(str(roots[0].parent / "outside"))


def test_without_any_model_the_message_says_where_to_put_one(host):
    assert host.planner_names() == []
    with pytest.raises(ValueError, match="there is none yet; put the folder of one there"):
        host.planner_path("fox")


# ---- keys


def test_the_node_asks_for_a_key_that_is_bound_to_its_server():
    """Without `bound`, a stranger's workflow could name an address and be sent the key."""
    tree = ast.parse(SERVER_NODE.read_text(encoding="utf-8"))
    calls = {node.func.id: node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    bound = {word.arg: getattr(word.value, "value", None) for word in calls["key_from_environment"].keywords}
    assert bound == {"bound": True}
    assert "api_key" in {word.arg for word in calls["HttpPlanner"].keywords}, "without it the planner takes an unbound key"


def test_a_bound_key_goes_to_its_own_server_only():
    environment = {"WEAVER_API_KEY": "k", "WEAVER_API_URL": "https://mine.example/v1", "OPENAI_API_KEY": "o"}
    keys = [http_address.key_from_environment(url, environment, bound=True)
            for url in ("https://mine.example/v1", "https://thief.example/v1", "https://mine.example.thief.example/v1",
                        "https://api.openai.com/v1")]  # fmt: skip
    assert keys == ["k", "", "", "o"]
    del environment["WEAVER_API_URL"]
    assert http_address.key_from_environment("https://thief.example/v1", environment, bound=True) == ""


def test_the_workflow_holds_one_planner_that_runs_and_one_that_is_muted():
    workflow = json.loads((REPOSITORY / "workflows" / "plan_with_your_model.json").read_text(encoding="utf-8"))
    modes = {node["type"]: node["mode"] for node in workflow["nodes"] if node["type"].startswith("WeaverPlan")}
    assert modes == {"WeaverPlanWithServer": 0, "WeaverPlanWithLocalModel": 2}
