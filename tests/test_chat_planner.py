"""The stage `chat_planner`: a user's records, packed without leaks, LoRA files that the planner of nodes and command line loads."""

import json
import time
from pathlib import Path

import pytest
import tiny_chat_models
import torch
from PIL import Image

from training.config import Problems, load_config
from training.packing import BatchOrder, Draw
from training.records import read_records, split
from training.stages import build_stage, chat_planner
from training.stages.chat_rows import Row, collate_packed, collate_padded
from training.train import train
from weaver_core.errors import InputError

CONFIGS = Path(__file__).resolve().parents[1] / "training" / "configs"
PLAN = "# Robin\nHe wakes. <imagine>A fox wakes up</imagine>\nHe sleeps. <imagine>A fox sleeps</imagine>\n"


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    return tiny_chat_models.seeing("qwen3_vl", tmp_path_factory.mktemp("models") / "seeing")


@pytest.fixture(scope="module")
def writing(tmp_path_factory):
    return tiny_chat_models.writing(tmp_path_factory.mktemp("models") / "writing")


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """Answers to short questions, half of them about pictures of two sizes: a byte is a token here, so plans would be long."""
    folder = tmp_path_factory.mktemp("data")
    Image.linear_gradient("L").convert("RGB").resize((64, 64)).save(folder / "one.png")
    Image.radial_gradient("L").convert("RGB").resize((96, 64)).save(folder / "two.png")
    records = [{"request": f"Which number is {i}?", "answer": f"It is {i}, {'and more, ' * i}that is all."} for i in range(6)]
    for record, images in zip(records, (["one.png"], [], ["two.png", "one.png"], [], ["two.png"], [])):
        record["images"] = images
    (folder / "stories.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return folder / "stories.jsonl"


def settings(tmp_path, base: Path, source: Path, *changes: str):
    path = tmp_path / "run.toml"
    path.write_text(f'stage = "chat_planner"\nname = "t"\nbase = "{base}"\n[train]\nsteps = 2\nworkers = 0\nema_decay = 0.0\nautocast = false\n'
                    f'device = "cpu"\nlog_every = 1\n[optimizer]\nlr = 1e-2\nwarmup_steps = 1\n[data]\nsource = "{source}"\n'
                    'batch_tokens = 256\nheld_out = 0.0\n[checks]\nplans = 0\n')
    return load_config(path, list(changes))


def stage_of(config):
    torch.manual_seed(0)
    return build_stage("chat_planner", config.settings, seed=0, run_dir=Path("unused"), device="cpu")


def loss_and_gradients(stage, batches) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    stage.model.zero_grad()
    losses = [stage.losses(batch)[0] for batch in batches]
    torch.cat(losses).sum().backward()
    return torch.cat(losses).detach(), {name: p.grad.clone() for name, p in stage.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["seeing", "writing"])
def test_packed_sequences_learn_what_each_would_learn_alone(request, tmp_path, stories, kind):
    stage = stage_of(settings(tmp_path, request.getfixturevalue(kind), stories, "model.train_vision=true"))
    assert stage.packs
    rows = [stage.data.rows.row(Draw(i, 0)) for i in range(6)]
    packed, packed_gradients = loss_and_gradients(stage, [collate_packed(rows)])
    alone, gradients = loss_and_gradients(stage, [collate_packed([row]) for row in rows])
    assert torch.allclose(packed, alone, atol=1e-4)
    assert packed_gradients.keys() == gradients.keys() and (kind == "writing" or any("visual" in name for name in gradients))
    for name, gradient in gradients.items():
        assert torch.allclose(packed_gradients[name], gradient, atol=1e-4, rtol=1e-3), name
    padded, _ = loss_and_gradients(stage, [collate_padded(rows, 0)])
    filled, _ = loss_and_gradients(stage, [collate_packed(rows, length=1200)])
    assert torch.allclose(padded, alone, atol=1e-4) and torch.allclose(filled, alone, atol=1e-4)
    # The test can fail: one sequence behind the other without the rule is another loss.
    leaking = collate_packed(rows) | {"lengths": [sum(len(row.ids_T) for row in rows)]}
    if kind == "writing":
        assert not torch.allclose(stage.losses(leaking)[0], alone, atol=1e-2)


def test_a_model_whose_memory_leaks_between_packed_sequences_is_padded(tmp_path, stories):
    base = tiny_chat_models.seeing("qwen3_5", tmp_path / "linear")
    stage = stage_of(settings(tmp_path, base, stories))
    assert not stage.packs and "attention_mask" in stage.batch(0)


def test_the_conversation_is_the_one_that_the_planner_holds(tmp_path, seeing, stories):
    from weaver_core.planners import PlannerOptions
    from weaver_core.planners.instruction import build_messages
    from weaver_core.planners.transformers_planner import ChatText
    from weaver_core.request import ReferenceImage, Request

    source = tmp_path / "s.jsonl"
    picture = stories.parent / "one.png"
    source.write_text(json.dumps({"request": "About Robin", "plan": PLAN, "images": [str(picture)]}))
    text = ChatText.open(seeing)
    rows = chat_planner.ChatRows(text, read_records(source), told_counts=1.0, seed=0)
    row = rows.row(Draw(0, 0))
    request, _ = Request(prompt="About Robin", images=(ReferenceImage.read(picture)[0],)).validated()
    messages = build_messages(request, (), PlannerOptions(num_images=2), picture_part=lambda image: {"type": "image", "image": image})
    prompt = text.inputs(messages)["input_ids"][0]
    assert torch.equal(row.ids_T[:len(prompt)], prompt) and set(row.labels_T[:len(prompt)].tolist()) == {-100}
    answer = row.ids_T[len(prompt):]
    assert torch.equal(row.labels_T[len(prompt):], answer) and answer[-1] == text.tokenizer.eos_token_id
    assert text.tokenizer.decode(answer[:-1]) == read_records(source)[0].plan.to_markup().strip()


def test_drawn_pictures_stand_in_the_history_and_only_the_rest_is_learned(tmp_path, seeing, stories):
    from weaver_core.planners.transformers_planner import ChatText

    source, picture = tmp_path / "s.jsonl", str(stories.parent / "one.png")
    source.write_text(json.dumps({"request": "About Robin", "plan": PLAN, "drawn": [picture, picture]}))
    rows = chat_planner.ChatRows(ChatText.open(seeing), read_records(source), told_counts=0.0, seed=0)
    answers = {}
    for epoch in range(8):
        row = rows.row(Draw(0, epoch))
        answer = rows.text.tokenizer.decode(row.labels_T[row.labels_T != -100][:-1])
        answers[len(row.pictures.get("image_grid_thw", ()))] = answer
    assert answers[0].startswith("# Robin") and answers[1].startswith("He sleeps") and set(answers) == {0, 1}


def test_a_record_counts_with_the_pictures_that_may_be_drawn_so_that_no_batch_is_over_its_budget(tmp_path, seeing, stories):
    source, picture = tmp_path / "s.jsonl", str(stories.parent / "two.png")
    plan = "# T\n" + "One. <imagine>A fox</imagine>\n" * 4
    source.write_text("\n".join(map(json.dumps, [{"request": "A", "plan": plan}, {"request": "A", "plan": plan, "drawn": [picture] * 4}])))
    data = stage_of(settings(tmp_path, seeing, source, "data.batch_tokens=100000")).data
    bare, drawn = data.lengths
    assert drawn >= max(data.rows.length(Draw(1, epoch)) for epoch in range(20)) and drawn > bare + 64
    budget = (bare + drawn) // 2 + 64  # the second record fits as long as few of its pages are drawn
    data = stage_of(settings(tmp_path, seeing, source, f"data.batch_tokens={budget}")).data
    assert len(data.left_out) == 1 and data.left_out[0].startswith(f"{source}:2: {drawn:,} tokens")
    assert all(data.batch(index)["num_tokens"] <= budget for index in range(20))
    assert {name for index in range(20) for name in data.names(index)} == {f"{source}:1"}


@pytest.mark.parametrize("changes", [("lora.rank=4", "lora.alpha=8.0"), ("lora.rank=4", "model.quantization='nf4'", "optimizer.eight_bit=true"), ()],
                         ids=["lora", "qlora", "whole"])
def test_what_was_trained_is_what_the_planner_loads(tmp_path, writing, stories, changes):
    from weaver_core.planners.transformers_planner import TransformersPlanner

    config = settings(tmp_path, writing, stories, *changes, "train.activation_checkpointing=true")
    assert train(config, tmp_path / "run")
    export = tmp_path / "run" / "export"
    trained = stage_of(config)
    assert len(trained.data.order.batch(0)) >= 1
    from safetensors.torch import load_file
    weights = load_file(tmp_path / "run" / "checkpoints" / "step_00000002" / "weights.safetensors")
    if changes:
        assert all(".lora_" in name for name in weights), "the base model does not belong into a checkpoint"
    missing = trained.model.load_state_dict({name.removeprefix("planner."): value for name, value in weights.items()}, strict=False)
    assert not missing.unexpected_keys
    quantization = "nf4" if "model.quantization='nf4'" in changes else None
    planner = TransformersPlanner(export if not changes else writing, lora=export if changes else None, quantization=quantization,
                                  device="cpu", dtype=torch.float32)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = TransformersPlanner(writing, quantization=quantization, device="cpu", dtype=torch.float32).model(input_ids=ids).logits
        learned, loaded = trained.model.eval()(input_ids=ids).logits, planner.model(input_ids=ids).logits
    assert torch.allclose(loaded, learned, atol=1e-4 if changes else 0.1)
    assert (learned - before).abs().max() > 10 * (learned - loaded).abs().max()


def test_a_lora_of_layers_that_are_not_there_is_refused(tmp_path, writing, stories):
    with pytest.raises(ValueError, match="lora.targets.*q_project.*names no layers"):
        stage_of(settings(tmp_path, writing, stories, "lora.rank=4", "lora.targets=['q_project']"))


def test_computing_again_in_the_backward_pass_changes_no_gradient(tmp_path, writing, stories):
    from training.memory_savers import checkpoint_activations

    stage = stage_of(settings(tmp_path, writing, stories))
    stage.model.train()
    batch = stage.batch(0)
    loss, plain = loss_and_gradients(stage, [batch])
    checkpoint_activations("planner", stage.model)
    again, checkpointed = loss_and_gradients(stage, [batch])
    assert torch.equal(loss, again) and all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_scores_in_chunks_are_the_same_scores(monkeypatch):
    from training.stages import sequence_loss

    torch.manual_seed(0)
    head, hidden, labels = torch.nn.Linear(8, 20), torch.randn(2, 15, 8, requires_grad=True), torch.randint(0, 20, (2, 15))
    whole = sequence_loss.answer_loss(head, hidden, labels)
    wanted = torch.autograd.grad(whole[0].sum(), hidden)[0]
    monkeypatch.setattr(sequence_loss, "LOSS_CHUNK", 7)
    parts = sequence_loss.answer_loss(head, hidden, labels)
    assert torch.allclose(parts[0], whole[0]) and torch.equal(parts[1], whole[1])
    assert torch.allclose(torch.autograd.grad(parts[0].sum(), hidden)[0], wanted, atol=1e-6)


def test_an_excluded_word_gets_no_gradient_and_takes_no_probability(monkeypatch):
    from training.stages import sequence_loss

    torch.manual_seed(0)
    head, hidden, labels = torch.nn.Linear(8, 20), torch.randn(1, 6, 8), torch.randint(0, 10, (1, 6))
    excluded = torch.full((1, 6, 2), -1)
    excluded[0, 3] = torch.tensor([15, 12])
    for chunk in (4096, 2):
        monkeypatch.setattr(sequence_loss, "LOSS_CHUNK", chunk)
        head.zero_grad()
        loss, _ = sequence_loss.answer_loss(head, hidden, labels, excluded_BTE=excluded)
        loss[2].backward()
        assert not head.weight.grad[[12, 15]].any() and head.weight.grad[11].any()
        left = torch.cat([head(hidden[0, 2])[:12], head(hidden[0, 2])[13:15], head(hidden[0, 2])[16:]])
        assert torch.allclose(loss[2], torch.logsumexp(left, 0) - head(hidden[0, 2])[labels[0, 3]])
        whole, _ = sequence_loss.answer_loss(head, hidden, labels)
        assert torch.allclose(loss[[0, 1, 3, 4]], whole[[0, 1, 3, 4]])


@pytest.mark.clock
def test_packing_reads_at_least_half_as_many_tokens_again_in_the_same_time(tmp_path, stories):
    """Mixed lengths, as plans and short answers are. The same sequences, one run: packed against a row each."""
    stage = stage_of(settings(tmp_path, tiny_chat_models.writing(tmp_path / "wider", width=128), stories))
    lengths = [24] * 12 + [40] * 8 + [90] * 3 + [384]
    rows = []
    for length in lengths:
        ids = torch.randint(0, 200, (length,))
        rows.append(Row(where="", ids_T=ids, labels_T=ids.clone(), types_T=torch.zeros_like(ids), pictures={}))
    batches = {"packed": collate_packed(rows), "padded": collate_padded(rows, 0)}
    seconds = dict.fromkeys(batches, float("inf"))
    for _ in range(3):
        for name, batch in batches.items():
            started = time.process_time()
            stage.losses(batch)[0].sum().backward()
            seconds[name] = min(seconds[name], time.process_time() - started)
    speed = {name: batch["num_tokens"] / seconds[name] for name, batch in batches.items()}
    print({name: round(value) for name, value in speed.items()}, "tokens/s")
    assert speed["packed"] >= 1.5 * speed["padded"], speed


# ---- records and batches


@pytest.mark.parametrize(("line", "told"), [
    ('{"request": "a", "plan": "# T"', "no valid JSON"), ("[1]", "expected an object"),
    ('{"request": "a", "plans": "# T"}', "unknown key 'plans'; did you mean 'plan'"),
    ('{"request": "", "answer": "b"}', "'request' must be a text"),
    ('{"request": "a", "answer": "b", "plan": "# T"}', "exactly one of"),
    ('{"request": "a", "plan": "# T\\nHe. <imagine>x"}', "plan, line 2, column"),
    ('{"request": "a", "answer": "b", "images": ["none.png"]}', "none.png is no picture that can be opened"),
    ('{"request": "a", "answer": "b", "images": ["line.png"]}', "line.png is 90 x 4 pixels"),
    ('{"request": "a", "answer": "b", "images": "x"}', "'images' must be a list of paths")])
def test_a_record_that_is_wrong_is_told_with_file_and_line(tmp_path, line, told):
    path = tmp_path / "s.jsonl"
    Image.new("RGB", (90, 4)).save(tmp_path / "line.png")
    path.write_text('{"request": "a", "answer": "b"}\n\n' + line + "\n")
    with pytest.raises(InputError) as raised:
        read_records(path)
    assert str(raised.value).startswith(f"{path}:3: ") and told in str(raised.value)


def test_pictures_and_places_for_them_must_agree(tmp_path, stories):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"request": "a", "plan": PLAN, "drawn": [str(stories.parent / "one.png")]}))
    with pytest.raises(InputError, match="1: 1 pictures in 'drawn', but the plan has 2 images"):
        read_records(path)


def test_every_record_comes_once_before_any_comes_again_and_no_batch_is_over_its_budget():
    lengths = [5, 60, 30, 10, 44, 8, 71, 100, 3, 29]
    for packed in (True, False):
        orders = [BatchOrder(["generation"] * 10, {"generation": 1.0}, lambda draw: lengths[draw.record], 100, seed=3, packed=packed)
                  for _ in range(2)]
        batches = [orders[0].batch(i) for i in range(60)]
        assert orders[1].batch(59) == batches[59], "a later start sees the same data"
        for batch in batches:
            sizes = [lengths[draw.record] for draw in batch]
            assert (sum(sizes) if packed else len(sizes) * max(sizes)) <= 100
        seen = [draw for batch in batches for draw in batch]
        assert len(set(seen)) == len(seen)
        assert {draw.record for draw in seen if draw.epoch == 0} == set(range(10))
    assert sum(lengths[draw.record] for draw in seen) / (60 * 100) > 0.5


def test_generation_and_understanding_come_in_their_ratio():
    kinds = ["generation"] * 3 + ["understanding"] * 7
    order = BatchOrder(kinds, {"generation": 5.0, "understanding": 1.0}, lambda draw: 10, 100, seed=0, packed=True)
    drawn = [kinds[draw.record] for i in range(120) for draw in order.batch(i)]
    assert 4 < drawn.count("generation") / drawn.count("understanding") < 6.2


def test_records_too_long_for_a_batch_are_named_and_the_table_counts_the_others(tmp_path, writing, stories):
    data = stage_of(settings(tmp_path, writing, stories, "data.batch_tokens=140")).data
    told = "\n".join(data.table())
    assert "data: 3 understanding records" in told and "6 records of" in told and f"left out: {stories}:6" in told
    trained, held_out = split(read_records(stories), 0.5)
    assert len(trained) == len(held_out) == 3


def test_a_check_tells_everything_that_is_wrong_without_loading_a_model(tmp_path, writing, stories):
    from training.check import check, tell

    config = settings(tmp_path, writing, stories, "lora.rank=4")
    problems = Problems(tmp_path / "run.toml", (tmp_path / "run.toml").read_text())
    found, needed = check(config, problems, tmp_path)
    assert not problems.messages
    told = "\n".join(tell(config, found, needed))
    assert "trains planner" in told and "records of" in told and "of memory" in told
    stage = stage_of(config)
    trained = sum(p.numel() for p in stage.model.parameters() if p.requires_grad)
    assert found.parts[0].num_trained == trained and needed.gradients == 4 * trained
    assert found.parts[0].bytes == sum(p.nbytes for p in stage.model.parameters())
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    config = settings(tmp_path, tmp_path / "nowhere", bad)
    check(config, problems, tmp_path)
    text = "\n".join(problems.messages)
    assert "run.toml:3: " in text and "nowhere" in text and f"{bad}:1:" in text


@pytest.mark.parametrize(("name", "config_of", "limit"), [
    ("planner_qlora_24gb", lambda t: _qwen3_vl(t, 4096, 12288, 36, 32, False), 24),
    ("planner_full_8x80gb", lambda t: _qwen3_vl(t, 2560, 9728, 36, 32, True), 80)])
def test_presets_fit_their_cards_by_the_estimate(tmp_path, name, config_of, limit):
    import dataclasses

    import transformers

    from training.estimate import Inspection, estimate
    from weaver_core.memory import GIB

    config_of(transformers).save_pretrained(tmp_path)
    config = load_config(CONFIGS / f"{name}.toml")
    found = Inspection()
    chat_planner._count(dataclasses.replace(config.settings, base=str(tmp_path)), config, found)
    needed = estimate(found, config).total / GIB
    print(name, estimate(found, config))
    assert 0.4 * limit < needed < 0.9 * limit, needed


def _qwen3_vl(t, width: int, wide: int, layers: int, heads: int, tied: bool):
    """Qwen3-VL's published shapes."""
    text = {"hidden_size": width, "intermediate_size": wide, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8,
            "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": tied,
            "rope_parameters": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_theta": 5e6, "rope_type": "default"}}
    vision = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": width}
    return t.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
