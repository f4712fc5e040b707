"""The planner stage: tokenizer, patches, rows, batches, checks, greedy continuation."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.build_tokenizer import picturebook_texts, train_tokenizer
from training.config import load_config
from training.distributed import World
from training.loop import Trainer
from training.metrics import Meters
from training.stages import planner
from training.stages.planner import IGNORED, PlannerData, PlannerStage, planner_config
from training.stages.planner_checks import Prompt, check_story, continue_greedily
from weaver_core.model.tokens import encode, mrope_positions
from weaver_core.model.vision import image_patches, merged_grid
from weaver_core.picturebook import grammar, splits, world

CONFIG = Path(__file__).resolve().parents[1] / "training" / "configs" / "picturebook" / "planner_facts.toml"
TINY = ["data.batch_tokens=400", "data.image_size=32", "model.hidden_size=64", "model.layers=2", "model.heads=2",
        "model.kv_heads=1", "model.intermediate_size=64", "model.vision_depth=1", "model.vision_hidden=32",
        "model.vision_heads=2", "model.compile=false"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(picturebook_texts(300), 1200)


@pytest.fixture(scope="module")
def stage(tokenizer):
    from transformers import Qwen2_5_VLForConditionalGeneration

    settings = load_config(CONFIG, TINY).settings
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration._from_config(
        planner_config(settings.model, tokenizer, settings.data.image_size), attn_implementation="eager")
    return PlannerStage(settings, model, tokenizer, seed=1, device="cpu")


@pytest.fixture(scope="module")
def data(stage) -> PlannerData:
    return stage.data


def test_world_words_and_digits_are_single_tokens_in_every_form(tokenizer):
    words = (*world.HEROES, *world.COLOURS, *world.WEARABLES, *world.PROPS, *world.PLACES, *world.TIMES, *world.POSITIONS)
    for word in words:
        for form in (word, f" {word}", word.capitalize(), f" {word.capitalize()}"):
            assert len(encode(tokenizer, form)) == 1, form
    assert len(encode(tokenizer, "48")) == 2


@pytest.mark.parametrize("text", ["Ein Bär & 12 Äpfel\n\n  two  spaces", "日本語 🦊", "# T\nA cat. <imagine>x</imagine><BOI>\n"])
def test_any_text_comes_back_from_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_patches_equal_those_of_the_transformers_image_processor(data):
    from transformers import Qwen2VLImageProcessor

    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessor(patch_size=8, merge_size=2, temporal_patch_size=2, do_resize=False,
                                      image_mean=[0.5] * 3, image_std=[0.5] * 3)
    theirs = processor(list(pixels), return_tensors="pt")
    patches, grid = image_patches(pixels, data.vision_config)
    assert grid.tolist() == theirs["image_grid_thw"].tolist() == [[1, 4, 6]] * 2
    assert np.abs(patches - theirs["pixel_values"].numpy()).max() < 1e-5


def test_positions_equal_those_of_the_model_itself(stage, data):
    row = data.understanding_row(random.Random(0))
    ids = torch.tensor([row.ids])
    kinds = (ids == data.tokens.image_pad).int()
    rows, columns = data.grid
    theirs, _ = stage.model.model.get_rope_index(ids, mm_token_type_ids=kinds,
                                                 image_grid_thw=torch.tensor([[1, rows * 2, columns * 2]]))
    assert torch.equal(theirs[:, 0], mrope_positions(row.ids, data.tokens, row.grids))


def test_a_picture_that_fits_no_grid_is_refused(data):
    with pytest.raises(ValueError, match="100x32.*multiples of 16"):
        merged_grid(32, 100, data.vision_config)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_loss_lies_on_the_answer_and_never_on_pictures(tokenizer, data, noise):
    data = PlannerData(replace(data.settings, fact_noise=noise), tokenizer, data.vision_config, seed=1)
    rng = random.Random(3)
    num_misread = 0
    for _ in range(40):
        row = data.story_row(rng)
        bot = row.ids.index(data.tokens.bot)
        assert set(row.labels[:bot + 1]) == {IGNORED}
        pictures = {data.tokens.image_pad, data.tokens.vision_start, data.tokens.vision_end}
        for token, label in zip(row.ids[bot + 1:], row.labels[bot + 1:]):
            is_misread = noise and token in data._kinds and token != label
            num_misread += bool(is_misread)
            assert is_misread or label == (IGNORED if token in pictures else token)
        assert row.ids[-1] == data.tokens.eos
        assert row.ids.count(data.tokens.image_pad) == len(row.grids) * data.grid[0] * data.grid[1]
        assert len(row.grids) == len(row.pixels_HWC)
    assert bool(num_misread) == bool(noise)


def test_about_the_asked_share_of_the_facts_is_misread_as_another_word_of_its_kind(tokenizer, data):
    kinds = [set(kind) for kind in (world.HEROES, world.COLOURS, world.WEARABLES, world.PROPS, world.PLACES, world.TIMES)]
    held_out = splits.load_splits()["species_colour"]
    data = PlannerData(replace(data.settings, fact_noise=0.3), tokenizer, data.vision_config, seed=1)
    rng = random.Random(5)
    num_facts = num_misread = 0
    for _ in range(60):
        record = grammar.sample_story(rng, num_images=3)
        answer, weights = encode(tokenizer, record.markup), data._story_weights(record)
        read = data._misread(answer, weights, rng)
        words, read_words = ([tokenizer.decode([token]).strip() for token in ids] for ids in (answer, read))
        for place, (word, other) in enumerate(zip(words, read_words, strict=True)):
            num_facts += weights[place] > 1 and answer[place] in data._kinds
            if word != other:
                num_misread += 1
                assert weights[place] > 1 and any({word, other} <= kind for kind in kinds), (word, other)
        for colour, species in zip(read_words, read_words[1:]):
            assert (species, colour) not in held_out
    assert 0.2 < num_misread / num_facts < 0.3  # a word is sometimes drawn in its own place


def test_fed_back_pictures_follow_their_begin_of_image(data):
    answer = encode(data.tokenizer, "# A\nOne. <imagine>a</imagine><BOI>\nTwo. <imagine>b</imagine><BOI>") + [data.tokens.eos]
    ids, labels, weights = data._feed_back(answer, [2.0] * len(answer))
    assert [w for w, label in zip(weights, labels) if label != IGNORED] == [2.0] * len(answer)
    assert [i for i, label in zip(ids, labels) if label != IGNORED] == answer
    for place, token in enumerate(ids):
        if token == data.tokens.begin_of_image:
            assert ids[place + 1] == data.tokens.vision_start


def test_batches_are_the_same_in_every_process_and_hold_about_the_asked_tokens(tokenizer, data):
    twin = PlannerData(data.settings, tokenizer, data.vision_config, seed=1)
    for step in (0, 5, 8):
        one, other = data.batch(step), twin.batch(step)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    sizes = [data.batch(step)["input_ids"].numel() for step in range(16)]
    assert 0.5 * 400 < np.mean(sizes) < 2.5 * 400


def test_padding_on_the_right_does_not_change_the_loss(stage, data):
    rng = random.Random(4)
    rows = [data.caption_row(rng), data.story_row(rng)]
    together = stage._cross_entropy(data.collate(rows))[0]
    alone = torch.cat([stage._cross_entropy(data.collate([row]))[0] for row in rows])
    assert torch.allclose(together, alone, atol=1e-4)


def step_of(stage, run_dir, batches) -> tuple[float, dict[str, float], dict[str, torch.Tensor]]:
    """Loss, row and gradients of one step over some batches; nothing is changed by it."""
    config = load_config(CONFIG, [*TINY, f"train.accumulate={len(batches)}", "train.autocast=false", "train.device=cpu", "optimizer.clip=1e9"])
    world = World(torch.device("cpu"))
    trainer, meters = Trainer(stage, config, run_dir, world.device, world), Meters()
    trainer.optimizers = []
    stage.model.zero_grad()
    meters.add(*trainer._train_step(batches)[:2])
    row = meters.take(world)
    return row["loss"], row, {name: p.grad.clone() for name, p in stage.model.named_parameters() if p.grad is not None}


def test_two_batches_of_a_step_learn_what_one_that_holds_both_learns(stage, data, tmp_path):
    rng = random.Random(9)
    rows = [data.caption_row(rng), data.story_row(rng), data.story_row(rng)]
    parts = [data.collate(rows[:1]), data.collate(rows[1:])]
    loss, row, gradients = step_of(stage, tmp_path, parts)
    whole, _, wanted = step_of(stage, tmp_path, [data.collate(rows)])
    assert loss == pytest.approx(whole, rel=1e-5) and gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-6, rtol=1e-3), name
    alone = [step_of(stage, tmp_path, [part]) for part in parts]
    assert abs(loss - sum(one for one, _, _ in alone) / 2) > 1e-3, "batches that weigh the same say nothing"
    weights = [stage.weight(part) for part in parts]
    assert weights[1] > 4 * weights[0]
    for name in ("accuracy", "cross_entropy"):
        assert row[name] == pytest.approx(sum(weight * one[name] for weight, (_, one, _) in zip(weights, alone)) / sum(weights))
    assert row["tokens"] == sum(part["input_ids"].numel() for part in parts)


def test_equal_batches_weigh_exactly_as_before(stage, data, tmp_path, monkeypatch):
    factors = []
    monkeypatch.setattr(stage, "loss", lambda batch: (factors.append(batch["loss_factor"]), PlannerStage.loss(stage, batch))[1])
    part = data.collate([data.caption_row(random.Random(9))])
    for count in (1, 2, 3, 7):
        step_of(stage, tmp_path, [part] * count)
    assert factors == [1.0] * 13


def test_a_tokenizer_that_is_not_written_whole_is_made_again(tmp_path, monkeypatch):
    settings = load_config(CONFIG, [*TINY, "data.tokenizer_stories=40", "model.vocab_size=400"]).settings
    settings = replace(settings, init=None)

    def killed(self, folder):
        Path(folder).mkdir()
        (Path(folder) / "tokenizer.json").write_text("{", encoding="utf-8")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(planner.PreTrainedTokenizerFast, "save_pretrained", killed)
        planner.begin(settings, tmp_path)
    planner.begin(settings, tmp_path)
    assert len(planner._run_tokenizer(settings, tmp_path)) == 400 and [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def test_names_world_words_openings_and_the_end_weigh_more(data):
    rng = random.Random(8)
    record = grammar.sample_story(rng, num_images=3)
    weights = data._story_weights(record)
    ids = encode(data.tokenizer, record.markup)
    assert len(weights) == len(ids) + 1 and weights[-1] == data.settings.fact_weight
    heavy = "".join(data.tokenizer.decode([i]) for i, w in zip(ids, weights) if w > 1)
    light = "".join(data.tokenizer.decode([i]) for i, w in zip(ids, weights) if w == 1)
    for word in (record.scenes[0].place, record.characters[0].species, record.cast[0]):
        assert word in heavy and word not in light
    for page in record.markup.split("<BOI>\n")[1:]:
        assert page.split()[0].strip(",") in heavy


def test_a_batch_of_prompts_continues_like_each_prompt_alone(stage, data):
    rng = random.Random(5)
    scene, question, _ = grammar.sample_understanding(rng)
    prompts = [data.picture_prompt("A fox.", []), data.picture_prompt(question, [scene]), Prompt(ids=[data.tokens.imagine])]
    stage.model.eval()
    together = continue_greedily(stage.model, data.tokens, prompts, 12)
    assert together == [continue_greedily(stage.model, data.tokens, [prompt], 12)[0] for prompt in prompts]


def test_the_grammar_passes_its_own_checks():
    rng = random.Random(6)
    for i in range(80):
        record = grammar.sample_story(rng, split="held_out", num_images=1 + i % 8, with_reference=i % 5 == 0)
        checks = check_story(record, record.markup)
        wrong = [name for name, right in checks.items() if not right]
        assert not wrong, f"{wrong}: {record.request}\n{record.markup}"


def test_checks_notice_a_wrong_count_hero_place_and_text():
    rng = random.Random(7)
    while True:
        record = grammar.sample_story(rng, num_images=3, two_heroes=False)
        hero = record.known["heroes"][0]
        if hero["species"] == "fox" and record.known["places"] == ["beach"] and any(scene.prop == "ball" for scene in record.scenes):
            break
    markup = record.markup
    assert not check_story(record, markup[:markup.rindex("<imagine>")])["count"]
    assert not check_story(record, markup[:markup.rindex("<imagine>")])["parses"]
    assert not check_story(record, markup.replace(" fox", " bear"))["hero"]
    assert not check_story(record, markup.replace("beach", "castle"))["place"]
    assert not check_story(record, markup.replace("the ball", "the cake").replace("a ball", "a cake", 1))["agreement"]


def test_held_out_species_are_no_wrong_answers_after_their_colour(data):
    """`excluded` names exactly the held-out species of the colour before it, and never a label, whatever the split."""
    rng = random.Random(4)
    rows = [data.story_row(rng, split=split) for split in ("train", "held_out") for _ in range(30)]
    batch = data.collate(rows)
    pairs, seen = splits.load_splits()["species_colour"], 0
    for row, column, word in (batch["excluded"] >= 0).nonzero().tolist():
        excluded = batch["excluded"][row, column, word]
        colour, species = (data.tokenizer.decode([int(token)]).strip().lower() for token in (batch["labels"][row, column - 1], excluded))
        assert (species, colour) in pairs and excluded != batch["labels"][row, column]
        seen += 1
    assert seen > 30
