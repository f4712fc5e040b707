"""What a training has done is never lost: kills during saves, full disks, numbers that are none, steps gone back to."""

import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from training.checkpoints import Snapshot, load_checkpoint, newest_checkpoint, save_checkpoint, set_aside_later, step_folder
from training.config import load_config
from training.train import train

CONFIGS = Path(__file__).resolve().parents[1] / "training" / "configs"
TINY = ["train.steps=4", "train.workers=0", "train.log_every=1", "train.evaluate_every=100", "train.device='cpu'", "train.autocast=false",
        "data.batch_size=2", "data.image_size=32", "data.held_out_scenes=2", "model.encoder_widths=[8, 8, 8]", "model.decoder_widths=[8, 8, 8]"]


def snapshot(value: float, size: int = 3) -> Snapshot:
    tensors = {name: {"w": torch.full((size,), value)} for name in ("weights", "optimizer", "ema")}
    return Snapshot(tensors=tensors, state={"step": int(value), "value": value})


def test_resume_skips_a_checkpoint_without_a_fitting_marker(tmp_path):
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, step, snapshot(step), keep=9)
    (step_folder(tmp_path, 4) / "complete.json").unlink()
    with open(step_folder(tmp_path, 3) / "weights.safetensors", "ab") as file:
        file.write(b"half a write")
    folder, skipped = newest_checkpoint(tmp_path)
    assert folder == step_folder(tmp_path, 2)
    assert len(skipped) == 2 and "complete.json" in skipped[0] and "bytes" in skipped[1]
    assert torch.equal(load_checkpoint(folder).tensors["weights"]["w"], torch.full((3,), 2.0))


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, step, snapshot(step), keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_00000003", "step_00000010"]


def test_killed_during_a_save_at_any_moment_a_whole_checkpoint_is_there(tmp_path):
    """Thirty processes save one step after another, some of them again and again the same, and are killed while they do."""
    save_checkpoint(tmp_path, 1, snapshot(1, 200_000), keep=1)
    last, in_a_save, folder = 1, 0, tmp_path / "checkpoints"
    for number in range(30):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)  # threads do not live on in a forked process, and waiting for them would never end
            step = last
            while True:  # keep=1: there is never a second one to fall back on
                save_checkpoint(tmp_path, step, snapshot(step, 200_000), keep=1)
                step += 1 if number % 3 else 0
        deadline = time.monotonic() + 20
        while not (folder / f"step_{last:08d}.tmp").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(random.Random(number).uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        in_a_save += any(path.suffix for path in folder.iterdir())
        found = load_checkpoint(newest_checkpoint(tmp_path)[0])
        assert found.state["step"] >= last, "it went back"
        last = found.state["step"]
        assert all(torch.equal(tensors["w"], torch.full((200_000,), float(last))) for tensors in found.tensors.values())
    assert in_a_save >= 10, "too few kills fell into a save to say anything"
    save_checkpoint(tmp_path, last + 1, snapshot(last + 1), keep=1)
    assert [path.name for path in folder.iterdir() if not path.suffix] == [f"step_{last + 1:08d}"]


def test_a_full_disk_leaves_the_last_checkpoint_whole_and_says_so(tmp_path):
    """The limit on file sizes makes the kernel refuse the write, as a full disk does."""
    save_checkpoint(tmp_path, 1, snapshot(1, 50_000), keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(OSError, match="step 2 .* could not be written.*step_00000001 is whole; make room"):
            save_checkpoint(tmp_path, 2, snapshot(2, 50_000), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old_handler)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    assert load_checkpoint(newest_checkpoint(tmp_path)[0]).state["value"] == 1
    save_checkpoint(tmp_path, 2, snapshot(2, 50_000), keep=1)
    assert newest_checkpoint(tmp_path)[0].name == "step_00000002"


def test_going_back_sets_later_checkpoints_aside_so_that_they_neither_win_nor_push_out_new_ones(tmp_path):
    for step in (10, 90, 100):
        save_checkpoint(tmp_path, step, snapshot(step), keep=9)
    set_aside_later(tmp_path, 10)
    save_checkpoint(tmp_path, 20, snapshot(20), keep=1)
    assert newest_checkpoint(tmp_path)[0].name == "step_00000020"
    assert (tmp_path / "checkpoints" / "step_00000100.aside").is_dir()


def test_a_loss_that_is_none_stops_before_anything_is_changed_and_names_the_batch(tmp_path):
    config = load_config(CONFIGS / "picturebook" / "autoencoder.toml", [*TINY, "optimizer.lr=1e38", "optimizer.warmup_steps=1",
                                                                       "train.checkpoint_every_steps=1"])
    with pytest.raises(FloatingPointError, match=r"at step \d, in batch \d of seed 0\n.*the last checkpoint is untouched") as raised:
        train(config, tmp_path / "run")
    step = int(str(raised.value).split("at step ")[1][0])
    assert f"batch {step - 1} of seed 0" in str(raised.value)
    assert newest_checkpoint(tmp_path / "run")[0].name == f"step_{step - 1:08d}"


def test_resume_without_a_checkpoint_is_an_error_and_of_a_missing_step_too(tmp_path):
    config = load_config(CONFIGS / "picturebook" / "autoencoder.toml", TINY)
    with pytest.raises(ValueError, match="no whole checkpoint.*leave --resume out"):
        train(config, tmp_path / "run", resume="newest")
    with pytest.raises(ValueError, match="step_00000007: no such folder"):
        train(config, tmp_path / "run", resume="7")


def test_checkpoints_that_will_be_replaced_are_not_counted_twice(tmp_path, monkeypatch):
    """Else a run that filled the disk as foretold could not be continued."""
    from training.check import check
    from training.config import read_config

    run = tmp_path / "run"
    config, problems = read_config(CONFIGS / "picturebook" / "autoencoder.toml", TINY)
    needed = check(config, problems, run)[1].disk
    for name in ("checkpoints/step_00000004", "checkpoints/step_00000002.aside"):
        (run / name).mkdir(parents=True)
        (run / name / "weights.safetensors").write_bytes(bytes(needed // 2))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - needed // 2))
    check(config, problems, run)
    assert not problems.messages
    check(config, problems, run, fresh=True)
    assert "checkpoints take up to" in problems.messages[0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no workers start")
def test_workers_inherit_data_that_cannot_be_sent_to_them(tmp_path):
    import multiprocessing

    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)  # what Python starts with elsewhere, and newer ones on Linux too
    try:
        config = load_config(CONFIGS / "smoke.toml", ["train.steps=2", "train.workers=1", "checks.stories=1", "checks.questions=1"])
        assert train(config, tmp_path / "run")
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_rows_tell_speed_memory_and_the_time_that_is_left(tmp_path):
    import json

    config = load_config(CONFIGS / "picturebook" / "autoencoder.toml", TINY)
    assert train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert len(steps) == 4 and {"seconds_per_step", "images_per_second", "peak_memory_gib", "eta_seconds"} <= steps[0].keys()
    assert steps[0]["eta_seconds"] == pytest.approx(3 * steps[0]["seconds_per_step"], rel=1e-2) and steps[-1]["eta_seconds"] == 0
    assert steps[0]["images_per_second"] == pytest.approx(2 / steps[0]["seconds_per_step"], rel=1e-2)
    shutil.rmtree(tmp_path / "run")
