"""The visualizer's trainer on pages of several aspect ratios: sizes of a batch, its weights, learning, looking, telling the folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.config import load_config
from training.stages import step_rng
from training.stages.visualizer import build
from training.stages.visualizer_settings import DataSettings, Phase
from weaver_core.picturebook import compose
from weaver_core.picturebook.shots import sample_shot

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "training" / "configs" / "picturebook" / "dpcw.toml"
TINY = ["data.batch_size=2", "model.compile=false", "sample.count=2", "sample.steps=2"]


def changes_of(pair_folder, *changes):
    return [f"planner={pair_folder}", f"autoencoder={pair_folder / 'vae'}", f"init={pair_folder / 'visualizer'}", *TINY, *changes]


def stage_of(pair_folder, *changes):
    settings = load_config(CONFIG, changes_of(pair_folder, *changes)).settings
    stage = build(settings, seed=0, run_dir=None, device=torch.device("cpu"))
    stage.num_batches = 100
    return stage


def sizes_of(batch):
    """(width, height) of a batch's pictures and of its references, if it has any."""
    shapes = [batch["pixels_BHWC"].shape[1:3]] + ([batch["references_BRHWC"].shape[2:4]] if "references_BRHWC" in batch else [])
    return tuple((width, height) for height, width in shapes)


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_every_size_of_pictures_and_references_is_learned(pair_folder):
    stage = stage_of(pair_folder, "data.phases=[{until = 1.0, si2i = 0.5, mi2i = 0.5}]", "data.same_aspect=0.3",
                     "data.aspects={'1:1' = 0.4, '4:3' = 0.3, '3:4' = 0.3}")
    seen = {}
    for index in range(60):
        seen.setdefault(sizes_of(stage.batch(index)), stage.batch(index))
        if len(seen) == 9:
            break
    sizes = {(128, 128), (176, 128), (128, 176)}
    assert seen.keys() == {(target, reference) for target in sizes for reference in sizes}
    for (target, _), batch in seen.items():
        assert batch["weight_BYX"].shape == (2, target[1] // 8, target[0] // 8)
        assert batch["weight_BYX"].mean((1, 2)) == pytest.approx(1)
        loss, _ = stage.loss(stage._on_device({name: value for name, value in batch.items() if name != "kind"}) | {"kind": batch["kind"]})
        loss.backward()
        assert torch.isfinite(loss) and stage.twin.patch_in.weight.grad.abs().sum() > 0


def test_references_mostly_share_the_size_of_the_picture(pair_folder):
    stage = stage_of(pair_folder)
    pairs = [stage._aspects(index) for index in range(2000)]
    shares = {aspect: sum(target == aspect for target, _ in pairs) / 2000 for aspect in ("1:1", "4:3", "3:4")}
    assert shares == pytest.approx({"1:1": 0.6, "4:3": 0.2, "3:4": 0.2}, abs=0.03)
    wide = [reference for target, reference in pairs if target == "4:3"]
    assert wide.count("4:3") / len(wide) == pytest.approx(0.7 + 0.3 * 0.2, abs=0.06)
    assert wide.count("1:1") > wide.count("3:4") > 0


def test_shares_of_aspects_change_sizes_and_nothing_else(pair_folder):
    """The default is squares, with the very numbers that earlier runs drew; more aspects leave scenes and words as they are."""
    assert DataSettings(phases=(Phase(until=1.0, t2i=1.0),)).aspects == {"1:1": 1.0}
    square, mixed = stage_of(pair_folder, "data.aspects={'1:1' = 1.0}"), stage_of(pair_folder)
    for index in range(12):
        one, other = square.batch(index), mixed.batch(index)
        assert set(sizes_of(one)) == {(128, 128)}
        for name in ("kind", "ids_ST", "windows_BT", "words_B", "kept_BR"):
            assert np.array_equal(one.get(name), other.get(name))
        if set(sizes_of(other)) == {(128, 128)}:
            assert equal(one, other)


def test_figures_weigh_more_where_they_stand_on_a_wide_page(pair_folder):
    stage = stage_of(pair_folder, "data.aspects={'4:3' = 1.0}", "data.phases=[{until = 1.0, si2i = 1.0}]")
    assert sizes_of(stage.batch(0)) == ((176, 128), (176, 128))
    scene = sample_shot(step_rng(0, 0, "a test"), "si2i").scene
    (weights,) = stage._weights([scene], (176, 128))
    (x0, y0, x1, y1), = compose.hero_boxes(scene, (176, 128))
    middle = weights[(y0 + y1) // 16, (x0 + x1) // 16]
    assert weights.shape == (16, 22) and middle == pytest.approx(3 * weights.min())


def test_evaluation_reads_and_shows_every_aspect_that_is_trained(pair_folder, tmp_path):
    stage = stage_of(pair_folder)
    numbers = stage.evaluate()
    for name in ("read_t2i_species", "read_t2i_4x3_species", "read_mi2i_3x4_count", "gap_species"):
        assert name in numbers
    stage.samples(tmp_path)
    assert Image.open(tmp_path / "si2i_4x3.png").size == (6 * 176, 3 * 128)
    square = stage_of(pair_folder, "data.aspects={'1:1' = 1.0}")
    assert not any("x" in name.split("_")[2] for name in square._read_samples())


def test_two_steps_of_mixed_aspects_and_the_folder_that_comes_of_them(pair_folder, tmp_path):
    """The commands of training/README.md, at the smallest size."""
    run_dir = tmp_path / "run"
    command = [sys.executable, str(ROOT / "training" / "train.py"), str(CONFIG), "--run-dir", str(run_dir)]
    for change in changes_of(pair_folder, "train.steps=2", "train.evaluate_every=100", "data.aspects={'4:3' = 0.5, '3:4' = 0.5}"):
        command += ["--set", change]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert json.loads((run_dir / "config.json").read_text())["settings"]["data"]["aspects"] == {"4:3": 0.5, "3:4": 0.5}
    command = [sys.executable, str(ROOT / "training" / "assemble.py"), "--planner", str(pair_folder), "--vae", str(pair_folder / "vae"),
               "--visualizer", str(run_dir / "export"), "--size", "176x128", "--size", "128x176", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["sampling"]["sizes"] == [[176, 128], [128, 176]]


@pytest.mark.parametrize(("change", "says"), [
    ("data.aspects={'16:9' = 1.0}", "'16:9'; picture-book pages are 1:1, 4:3, 3:4"),
    ("data.aspects={'1:1' = 0.0}", "a share above 0"),
    ("data.aspects={}", "a share above 0"),
    ("data.aspects='4:3'", r"expected a table \[data.aspects\]"),
    ("data.aspects={'4:3' = 'many'}", "data.aspects.4:3 is 'many'; expected float"),
    ("data.image_size=32", "44x32, which are no multiples of 16"),
])
def test_wrong_aspects_are_refused_before_anything_is_loaded(change, says):
    with pytest.raises(ValueError, match=says):
        load_config(CONFIG, [change])


def test_resolution_grows_with_the_phases(pair_folder):
    stage = stage_of(pair_folder, "data.phases=[{until = 0.5, image_size = 64, t2i = 1.0}, {until = 1.0, si2i = 1.0}]",
                     "data.aspects={'1:1' = 1.0}", "data.same_aspect=1.0")
    assert sizes_of(stage.batch(10)) == ((64, 64),) and sizes_of(stage.batch(60)) == ((128, 128), (128, 128))
    batch = stage.batch(10)
    assert batch["weight_BYX"].shape == (2, 8, 8)
    loss, _ = stage.loss(stage._on_device({name: value for name, value in batch.items() if name != "kind"}) | {"kind": batch["kind"]})
    assert torch.isfinite(loss)
    with pytest.raises(ValueError, match="88x64, which are no multiples of 16"):
        load_config(CONFIG, ["data.phases=[{until = 1.0, image_size = 64, t2i = 1.0}]"])


def test_a_smaller_world_shows_its_own_heroes_only(pair_folder):
    stage = stage_of(pair_folder, "data.species=['fox', 'frog']")
    rng = step_rng(0, 0, "a test")
    shots = [stage.shot(rng, kind) for kind in ("t2i", "si2i", "mi2i") for _ in range(5)]
    assert {f.character.species for shot in shots for f in shot.scene.figures} == {"fox", "frog"}
    assert {f.character.species for shot in stage._story_shots(rng, 8) for f in shot.scene.figures} <= {"fox", "frog"}
    with pytest.raises(ValueError, match="data.species names owl"):
        load_config(CONFIG, ["data.species=['owl']"])


def test_without_a_window_all_that_was_read_is_seen(pair_folder):
    """The ablation of the DPCW: also a twin that learned with windows is tuned without."""
    stage = stage_of(pair_folder, "model.window_history=true")
    begin, end = stage.tokens.imagine, stage.tokens.end_imagine
    assert stage.windows_of([7, begin, 8, end, 7, begin, 9, 9, end, 7]) == [[0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7]]
    stage.export(Path(pair_folder).parent / "history")
    assert json.loads((Path(pair_folder).parent / "history" / "config.json").read_text())["window_history"] is True
