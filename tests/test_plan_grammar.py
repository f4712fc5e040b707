"""Markup that is forced out of random models."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tiny_tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weaver_core.errors import InputError
from weaver_core.plan import parse_markup
from weaver_core.planners.plan_grammar import GrammarLogits, Machine, PlanGrammar, Vocabulary, languages_for
from weaver_core.request import Request

TOKENIZERS = {"byte_level": tiny_tokenizers.byte_level(), "byte_fallback": tiny_tokenizers.byte_fallback()}
VOCABULARIES = {name: Vocabulary.of(tokenizer) for name, tokenizer in TOKENIZERS.items()}
FEW = settings(max_examples=max(8, settings.default.max_examples // 6))  # every example is a whole plan
MACHINE = Machine(pictures=("robin", "the-castle"))


def write(kind: str, seed: int, *, liking: float = 0.0, **how) -> tuple[str, int]:
    """What a model with random logits writes, and how many tokens that took. `liking` raises the tokens of markup."""
    vocabulary, random = VOCABULARIES[kind], np.random.default_rng(seed)
    logits = GrammarLogits(PlanGrammar(vocabulary, MACHINE, **how))
    structural = torch.tensor([bool(token) and any(c in token for c in b'<>"/=#\n') for token in vocabulary.tokens])
    ids: list[int] = []
    while not ids or ids[-1] not in vocabulary.eos:
        scores = torch.from_numpy(random.normal(size=(1, len(vocabulary.tokens))).astype(np.float32) * 3) + liking * structural
        scores = logits(torch.tensor([[7, 7, *ids]]), scores)
        ids.append(int(scores.argmax()))
    return TOKENIZERS[kind].decode(ids[:-1], skip_special_tokens=False), len(ids)


@pytest.mark.parametrize("kind", TOKENIZERS)
@FEW
@given(seed=st.integers(0, 2**32), num_images=st.integers(1, 4), more=st.integers(0, 150), liking=st.sampled_from([0, 3, 8]))
def test_random_models_write_plans_without_a_warning_and_with_all_images(kind, seed, num_images, more, liking):
    max_tokens = 60 + 28 * num_images + more
    text, num_tokens = write(kind, seed, liking=liking, num_images=num_images, max_tokens=max_tokens)
    plan, warnings = parse_markup(text)
    assert not warnings, (warnings, text)
    assert len(plan.images) == num_images
    assert [image.id for image in plan.images] == [f"p{i + 1}" for i in range(num_images)]
    assert num_tokens <= max_tokens
    assert "\ufffd" not in text


@pytest.mark.parametrize("kind", TOKENIZERS)
@FEW
@given(seed=st.integers(0, 2**32), num_images=st.integers(0, 3), num_written=st.integers(0, 3))
def test_a_continuation_has_no_title_and_goes_on_counting(kind, seed, num_images, num_written):
    text, _ = write(kind, seed, liking=5, num_images=num_images, max_tokens=150, num_written=num_written, continued=True)
    before = "# T\n" + "<imagine>A fox.</imagine>\n" * num_written
    plan, warnings = parse_markup(before + "And then " + text)
    assert not warnings, (warnings, text)
    assert len(plan.images) == num_written + num_images
    assert len({image.id for image in plan.images}) == len(plan.images)


@pytest.mark.parametrize("kind", TOKENIZERS)
@FEW
@given(seed=st.integers(0, 2**32))
def test_without_a_number_the_model_decides(kind, seed):
    text, num_tokens = write(kind, seed, liking=4, num_images=None, max_tokens=120)
    plan, warnings = parse_markup(text)
    assert not warnings and plan.segments and num_tokens <= 120


def accepts(text: str, num_images: int | None = 2, **how) -> bool:
    machine = Machine(**{"pictures": ("robin",), **how})
    state = machine.walk(machine.start(num_images), text.encode())
    return state is not None and machine.may_end(state)


def test_plans_as_the_instruction_teaches_them_are_in_the_grammar():
    from weaver_core.planners.instruction import load_instruction

    for example in load_instruction().examples:
        assert accepts(example.plan, example.num_images, pictures=example.pictures), example.prompt


@pytest.mark.parametrize("text", [
    "Once upon a time.",                                               # no title
    "# T\n<imagine>A</imagine>",                                       # one image too few
    "# T\n" + "<imagine>A</imagine>" * 3,                              # one too many
    "# T\n<imagine></imagine><imagine>B</imagine>",                    # a dense prompt of nothing
    "# T\n<imagine> </imagine><imagine>B</imagine>",
    "# T\n<imagine>\u3000</imagine><imagine>B</imagine>",
    "# T\n<imagine>&#32;</imagine><imagine>B</imagine>",
    "# T\n<imagine>A<imagine>B</imagine>",                             # not closed
    '# T\n<imagine id="p2">A</imagine><imagine>B</imagine>',           # the wrong number
    '# T\n<imagine aspect="0:3">A</imagine><imagine>B</imagine>',      # no aspect ratio
    '# T\n<cast name="A"><cast name="A"><imagine>A</imagine><imagine>B</imagine>',
    '# T\n<cast name=""><imagine>A</imagine><imagine>B</imagine>',
    '# T\nText <cast name="A"><imagine>A</imagine><imagine>B</imagine>',
    '# T\n<cast name="A" references="nobody"><imagine>A</imagine><imagine>B</imagine>',
    "# T\n<imagine>A</imagine><imagine>B</imagine> a < b",
])  # fmt: skip
def test_what_is_no_well_formed_plan_is_not_in_the_grammar(text):
    assert not accepts(text)


@pytest.mark.parametrize("kind", TOKENIZERS)
@FEW
@given(seed=st.integers(0, 2**32))
def test_a_cached_mask_is_the_mask_of_the_state(kind, seed):
    """States that share a mask really have the same one."""
    vocabulary, random = VOCABULARIES[kind], np.random.default_rng(seed)
    grammar = PlanGrammar(vocabulary, MACHINE, num_images=3, max_tokens=2_000)
    for _ in range(12):
        mask = vocabulary.mask(MACHINE, grammar.state)
        assert torch.equal(mask, vocabulary._build(MACHINE, grammar.state))
        ids = torch.nonzero(mask)[:, 0].tolist()
        for id in random.choice(len(vocabulary.tokens), 20):
            token = vocabulary.tokens[id]
            assert (int(id) in ids) == bool(token and MACHINE.walk(grammar.state, token) is not None), (token, grammar.state)
        structural = [id for id in ids if vocabulary.tokens[id][0] in b'<>"/\n= ac'] or ids
        grammar.accept(int(random.choice(structural if random.random() < 0.7 else ids)))


@pytest.mark.parametrize(("request_", "language", "allowed"), [
    (Request(prompt="A fox"), "zh", False), (Request(prompt="Ein Fuchs"), "de", True), (Request(prompt="小狐狸"), "zh", True),
    (Request(prompt="A fox", language="zh"), "zh", True), (Request(prompt="A fox", language="zh"), "de", False),
])  # fmt: skip
def test_the_plan_s_language_is_one_that_the_request_may_mean(request_, language, allowed):
    assert accepts(f'# T\n<story language="{language}">\nText.', 0, languages=languages_for(request_)) == allowed


def test_too_few_tokens_for_the_images_is_said_before_anything_is_written():
    with pytest.raises(InputError, match=r"max_tokens is 100; a plan with 8 images needs \d+ at least"):
        PlanGrammar(VOCABULARIES["byte_level"], MACHINE, num_images=8, max_tokens=100)


def test_a_low_budget_is_shared_among_all_images():
    text, _ = write("byte_level", 3, num_images=4, max_tokens=600)
    lengths = [len(image.prompt.encode()) for image in parse_markup(text)[0].images]
    assert min(lengths) > 20, lengths


def test_a_tokenizer_that_cannot_spell_markup_is_refused():
    with pytest.raises(InputError, match="cannot spell"):
        Vocabulary([b"a", b"b", b"<", None], {3})


def test_special_tokens_and_unused_rows_are_never_allowed():
    vocabulary = Vocabulary.of(TOKENIZERS["byte_level"], size=320)
    mask = vocabulary.mask(MACHINE, MACHINE.start(2)._replace(mode="text", room=500))
    assert mask.shape == (320,) and mask[ord("A") - 0x21] and not mask[268:].any()


def test_tokens_are_the_bytes_that_the_tokenizer_writes():
    for name, tokenizer in TOKENIZERS.items():
        text = 'Ein Fuchs, 小狐狸 & "é" <imagine>.\n\n'
        ids = tokenizer(text.replace(" ", "\u2581") if name == "byte_fallback" else text, add_special_tokens=False)["input_ids"]
        assert b"".join(VOCABULARIES[name].tokens[id] for id in ids).decode() == text
        assert re.sub("^ ", "", tokenizer.decode(ids)) == text
