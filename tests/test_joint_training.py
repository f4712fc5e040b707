"""The joint stage: both networks learn from one loss, composed of the decoupled stages' own parts; exact resume; what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from test_training import assert_same_state, losses, train

from training.config import load_config
from training.stages.joint import build
from training.train import main
from weaver_core.model import flow
from weaver_core.model.checkpoint import load_planner, load_twin

CONFIG = Path(__file__).resolve().parents[1] / "training" / "configs" / "picturebook" / "joint.toml"
TINY = ["data.batch_size=3", "model.compile=false", "model.width=64", "model.mlp_width=96", "model.pooled_layers=[0, 1]", "sample.count=2",
        "sample.steps=2", "checks.stories=2", "checks.questions=2", "checks.loss_records=2", "checks.max_new_tokens=4",
        "train.device='cpu'", "train.autocast=false", "train.workers=0", "train.log_every=1", "train.evaluate_every=100"]


def changes_of(pair_folder, *changes):
    return [f"planner={pair_folder}", f"autoencoder={pair_folder / 'vae'}", *TINY, *changes]


def stage_of(pair_folder, *changes):
    settings = load_config(CONFIG, changes_of(pair_folder, *changes)).settings
    torch.manual_seed(0)
    stage = build(settings, seed=0, run_dir=None, device=torch.device("cpu"))
    stage.num_batches = 100
    return stage


def tensors(batch):
    return {name: torch.from_numpy(value) if hasattr(value, "__array_interface__") else value for name, value in batch.items()}


def test_one_loss_reaches_both_networks_and_the_planner_through_the_windows(pair_folder):
    stage = stage_of(pair_folder)
    planner, twin = stage.trainable["planner"], stage.trainable["visualizer"]
    batch = tensors(stage.batch(0))
    loss, told = stage.loss(batch)
    assert loss.item() == pytest.approx(told["cross_entropy"].item() + told["loss_story"].item(), rel=1e-5)  # all tokens weigh 1 here
    loss.backward()
    assert twin.patch_in.weight.grad.abs().sum() > 0 and stage.frozen.keys() == {"autoencoder"}
    assert not any(p.requires_grad for p in stage.frozen["autoencoder"].parameters())
    # With the answers' loss taken away, what is left comes out of the windows alone. A fresh twin ignores what it has read.
    for block in twin.blocks:
        torch.nn.init.normal_(block.table, std=0.5)
    planner.zero_grad()
    read = stage.planner.read(batch, use_cache=True)
    from weaver_core.model.dpcw import gather_windows

    windows = gather_windows(read.past_key_values, batch["position_ids"], batch["sequence_B"], batch["windows_BT"])
    stage.visualizer.loss(batch, windows)[0].backward()
    assert planner.model.language_model.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0


def test_a_batch_with_more_words_weighs_more_in_what_is_read_and_not_in_what_is_drawn(pair_folder):
    stage = stage_of(pair_folder)
    batch = tensors(stage.batch(0))
    assert stage.weight(batch) == (batch["labels"][:, 1:] != -100).sum()  # all tokens weigh 1 here
    losses = []
    for factor in (1.0, 3.0):
        torch.manual_seed(0)
        loss, told = stage.loss(batch | {"loss_factor": factor})
        losses.append(loss.item())
    assert losses[1] - losses[0] == pytest.approx(2 * told["cross_entropy"].item(), rel=1e-4)


def test_windows_hold_the_dense_prompts_of_the_pages_that_are_drawn(pair_folder):
    stage = stage_of(pair_folder, "stories.closed_loop=1.0", "data.batch_size=8")
    for index in range(4):
        batch = stage.batch(index)
        assert len(batch["pixels_BHWC"]) == len(batch["windows_BT"]) == len(batch["words_B"]) == 8
        for window, row in zip(batch["windows_BT"], batch["sequence_B"]):
            ids = batch["input_ids"][row]
            told = window[window >= 0]
            assert ids[told[0] - 1] == stage.visualizer.tokens.imagine and ids[told[-1] + 1] == stage.visualizer.tokens.end_imagine


def test_the_parts_compute_what_the_decoupled_stages_compute(pair_folder):
    """The same sequences read by the frozen path give the same windows, and so the same flow matching loss."""
    stage = stage_of(pair_folder, "stories.closed_loop=0.0")
    batch = tensors(stage.batch(1))
    with torch.no_grad():
        read = stage.planner.read(batch, use_cache=True)
        from weaver_core.model.dpcw import gather_windows

        joint = gather_windows(read.past_key_values, batch["position_ids"], batch["sequence_B"], batch["windows_BT"])
        other = stage.visualizer.read(batch | {"ids_ST": batch["input_ids"], "positions_S3T": batch["position_ids"].transpose(0, 1)})
        assert all(torch.equal(a, b) for a, b in zip((*joint.keys, *joint.values), (*other.keys, *other.values)))
        clean = stage.visualizer.clean_latents(batch)
        time_B = torch.full((len(clean),), 0.5)
        noisy = flow.add_noise(clean, torch.ones_like(clean), time_B)
        given = stage.visualizer.predict(batch, noisy, time_B, joint)
        assert torch.equal(given, stage.visualizer.predict(batch, noisy, time_B, other))


def test_four_steps_equal_two_and_two_and_the_export_opens(pair_folder, tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    changes = changes_of(pair_folder, "train.steps=4", "train.checkpoint_every_steps=2", "train.keep_checkpoints=5")
    result = train("joint.toml", straight, changes)
    assert result.returncode == 0, result.stderr
    assert "trains planner" in result.stderr and "trains visualizer" in result.stderr and "frozen autoencoder" in result.stderr
    assert "samples failed" not in result.stderr
    shutil.copytree(straight, broken)
    again = train("joint.toml", broken, changes, "--resume", "2")
    assert again.returncode == 0 and "continuing at step 2" in again.stderr, again.stderr
    assert losses(straight) == losses(broken)
    assert_same_state(straight, broken, 4)
    held_out = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()][-1]
    assert {"held_out/loss_story", "held_out/t2i_error", "held_out/read_si2i_species"} <= held_out.keys()
    load_planner(straight / "export", device="cpu", dtype=torch.float32)
    load_twin(straight / "export" / "visualizer", device="cpu", dtype=torch.float32)


def test_check_tells_what_trains_and_what_is_wrong(pair_folder, capsys, tmp_path, caplog):
    wishes = [part for change in changes_of(pair_folder) for part in ("--set", change)]
    assert main([str(CONFIG), "--check", "--run-dir", str(tmp_path / "run"), *wishes]) == 0
    told = capsys.readouterr().out
    assert "trains planner" in told and "trains visualizer" in told and "frozen autoencoder" in told and "frozen planner" not in told
    assert main([str(CONFIG), "--check", "--set", "planner=nowhere", "--set", f"autoencoder={pair_folder / 'vae'}"]) == 2
    assert "no nowhere/planner/config.json there" in caplog.text


def test_check_refuses_what_would_fail_in_the_first_step(pair_folder, caplog, tmp_path):
    wishes = [part for change in changes_of(pair_folder, "train.activation_checkpointing=true", "stories.image_size=100", "train.device=gpu")
              for part in ("--set", change) if change != "train.device='cpu'"]
    assert main([str(CONFIG), "--check", "--run-dir", str(tmp_path / "run"), *wishes]) == 2
    for words in ("--set train.activation_checkpointing: train.activation_checkpointing = true, but the joint stage draws under the planner's keys",
                  "--set stories.image_size: stories.image_size is 100, but the planner sees pictures in squares of 16",
                  "--set train.device: train.device is 'gpu', but torch finds here"):
        assert words in caplog.text


@pytest.mark.parametrize(("change", "says"), [
    ("data.phases=[{until = 1.0, t2i = 1.0}]", "hold stories only"), ("stories.fact_noise=0.1", "must be 0"),
    ("flow_weight=0.0", "above 0"), ("lora.rank=4", "a LoRA needs a trained twin|leave it 0")])
def test_what_has_no_meaning_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        load_config(CONFIG, [change])
