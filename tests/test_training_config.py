"""Configs of training: every shipped one parses, and everything wrong with one is told at once, with file and line."""

from pathlib import Path

import pytest

from training.config import TrainConfig, describe, load_config
from training.toml_lines import key_lines
from training.trackers import Trackers

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "training" / "configs"
AUTOENCODER = CONFIGS / "picturebook" / "autoencoder.toml"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_config_parses(path):
    config = load_config(path)
    assert config.name and config.train.steps > 0 and config.settings is not None


@pytest.mark.parametrize("name", ["planner_qlora_24gb", "picturebook/planner"])
def test_records_cannot_all_be_held_out(name):
    with pytest.raises(ValueError, match=r"data.held_out is 0.9; it must be in \[0, 0.5\]"):
        load_config(CONFIGS / f"{name}.toml", ["data.held_out=0.9"])


def test_gradients_go_in_messages_of_a_bounded_size_in_their_order():
    import torch

    from training.distributed import messages

    tensors = [torch.zeros(size) for size in (3, 2, 9, 1, 1, 1)]
    assert [[len(tensor) for tensor in message] for message in messages(tensors, 20)] == [[3, 2], [9], [1, 1, 1]]


@pytest.mark.parametrize(("change", "message"), [
    ("optimizer.learning=1", "unknown key optimizer.learning"), ("optimizer.beta=1", r"did you mean optimizer\.beta"),
    ("train.stepz=3", r"did you mean train\.steps"), ("data.batchsize=1", r"did you mean data\.batch_size"),
    ("optimizer.lr='fast'", "--set optimizer.lr: .*expected float"), ("train.steps=0", "at least 1"), ("stage=tailor", "must be one of"),
    ("train.workers=-1", "at least 0"), ("data.image_size=100", "multiple of 8"), ("train.precision='fp16'", "65,504"), ("train.autocast='fp16'", "65,504"), ("train.trackers=['mlflow']", "can name tensorboard"),
    ("nonsense", "expected key=value")])
def test_a_wrong_key_or_value_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        load_config(AUTOENCODER, [change])


def checked(path: Path, *changes: str) -> list[str]:
    """What `--check` finds wrong."""
    from training.check import check
    from training.config import read_config

    config, problems = read_config(path, list(changes))
    check(config, problems, Path("runs") / "nowhere")
    return problems.messages


@pytest.mark.parametrize("name", ["cuda", "gpu", "cuda:7", "meta"])
def test_a_device_that_is_not_there_is_told_by_the_check_beside_all_else(tmp_path, monkeypatch, name):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = tmp_path / "run.toml"
    path.write_text(AUTOENCODER.read_text(encoding="utf-8").replace("[train]\n", f'[train]\ndevice = "{name}"\nactivation_checkpointing = true\n'))
    device, blocks = checked(path)
    assert device.startswith(f"{path}:6: train.device is '{name}', but torch finds here: cpu") and device.endswith('or to "auto"')
    assert blocks.startswith(f"{path}:7: train.activation_checkpointing = true, but the autoencoder has no blocks")
    assert not checked(AUTOENCODER, "train.device=cpu") and not checked(AUTOENCODER)


@pytest.mark.parametrize("side", [100, 8])
def test_pictures_that_do_not_fit_the_planners_grid_are_told_by_the_check(side):
    (told,) = checked(CONFIGS / "picturebook" / "planner.toml", f"data.image_size={side}")
    assert told.startswith(f"--set data.image_size: data.image_size is {side}, but the planner sees pictures in squares of 16 pixels; set it to a")
    assert not checked(CONFIGS / "picturebook" / "planner.toml", "data.image_size=96")


def test_misread_facts_need_facts_that_weigh_more():
    with pytest.raises(ValueError, match="data.fact_noise is 0.1, but only words that weigh more are misread, and data.fact_weight is 1.0; raise it"):
        load_config(CONFIGS / "picturebook" / "planner.toml", ["data.fact_noise=0.1"])
    assert load_config(CONFIGS / "picturebook" / "planner.toml", ["data.fact_noise=0.1", "data.fact_weight=2.0"])


def test_set_changes_a_key_with_the_type_of_toml():
    config = load_config(AUTOENCODER, ["optimizer.lr=1e-4", "data.batch_size=3", "name=other"])
    assert (config.optimizer.lr, config.settings.data.batch_size, config.name) == (1e-4, 3, "other")


def test_all_errors_come_together_each_with_its_line(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('stage = "planner"\n\n[train]\nstepz = 5\n\n[optimizer]\nlr = "1e-4"\n\n[model]\nhidden_size = 65\nheads = 4\n')
    with pytest.raises(ValueError) as raised:
        load_config(path)
    lines = str(raised.value).splitlines()
    assert len(lines) == 5
    assert any(line.startswith(f"{path}: the key name is missing") for line in lines)
    assert any(line.startswith(f"{path}:4: unknown key train.stepz; did you mean train.steps?") for line in lines)
    assert any(line.startswith(f"{path}:3: the key train.steps is missing") for line in lines)
    assert any(line.startswith(f"{path}:7: optimizer.lr is '1e-4'; expected float") for line in lines)
    assert any(line.startswith(f"{path}:10: model.hidden_size is 65") for line in lines)


def test_keys_are_found_behind_values_of_several_lines_and_in_lists_of_tables():
    text = 'a = """\n[b]\nc = 1\n"""\n# [x]\n[train]\nwide = [\n  1,\n  2,\n]\nlast = { one = 1, two = 2 }\n[[phases]]\nuntil = 0.5\n' \
           '[[phases]]\nuntil = 1.0\n[phases.more]\ndeep = 1\n"odd key" = 2\n'
    found = key_lines(text)
    assert found == {"a": 1, "train": 6, "train.wide": 7, "train.last.one": 11, "train.last.two": 11, "phases": 12, "phases[0]": 12,
                     "phases[0].until": 13, "phases[1]": 14, "phases[1].until": 15, "phases[1].more": 16, "phases[1].more.deep": 17,
                     "phases[1].more.odd key": 18}


def test_the_reference_tells_type_default_and_meaning():
    assert "  train.accumulate: int = 1\n      batches whose gradients make one step; several processes share them out" in describe(
        TrainConfig, "train.")


@pytest.mark.parametrize(("name", "count"), [("ddp", 8), ("fsdp2", 8), ("ddp_cpu", 2), ("one_gpu", 1)])
def test_accelerate_reads_its_shipped_configs(name, count):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CONFIGS / "accelerate" / f"{name}.yaml"))
    assert config.num_processes == count and config.mixed_precision == "no"


@pytest.mark.parametrize(("variable", "value", "told"), [
    ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed.*fsdp2.yaml"), ("ACCELERATE_USE_FSDP", "true", "FSDP version 1.*fsdp_version: 2"),
    ("FSDP_OFFLOAD_PARAMS", "true", "fsdp_offload_params"), ("FSDP_ACTIVATION_CHECKPOINTING", "true", "train.activation_checkpointing"),
    ("ACCELERATE_MIXED_PRECISION", "fp16", "65,504")])
def test_an_engine_that_would_be_ignored_is_refused(monkeypatch, variable, value, told):
    import torch

    from training.distributed import World

    if variable.startswith("FSDP_"):
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=told):
        World(torch.device("cpu"))


def test_a_tracker_gets_the_rows_and_one_that_fails_or_is_missing_costs_a_sentence(tmp_path, monkeypatch, caplog):
    # Stand-ins for packages that need a network; what they are told is what is tested.
    (tmp_path / "wandb.py").write_text(
        "rows = []\nclass Run:\n    def log(self, row, step): rows.append((step, row))\n    def finish(self): rows.append('end')\n"
        "def init(**how): return Run()\n")
    (tmp_path / "trackio.py").write_text("def init(**how): raise ConnectionError('no network')\n")
    monkeypatch.syspath_prepend(tmp_path)
    trackers = Trackers(("wandb", "trackio", "tensorboard"), "run", tmp_path, {})
    trackers.log({"loss": 0.5}, 3)
    trackers.close()
    import wandb

    assert wandb.rows == [(3, {"loss": 0.5}), "end"]
    assert "trackio stopped listening (ConnectionError: no network)" in caplog.text
    from importlib.util import find_spec
    assert ("pip install tensorboard" in caplog.text) == (find_spec("tensorboard") is None)
