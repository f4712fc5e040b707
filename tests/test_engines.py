"""Several processes: every engine takes the steps of one process, and its checkpoints go on in any other."""

import json
import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import tiny_chat_models
import torch
from safetensors.torch import load_file
from test_chat_planner import settings as chat_settings
from test_training import TINY_AUTOENCODER, TINY_PLANNER, losses

from training.config import load_config
from training.train import train

CONFIGS = Path(__file__).resolve().parents[1] / "training" / "configs"
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
SHORT = ["train.steps=4", "train.checkpoint_every_steps=2", "train.accumulate=2", "train.device='cpu'", "train.autocast=false",
         "checks.stories=1", "checks.questions=1", "checks.loss_records=2"]
PLANNER = [*TINY_PLANNER, *SHORT, "model.layers=2"]
AUTOENCODER = [*TINY_AUTOENCODER, *SHORT[:5]]


def planner(*changes):
    return load_config(CONFIGS / "picturebook" / "planner.toml", [*PLANNER, *changes])


def autoencoder(*changes):
    return load_config(CONFIGS / "picturebook" / "autoencoder.toml", [*AUTOENCODER, *changes])


def train_together(count: int, config, run_dir: Path, engine: dict, **how) -> str:
    """Train in so many processes, forked so that nothing has to be imported again; returns what they said. AssertionError if one fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = run_dir.parent / f"{run_dir.name}.log"

    def run(rank: int) -> None:
        torch.set_num_threads(1)  # threads do not live on in a forked process
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": str(port), **engine}
        with open(log, "a", buffering=1, encoding="utf-8") as told:
            sys.stderr = told
            logging.getLogger().handlers = [logging.StreamHandler(told)]
            logging.getLogger().setLevel(logging.INFO)
            try:
                os._exit(0 if train(config, run_dir, **how) else 3)
            except BaseException:
                traceback.print_exc(file=told)
                os._exit(4)

    processes = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(120)
            assert process.exitcode == 0, f"exit code {process.exitcode}:\n{log.read_text(encoding='utf-8')}"
    finally:
        for process in processes:
            process.kill()
    return log.read_text(encoding="utf-8")


def launch(config_file: str, stage: str, run_dir: Path, changes: list[str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "accelerate" / config_file),
               "--num_processes", "2", str(CONFIGS.parent / "train.py"), str(CONFIGS / "picturebook" / stage), "--run-dir", str(run_dir)]
    for change in changes:
        command += ["--set", change]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=run_dir.parent, env=os.environ | {"OMP_NUM_THREADS": "1"})


def assert_same_steps(one: Path, other: Path) -> None:
    assert [step for step, _ in losses(one)] == [step for step, _ in losses(other)]
    assert [loss for _, loss in losses(other)] == pytest.approx([loss for _, loss in losses(one)], rel=1e-5)


def assert_same_checkpoints(one: Path, other: Path, step: int, names=("weights", "optimizer", "ema")) -> None:
    for name in names:
        left, right = (load_file(run / "checkpoints" / f"step_{step:08d}" / f"{name}.safetensors") for run in (one, other))
        assert left.keys() == right.keys()
        for key in left:
            assert left[key].dtype == right[key].dtype and torch.allclose(left[key], right[key], atol=1e-6, rtol=1e-4), f"{name}: {key}"


@pytest.fixture(scope="module")
def planner_alone(tmp_path_factory):
    """A planner with Muon, trained in this process."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    assert train(planner(), run_dir)
    return run_dir


def test_accelerate_launches_two_processes_that_take_the_steps_of_one(tmp_path):
    assert train(autoencoder(), tmp_path / "one")
    two = launch("ddp_cpu.yaml", "autoencoder.toml", tmp_path / "two", AUTOENCODER)
    assert two.returncode == 0 and "2 processes, each with whole networks" in two.stderr, two.stderr
    assert_same_steps(tmp_path / "one", tmp_path / "two")


def test_accelerate_launches_fsdp2_and_its_steps_checkpoints_and_export_are_those_of_one_process(planner_alone, tmp_path):
    two = launch("fsdp2.yaml", "planner.toml", tmp_path / "two", PLANNER)
    assert two.returncode == 0, two.stderr
    assert "a part of every trained network's weights" in two.stderr and "2 layers are gathered one at a time" in two.stderr
    assert "samples failed" not in two.stderr
    assert_same_steps(planner_alone, tmp_path / "two")
    assert_same_checkpoints(planner_alone, tmp_path / "two", 4)
    one, other = (load_file(run / "export" / "planner" / "model.safetensors") for run in (planner_alone, tmp_path / "two"))
    assert one.keys() == other.keys() and all(torch.allclose(one[key].float(), other[key].float(), atol=1e-2) for key in one)


def test_a_run_goes_on_with_another_number_of_processes(planner_alone, tmp_path):
    grown, shrunk = tmp_path / "grown", tmp_path / "shrunk"
    shutil.copytree(planner_alone, grown)
    assert "continuing at step 2" in train_together(2, planner(), grown, FSDP2, resume="2")
    assert_same_steps(planner_alone, grown)
    assert_same_checkpoints(planner_alone, grown, 4)
    shutil.copytree(grown, shrunk)
    shutil.rmtree(shrunk / "checkpoints" / "step_00000004")
    assert train(planner(), shrunk, resume="newest")
    assert_same_steps(planner_alone, shrunk)
    assert_same_checkpoints(planner_alone, shrunk, 4)


@pytest.mark.parametrize("engine", [{}, FSDP2], ids=["data-parallel", "sharded"])
def test_what_only_some_batches_run_through_learns_as_in_one_process(tmp_path, engine):
    """Batches with pictures and without in one step, and steps in which no batch has any: the eyes then stay as they are."""
    config = planner("train.steps=5", "data.batch_tokens=80", "data.generation_ratio=1.0", "data.short_stories=1.0", "data.bare_captions=0.5",
                     "optimizer.muon=false")
    from training.stages import build_stage

    torch.manual_seed(config.train.seed)
    stage = build_stage(config.stage, config.settings, seed=config.train.seed, run_dir=tmp_path, device="cpu")
    seen = ["pixel_values" in stage.batch(index) for index in range(2 * config.train.steps)]
    steps = set(zip(seen[::2], seen[1::2]))
    assert (False, False) in steps and {(True, False), (False, True)} & steps, seen
    assert train(config, tmp_path / "one")
    train_together(2, config, tmp_path / "two", engine)
    assert_same_steps(tmp_path / "one", tmp_path / "two")
    assert_same_checkpoints(tmp_path / "one", tmp_path / "two", 5)
    rows = [[row for row in map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines()) if "loss" in row] for name in ("one", "two")]
    for one, two in zip(*rows):  # of all batches of a step, whichever process computed them
        assert two["tokens"] == one["tokens"] and two["cross_entropy"] == pytest.approx(one["cross_entropy"], rel=1e-5)


def test_the_tokenizer_of_a_new_run_is_made_by_the_first_process_and_the_others_wait_for_it(tmp_path, monkeypatch):
    from training.stages import planner as module

    made, train_tokenizer = tmp_path / "made", module.train_tokenizer

    def slowly(*how):
        with open(made, "a") as file:
            file.write(f"{os.environ['RANK']}\n")
        time.sleep(1)
        return train_tokenizer(*how)

    monkeypatch.setattr(module, "train_tokenizer", slowly)
    train_together(2, planner("train.steps=1"), tmp_path / "run", {})
    assert made.read_text() == "0\n" and not (tmp_path / "run" / "tokenizer.tmp").exists()


def test_the_autoencoder_is_sharded_with_its_convolutions(tmp_path):
    """Losses only: normalisation cancels some biases, whose gradients are rounding, and AdamW makes full steps of that."""
    config = autoencoder("train.accumulate=3")
    assert train(config, tmp_path / "alone")
    train_together(3, config, tmp_path / "three", FSDP2)
    assert_same_steps(tmp_path / "alone", tmp_path / "three")


def test_the_visualizer_is_sharded_though_only_some_of_its_batches_have_references(pair_folder, tmp_path, monkeypatch):
    from training.stages.visualizer import VisualizerStage

    monkeypatch.setattr(VisualizerStage, "evaluate", lambda stage: {})  # hundreds of pictures, which say nothing about engines
    config = load_config(CONFIGS / "picturebook" / "visualizer.toml", [
        f"planner={pair_folder}", f"autoencoder={pair_folder / 'vae'}", f"init={pair_folder / 'visualizer'}", "data.batch_size=2",
        "model.compile=false", "sample.count=1", "sample.steps=2", *SHORT[:5], "train.workers=0", "train.log_every=1",
        "data.phases=[{until = 1.0, t2i = 0.5, si2i = 0.3, mi2i = 0.2}]", "train.activation_checkpointing=true"])
    assert train(config, tmp_path / "one")
    train_together(2, config, tmp_path / "two", FSDP2)
    assert_same_steps(tmp_path / "one", tmp_path / "two")
    assert_same_checkpoints(tmp_path / "one", tmp_path / "two", 4)


@pytest.mark.parametrize("change", ["lora.rank=4", "model.train_vision=true"])
def test_a_chat_model_is_sharded_layer_by_layer_whole_or_with_a_lora(tmp_path, change):
    base = tiny_chat_models.writing(tmp_path / "model")
    source = tmp_path / "stories.jsonl"
    source.write_text("\n".join(json.dumps({"request": f"Which number is {i}?", "answer": f"It is {i}."}) for i in range(6)))
    config = chat_settings(tmp_path, base, source, change, "train.accumulate=2", "train.activation_checkpointing=true")
    assert train(config, tmp_path / "one")
    told = train_together(2, config, tmp_path / "two", FSDP2)
    assert "2 layers are gathered one at a time" in told
    assert_same_steps(tmp_path / "one", tmp_path / "two")
    assert_same_checkpoints(tmp_path / "one", tmp_path / "two", 2, ("weights", "optimizer"))


def test_eight_bit_moments_cannot_be_cut_and_say_so(tmp_path):
    with pytest.raises(AssertionError, match="optimizer.eight_bit keeps a scale for every 256 numbers.*set it to false"):
        train_together(2, autoencoder("optimizer.eight_bit=true"), tmp_path / "run", FSDP2)
