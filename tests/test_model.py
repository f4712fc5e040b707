"""The native model against oracles: one sequence without caches, brute-force masks, transformers' own positions and layers."""

import pytest
import torch
from tiny_pair import tiny_pair

from weaver_core.model import attention, dpcw, flow
from weaver_core.model.dpcw import DensePromptContext, WindowRule, empty_context, gather_windows, slice_cache, stack_contexts
from weaver_core.model.flow import Guidance
from weaver_core.model.rope import image_positions, rotate, rotation, unrotate
from weaver_core.model.sampler import draw
from weaver_core.model.tokens import PlannerTokens, image_ids, mrope_positions, prompt_ids
from weaver_core.model.twin_dit import grid_embedding


@pytest.fixture(scope="module")
def pair():
    return tiny_pair()


def random_context(batch=2, length=7, layers=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    keys = tuple(torch.randn(batch, 2, length, 16, generator=g) for _ in range(layers))
    values = tuple(torch.randn(batch, 2, length, 16, generator=g) for _ in range(layers))
    lengths = torch.randint(1, length + 1, (batch, 1), generator=g)
    return DensePromptContext(keys, values, torch.arange(length)[None] < lengths, torch.arange(3, 3 + length).expand(3, batch, length))


# ---- Twin DiT

@pytest.mark.parametrize("bridge", ["linear", "identity"])
@pytest.mark.parametrize("pooled", [(), (0, 1)])
@pytest.mark.parametrize("slots", [0, 3])
@torch.no_grad()
def test_cached_references_equal_one_uncached_sequence(bridge, pooled, slots):
    twin = tiny_pair(bridge=bridge, pooled=pooled, slots=slots).visualizer
    window, time = twin.read_window(random_context()), torch.tensor([0.3, 0.9])
    for size, reference_size in (((16, 16), (16, 16)), ((14, 18), (18, 14))):
        noisy, references = torch.randn(2, 4, *size), torch.randn(2, 3, 4, *reference_size)
        cache = twin.encode_references(references.flatten(0, 1))
        cached = twin(noisy, time, twin.assemble(window, [cache.rows(slice(slot, None, 3)) for slot in range(3)]))
        uncached = twin.forward_joint(noisy, time, window, references)
        assert cached.shape == noisy.shape and cached.std() > 0.01
        torch.testing.assert_close(cached, uncached, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_more_references_than_slots_are_refused(pair):
    twin = pair.visualizer
    cache = twin.encode_references(torch.randn(2, 4, 16, 16))
    with pytest.raises(ValueError, match="5 references, but this visualizer knows 4 slots"):
        twin.assemble(twin.read_window(random_context()), [cache] * 5)


def test_a_twin_without_slots_gets_them_and_keeps_everything_else():
    from training.stages.visualizer import with_slots

    plain = tiny_pair(slots=0).visualizer
    marked = with_slots(plain, 2)
    assert marked.slot_keys.shape == (2, 2, 2, 16) and marked.config.reference_slots == 2
    assert all(torch.equal(value, marked.state_dict()[name]) for name, value in plain.state_dict().items())
    assert with_slots(marked, 4) is marked


@torch.no_grad()
def test_the_sampling_buffer_changes_nothing(pair):
    twin, time = pair.visualizer, torch.tensor([0.5, 0.5])
    window = twin.read_window(random_context())
    shot = twin.assemble(window, [twin.encode_references(torch.randn(2, 4, 16, 16))])
    first, second = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    twin(first, time, shot)
    again = twin(second, time, shot)  # writes over the buffer that the first step left behind
    with torch.enable_grad():
        fresh = twin(second, time, shot)
    torch.testing.assert_close(again, fresh, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_reference_does_not_depend_on_other_references_or_batch(pair):
    images = torch.randn(3, 4, 16, 16)
    together = pair.visualizer.encode_references(images)
    alone = pair.visualizer.encode_references(images[1:2])
    for a, b in zip((*together.keys, *together.values), (*alone.keys, *alone.values)):
        torch.testing.assert_close(a[1:2], b, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_hidden_reference_and_padding_are_as_if_absent(pair):
    twin, context = pair.visualizer, random_context()
    noisy, time = torch.randn(2, 4, 16, 16), torch.tensor([0.2, 0.7])
    window = twin.read_window(context)
    cache = twin.encode_references(torch.randn(2, 4, 16, 16))
    hidden = twin(noisy, time, twin.assemble(window, [cache], torch.zeros(2, 1, dtype=torch.bool)))
    torch.testing.assert_close(hidden, twin(noisy, time, twin.assemble(window)), atol=1e-5, rtol=1e-5)
    padded = stack_contexts([context, random_context(length=15, seed=1)])
    rows = twin(noisy, time, twin.assemble(twin.read_window(DensePromptContext(
        tuple(k[:2] for k in padded.keys), tuple(v[:2] for v in padded.values), padded.mask[:2], padded.positions[:, :2]))))
    torch.testing.assert_close(rows, twin(noisy, time, twin.assemble(window)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_words_references_and_their_slots_all_change_the_picture(pair):
    twin, time = pair.visualizer, torch.tensor([0.6])
    noisy = torch.randn(1, 4, 16, 16)
    window = twin.read_window(random_context(batch=1))
    a, b = (twin.encode_references(torch.randn(1, 4, 16, 16)) for _ in range(2))
    base = twin(noisy, time, twin.assemble(window, [a, b]))
    for other in (twin.assemble(window, [b, a]), twin.assemble(window, [a]), twin.assemble(window),
                  twin.assemble(twin.read_window(random_context(batch=1, seed=5)), [a, b])):
        assert (twin(noisy, time, other) - base).abs().max() > 1e-3


@torch.no_grad()
def test_any_size_on_the_patch_grid_and_other_sized_references(pair):
    twin = pair.visualizer
    window = twin.read_window(random_context(batch=1))
    cache = twin.encode_references(torch.randn(1, 4, 8, 20))
    assert twin(torch.randn(1, 4, 12, 16), torch.tensor([0.5]), twin.assemble(window, [cache])).shape == (1, 4, 12, 16)
    with pytest.raises(ValueError, match="patch size 2"):
        twin(torch.randn(1, 4, 13, 16), torch.tensor([0.5]), twin.assemble(window))


def test_a_training_step_reaches_every_weight():
    twin = tiny_pair().visualizer.train()
    window = twin.read_window(random_context())
    nothing = twin.read_window(empty_context(2, 2, 16, batch=2))
    loss = sum(twin(torch.randn(2, 4, 16, 16), torch.tensor([0.4, 0.8]),
                    twin.assemble(w, [twin.encode_references(torch.randn(2, 4, 16, 16))])).square().sum() for w in (window, nothing))
    loss.backward()
    assert [name for name, p in twin.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


# ---- the mask rule

def test_the_mask_rule_is_its_brute_force_statement():
    g = torch.Generator().manual_seed(0)
    tokens = attention.TokenMap(*(torch.randint(0, high, (2, 40), generator=g) for high in (3, 4, 2)))
    got = attention.visible(tokens, tokens)
    for row in range(2):
        for q in range(40):
            for k in range(40):
                q_shot, q_kind, q_image = (int(part[row, q]) for part in (tokens.shot, tokens.kind, tokens.image))
                k_shot, k_kind, k_image = (int(part[row, k]) for part in (tokens.shot, tokens.kind, tokens.image))
                if q_shot != k_shot:
                    sees = False
                elif q_kind == attention.TARGET:
                    sees = k_kind in (attention.WINDOW, attention.REFERENCE, attention.TARGET)
                elif q_kind == attention.REFERENCE:
                    sees = k_kind == attention.REFERENCE and k_image == q_image
                else:
                    sees = False
                assert bool(got[row, 0, q, k]) == sees


def test_a_reference_never_sees_target_window_or_another_reference():
    shot = torch.zeros(1, dtype=torch.long)
    references = attention.TokenMap.cat([attention.TokenMap.block(shot, attention.REFERENCE, r, 2) for r in range(2)])
    keys = attention.TokenMap.cat([attention.TokenMap.block(shot, attention.WINDOW, 0, 2), references,
                                   attention.TokenMap.block(shot, attention.TARGET, 0, 2)])
    assert attention.visible(references, keys)[0, 0].int().tolist() == [
        [0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize("masked", [False, True])
def test_grouped_attention_is_softmax_attention(masked):
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    mask = (torch.rand(2, 1, 1, 9) > 0.3).index_fill(3, torch.tensor([0]), True) if masked else None
    scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) / 8**0.5
    if masked:
        scores = scores.masked_fill(~mask, -torch.inf)
    wanted = (scores.softmax(-1) @ v.repeat_interleave(2, 1)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.attend(q, k, v, mask), wanted, atol=1e-5, rtol=1e-5)


# ---- positions

def test_positions_are_those_of_transformers(pair):
    tokens, grid = PlannerTokens.of(pair.tokenizer), (8, 8)
    ids = prompt_ids(pair.tokenizer, tokens, "two pictures", [grid, grid]) + [50, 60, 70] + image_ids(tokens, grid) + [80, 90]
    kinds = torch.tensor([[int(i == tokens.image_pad) for i in ids]])
    wanted, _ = pair.planner.model.get_rope_index(
        torch.tensor([ids]), mm_token_type_ids=kinds, image_grid_thw=torch.tensor([[1, 16, 16]] * 3), attention_mask=torch.ones(1, len(ids)))
    assert torch.equal(mrope_positions(ids, tokens, [grid] * 3), wanted[:, 0].long())
    with pytest.raises(ValueError, match="no grid"):
        mrope_positions(ids, tokens, [grid])
    with pytest.raises(ValueError, match="fewer image places"):
        mrope_positions(ids, tokens, [grid] * 4)


@torch.no_grad()
def test_unrotating_gives_back_the_planners_own_keys(pair):
    planner, tokens = pair.planner, PlannerTokens.of(pair.tokenizer)
    ids = prompt_ids(pair.tokenizer, tokens, "a fox at the beach") + image_ids(tokens, (2, 3)) + [4]
    positions = mrope_positions(ids, tokens, [(2, 3)])[:, None]
    text = planner.model.language_model
    embedded = text.embed_tokens(torch.tensor([ids]))
    cache = text(inputs_embeds=embedded, position_ids=positions, use_cache=True).past_key_values
    layer = text.layers[0]
    wanted = layer.self_attn.k_proj(layer.input_layernorm(embedded)).unflatten(-1, (2, 16)).transpose(1, 2)
    rope = planner.config.text_config.rope_parameters
    turn = rotation(positions, 16, rope["rope_theta"], tuple(rope["mrope_section"]))
    torch.testing.assert_close(unrotate(cache.layers[0].keys, turn), wanted, atol=1e-5, rtol=1e-5)


def test_rotation_depends_on_relative_positions_only():
    q, k = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 1, 32)

    def score(a, b):
        return (rotate(q, rotation(a, 32, 1e4)) * rotate(k, rotation(b, 32, 1e4))).sum()

    a, b, shift = (torch.randint(0, 50, (3, 1, 1)) for _ in range(3))
    torch.testing.assert_close(score(a, b), score(a + shift, b + shift), atol=1e-4, rtol=1e-4)
    assert image_positions(torch.tensor([2]), 2, 3)[:, 0].tolist() == [[2] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]


# ---- windows

def test_windows_lie_strictly_between_the_tags():
    begin, end = 90, 91
    ids = [1, begin, 2, 3, end, 4, begin, 5, end, 91, begin, 6]
    assert WindowRule().find(ids, begin=begin, end=end, image=92) == [[2, 3], [7], [11]]
    assert WindowRule(margin=2).find(ids, begin=begin, end=end, image=92)[0] == [0, 1, 2, 3, 4, 5]


def test_a_window_may_hold_the_vit_tokens_of_the_last_images_before_it():
    begin, end, image = 90, 91, 92
    ids = [image, image, 1, image, image, 2, begin, 3, end, 4, image, image, begin, 5, end]
    find = {count: WindowRule(images=count).find(ids, begin=begin, end=end, image=image) for count in (0, 1, 2, 9)}
    assert find[0] == [[7], [13]]
    assert find[1] == [[3, 4, 7], [10, 11, 13]]
    assert find[2] == [[0, 1, 3, 4, 7], [3, 4, 10, 11, 13]]
    assert find[9] == [[0, 1, 3, 4, 7], [0, 1, 3, 4, 10, 11, 13]]


@torch.no_grad()
def test_gathered_windows_equal_single_slices(pair):
    ids = torch.randint(0, 300, (2, 12))
    positions = torch.arange(12).expand(3, 2, 12)
    cache = pair.planner.model.language_model(input_ids=ids, position_ids=positions, use_cache=True).past_key_values
    wanted = [(1, [2, 3, 4, 5, 6]), (0, [1, 5, 7]), (1, [])]
    index = torch.tensor([window + [-1] * (5 - len(window)) for _, window in wanted])
    batch = gather_windows(cache, positions, torch.tensor([row for row, _ in wanted]), index)
    assert batch.mask.sum(1).tolist() == [5, 3, 0]
    for index, (row, window) in enumerate(wanted):
        one = slice_cache(cache, positions[:, row], window, row)
        for a, b in zip((*batch.keys, *batch.values), (*one.keys, *one.values)):
            assert torch.equal(a[index, :, :len(window)], b[0])
    with pytest.raises(ValueError, match="holds 12 tokens"):
        slice_cache(cache, positions[:, 0], range(10, 13))


def test_an_empty_window_is_the_text_free_branch(pair):
    window = pair.visualizer.read_window(dpcw.empty_context(2, 2, 16))
    assert window.mask.shape == (1, 0) and torch.equal(window.pooled[0], pair.visualizer.pooled_window.nothing)


# ---- flow and sampler

def test_euler_with_the_true_velocity_arrives_at_the_image():
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)

    def predict(noisy, time):
        return noise - clean

    got = flow.sample(predict, noise, steps=7, shift=3.0, weights=[1.0], kind="velocity")
    torch.testing.assert_close(got, clean, atol=1e-5, rtol=1e-5)


def test_a_clean_prediction_and_its_velocity_agree():
    clean, noise, time = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0.1, 0.5, 1.0])
    noisy = flow.add_noise(clean, noise, time)
    torch.testing.assert_close(flow.velocity(clean, noisy, time, "clean"), noise - clean, atol=1e-4, rtol=1e-4)
    guess = clean + 0.1
    torch.testing.assert_close(flow.squared_error(guess, clean, noise, time, "clean"),
                               flow.squared_error(flow.velocity(guess, noisy, time, "clean"), clean, noise, time, "velocity"), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("text, reference, has, passes", [
    (1, 1, True, 1), (2.5, 2.5, True, 2), (2.5, 1.5, True, 3), (2.5, 1.5, False, 2), (1, 5, False, 1)])
def test_guidance_needs_no_more_passes_than_its_weights(text, reference, has, passes):
    branches = Guidance(text=text, reference=reference).branches(has)
    assert len(branches) == passes and sum(weight for _, _, weight in branches) == pytest.approx(1)


@torch.no_grad()
def test_guided_sampling_in_one_batch_equals_separate_passes(pair):
    twin = pair.visualizer
    context, noise = random_context(), torch.randn(2, 4, 16, 16)
    references = [twin.encode_references(torch.randn(2, 4, 16, 16)), twin.encode_references(torch.randn(1, 4, 16, 16))]
    got = draw(twin, context, references, noise, guidance=Guidance(text=3.0, reference=2.0), steps=2, shift=1.0)

    words, nothing = twin.read_window(context), twin.read_window(empty_context(2, 2, 16, batch=2))
    parts = [(3.0, twin.assemble(words, references)), (-1.0, twin.assemble(nothing, references)), (-1.0, twin.assemble(nothing))]
    noisy = noise
    for now, then in ((1.0, 0.5), (0.5, 0.0)):
        time = torch.full((2,), now)
        speed = sum(weight * flow.velocity(twin(noisy, time, shot), noisy, time, "clean") for weight, shot in parts)
        noisy = noisy + (then - now) * speed
    torch.testing.assert_close(got, noisy, atol=1e-4, rtol=1e-4)


# ---- the paper's sizes

def test_the_same_classes_build_a_7b_pair():
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from training.stages.visualizer import ModelSettings, new_twin

    config = Qwen2_5_VLConfig(
        text_config=dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
                         vocab_size=152064, rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24])),
        vision_config=dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584))
    with torch.device("meta"):
        planner = Qwen2_5_VLForConditionalGeneration(config)
        twin = new_twin(ModelSettings(width=3584, mlp_width=18944, pooled_layers=(13, 27)), config.text_config, 16)
        assert sum(p.numel() for p in planner.parameters()) == pytest.approx(8.29e9, rel=0.005)
        block = 3584 * (28 + 8) * 128 + 36 * 128 + 3584 * 3584 + 3584 + 3 * 3584 * 18944 + 6 * 3584 + 2 * 128
        assert sum(p.numel() for p in twin.blocks[0].parameters()) == block
        w, bridge, slots = 3584, 2 * (1024 * 512 + 512), 4 * 4 * 128
        time, pooled = (128 * w + w) + (w * w + w), (2048 * w + w) + (w * w + w) + w
        ends = (64 * w + w) + (w * 6 * w + 6 * w) + 2 * w + (w * 64 + 64)
        assert sum(p.numel() for p in twin.parameters()) == 28 * (block + bridge + slots) + time + pooled + ends == 6_666_641_472
        context = DensePromptContext(tuple(torch.empty(1, 4, 40, 128) for _ in range(28)), tuple(torch.empty(1, 4, 40, 128) for _ in range(28)),
                                     torch.empty(1, 40, dtype=torch.bool), torch.empty(3, 1, 40, dtype=torch.long))
        window = twin.read_window(context)
        cache = twin.encode_references(torch.empty(1, 16, 32, 32))
        assert window.keys[0].shape == (1, 4, 40, 128) and window.pooled.shape == (1, 3584)
        assert cache.keys[0].shape == (1, 4, 256, 128) and cache.grid == (16, 16)


def test_every_page_holds_the_places_of_its_largest_square():
    like = torch.zeros(1)
    square = grid_embedding(8, 8, 32, like).view(8, 8, 32)
    wide, tall = grid_embedding(8, 11, 32, like).view(8, 11, 32), grid_embedding(11, 8, 32, like).view(11, 8, 32)
    torch.testing.assert_close(wide[:, 2:10], square)
    torch.testing.assert_close(tall[3:], square)
    assert len({tuple(place.tolist()) for place in wide.flatten(0, 1)}) == 88
