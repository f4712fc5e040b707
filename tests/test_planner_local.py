"""Planners on this machine: tiny models of the real classes, loaded from folders as users have them."""

from __future__ import annotations

import gc
import re
import statistics
import threading
import time
import weakref

import pytest
import tiny_chat_models
import tiny_tokenizers
import torch
from PIL import Image

from weaver_core.errors import InputError
from weaver_core.plan import parse_markup
from weaver_core.planners import Planner, PlannerOptions
from weaver_core.planners.transformers_planner import TransformersPlanner, _Detokenizer
from weaver_core.request import ReferenceImage, Request
from weaver_core.visualizers import Visualizer
from weaver_core.weave import Finished, PlanReady, weave, write_plan

REQUEST = Request(prompt="A fox's day.", num_images=2)
OPTIONS = PlannerOptions(num_images=2, max_tokens=130, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_chat_models.writing(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def planner(folder):
    return TransformersPlanner(folder, device="cpu")


def write(planner, request=REQUEST, history=(), options=OPTIONS, cancel=lambda: False) -> str:
    return "".join(planner.write(request, history, options=options, cancel=cancel))


def picture(colour: str = "red") -> ReferenceImage:
    return ReferenceImage.read(Image.new("RGB", (48, 40), colour), colour)[0]


def test_a_model_without_sense_writes_a_whole_plan(planner):
    assert isinstance(planner, Planner)
    plan, warnings = parse_markup(write(planner))
    assert len(plan.images) == 2 and not warnings and not planner.notes


def test_the_loop_makes_a_plan_of_it(planner):
    events = list(write_plan(REQUEST, planner, options=OPTIONS))
    assert len(next(event.plan for event in events if isinstance(event, PlanReady)).images) == 2


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_models_that_see_read_pictures_in_request_and_history(family, tmp_path):
    planner = TransformersPlanner(tiny_chat_models.seeing(family, tmp_path), device="cpu")
    options = PlannerOptions(num_images=1, max_tokens=110, seed=5)

    def told(user: str, drawn: str) -> str:
        request = Request(prompt="A fox's day.", num_images=2, images=(picture(user),))
        history = ("# T\n<imagine>A fox.</imagine><BOI>", Image.new("RGB", (48, 40), drawn))
        return write(planner, request, history, options)

    first = told("red", "blue")
    plan, warnings = parse_markup("# T\n<imagine>A fox.</imagine>" + first)
    assert len(plan.images) == 2 and not warnings
    assert told("red", "blue") == first
    inputs = [planner._loaded.read([{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (48, 40), colour)}]}])
              for colour in ("red", "blue")]  # fmt: skip
    with torch.no_grad():
        one, other = (planner.model(**each).logits[0, -1] for each in inputs)
    assert not torch.allclose(one, other), "the model does not look at its pictures"


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_models_that_see_stream_and_stop_between_two_tokens(family, tmp_path):
    planner = TransformersPlanner(tiny_chat_models.seeing(family, tmp_path), device="cpu")
    request = Request(prompt="A fox's day.", num_images=2, images=(picture(),))
    before, asked = threading.active_count(), []
    pieces = list(planner.write(request, (), options=OPTIONS, cancel=lambda: asked.append(1) or len(asked) >= 6))
    assert len(asked) == 6 and 1 < len(pieces) <= 6 and threading.active_count() == before
    whole = write(planner, request)
    assert whole.startswith("".join(pieces)) and len(parse_markup(whole)[0].images) == 2


def test_the_same_seed_gives_the_same_story_whatever_else_draws_numbers(planner):
    pieces = []
    for piece in planner.write(REQUEST, (), options=OPTIONS, cancel=lambda: False):
        torch.rand(3)
        pieces.append(piece)
    torch.manual_seed(99)
    assert write(planner) == "".join(pieces)
    assert write(planner, options=PlannerOptions(num_images=2, max_tokens=130, seed=6)) != "".join(pieces)


def test_at_temperature_zero_the_seed_does_not_matter(planner):
    one, other = (write(planner, options=PlannerOptions(num_images=1, max_tokens=100, temperature=0, seed=seed)) for seed in (1, 2))
    assert one == other


def test_it_stops_between_two_tokens(planner):
    calls = []
    before = threading.active_count()
    text = write(planner, cancel=lambda: calls.append(1) or len(calls) >= 5)
    assert len(calls) == 5 and len(text) < 40
    assert threading.active_count() == before


def test_when_nobody_listens_any_more_generating_ends(planner):
    before = threading.active_count()
    pieces = planner.write(REQUEST, (), options=OPTIONS, cancel=lambda: False)
    next(pieces)
    pieces.close()
    assert threading.active_count() == before


def test_unloading_frees_the_model_and_the_next_plan_loads_it_again(folder):
    planner = TransformersPlanner(folder, device="cpu")
    text = write(planner)
    model = weakref.ref(planner.model)
    planner.unload()
    gc.collect()
    assert model() is None
    assert write(planner) == text


def test_the_closed_loop_goes_on_after_every_picture(planner):
    from small_pair import ShapeVisualizer

    assert isinstance(ShapeVisualizer(), Visualizer)
    request = Request(prompt="A fox's day.", num_images=2, size=(32, 32))
    *_, last = weave(request, planner, ShapeVisualizer(), mode="closed-loop", options=PlannerOptions(max_tokens=150))
    assert isinstance(last, Finished) and len(last.story.plan.images) == 2 and not last.missing


def test_without_the_grammar_the_text_is_only_cleaned(folder):
    planner = TransformersPlanner(folder, device="cpu", uses_grammar=False)
    text = write(planner, options=PlannerOptions(max_tokens=40, seed=3))
    assert text and "<|" not in text


def test_a_template_without_a_system_role_is_no_obstacle(tmp_path):
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + tiny_tokenizers.CHAT_TEMPLATE
    planner = TransformersPlanner(tiny_chat_models.writing(tmp_path, template=template), device="cpu")
    assert len(parse_markup(write(planner))[0].images) == 2


def test_a_template_that_opens_a_thought_has_it_closed(tmp_path):
    planner = TransformersPlanner(tiny_chat_models.writing(tmp_path, template=tiny_tokenizers.CHAT_TEMPLATE + "<think>\n"), device="cpu")
    ids = planner.load()._loaded.read([{"role": "user", "content": "A fox."}])["input_ids"][0]
    assert planner._loaded.tokenizer.decode(ids).endswith("<think>\n\n</think>\n\n")


# ---- text out of tokens


@pytest.mark.parametrize("make", [tiny_tokenizers.byte_level, tiny_tokenizers.byte_fallback])
def test_streamed_text_is_the_decoded_text_with_every_character_whole(make):
    tokenizer = make()
    text = "# 小狐狸\nEin Fuchs 🦊 läuft, a fox."
    spelled = text.replace(" ", "\u2581") if make is tiny_tokenizers.byte_fallback else text
    ids = tokenizer(spelled, add_special_tokens=False)["input_ids"]
    pieces = list(_Detokenizer(tokenizer).pieces(iter(ids)))
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert not any("\ufffd" in piece for piece in pieces) and len([piece for piece in pieces if piece]) > 10


def test_bytes_that_never_become_a_character_do_not_hold_back_the_rest():
    tokenizer = tiny_tokenizers.byte_level()
    continuing = tokenizer.get_vocab()["\u0122"]  # byte 0x80, with which no character begins
    seen = [len(piece) for piece in _Detokenizer(tokenizer).pieces(iter([continuing] * 40))]
    assert sum(seen[:20]) >= 16


# ---- LoRA, 4 bits, errors


def test_a_lora_changes_what_is_written(folder, planner, tmp_path):
    assert write(TransformersPlanner(folder, device="cpu", lora=tiny_chat_models.lora_for(folder, tmp_path))) != write(planner)


@pytest.mark.parametrize("family", ["qwen3", "qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_every_class_writes_in_four_bits_with_and_without_a_lora(family, tmp_path):
    """With a picture in the history, where it sees. What suffers from 4 bits stays whole, and what a CPU cannot pack."""
    make = tiny_chat_models.writing if family == "qwen3" else lambda folder: tiny_chat_models.seeing(family, folder)
    source = make(tmp_path / "model")
    history = ("# T\n<imagine>A fox.</imagine><BOI>", Image.new("RGB", (48, 40), "blue"))
    texts = []
    for lora in (None, tiny_chat_models.lora_for(source, tmp_path / "lora")):
        planner = TransformersPlanner(source, device="cpu", quantization="nf4", lora=lora)
        texts.append(write(planner, history=history, options=PlannerOptions(num_images=1, max_tokens=110, seed=5)))
        plan, warnings = parse_markup(history[0].removesuffix("<BOI>") + texts[-1])
        assert len(plan.images) == 2 and not warnings and not planner.notes
        packed = {name for name, module in planner.model.named_modules() if type(module).__name__ == "Linear4bit"}
        assert packed and not any(name.startswith("model.visual") or name.startswith("lm_head") for name in packed)
        assert not any(name.endswith(("in_proj_a", "in_proj_b")) for name in packed)
    assert texts[0] != texts[1]


def test_four_bits_need_bitsandbytes_and_the_error_says_so(folder):
    from importlib.util import find_spec

    planner = TransformersPlanner(folder, device="cpu", quantization="nf4")
    if find_spec("bitsandbytes") is None:
        with pytest.raises(ImportError, match=re.escape('pip install "wan-weaver[bnb]"')):
            planner.load()
    else:
        assert {type(module).__name__ for module in planner.model.modules()} >= {"Linear4bit"}


@pytest.mark.parametrize(("prepare", "message"), [
    (lambda folder: folder / "nothing here", "neither a folder nor a name"),
    (lambda folder: folder, "no config.json"),
    (lambda folder: (folder / "model.bin").write_bytes(b"x") and folder / "model.bin", "is a file"),
    (lambda folder: (folder / "config.json").write_text("{") and folder, "no model that transformers can load"),
    (lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}') and folder, "writes no text"),
    (lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}') and folder, "not complete|no model|chat template"),
    (lambda folder: tiny_chat_models.writing(folder, template=None), "no chat template"),
])  # fmt: skip
def test_a_folder_that_cannot_plan_is_refused_in_a_sentence(tmp_path, prepare, message):
    with pytest.raises(InputError, match=message) as caught:
        TransformersPlanner(prepare(tmp_path), device="cpu").load()
    assert "\n" not in str(caught.value)


def test_a_prompt_that_does_not_fit_is_refused(planner):
    with pytest.raises(InputError, match="would have to read"):
        write(planner, Request(prompt="word " * 8_000, num_images=2))


# ---- speed


@pytest.mark.clock
def test_streaming_costs_little_beside_generating(tmp_path):
    """At most 5 % above a bare `generate` of as many tokens, with a model of some ten milliseconds per token. Of one thread's
    processor time, which other programs change least (several threads would add what they spend waiting for each other);
    measured in turns, and the median of the pairs counts."""
    planner = TransformersPlanner(tiny_chat_models.writing(tmp_path, layers=8, width=768), device="cpu", uses_grammar=False).load()
    loaded = planner._loaded
    options = PlannerOptions(max_tokens=16, temperature=0)
    inputs = loaded.read([{"role": "user", "content": "A fox."}])
    from weaver_core.planners.transformers_planner import _Chooser, _generate

    def bare() -> float:
        begun = time.process_time()
        loaded.model.generate(**inputs, max_new_tokens=16, min_new_tokens=16, do_sample=False)
        return time.process_time() - begun

    def streamed() -> float:
        begun = time.process_time()
        eos, loaded.eos = loaded.eos, [319]
        list(_Detokenizer(loaded.tokenizer).pieces(_generate(loaded, inputs, _Chooser(None, options), 16)))
        loaded.eos = eos
        return time.process_time() - begun

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bare(), streamed()
        ratio = statistics.median(streamed() / bare() for _ in range(11))
    finally:
        torch.set_num_threads(threads)
    print(f"streamed / bare = {ratio:.3f}")
    assert ratio < 1.05
