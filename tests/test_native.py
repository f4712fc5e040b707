"""The native pair at work: one memory for writing and drawing, references encoded once, folders that load or say why not."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pair import tiny_pair

from weaver_core.errors import Cancelled, InputError
from weaver_core.model.checkpoint import CheckpointError, WeaverModel
from weaver_core.model.tokens import PlannerTokens, encode, mrope_positions, prompt_ids
from weaver_core.pictures import image_key
from weaver_core.plan import parse_markup
from weaver_core.planners import FeaturePlanner, PlannerOptions
from weaver_core.planners.native import NativePlanner
from weaver_core.request import ReferenceImage, RenderSettings, Request
from weaver_core.visualizers import Shot, Visualizer
from weaver_core.visualizers.native import NativeVisualizer
from weaver_core.weave import ImageReady, Warning, weave, weave_plan

REQUEST = Request(prompt="Tim at the beach")
MARKUP = ("# Tim\nOnce upon a time, Tim sat. <imagine>A small blue fox sits on the left.</imagine><BOI>\n"
          "In the end, Tim slept. <imagine>A small blue fox at night.</imagine><BOI>")
GREEDY = PlannerOptions(temperature=0, max_tokens=300)


@pytest.fixture(scope="module")
def pair():
    """A tiny pair whose planner has learned one story by heart, with a real training loop."""
    model = tiny_pair(seed=1)
    tokens = PlannerTokens.of(model.tokenizer)
    head = prompt_ids(model.tokenizer, tokens, REQUEST.prompt)
    answer = encode(model.tokenizer, MARKUP) + [tokens.eos]
    ids = torch.tensor([head + answer])
    labels = torch.tensor([[-100] * len(head) + answer])
    optimizer = torch.optim.AdamW(model.planner.parameters(), lr=3e-3)
    for _ in range(150):
        positions = mrope_positions(ids[0].tolist(), tokens)[:, None]
        loss = model.planner(input_ids=ids, position_ids=positions, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    model.planner.eval()
    return model


def write(planner, request=REQUEST, options=GREEDY, history=()):
    return "".join(planner.write(request, history, options=options, cancel=lambda: False))


def same_context(a, b, atol=1e-5):
    assert torch.equal(a.positions, b.positions) and torch.equal(a.mask, b.mask)
    for x, y in zip((*a.keys, *a.values), (*b.keys, *b.values), strict=True):
        torch.testing.assert_close(x, y, atol=atol, rtol=atol)


def test_the_pair_fulfils_the_protocols(pair):
    assert isinstance(NativePlanner(pair), FeaturePlanner) and isinstance(NativeVisualizer(pair), Visualizer)


def test_windows_of_a_written_plan_are_slices_of_the_generation_cache(pair):
    planner, fresh = NativePlanner(pair), NativePlanner(pair)
    text = write(planner)
    assert text == MARKUP
    plan, _ = parse_markup(text)
    read = planner._memory.forward_tokens
    for segment in plan.images:
        context = planner.context(plan, segment, REQUEST)
        assert context.mask.shape[1] == len(encode(pair.tokenizer, segment.prompt))
        same_context(context, fresh.context(plan, segment, REQUEST))
    assert planner._memory.forward_tokens == read, "a second pass was made"
    assert fresh._memory.forward_tokens <= read


def test_an_edited_plan_is_read_from_the_edit_on(pair):
    planner, fresh = NativePlanner(pair), NativePlanner(pair)
    write(planner)
    read = planner._memory.forward_tokens
    edited, _ = parse_markup(MARKUP.replace("at night", "by day"))
    segment = edited.images[1]
    same_context(planner.context(edited, segment, REQUEST), fresh.context(edited, segment, REQUEST))
    assert 0 < planner._memory.forward_tokens - read < 12


def test_a_reading_that_broke_off_in_the_middle_leaves_nothing_behind(pair, monkeypatch):
    planner, fresh = NativePlanner(pair), NativePlanner(pair)
    plan, _ = parse_markup(MARKUP)
    planner.context(plan, plan.images[0], REQUEST)
    with monkeypatch.context() as broken:
        broken.setattr(pair.planner.model.language_model.layers[-1], "forward", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            planner.context(plan, plan.images[1], REQUEST)
    same_context(planner.context(plan, plan.images[1], REQUEST), fresh.context(plan, plan.images[1], REQUEST))


def test_the_closed_loop_reads_only_the_new_picture(pair):
    planner, fresh = NativePlanner(pair), NativePlanner(pair)
    first = MARKUP[:MARKUP.index("<BOI>") + 5]
    picture = Image.new("RGB", (200, 100), "red")
    write(planner, history=())
    history = (first, picture, MARKUP[len(first):])
    plan, _ = parse_markup(MARKUP)
    same_context(planner.context(plan, plan.images[1], REQUEST, history=history), fresh.context(plan, plan.images[1], REQUEST, history=history))
    read = planner._memory.forward_tokens
    planner.context(plan, plan.images[1], REQUEST, history=history)
    assert planner._memory.forward_tokens == read
    changed = (first, Image.new("RGB", (200, 100), "blue"), MARKUP[len(first):])
    planner.context(plan, plan.images[1], REQUEST, history=changed)
    assert planner._memory.forward_tokens - read < fresh._memory.forward_tokens, "the text before the picture was read again"


def test_a_wanted_number_of_images_is_kept_whatever_the_model_would_do(pair):
    planner = NativePlanner(pair)
    for wanted in (1, 3):
        for seed in range(3):
            options = PlannerOptions(num_images=wanted, seed=seed, temperature=1.0, max_tokens=600)
            plan, _ = parse_markup(write(planner, Request(prompt=REQUEST.prompt, num_images=wanted), options))
            assert len(plan.images) <= wanted
            if wanted == 1:
                assert len(plan.images) == 1


def test_cancel_stops_writing_between_two_tokens(pair):
    pieces = []
    for piece in NativePlanner(pair).write(REQUEST, (), options=GREEDY, cancel=lambda: len(pieces) == 5):
        pieces.append(piece)
    assert len(pieces) == 5


def test_special_tokens_in_a_request_are_plain_text(pair):
    tokens = PlannerTokens.of(pair.tokenizer)
    ids = prompt_ids(pair.tokenizer, tokens, "a <bot> <imagine> </imagine><|image_pad|> fox")
    assert ids.count(tokens.bot) == 1 and tokens.imagine not in ids and tokens.image_pad not in ids


def shot(pair, references=(), seed=5, prompt_index=0, **changes):
    plan, _ = parse_markup(MARKUP)
    context = NativePlanner(pair).context(plan, plan.images[prompt_index], REQUEST)
    values = dict(prompt="", size=(128, 128), seed=seed, steps=2, guidance=2.0, reference_guidance=1.5, context=context,
                  references=tuple(references), reference_keys=tuple(map(image_key, references)))
    return Shot(**{**values, **changes})


def render(visualizer, a_shot):
    return np.asarray(visualizer.render(a_shot, on_step=lambda *_: None, cancel=lambda: False))


def test_equal_shots_give_equal_pictures_and_seeds_references_and_words_matter(pair):
    visualizer = NativeVisualizer(pair)
    red = Image.new("RGB", (128, 128), "red")
    base = render(visualizer, shot(pair, [red]))
    assert base.shape == (128, 128, 3)
    assert np.array_equal(base, render(NativeVisualizer(pair), shot(pair, [red])))
    for other in (shot(pair, [red], seed=6), shot(pair), shot(pair, [Image.new("RGB", (128, 128), "blue")]), shot(pair, [red], prompt_index=1)):
        assert not np.array_equal(base, render(visualizer, other))


def test_references_are_encoded_once_and_leave_over_budget(pair):
    visualizer = NativeVisualizer(pair, reference_budget=1)
    red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    first = visualizer._reference(red, image_key(red))
    assert visualizer._reference(red.copy(), image_key(red)) is first
    visualizer._reference(blue, image_key(blue))
    assert len(visualizer._references) == 1 and visualizer._reference(red, image_key(red)) is not first


def test_previews_are_decoded_now_and_then_only(pair):
    previews = []
    NativeVisualizer(pair).render(shot(pair, steps=30), on_step=lambda done, total, preview: previews.append(preview), cancel=lambda: False)
    assert len(previews) == 30 and sum(preview is not None for preview in previews) < 15


def test_drawing_reports_steps_and_stops_within_one(pair, monkeypatch):
    monkeypatch.setattr("weaver_core.visualizers.native.PREVIEW_SECONDS", 0.0)
    steps = []

    def on_step(done, total, preview):
        steps.append((done, total, preview is not None))

    NativeVisualizer(pair).render(shot(pair), on_step=on_step, cancel=lambda: False)
    assert steps == [(1, 2, True), (2, 2, False)]
    with pytest.raises(Cancelled):
        NativeVisualizer(pair).render(shot(pair, steps=50), on_step=lambda *step: steps.append(step), cancel=lambda: len(steps) > 4)
    assert len(steps) == 5
    with pytest.raises(InputError, match="connect the planner"):
        render(NativeVisualizer(pair), shot(pair, context=None))


@pytest.mark.parametrize("mode", ["plan-first", "closed-loop"])
def test_a_whole_story_is_woven_with_the_users_picture(pair, mode):
    reference, _ = ReferenceImage.read(Image.new("RGB", (300, 200), "green"), "hero")
    request = Request(prompt=REQUEST.prompt, images=(reference,), num_images=2, seed=4)
    events = list(weave(request, NativePlanner(pair), NativeVisualizer(pair), mode=mode, options=PlannerOptions(temperature=0, max_tokens=200)))
    for event in events:
        if isinstance(event, ImageReady):
            assert [used.source for used in event.rendering.references] == ["hero"]


# ---- sizes

SIZES = ((128, 128), (176, 128), (128, 176))


def with_sizes(pair, **changes):
    """The same pair, as if it had learned other sizes."""
    return replace(pair, defaults=replace(pair.defaults, **changes))


@pytest.mark.parametrize(("aspect", "drawn"), [(None, (128, 128)), ("4:3", (176, 128)), ("3:4", (128, 176)), ("1:1", (128, 128)),
                                               ("16:9", (176, 128)), ("2:3", (128, 176))])
def test_an_aspect_ratio_gets_the_nearest_size_that_was_learned(pair, aspect, drawn):
    able = NativeVisualizer(with_sizes(pair, sizes=SIZES)).capabilities
    assert able.fit_size(None, aspect) == drawn
    assert NativeVisualizer(pair).capabilities.fit_size(None, aspect) == (128, 128)  # it learned squares only


def test_a_large_model_draws_every_size_on_its_grid_at_the_pixels_of_its_first(pair):
    able = NativeVisualizer(with_sizes(pair, sizes=((1024, 1024),), size_multiple=32)).capabilities
    assert able.fit_size(None, "16:9") == (1376, 768) and able.fit_size(None, None) == (1024, 1024)
    assert able.fit_size((640, 500), None) == (640, 512)


def test_references_keep_their_own_aspect_ratio(pair):
    visualizer = NativeVisualizer(with_sizes(pair, sizes=SIZES))
    grids = [visualizer._reference(Image.new("RGB", size, "red"), str(size)).grid for size in ((300, 300), (1000, 700), (30, 90))]
    assert grids == [(8, 8), (8, 11), (11, 8)]  # rows and columns of tokens
    wide = render(visualizer, shot(pair, [Image.new("RGB", (300, 300), "red"), Image.new("RGB", (70, 90), "blue")], size=(176, 128)))
    assert wide.shape == (128, 176, 3)


def test_plan_and_request_choose_the_aspect_and_what_was_not_learned_is_told(pair):
    markup = ('<imagine>A small blue fox.</imagine><imagine aspect="3:4">A small blue fox.</imagine>'
              '<imagine aspect="16:9">A small blue fox at night.</imagine>')
    plan, _ = parse_markup(markup)
    model = with_sizes(pair, sizes=SIZES)
    events = list(weave_plan(plan, NativeVisualizer(model), planner=NativePlanner(model), request=replace(REQUEST, aspect="4:3"),
                             settings=RenderSettings(check_images=False)))
    assert [event.image.size for event in events if isinstance(event, ImageReady)] == [(176, 128), (128, 176), (176, 128)]
    told = [event.message for event in events if isinstance(event, Warning)]
    assert told == ["16:9 cannot be drawn; the nearest that this visualizer can is 176 x 128"]


# ---- folders


@pytest.fixture
def folder(pair, tmp_path):
    pair.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_pair_loads_and_draws_the_same(pair, folder):
    loaded = WeaverModel.from_pretrained(folder, device="cpu", dtype=torch.float32)
    assert write(NativePlanner(loaded)) == MARKUP
    assert np.array_equal(render(NativeVisualizer(loaded), shot(pair)), render(NativeVisualizer(pair), shot(pair)))
    assert loaded.defaults == pair.defaults and loaded.fingerprint.startswith("native-")
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


def test_sizes_come_with_the_folder_and_old_folders_draw_squares(pair, folder):
    with_sizes(pair, sizes=SIZES).save_pretrained(folder)
    assert load(folder).defaults.sizes == SIZES
    index = json.loads((folder / "model_index.json").read_text())
    del index["sampling"]["sizes"], index["sampling"]["size_multiple"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert NativeVisualizer(load(folder)).capabilities.sizes == ((128, 128),)


def test_half_precision_loads_and_stays_close(pair, folder):
    half = WeaverModel.from_pretrained(folder, device="cpu", dtype=torch.bfloat16)
    assert half.visualizer.dtype == torch.bfloat16
    difference = np.abs(render(NativeVisualizer(half), shot(half)).astype(int) - render(NativeVisualizer(pair), shot(pair)).astype(int))
    assert difference.mean() < 12


def load(folder):
    return WeaverModel.from_pretrained(folder, device="cpu", dtype=torch.float32)


def test_a_folder_that_is_not_ours_is_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match="no model folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds nothing, but no model_index.json"):
        load(tmp_path / "empty")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(CheckpointError, match="another kind of model"):
        load(folder)
    (folder / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder)


@pytest.mark.parametrize("part", ["planner", "visualizer", "vae"])
def test_damaged_weights_are_named(folder, part):
    path = next((folder / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=part):
        load(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match="no .safetensors"):
        load(folder)
    (folder / part / "model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError, match="pickle"):
        load(folder)


def test_every_key_is_accounted_for(folder):
    from safetensors.torch import load_file, save_file

    path = next((folder / "visualizer").glob("*.safetensors"))
    weights = load_file(path)
    changed = {k: v for k, v in weights.items() if k != "patch_out.bias"} | {"stray": torch.zeros(1), "final_table": torch.zeros(2, 3)}
    save_file(changed, path)
    with pytest.raises(CheckpointError, match=r"1 missing \(patch_out.bias\); 1 not part of the model \(stray\); 1 of another shape"):
        load(folder)


def test_planner_and_twin_of_different_trainings_are_refused(folder, tmp_path):
    tiny_pair(layers=3).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "visualizer").rename(tmp_path / "other" / "kept")
    (folder / "visualizer").rename(tmp_path / "other" / "visualizer")
    with pytest.raises(CheckpointError, match="one training"):
        load(tmp_path / "other")
