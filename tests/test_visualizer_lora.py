"""The visualizer on a user's own pictures: records, buckets, cached latents, LoRA files, and samples equal to what is drawn later."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from own_pictures import CAPTIONS, picture_folder
from PIL import Image
from safetensors.torch import load_file, save_file

from training.assemble import assemble
from training.config import load_config, read_config
from training.latent_cache import LatentCache
from training.memory_savers import checkpoint_activations
from training.picture_records import bucket_of, bucket_sizes, read_picture_folder
from training.stages.visualizer import build
from training.train import main as train
from weaver_core.cli import main as weaver
from weaver_core.errors import InputError
from weaver_core.events import ImageReady
from weaver_core.model.checkpoint import WeaverModel
from weaver_core.model.lora import read_lora, with_loras
from weaver_core.pictures import image_key
from weaver_core.plan import parse_markup
from weaver_core.planners.native import NativePlanner
from weaver_core.request import RenderSettings, Request
from weaver_core.visualizers import Shot
from weaver_core.visualizers.native import NativeVisualizer
from weaver_core.weave import weave_plan

CONFIG = Path(__file__).resolve().parents[1] / "training" / "configs" / "lora_own_pictures.toml"
PICTUREBOOK = CONFIG.parent / "picturebook"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("own") / "photographs")


@pytest.fixture
def drawings(tmp_path):
    """Six small pictures of two shapes; some have references."""
    folder = tmp_path / "drawings"
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for number in range(6):
        size = (90, 90) if number % 2 else (144, 112)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append({"file_name": f"{number}.png", "prompt": f"a small blue fox sits {number}"})
        if number in (2, 4):
            lines[-1]["references"] = ["0.png", "1.png"]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


def stage_of(pair_folder, drawings, *changes):
    settings = load_config(CONFIG, [f"base={pair_folder}", f"data.source={drawings}", f"data.cache={drawings.parent / 'latents'}",
                                    "data.batch_size=2", "data.held_out=0.0", "sample.steps=2", "sample.count=2", "lora.rank=4", *changes]).settings
    return build(settings, seed=0, run_dir=None, device=torch.device("cpu"))


def tensors(batch):
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in batch.items()}


def shake(stage):
    """Trained for real in a moment: every weight that learns has moved."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in stage.twin.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))


def test_buckets_keep_the_pixels_and_cut_least():
    buckets = bucket_sizes(128, 16, 2.0)
    assert {(128, 128), (144, 112), (112, 144)} <= set(buckets)
    assert all(w % 16 == h % 16 == 0 and w * h <= 128 * 128 and max(w, h) <= 2 * min(w, h) for w, h in buckets)
    assert bucket_of((640, 500), buckets) == (144, 112) and bucket_of((333, 333), buckets) == (128, 128)
    assert bucket_sizes(128, 16, 1.0)[-1] == (128, 128) and {w / h for w, h in bucket_sizes(128, 16, 1.0)} == {1.0}


def test_all_that_is_wrong_with_a_folder_is_told_at_once(drawings):
    (drawings / "metadata.jsonl").write_text(
        '{"file_name": "0.png", "promt": "x", "prompt": "fox"}\n{"file_name": "9.png", "prompt": "fox"}\n'
        '{"file_name": "1.png", "prompt": "fox</imagine>"}\n{"file_name": "1.png", "prompt": " ", "references": ["0.png", "0.png"]}\nno json\n')
    with pytest.raises(InputError) as told:
        read_picture_folder(drawings, most_references=1)
    for number, words in ((1, "did you mean 'prompt'"), (2, "9.png is no picture"), (3, "'</imagine'"), (4, "2 references"),
                          (4, "caption is empty"), (5, "no valid JSON")):
        assert any(f"metadata.jsonl:{number}: " in line and words in line for line in str(told.value).splitlines()), (number, words)
    (drawings / "metadata.jsonl").unlink()
    with pytest.raises(InputError, match="its caption 0.txt is missing"):
        read_picture_folder(drawings)


def test_a_second_run_computes_no_latents_and_another_picture_only_its_own(pair_folder, drawings):
    stage = stage_of(pair_folder, drawings)
    assert stage.prepare()[0].startswith("latents: 6 computed, 0 found")
    again = stage_of(pair_folder, drawings)
    again.encode_pixels = None  # would fail, were it called
    assert again.prepare()[0].startswith("latents: 0 computed, 6 found")
    Image.new("RGB", (90, 90), "red").save(drawings / "1.png")
    assert stage_of(pair_folder, drawings).prepare()[0].startswith("latents: 1 computed, 5 found")
    other = pair_folder.parent / "vae"
    shutil.copytree(pair_folder / "vae", other, dirs_exist_ok=True)
    weights = load_file(other / "diffusion_pytorch_model.safetensors")
    save_file({name: value * 1.01 for name, value in weights.items()}, other / "diffusion_pytorch_model.safetensors")
    cut = stage._cuts(stage.records[0])[0]
    assert LatentCache(stage.cache.folder, other).path_of(cut) != stage.cache.path_of(cut)


def test_every_epoch_holds_every_picture_once_in_batches_of_one_size(pair_folder, drawings):
    stage = stage_of(pair_folder, drawings)
    stage.prepare()
    per_epoch = len(stage._epoch(0))
    for epoch in range(2):
        seen = [name for index in range(epoch * per_epoch, (epoch + 1) * per_epoch) for name in stage.names(index)]
        assert sorted(seen) == sorted(record.where for record in stage.records)
    sizes = set()
    for index in range(per_epoch):
        batch = stage.batch(index)
        sizes.add((batch["latents_BCYX"].shape[2:], "kept_BR" in batch))
        assert all(np.array_equal(one, other) for one, other in zip(batch.values(), stage.batch(index).values()))
        loss, logs = stage.loss(tensors(batch))
        loss.backward()
        assert torch.isfinite(loss) and "loss_pictures" in logs
    assert sizes == {((14, 18), False), ((14, 18), True), ((16, 16), False)}
    learns = {name for name, parameter in stage.twin.named_parameters() if parameter.grad is not None}
    assert learns and all(".lora_" in name for name in learns)


def test_the_pixels_of_a_bucket_need_not_fit_the_grid_in_which_the_planner_sees(pair_folder, drawings, tmp_path):
    from training.check import check

    stage = stage_of(pair_folder, drawings, "data.image_size=120")
    stage.prepare()
    assert stage.grid == (8, 8), "the pair's own, of 128 pixels"
    assert {batch["latents_BCYX"].shape[2:] for batch in map(stage.batch, range(4))} <= {(height // 8, width // 8) for width, height in stage.buckets}
    for name in ("planner", "tokenizer"):
        shutil.copytree(pair_folder / name, tmp_path / "parts" / name)
    told = []
    for planner in (pair_folder, tmp_path / "parts"):  # loose parts do not say what they were trained on: the config does
        config, problems = read_config(CONFIG, [f"base={pair_folder}", f"planner={planner}", f"data.source={drawings}", "data.image_size=120"])
        check(config, problems, tmp_path / "run")
        told.append(problems.messages)
    assert told[0] == [] and len(told[1]) == 1 and "data.image_size is 120, but the planner sees pictures in squares of 16 pixels" in told[1][0]


def drawn_later(model, record, size, seed, references=()):
    """By the classes of nodes and command line, out of an exported folder."""
    plan, _ = parse_markup(f"<imagine>{record.prompt}</imagine>")
    planner, visualizer = NativePlanner(model), NativeVisualizer(model)
    if not references:
        settings = RenderSettings(steps=2, guidance=2.5, reference_guidance=1.5, check_images=False)
        plan, _ = parse_markup(f'<imagine seed="{seed}" size="{size[0]}x{size[1]}">{record.prompt}</imagine>')
        events = weave_plan(plan, visualizer, planner=planner, request=Request(prompt=record.prompt), settings=settings)
        return next(event.image for event in events if isinstance(event, ImageReady))
    context = planner.context(plan, plan.images[0], Request(prompt=record.prompt))
    shot = Shot(prompt=record.prompt, size=size, seed=seed, steps=2, guidance=2.5, reference_guidance=1.5, references=references,
                reference_keys=tuple(map(image_key, references)), context=context)
    return visualizer.render(shot, on_step=lambda *_: None, cancel=lambda: False)


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "whole twin"])
def test_a_training_sample_is_what_the_export_draws_bit_for_bit(pair_folder, drawings, tmp_path, rank):
    stage = stage_of(pair_folder, drawings, f"lora.rank={rank}")
    shake(stage)
    export = tmp_path / "export"
    export.mkdir()
    stage.export(export)
    if rank:
        model = with_loras(WeaverModel.from_pretrained(pair_folder), [(export / "lora.safetensors", 1.0)])
        assert model.fingerprint != WeaverModel.from_pretrained(pair_folder).fingerprint
    else:
        assemble(pair_folder, export, pair_folder / "vae", tmp_path / "whole")
        model = WeaverModel.from_pretrained(tmp_path / "whole")
    pair = stage.exported_pair()
    for record, references in ((stage.records[0], ()), (stage.records[2], tuple(Image.open(p).convert("RGB") for p in stage.records[2].references))):
        sample = pair.draw(record.prompt, size=(128, 128), seed=7, references=references)
        assert sample.tobytes() == drawn_later(model, record, (128, 128), 7, references).tobytes()
    untrained = drawn_later(WeaverModel.from_pretrained(pair_folder), stage.records[0], (128, 128), 7)
    assert untrained.tobytes() != pair.draw(stage.records[0].prompt, size=(128, 128), seed=7).tobytes()


def test_the_file_has_the_keys_that_others_read_and_computes_what_was_trained(pair_folder, drawings, tmp_path):
    stage = stage_of(pair_folder, drawings, "lora.alpha=8.0", "lora.targets=['qkv', 'down']")
    stage.prepare()
    shake(stage)
    stage.export(tmp_path)
    written = load_file(tmp_path / "lora.safetensors")
    assert written.keys() == {f"diffusion_model.blocks.{block}.{layer}.{part}" for block in range(2) for layer in ("qkv", "down")
                              for part in ("lora_A.weight", "lora_B.weight", "alpha")}
    model = with_loras(WeaverModel.from_pretrained(pair_folder, dtype=torch.float32), [(tmp_path / "lora.safetensors", 1.0)])
    batch = tensors(stage.batch(0))
    noise, time_B = torch.randn_like(batch["latents_BCYX"]), torch.full((len(batch["latents_BCYX"]),), 0.5)
    hooked = stage.predict(batch, noise, time_B)
    stage.twin = model.visualizer
    torch.testing.assert_close(stage.predict(batch, noise, time_B), hooked, rtol=1e-4, atol=1e-4)


def test_files_for_other_models_are_refused_with_a_sentence(pair_folder, drawings, tmp_path):
    twin = WeaverModel.from_pretrained(pair_folder).visualizer
    stage_of(pair_folder, drawings).export(tmp_path)
    right = load_file(tmp_path / "lora.safetensors")
    first = "diffusion_model.blocks.0.qkv.lora_A.weight"
    for change, words in (
        ({"diffusion_model.transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(4, 8)}, "1 of its 17 keys name none of its layers"),
        ({first: torch.ones(4, 9)}, "was made for another model: blocks.0.qkv"),
        ({first: torch.full_like(right[first], torch.nan)}, "holds numbers that are none"),
        ({first.replace("lora_A.weight", "alpha"): torch.tensor(torch.nan)}, "holds numbers that are none"),
        ({first.replace("lora_A.weight", "alpha"): torch.ones(2)}, "holds 2 numbers where blocks.0.qkv has one strength"),
        ({first: right[first][:0], first.replace("_A", "_B"): right[first.replace("_A", "_B")][:, :0]}, "was made for another model"),
    ):
        save_file(right | change, tmp_path / "wrong.safetensors")
        with pytest.raises(InputError, match=words):
            read_lora(tmp_path / "wrong.safetensors", twin)
    save_file({name: value for name, value in right.items() if name != first}, tmp_path / "half.safetensors")
    with pytest.raises(InputError, match="holds half of blocks.0.qkv: lora_A is missing"):
        read_lora(tmp_path / "half.safetensors", twin)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "lora.safetensors").read_bytes()[:900])
    with pytest.raises(InputError, match="cannot be read"):
        read_lora(tmp_path / "cut.safetensors", twin)


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "whole twin"])
def test_activation_checkpointing_leaves_loss_and_gradients_as_they_are(pair_folder, drawings, rank):
    results = []
    for saves in (False, True):
        torch.manual_seed(0)
        stage = stage_of(pair_folder, drawings, f"lora.rank={rank}")
        stage.prepare()
        shake(stage)
        if saves:
            checkpoint_activations("visualizer", stage.twin)
            assert stage.twin.gradient_checkpointing
        index = next(i for i in range(9) if "kept_BR" in stage.batch(i))
        torch.manual_seed(1)
        loss, _ = stage.loss(tensors(stage.batch(index)))
        loss.backward()
        results.append((loss, {name: p.grad for name, p in stage.twin.named_parameters() if p.grad is not None}))
    (loss, gradients), (again, others) = results
    assert torch.equal(loss, again) and gradients.keys() == others.keys()
    assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())


def test_the_check_tells_parts_memory_and_sizes_of_every_image_stage(pair_folder, photographs, tmp_path):
    from training.check import check, tell

    parts = [f"base={pair_folder}", f"planner={pair_folder}", f"autoencoder={pair_folder / 'vae'}"]
    told = {}
    for name, path, changes in (("pictures", CONFIG, [*parts[:1], f"data.source={photographs}"]), ("dpcw", PICTUREBOOK / "dpcw.toml",
                                [*parts[1:], f"init={pair_folder / 'visualizer'}"]), ("autoencoder", PICTUREBOOK / "autoencoder.toml", [])):
        config, problems = read_config(path, changes)
        found, needed = check(config, problems, tmp_path / "run")
        problems.raise_if_any()
        assert needed.activations > 0 and needed.total > needed.activations
        told[name] = "\n".join(tell(config, found, needed))
    assert "20 pictures in" in told["pictures"] and "none left out" in told["pictures"] and "latents take" in told["pictures"]
    assert "pages of 176x128 (4:3): 20% of the batches" in told["dpcw"] and "trains decoder" in told["autoencoder"]
    config, problems = read_config(PICTUREBOOK / "dpcw.toml", [*parts[1:], f"init={pair_folder / 'visualizer'}", f"data.source={photographs}"])
    check(config, problems, tmp_path / "run")
    assert "is for stage = \"visualizer\"" in problems.messages[0]


def test_one_command_fine_tunes_on_twenty_photographs_and_weaver_draws_with_it(photographs, tmp_path, capsys, monkeypatch):
    """The commands of training/README.md on the shipped pair, with few steps."""
    monkeypatch.chdir(tmp_path)
    changes = [f"data.source={photographs}", "train.steps=3", "train.log_every=1", "train.evaluate_every=100", "sample.steps=2", "sample.count=2"]
    command = [str(CONFIG), *(part for change in changes for part in ("--set", change))]
    assert train([*command, "--check"]) == 0
    assert f"{len(CAPTIONS)} pictures in" in capsys.readouterr().out
    assert train([*command, "--cache-only"]) == 0 and not Path("runs/lora-own-pictures/checkpoints").exists()
    assert train(command) == 0
    run = Path("runs/lora-own-pictures")
    assert Image.open(run / "samples" / "step_00000003" / "truth_above_drawn.png").width % 2 == 0
    numbers = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"held_out/loss_seen", "held_out/loss_held_out"} <= numbers.keys()
    weights = {path.name: load_file(path) for path in (run / "checkpoints" / "step_00000003").glob("weights.safetensors")}
    assert all(".lora_" in name for name in weights["weights.safetensors"])

    Path("plan.md").write_text("# Robin\n<imagine>A small orange fox sits in a den, soft morning light.</imagine>\n", encoding="utf-8")
    pages, prints = [], []
    for name, more in (("bare", []), ("with", ["--lora", str(run / "export" / "lora.safetensors")])):
        assert weaver(["render", "plan.md", "--out", name, "--steps", "2", "--quiet", *more]) == 0
        prints.append(json.loads([line for line in Path(name, "story.jsonl").read_text().splitlines() if "visualizer" in line][-1]))
        pages.append(next(Path(name, "images").glob("*.png")).read_bytes())
    assert pages[0] != pages[1] and prints[0] != prints[1]
    assert weaver(["render", "plan.md", "--out", "third", "--lora", str(photographs / "cell.png")]) == 1
    assert "no .safetensors file" in capsys.readouterr().err
