"""A user's records in the native planner's stage: spelled as it plans, packed without leaks."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_pair import TEXTS

from training.build_tokenizer import train_tokenizer
from training.config import Problems, load_config
from training.stages import planner
from weaver_core.model.tokens import encode

CONFIG = Path(__file__).resolve().parents[1] / "training" / "configs" / "picturebook" / "planner.toml"
TINY = ["data.batch_tokens=400", "data.image_size=32", "data.held_out=0.0", "model.hidden_size=64", "model.layers=2", "model.heads=2",
        "model.kv_heads=1", "model.intermediate_size=64", "model.vision_depth=1", "model.vision_hidden=32", "model.vision_heads=2",
        "model.compile=false", "checks.max_new_tokens=8"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    from transformers import Qwen2_5_VLForConditionalGeneration

    folder = tmp_path_factory.mktemp("records")
    for name, colour in (("fox.png", "orange"), ("one.png", "blue"), ("two.png", "green")):
        Image.new("RGB", (50, 40), colour).save(folder / name)
    plan = "# A red bear\nOnce. <imagine>A red bear at night</imagine>\nA small fox sat down. <imagine>A fox</imagine>\n"
    records = [{"request": "Draw a red bear", "plan": plan, "images": ["fox.png"], "drawn": ["one.png", "two.png"]},
               {"request": "Draw a fox", "plan": plan}, {"request": "Who sits?", "answer": "A fox.", "images": ["one.png"]}]
    (folder / "stories.jsonl").write_text("\n".join(map(json.dumps, records)))
    tokenizer = train_tokenizer(TEXTS * 20, 400)
    settings = load_config(CONFIG, [*TINY, f"data.source='{folder}'"]).settings
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration._from_config(planner.planner_config(settings.model, tokenizer, 32), attn_implementation="eager")
    return planner.PlannerStage(settings, model, tokenizer, seed=0, device="cpu")


def test_a_plan_is_spelled_in_bare_markup_with_its_drawn_pictures_given(stage):
    data = stage.data
    row = data.record_row(data.records[0])
    learned = [token for token in row.labels if token != planner.IGNORED]
    bare = data.records[0].plan.to_bare_markup().strip()
    assert learned == [*encode(data.tokenizer, bare), data.tokens.eos]
    assert row.ids.count(data.tokens.vision_start) == len(row.pixels_HWC) == 3
    assert row.labels[:row.ids.index(data.tokens.bot) + 1] == [planner.IGNORED] * (row.ids.index(data.tokens.bot) + 1)


def test_packed_records_learn_what_each_would_learn_alone(stage):
    def learned(batches):
        stage.model.zero_grad()
        losses = torch.cat([stage._cross_entropy(batch)[0] for batch in batches])
        losses.sum().backward()
        return losses.detach(), [p.grad.clone() for p in stage.model.parameters()]

    rows = [stage.data.record_row(record) for record in stage.data.records]
    packed, packed_gradients = learned([stage.data.pack(rows)])
    alone, gradients = learned([stage.data.collate([row]) for row in rows])
    assert torch.allclose(packed, alone, atol=1e-4)
    assert all(torch.allclose(one, other, atol=1e-4, rtol=1e-3) for one, other in zip(packed_gradients, gradients))


def test_batches_name_their_records_and_evaluation_measures_what_was_held_out(stage):
    names = [name for index in range(3) for name in stage.names(index)]
    assert {Path(name).name for name in names} == {"stories.jsonl:1", "stories.jsonl:2", "stories.jsonl:3"}
    stage.data.held_out = stage.data.records[:1]
    assert stage.evaluate().keys() == {"loss_generation"}


def test_samples_are_plans_for_the_requests_of_records(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(stage.data, "held_out", [])  # nothing held out: the first records are shown
    stage.model.eval()
    stage.samples(tmp_path)
    told = {path.name: path.read_text().splitlines()[0] for path in tmp_path.iterdir()}
    assert told.keys() == {"plan_1.md", "plan_2.md"} and told["plan_1.md"].endswith("stories.jsonl:1: Draw a red bear -->")
    prompt, row = stage.data.record_prompt(stage.data.records[0]), stage.data.record_row(stage.data.records[0])
    assert prompt.ids == row.ids[:len(prompt.ids)] and row.labels[len(prompt.ids) - 1] == planner.IGNORED != row.labels[len(prompt.ids)]


def test_records_need_a_tokenizer_that_knows_words(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('stage = "planner"\nname = "x"\n[train]\nsteps = 1\n[optimizer]\nlr = 1.0\n[data]\nsource = "x.jsonl"\n')
    config, problems = load_config(path), Problems(path, path.read_text())
    found = planner.inspect(config.settings, config, problems)
    assert problems.messages == [f"{path}:8: data.source needs init: a tokenizer made of the picture-book grammar has no words for other stories"]
    assert 5_000_000 < found.parts[0].num_trained < 7_000_000
