"""`weaver doctor`: what it says of this machine, of a ComfyUI folder that it only reads, and of card sizes."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tiny_chat_models

from weaver_core.card_table import IMAGE_MODELS
from weaver_core.comfyui_folder import FILES, PLACES, look_at
from weaver_core.doctor import EXTRAS, MIN_PYTHON, REQUIRED, examine, report
from weaver_core.doctor_command import add_doctor_arguments, run_doctor
from weaver_core.errors import InputError
from weaver_core.visualizers.graph import families

ROOT = Path(__file__).resolve().parents[1]
KLEIN = ("diffusion_models/flux-2-klein-4b-fp8.safetensors", "text_encoders/qwen_3_4b.safetensors", "vae/flux2-vae.safetensors")
OLD_NODES = ("EmptyFlux2LatentImage", "Flux2Scheduler", "ReferenceLatent", "TextEncodeQwenImageEditPlus", "CFGNorm",
             "FluxKontextMultiReferenceLatentMethod", "ManualSigmas")  # fmt: skip


def weights_file(path: Path) -> Path:
    """The smallest file that is one."""
    import numpy
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": numpy.zeros(2, dtype=numpy.float32)}, path)
    return path


@pytest.fixture
def comfyui(tmp_path):
    """A ComfyUI folder of an older version; every file of code in it would tell when it were run."""
    folder = tmp_path / "ComfyUI"
    trap = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    (folder / "comfy").mkdir(parents=True)
    (folder / "comfy_extras").mkdir()
    (folder / "custom_nodes").mkdir()
    for place in ("__init__.py", "comfy/__init__.py", "main.py", "nodes.py"):
        (folder / place).write_text(trap)
    (folder / "comfyui_version.py").write_text(f'{trap}__version__ = "0.3.75"\n')
    code = "".join(f"class {name}(io.ComfyNode):\n    pass\n" for name in OLD_NODES)
    (folder / "comfy_extras" / "nodes_flux.py").write_text(trap + code + 'NODES = {"ImageStitch": 1, "FluxKontextImageScale": 2}\n')
    (folder / "custom_nodes" / "later.py").write_text("class FluxKVCache:\n    pass\n")
    yield folder
    assert not (tmp_path / "ran").exists(), "code of the folder was run"


def family(state, name):
    return next(item for item in state.families if item.name == name)


def examples(item) -> list[str]:
    return [file.example for file in item.missing]


# ---- a ComfyUI folder


def test_a_family_is_ready_when_its_files_and_nodes_are_there(comfyui):
    for name in KLEIN:
        weights_file(comfyui / "models" / name)
    state = look_at(comfyui)
    assert state.version == "0.3.75"
    assert [item.name for item in state.families if item.is_ready] == ["flux2-klein"]
    assert set(family(state, "flux2-klein").found) == {name.split("/")[1] for name in KLEIN}


@pytest.mark.parametrize("left_out", KLEIN)
def test_a_missing_file_is_told_by_the_name_that_users_know(left_out, comfyui):
    for name in KLEIN:
        if name != left_out:
            weights_file(comfyui / "models" / name)
    item = family(look_at(comfyui), "flux2-klein")
    assert not item.is_ready and examples(item) == [left_out.split("/")[1]]


def test_the_larger_klein_wants_the_larger_text_encoder(comfyui):
    for name in ("unet/FLUX.2-klein-9B-Q4_K_M.gguf", "clip/qwen_3_4b.safetensors", "vae/flux2-vae.safetensors"):
        weights_file(comfyui / "models" / name)
    assert examples(family(look_at(comfyui), "flux2-klein")) == ["qwen_3_8b_fp8mixed.safetensors"]


@pytest.mark.parametrize(
    ("file", "name"),
    [("unet/sub/FLUX.2-klein-4B-Q4_K_M.gguf", "flux2-klein"), ("diffusion_models/flux-2-klein-base-9b-fp8.safetensors", "flux2-klein-base"),
     ("diffusion_models/flux-2-klein-9b-kv-fp8.safetensors", "flux2-klein-kv"), ("unet/Qwen-Image-Edit-2511-Q4_K_S.gguf", "qwen-image-edit-2511"),
     ("diffusion_models/qwen_image_edit_2509_bf16.safetensors", "qwen-image-edit-2509"), ("unet/qwen-image-Q8_0.gguf", "qwen-image"),
     ("diffusion_models/qwen_image_2.1_turbo_int8_convrot.safetensors", "qwen-image-2.1"), ("checkpoints/juggernautXL_v9.safetensors", "sdxl"),
     ("unet/flux1-kontext-dev-Q5_K_M.gguf", "flux-kontext"), ("diffusion_models/z_image_turbo_bf16.safetensors", "z-image")],
)  # fmt: skip
def test_published_and_converted_names_belong_to_their_family_alone(file, name, comfyui):
    weights_file(comfyui / "models" / file)
    kinds = ("model", "checkpoint")
    has_model = {item.name for item in look_at(comfyui).families if item.found and not {file.kind for file in item.missing} & set(kinds)}
    assert has_model == {name}


def test_a_missing_node_is_told_with_the_version_that_has_it(comfyui):
    needs = {need.node: need.since for need in family(look_at(comfyui), "qwen-image-2.1").nodes}
    assert needs == {"TextEncodeQwenImage21": "0.37.0", "QwenImage21Cache": "0.37.0"}


def test_a_node_that_lacks_a_choice_is_missing_and_custom_nodes_do_not_count(comfyui):
    state = look_at(comfyui)
    assert [need.choice for need in family(state, "qwen-image-edit-2511").nodes] == ["index_timestep_zero"]
    assert [need.node for need in family(state, "flux2-klein-kv").nodes] == ["FluxKVCache"]
    path = comfyui / "comfy_extras" / "nodes_flux.py"
    path.write_text(path.read_text() + 'METHODS = ["offset", "index_timestep_zero"]\n')
    assert not family(look_at(comfyui), "qwen-image-edit-2511").nodes


def test_damaged_files_are_told(comfyui):
    for name in KLEIN:
        weights_file(comfyui / "models" / name)
    (comfyui / "models" / KLEIN[0]).write_text("<html>you are not logged in</html>")
    whole = (comfyui / "models" / KLEIN[1]).read_bytes()
    (comfyui / "models" / KLEIN[1]).write_bytes(whole[:-1])
    (comfyui / "models" / "unet").mkdir()
    (comfyui / "models" / "unet" / "flux-2-klein-4b-Q4_0.gguf").write_bytes(b"version https://git-lfs")
    said = "\n".join(look_at(comfyui).damaged)
    assert len(said.splitlines()) == 3
    assert re.search(r"4b-fp8.*no \.safetensors", said) and re.search(r"qwen_3_4b.*cut short", said) and re.search(r"Q4_0.*no GGUF", said)


def test_the_portable_folder_around_comfyui_will_do(comfyui):
    assert look_at(comfyui.parent).folder == comfyui


def test_further_model_folders_are_looked_at_when_the_user_names_them(comfyui, tmp_path):
    weights_file(tmp_path / "shared" / "checkpoints" / "sd_xl_base_1.0.safetensors")
    (comfyui / "extra_model_paths.yaml").write_text(f"comfyui:\n  base_path: {tmp_path / 'shared'}\n  checkpoints: checkpoints\n")
    alone = look_at(comfyui)
    assert not family(alone, "sdxl").is_ready and "--models" in alone.notes[0]
    assert family(look_at(comfyui, [tmp_path / "shared"]), "sdxl").is_ready


def test_gguf_files_need_a_custom_node_that_loads_them(comfyui):
    weights_file(comfyui / "models" / "unet" / "flux-2-klein-4b-Q4_0.gguf")
    assert any("ComfyUI-GGUF" in note for note in look_at(comfyui).notes)
    (comfyui / "custom_nodes" / "ComfyUI-GGUF").mkdir()
    assert not look_at(comfyui).notes


def test_links_that_lead_in_circles_end(comfyui):
    weights_file(comfyui / "models" / "checkpoints" / "sd_xl_base_1.0.safetensors")
    (comfyui / "models" / "checkpoints" / "again").symlink_to(comfyui / "models", target_is_directory=True)
    assert family(look_at(comfyui), "sdxl").found == ("sd_xl_base_1.0.safetensors",)


def test_checkpoints_of_unknown_names_are_mentioned(comfyui):
    weights_file(comfyui / "models" / "checkpoints" / "dreamshaper_8.safetensors")
    assert any("dreamshaper_8" in note for note in look_at(comfyui).notes)


@pytest.mark.parametrize("where", ["nowhere", "empty"])
def test_a_folder_that_is_no_comfyui_is_refused(where, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="main.py"):
        look_at(tmp_path / where)


# ---- tables that must keep up


def test_every_family_has_its_files_and_every_example_fits_its_pattern():
    assert set(FILES) == set(families()) - {"text-to-image"}  # which takes whatever there is
    for sets in FILES.values():
        for file in (file for files in sets for file in files):
            assert file.kind in PLACES and file.matches(file.example), file


def test_no_example_is_taken_for_another_familys_model():
    own = {name: {file.example for files in sets for file in files if file.kind == "model"} for name, sets in FILES.items()}
    for name, sets in FILES.items():
        for file in (file for files in sets for file in files if file.kind == "model"):
            for other, names in own.items():
                assert other == name or not [example for example in names if file.matches(example)], (name, other)


def test_the_files_that_our_workflows_name_are_known():
    known = [file for sets in FILES.values() for files in sets for file in files]
    named = {name for path in (ROOT / "workflows").glob("*.json") for name in re.findall(r'"([^"/]+\.(?:safetensors|gguf))"', path.read_text())}
    loras = {name for name in named if "lightning" in name.lower() or "lora" in name.lower()}
    assert named - loras
    assert not [name for name in named - loras if not any(file.matches(name) for file in known)]


def test_card_sizes_speak_of_families_that_exist():
    assert not {name for model in IMAGE_MODELS for name in model.families} - set(families())


def test_packages_and_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def least(lines):
        return dict(re.sub(r"\[.*?\]", "", line).split(">=") for line in lines)

    assert least(project["dependencies"]) == REQUIRED
    told = {name: lines for name, lines in project["optional-dependencies"].items() if name not in ("test", "dev")}
    assert {name: least(lines) for name, lines in told.items()} == {name: wanted for name, (_, wanted) in EXTRAS.items()}
    assert project["requires-python"] == ">=" + ".".join(map(str, MIN_PYTHON))


# ---- the command


def doctor(*arguments: str) -> int:
    """Runs the command as `weaver doctor` does."""
    parser = argparse.ArgumentParser()
    for name in ("--quiet", "--json", "--debug"):
        parser.add_argument(name, action="store_true")
    add_doctor_arguments(parser)
    return run_doctor(parser.parse_args(arguments))


@pytest.fixture(scope="module")
def facts():
    return examine()


def test_the_embedded_model_runs_here(facts, capsys):
    from weaver_core.model.checkpoint import WeaverModel

    assert facts["ok"] and not facts["problems"]
    assert facts["native_model"]["fingerprint"] == WeaverModel.from_pretrained().fingerprint
    assert doctor("--quiet") == 0
    assert capsys.readouterr().out.startswith("The picture-book model can run here")


def test_a_model_that_does_not_load_is_the_exit_code(tmp_path, capsys):
    assert doctor("--quiet", "--model", str(tmp_path)) == 1
    assert "cannot run: the native model does not load" in capsys.readouterr().out


def test_json_holds_what_the_text_says(comfyui, tmp_path, capsys):
    for name in KLEIN:
        weights_file(comfyui / "models" / name)
    folder = tiny_chat_models.writing(tmp_path / "planner")
    assert doctor("--json", "--comfyui", str(comfyui), "--estimate", str(folder)) == 0
    told = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in told["comfyui"]["families"] if item["ready"]] == ["flux2-klein"]
    assert told["estimates"][0]["parts"]["model"]["as stored"] == 2 * told["estimates"][0]["parts"]["model"]["bfloat16"]
    text = report(told)
    assert "ready  flux2-klein" in text and "ComfyUI 0.3.75" in text and "bfloat16: about" in text
    assert "ComfyUI 0.37.0 or newer (for TextEncodeQwenImage21, QwenImage21Cache)" in " ".join(text.split())
    # Only a path that cannot be broken may be longer than a line.
    assert not [line for line in text.splitlines() if len(line) > 100 and str(tmp_path) not in line]


def test_card_sizes_are_called_estimates(facts):
    text = report(facts)
    assert "estimated, not measured" in text and all(f"{size} GB" in text for size in (8, 12, 16, 24))
    assert facts["cards"]["estimated"] is True


def test_a_card_in_this_machine_gets_its_own_column(facts):
    from weaver_core.doctor import _cards

    card = {"name": "a card", "vram": 32 * 2**30, "free": None, "bf16": True}
    full = facts | {"gpus": facts["gpus"] | {"devices": [card]}, "cards": _cards([card])}
    text = report(full)
    assert "this card" in text and "a card: 32.0 GB VRAM, unknown free, bf16 yes" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_native_pair_has_sizes_but_no_estimate_of_a_pipeline():
    from weaver_core.doctor import _estimated
    from weaver_core.model.checkpoint import default_folder

    told = _estimated(default_folder())
    assert set(told["parts"]) == {"planner", "visualizer", "vae"} and told["at_work"] == {}


def test_models_without_comfyui_is_wrong_usage():
    with pytest.raises(InputError, match="--comfyui"):
        doctor("--models", "somewhere")


def test_a_machine_without_torch_is_told_so_and_nothing_fails():
    code = (
        "import sys, json; sys.modules['torch'] = None\n"
        "from weaver_core.doctor import examine, report\n"
        "facts = examine(); print(json.dumps([facts['ok'], facts['gpus']['torch'], facts['problems'], report(facts)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    ok, torch, problems, text = json.loads(done.stdout.splitlines()[-1])
    assert ok is False and torch is None and any("does not load" in problem for problem in problems)
    assert "torch cannot be used" in text and "cannot run" in text


@pytest.mark.parametrize("module", ["memory", "card_table", "comfyui_folder", "doctor", "doctor_command"])
def test_nothing_heavy_is_imported_before_it_is_used(module):
    code = f"import sys, weaver_core.{module}; print(sorted({{'torch', 'transformers', 'diffusers', 'typst', 'numpy', 'PIL'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
