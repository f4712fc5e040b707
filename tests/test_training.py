"""The training loop and the stages: configs, exact resume, checkpoints that are whole or absent, learning."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_chat_models
import torch
from safetensors.torch import load_file

from training.checkpoints import load_checkpoint, newest_checkpoint
from training.config import OptimizerConfig, load_config
from training.ema import Ema
from training.heap import SHAPES
from training.loop import learning_rate_factor
from training.optimizers import build_optimizers, load_optimizer_tensors, optimizer_tensors

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "training" / "configs" / "picturebook"
TINY_AUTOENCODER = ["train.steps=6", "train.workers=0", "train.log_every=1", "train.evaluate_every=100",
                    "train.checkpoint_every_steps=3", "train.keep_checkpoints=5", "data.batch_size=2", "data.image_size=32",
                    "data.held_out_scenes=2", "model.encoder_widths=[8, 8, 8]", "model.decoder_widths=[8, 8, 8]"]
TINY_PLANNER = ["train.steps=6", "train.workers=0", "train.log_every=1", "train.evaluate_every=100",
                "train.checkpoint_every_steps=3", "train.keep_checkpoints=5", "data.batch_tokens=300", "data.image_size=32",
                "data.tokenizer_stories=60", "model.vocab_size=400", "model.hidden_size=64", "model.layers=1",
                "model.heads=2", "model.kv_heads=1", "model.intermediate_size=64", "model.vision_depth=1",
                "model.vision_hidden=32", "model.vision_heads=2", "model.compile=false", "checks.stories=2",
                "checks.questions=2", "checks.loss_records=2", "checks.max_new_tokens=4", "optimizer.muon=true"]


def train(config: str, run_dir: Path, changes: list[str], *more: str, launch: list[str] = (),
          timeout_s: float = 240) -> subprocess.CompletedProcess:
    command = [sys.executable, *launch, str(ROOT / "training" / "train.py"), str(CONFIGS / config), "--run-dir", str(run_dir), *more]
    for change in changes:
        command += ["--set", change]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=run_dir.parent)


def losses(run_dir: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def assert_same_state(one: Path, other: Path, step: int) -> None:
    for name in ("weights", "optimizer", "ema"):
        left, right = (load_file(run / "checkpoints" / f"step_{step:08d}" / f"{name}.safetensors") for run in (one, other))
        assert left.keys() == right.keys()
        for key in left:
            assert torch.equal(left[key], right[key]), f"{name}: {key}"


def test_six_steps_equal_three_and_three_in_another_process_bit_for_bit(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert train("planner.toml", straight, TINY_PLANNER).returncode == 0
    shutil.copytree(straight, broken)
    # a new process forgets everything after step 3 and continues from there
    again = train("planner.toml", broken, TINY_PLANNER, "--resume", "3")
    assert again.returncode == 0, again.stderr
    assert "continuing at step 3" in again.stderr
    assert losses(straight) == losses(broken)
    assert_same_state(straight, broken, 6)


def test_twenty_steps_equal_ten_a_kill_and_ten_bit_for_bit(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    changes = [*TINY_AUTOENCODER, "train.steps=20", "train.checkpoint_every_steps=10"]
    assert train("autoencoder.toml", straight, changes).returncode == 0
    command = [sys.executable, str(ROOT / "training" / "train.py"), str(CONFIGS / "autoencoder.toml"), "--run-dir", str(broken)]
    for change in changes:
        command += ["--set", change]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (broken / "checkpoints" / "step_00000010").exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.kill()
    process.wait()
    # However far it came after the checkpoint, its metrics may be longer than its state.
    again = train("autoencoder.toml", broken, changes)
    assert again.returncode == 0 and "continuing at step" in again.stderr, again.stderr
    assert losses(straight) == losses(broken)
    assert_same_state(straight, broken, 20)


def test_two_processes_take_the_steps_of_one(tmp_path):
    changes = [*TINY_AUTOENCODER, "train.accumulate=2", "train.device='cpu'", "train.autocast=false"]
    assert train("autoencoder.toml", tmp_path / "one", changes).returncode == 0
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = train("autoencoder.toml", tmp_path / "two", changes, launch=launch)
    assert two.returncode == 0, two.stderr
    one, other = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in other] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in other] == pytest.approx([loss for _, loss in one], rel=1e-5)


def test_the_answers_of_a_chat_models_step_count_alike_whatever_batch_they_are_in(tmp_path):
    from test_chat_planner import settings

    from training.distributed import World
    from training.loop import Trainer
    from training.packing import Draw
    from training.stages import build_stage

    source = tmp_path / "stories.jsonl"
    source.write_text("\n".join(json.dumps({"request": "?", "answer": "so it is, " * count}) for count in (1, 12)), encoding="utf-8")
    base, found = tiny_chat_models.writing(tmp_path / "base"), []
    for parts in ([[0], [1]], [[0, 1]]):
        config = settings(tmp_path, base, source, f"train.accumulate={len(parts)}", "optimizer.clip=1e9")
        torch.manual_seed(0)
        stage = build_stage(config.stage, config.settings, seed=0, run_dir=tmp_path, device="cpu")
        trainer = Trainer(stage, config, tmp_path, torch.device("cpu"), World(torch.device("cpu")))
        _, step, _ = trainer._train_step([stage.data.collate([stage.data.rows.row(Draw(i, 0)) for i in part]) for part in parts])
        found.append((step["loss"], {name: p.grad for name, p in trainer.engine.parameters.items()}))
    (loss, gradients), (whole, wanted) = found
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    for name, gradient in wanted.items():
        assert gradient is None or torch.allclose(gradients[name], gradient, atol=1e-6, rtol=1e-3), name


def test_what_torch_reads_once_is_set_before_it_is_imported():
    """And what the environment says already stays."""
    told = ("import os, sys\nclass Torch:\n    def find_spec(self, name, *_):\n        if name == 'torch':\n"
            "            print(*(os.environ[key] for key in ('ONEDNN_PRIMITIVE_CACHE_CAPACITY', 'LRU_CACHE_CAPACITY')))\n            os._exit(0)\n"
            "sys.meta_path.insert(0, Torch())\nsys.stdout.reconfigure(line_buffering=True)\nimport training.train\n")
    for name, value in (("", ""), ("LRU_CACHE_CAPACITY", "7")):
        env = {key: value for key, value in os.environ.items() if key not in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")} | (
            {name: value} if name else {})
        result = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, cwd=ROOT, env=env, timeout=60)
        assert result.stdout.split() == [SHAPES, value or SHAPES], result.stderr


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is no glibc of 2.33 or later")
def test_a_large_block_goes_back_to_the_system_however_large_those_before_it_were():
    program = ("import ctypes, sys\n"
               "class Info(ctypes.Structure):\n    _fields_ = [(name, ctypes.c_size_t) for name in 'arena a b hblks hblkhd c d e f g'.split()]\n"
               "c = ctypes.CDLL(None)\nc.mallinfo2.restype, c.malloc.restype, c.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]\n"
               "if sys.argv[1:]:\n    from training.heap import bound_memory\n    bound_memory()\n"
               "c.free(c.malloc(ctypes.c_size_t(30 << 20)))\nbefore = c.mallinfo2().hblks\nc.malloc(ctypes.c_size_t(20 << 20))\n"
               "print(c.mallinfo2().hblks - before)\n")
    own_blocks = [subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True, cwd=ROOT, timeout=60).stdout.strip()
                  for options in ([], ["bounded"])]
    assert own_blocks == ["0", "1"]


def test_batches_that_cannot_be_shared_out_are_refused(tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = train("autoencoder.toml", tmp_path / "run", [*TINY_AUTOENCODER, "train.accumulate=3"], launch=launch)
    assert result.returncode != 0 and "set it to a multiple of 2" in result.stderr


def test_a_signal_finishes_the_step_saves_and_the_same_command_continues(tmp_path):
    run_dir = tmp_path / "run"
    command = [sys.executable, str(ROOT / "training" / "train.py"), str(CONFIGS / "autoencoder.toml"), "--run-dir", str(run_dir)]
    for change in [*TINY_AUTOENCODER, "train.steps=100000"]:
        command += ["--set", change]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run_dir / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 130, log
    folder, skipped = newest_checkpoint(run_dir)
    assert folder is not None and not skipped
    step = load_checkpoint(folder).state["step"]
    assert step == int(folder.name.removeprefix("step_")) >= 1
    again = train("autoencoder.toml", run_dir, [*TINY_AUTOENCODER, f"train.steps={step + 1}"])
    assert again.returncode == 0 and f"continuing at step {step}" in again.stderr


def test_a_finished_run_exports_the_component_and_writes_samples(tmp_path):
    from weaver_core.model.autoencoder import TinyAutoencoder

    run_dir = tmp_path / "run"
    result = train("autoencoder.toml", run_dir, [*TINY_AUTOENCODER, "train.steps=2"])
    assert result.returncode == 0, result.stderr
    model = TinyAutoencoder.from_pretrained(run_dir / "export")
    pixels = torch.rand(1, 3, 48, 64) * 2 - 1
    latents = model.float().encode(pixels)
    assert latents.shape == (1, model.config.latent_channels, 6, 8)
    assert model.decode(latents).shape == pixels.shape
    assert list((run_dir / "samples").glob("step_*/*.png"))
    row = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"held_out/psnr", "held_out/psnr_figures"} <= row.keys()


def test_the_decoder_alone_learns_on_fixed_latents(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train("autoencoder.toml", first, [*TINY_AUTOENCODER, "train.steps=2"]).returncode == 0
    changes = [change for change in TINY_AUTOENCODER if "decoder_widths" not in change]
    result = train("autoencoder_decoder.toml", second, [*changes, "train.steps=2", f"init={first / 'export'}",
                                                        "model.decoder_widths=[8, 8, 16]"])
    assert result.returncode == 0, result.stderr
    assert "another shape" in result.stderr
    from weaver_core.model.autoencoder import TinyAutoencoder
    before, after = (TinyAutoencoder.from_pretrained(run / "export") for run in (first, second))
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(before.float().encode(pixels), after.float().encode(pixels))
    assert after.config.decoder_widths == [8, 8, 16]


def test_a_checkpoint_of_another_shape_is_refused_with_both_shapes(tmp_path):
    run_dir = tmp_path / "run"
    assert train("autoencoder.toml", run_dir, TINY_AUTOENCODER).returncode == 0
    result = train("autoencoder.toml", run_dir, [*TINY_AUTOENCODER, "model.latent_channels=5", "train.steps=9"])
    assert result.returncode == 2
    assert "shape" in result.stderr and "--fresh" in result.stderr


def test_the_learning_rate_warms_up_stays_and_falls_to_its_last_fraction():
    options = OptimizerConfig(lr=1.0, warmup_steps=10, tail_fraction=0.5, final_fraction=0.1)
    factors = [learning_rate_factor(step, 100, options) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 and set(factors[9:51]) == {1.0}
    assert factors[75] == pytest.approx(0.55) and factors[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(factors[50:], factors[51:]))


def test_the_average_follows_fast_at_first_and_comes_off_without_a_trace():
    weight = torch.nn.Parameter(torch.zeros(2))
    ema = Ema({"w": weight}, 0.999)
    with torch.no_grad():
        weight.fill_(1.0)
    ema.update()
    assert torch.allclose(ema.shadow["w"], torch.full((2,), 0.9))  # decay (1 + 0) / (10 + 0)
    with pytest.raises(RuntimeError), ema.applied():
        assert torch.allclose(weight, torch.full((2,), 0.9))
        raise RuntimeError
    assert torch.equal(weight, torch.ones(2))


def shapes(optimizers) -> dict[tuple[str, float], list[tuple[int, ...]]]:
    return {(type(o).__name__, group["weight_decay"]): [tuple(p.shape) for p in group["params"]]
            for o in optimizers for group in o.param_groups}


def test_matrices_decay_and_vectors_do_not():
    parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in (("w", (2, 3)), ("b", (2,)))}
    assert shapes(build_optimizers(parameters, OptimizerConfig(lr=1.0, weight_decay=0.05))) == {
        ("AdamW", 0.05): [(2, 3)], ("AdamW", 0.0): [(2,)]}


def test_muon_takes_hidden_matrices_and_leaves_words_vectors_and_convolutions_to_adamw():
    sizes = {"embed_tokens": (9, 4), "layer.weight": (4, 4), "norm": (4,), "conv": (4, 4, 3, 3)}
    parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in sizes.items()}
    assert shapes(build_optimizers(parameters, OptimizerConfig(lr=1.0, weight_decay=0.1, muon=True))) == {
        ("AdamW", 0.1): [(9, 4), (4, 4, 3, 3)], ("AdamW", 0.0): [(4,)], ("Muon", 0.1): [(4, 4)]}


def test_the_state_of_another_optimizer_is_refused():
    parameters = {"w": torch.nn.Parameter(torch.ones(2, 3))}
    plain, muon = (build_optimizers(parameters, OptimizerConfig(lr=1.0, muon=muon)) for muon in (False, True))
    parameters["w"].grad = torch.ones(2, 3)
    for optimizer in plain:
        optimizer.step()
    with pytest.raises(ValueError, match="optimizer.muon"):
        load_optimizer_tensors(muon, parameters, optimizer_tensors(plain, parameters))


def test_eight_bit_moments_go_on_exactly_and_take_a_quarter():
    def run(steps: int, tensors=None):
        weights = {"w": torch.nn.Parameter(start.clone()), "b": torch.nn.Parameter(torch.zeros(4))}
        optimizers = build_optimizers(weights, OptimizerConfig(lr=0.1, eight_bit=True))
        if tensors:
            load_optimizer_tensors(optimizers, weights, tensors)
        for step in range(steps):
            for name, weight in weights.items():
                weight.grad = torch.sin(weight.detach() * (step + 1) + len(name))
            optimizers[0].step()
        return weights, optimizer_tensors(optimizers, weights)

    start = torch.linspace(-1, 1, 128 * 64).view(128, 64)
    _, tensors = run(3)
    assert tensors["w|state1"].dtype == torch.uint8 and tensors["b|state1"].dtype == torch.float32
    kept = sum(value.nbytes for key, value in tensors.items() if key.startswith("w|state"))
    assert kept == start.numel() * 2
    one, other = run(1, tensors)[0], run(1, {key: value.clone() for key, value in tensors.items()})[0]
    fresh = run(1)[0]
    assert torch.equal(one["w"], other["w"]) and not torch.equal(one["w"], fresh["w"])
    with pytest.raises(ValueError, match="optimizer.eight_bit"):
        weights = {"w": torch.nn.Parameter(start.clone()), "b": torch.nn.Parameter(torch.zeros(4))}
        load_optimizer_tensors(build_optimizers(weights, OptimizerConfig(lr=0.1)), weights, tensors)


def test_the_autoencoder_learns_to_rebuild_scenes():
    from training.stages import autoencoder

    changes = ["data.image_size=32", "data.batch_size=4", "model.encoder_widths=[16, 16, 16]", "model.decoder_widths=[16, 16, 16]"]
    config = load_config(CONFIGS / "autoencoder.toml", changes)
    torch.manual_seed(0)
    stage = autoencoder.build(config.settings, seed=0, run_dir=Path("unused"), device="cpu")
    optimizer = torch.optim.AdamW(stage.model.parameters(), 5e-3)
    batch = {key: torch.from_numpy(value) for key, value in stage.batch(0).items()}
    values = []
    for step in range(60):
        loss, _ = stage.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]


def test_latents_have_zero_mean_and_unit_variance_after_an_evaluation():
    from training.stages import autoencoder

    config = load_config(CONFIGS / "autoencoder.toml", ["data.image_size=32", "data.batch_size=8", "data.held_out_scenes=8"])
    torch.manual_seed(0)
    stage = autoencoder.build(config.settings, seed=0, run_dir=Path("unused"), device="cpu")
    stage.evaluate()
    pixels, _ = stage._pixels({key: torch.from_numpy(value) for key, value in stage.batch(3).items()})
    latents = stage.model.encode(pixels)
    assert abs(latents.mean().item()) < 0.3 and 0.7 < latents.std().item() < 1.4


def test_the_autoencoder_says_which_sides_it_takes():
    from weaver_core.model.autoencoder import TinyAutoencoder

    with pytest.raises(ValueError, match="130x128.*multiples of 8"):
        TinyAutoencoder().encode(torch.zeros(1, 3, 128, 130))
    with pytest.raises(ValueError, match="expected .batch, 8"):
        TinyAutoencoder().decode(torch.zeros(1, 4, 16, 16))
