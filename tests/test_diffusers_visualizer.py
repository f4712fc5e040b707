"""Pipelines of diffusers as visualizers: tiny models of the real classes, loaded from folders as users have them."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import weakref
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from PIL import Image

from weaver_core import cli
from weaver_core.errors import Cancelled, InputError, WeaverError
from weaver_core.plan import parse_markup
from weaver_core.request import ReferenceImage, Request
from weaver_core.story import StoryFolder
from weaver_core.visualizers import Shot, Visualizer
from weaver_core.visualizers.diffusers_families import FAMILIES, drawing_of, usable_reference
from weaver_core.visualizers.diffusers_visualizer import DiffusersVisualizer
from weaver_core.visualizers.slots import Slot
from weaver_core.weave import Finished, ImageReady, StepProgress, Warning, weave_plan

PLAN = """# Two friends
<imagine id="p1" cast="Robin">Robin the fox stands on a hill.</imagine>
<imagine id="p2" cast="Robin, Mia">Robin meets Mia the mouse.</imagine>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """folder(kind) is the folder of a tiny pipeline, which nobody may change."""
    made = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tiny_pipelines.save(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return get


@pytest.fixture(scope="module")
def klein(folder):
    return DiffusersVisualizer(folder("flux2-klein"), device="cpu", dtype=torch.float32, reference_side=64)


@pytest.fixture(autouse=True)
def small_references(monkeypatch):
    """Qwen-Image-Edit brings references to a megapixel itself: a minute on a CPU, for however small a model."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus

    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", 56 * 56)


def pictures(number: int) -> tuple[Image.Image, ...]:
    """Gradients, all of them different."""
    return tuple(Image.linear_gradient("L").resize((64, 80 + 8 * i)).rotate(90 * i).convert("RGB") for i in range(number))


def shot(references: int = 0, *, seed: int = 1, steps: int = 2, guidance: float = 1.0) -> Shot:
    return Shot(
        prompt="A fox on a hill.", size=(64, 64), seed=seed, steps=steps, guidance=guidance, reference_guidance=1.0,
        references=pictures(references), reference_keys=tuple(map(str, range(references))),
        slots=tuple(Slot(member=f"M{i}") for i in range(references)),
    )  # fmt: skip


def draw(visualizer, wanted: Shot, on_step=lambda *_: None, cancel=lambda: False) -> bytes:
    image = visualizer.render(wanted, on_step=on_step, cancel=cancel)
    assert image.size == wanted.size and image.mode == "RGB"
    return image.tobytes()


# ---- every class


@pytest.mark.parametrize(("kind", "references"), [
    ("qwen-image-edit-plus", (0, 1, 3)), ("qwen-image-2.1", (0, 1, 3)), ("flux2-klein", (0, 1, 3)), ("flux2-dev", (0, 1, 3)),
    ("flux-kontext", (0, 1, 3)),
])  # fmt: skip
def test_every_class_draws_with_and_without_references(folder, kind, references):
    visualizer = DiffusersVisualizer(folder(kind), device="cpu", dtype=torch.float32, reference_side=64)
    assert isinstance(visualizer, Visualizer) and not visualizer.is_loaded
    assert visualizer.capabilities.max_references >= references[-1] - (kind == "flux-kontext")
    guidance = visualizer.capabilities.guidance
    seen = []
    drawn = [draw(visualizer, shot(number, guidance=guidance), lambda *step: seen.append(step)) for number in references]
    assert len(set(drawn)) == len(references), "references change nothing"
    assert seen == [(1, 2, None), (2, 2, None)] * len(references)
    again, other = (draw(visualizer, shot(references[1], seed=seed, guidance=guidance)) for seed in (1, 2))
    assert again == drawn[1] and other != again and not visualizer.notes


def test_the_loop_gives_kontext_two_references_at_most(folder):
    """It can be told more by hand. They share one picture, whose longest shape is 7:3: three squares would be cut or pressed."""
    assert DiffusersVisualizer(folder("flux-kontext"), device="cpu").capabilities.max_references == 2
    told = drawing("FluxKontextPipeline").arguments(shot(3), pictures(3), 64)["prompt"]
    assert told.startswith("On the left of the picture is M0, in the middle is M1, on the right of the picture is M2.")


def test_guidance_of_an_undistilled_model_is_true_guidance(folder):
    visualizer = DiffusersVisualizer(folder("flux2-klein-base"), device="cpu", dtype=torch.float32, reference_side=64)
    assert visualizer.capabilities.guidance == 5.0
    assert draw(visualizer, shot(guidance=5.0)) != draw(visualizer, shot(guidance=1.0))


# ---- what each class is told, and its defaults


def drawing(pipeline: str, *, index: dict | None = None, transformer: dict | None = None, files=()):
    return drawing_of({"_class_name": pipeline, **(index or {})}, transformer or {}, files)


@pytest.mark.parametrize(("pipeline", "words"), [
    ("QwenImage21Pipeline", "<image1> is M0, <image2> is M1."), ("QwenImageEditPlusPipeline", "Picture 1 is M0, Picture 2 is M1."),
    ("Flux2KleinPipeline", "Image 1 is M0, image 2 is M1."), ("Flux2Pipeline", "Image 1 is M0, image 2 is M1."),
    ("FluxKontextPipeline", "On the left of the picture is M0, on the right of the picture is M1."),
])  # fmt: skip
def test_prompts_say_whom_each_reference_shows_as_the_graph_families_do(pipeline, words):
    told = drawing(pipeline).arguments(shot(2), pictures(2), 64)["prompt"]
    assert told == f"{words} Draw a new picture in which M0 and M1 look exactly as there: A fox on a hill."
    assert drawing(pipeline).arguments(shot(), (), 64)["prompt"] == "A fox on a hill."


@pytest.mark.parametrize(("found", "steps", "guidance"), [
    (drawing("QwenImageEditPlusPipeline"), 20, 4.0),
    (drawing("QwenImageEditPlusPipeline", transformer={"zero_cond_t": True}), 40, 4.0),
    (drawing("QwenImageEditPlusPipeline", files=["Qwen-Image-Edit-2509-Lightning-4steps-V1.0.safetensors"]), 4, 1.0),
    (drawing("QwenImage21Pipeline"), 25, 1.0),
    (drawing("QwenImage21Pipeline", index={"sample_sigmas": [1.0, 0.8, 0.4]}), 3, 1.0),
    (drawing("Flux2KleinPipeline", index={"is_distilled": True}), 4, 1.0),
    (drawing("Flux2KleinPipeline"), 20, 5.0),
    (drawing("Flux2Pipeline"), 20, 4.0),
    (drawing("FluxKontextPipeline"), 20, 2.5),
])  # fmt: skip
def test_defaults_are_those_of_the_same_models_graph_family(found, steps, guidance):
    assert (found.capabilities.steps, found.capabilities.guidance) == (steps, guidance)


def test_another_number_of_steps_than_a_turbo_model_was_made_for_is_kept():
    turbo = drawing("QwenImage21Pipeline", index={"sample_sigmas": [1.0, 0.5]})
    assert "sigmas" not in turbo.arguments(shot(steps=2), (), 64)
    assert turbo.arguments(shot(steps=4), (), 64)["sigmas"] == [1.0, 0.75, 0.5, 0.25]


def test_two_pictures_stand_side_by_side_for_kontext():
    left, right = Image.new("RGB", (40, 80), "red"), Image.new("RGB", (100, 100), "blue")
    sheet = drawing("FluxKontextPipeline").arguments(shot(2), (left, right), 64)["image"]
    assert sheet.size == (120, 80)
    assert sheet.getpixel((39, 40)) == (255, 0, 0) and sheet.getpixel((40, 40)) == (0, 0, 255)


@pytest.mark.parametrize("size", [(8, 8), (3000, 20), (20, 3000), (2048, 1500), (64, 64)])
def test_references_are_neither_too_small_nor_too_long_nor_too_large(size):
    found = usable_reference(Image.new("RGB", size), 256)
    assert min(found.size) >= 64 and max(found.size) <= 8 * min(found.size) + 8
    assert found.width * found.height <= 258**2 or min(found.size) == 64


def test_a_few_step_lora_keeps_the_time_shift_that_it_was_made_with(folder, tmp_path):
    weights = save_lora(folder("qwen-image-edit-plus"), tmp_path / "Qwen-Image-Edit-2509-Lightning-4steps.safetensors")
    visualizer = DiffusersVisualizer(folder("qwen-image-edit-plus"), loras=[weights], device="cpu", dtype=torch.float32).load()
    config = visualizer._pipeline.scheduler.config
    assert config.base_shift == config.max_shift == pytest.approx(1.0986, abs=1e-4) and config.shift_terminal is None


# ---- stopping, loading, the loop


def test_it_stops_at_the_next_step(klein):
    steps = []
    with pytest.raises(Cancelled):
        draw(klein, shot(steps=5), lambda done, *_: steps.append(done), lambda: len(steps) >= 2)
    assert steps == [1, 2]
    with pytest.raises(Cancelled):
        draw(klein, shot(), lambda *_: pytest.fail("it drew although it was stopped before"), lambda: True)


def test_unloading_frees_the_weights_and_the_next_shot_loads_them_again(folder):
    visualizer = DiffusersVisualizer(folder("flux2-klein"), device="cpu", dtype=torch.float32)
    drawn = draw(visualizer, shot())
    weights = weakref.ref(visualizer._pipeline.transformer)
    visualizer.unload()
    gc.collect()
    assert weights() is None and not visualizer.is_loaded
    assert draw(visualizer, shot()) == drawn


def test_it_can_be_used_where_the_host_is_in_inference_mode(folder):
    visualizer = DiffusersVisualizer(folder("flux2-klein"), device="cpu", dtype=torch.float32)
    with torch.inference_mode():
        visualizer.load()
    assert not any(parameter.is_inference() for parameter in visualizer._pipeline.transformer.parameters())


def test_the_loop_draws_a_plan_and_names_who_is_in_which_reference(klein):
    """The cast's look is told in words only where no reference shows it."""
    plan, _ = parse_markup(PLAN)
    plan = type(plan)(title=plan.title, segments=plan.segments, cast=tuple(
        member if member.name != "Mia" else type(member)(name="Mia", look="a grey mouse in a red dress") for member in plan.cast
    ) or (cast_member("Robin", "an orange fox"), cast_member("Mia", "a grey mouse in a red dress")))
    read = []
    klein.load()
    tokenizer = klein._pipeline.tokenizer
    hook = klein._pipeline.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tokenizer.decode(kwargs["input_ids"][0], skip_special_tokens=True)), with_kwargs=True)
    try:
        events = list(weave_plan(plan, klein, request=Request(prompt="Two friends", size=(256, 256))))
    finally:
        hook.remove()
    assert [event.segment_id for event in events if isinstance(event, ImageReady)] == ["p1", "p2"]
    assert [event.step for event in events if isinstance(event, StepProgress)] == [1, 2, 3, 4] * 2
    assert isinstance(events[-1], Finished) and not events[-1].missing
    assert "Image 1 is Robin. Draw a new picture in which Robin looks exactly as there: Robin meets Mia the mouse." in read[1]
    assert "Mia: a grey mouse in a red dress" in read[1] and "Robin: an orange fox" not in read[1]


def cast_member(name: str, look: str):
    from weaver_core.plan import CastMember

    return CastMember(name=name, look=look)


# ---- LoRA


def save_lora(folder: Path, path: Path, *, seed: int = 3) -> Path:
    """A LoRA of random weights for the transformer in a folder, as trainers write it."""
    import diffusers
    import peft
    from peft.utils import get_peft_model_state_dict

    index = json.loads((folder / "model_index.json").read_text())
    kind = getattr(diffusers, index["transformer"][1])
    torch.manual_seed(seed)
    model = kind.from_pretrained(folder / "transformer")
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
    for name, weight in model.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weight, std=0.5)
    layers = get_peft_model_state_dict(model)
    getattr(diffusers, index["_class_name"]).save_lora_weights(path.parent, layers, weight_name=path.name)
    return path


def test_loras_change_the_picture_by_their_strength(folder, klein, tmp_path):
    one, two = (save_lora(folder("flux2-klein"), tmp_path / f"{name}.safetensors", seed=seed) for name, seed in (("one", 1), ("two", 2)))
    drawn = [draw(klein, shot())]
    prints = [klein.fingerprint]
    for loras in ([f"{one}:0"], [one], [f"{one}:0.5"], [one, f"{two}:0.7"]):
        visualizer = DiffusersVisualizer(folder("flux2-klein"), loras=loras, device="cpu", dtype=torch.float32, reference_side=64)
        drawn.append(draw(visualizer, shot()))
        prints.append(visualizer.fingerprint)
    assert drawn[0] == drawn[1] and len(set(drawn)) == 4
    assert len(set(prints)) == 5


@pytest.mark.parametrize(("prepare", "message"), [
    (lambda path: path / "none.safetensors", "is not there"),
    (lambda path: (path / "style.pt").write_bytes(b"x") and path / "style.pt", "is a pickle"),
    (lambda path: (path / "cut.safetensors").write_bytes(b"x" * 20) and path / "cut.safetensors", "no .safetensors file"),
    (lambda path: f"{save_foreign_lora(path / 'other.safetensors')}:99", "must lie in -10..10"),
    (lambda path: save_foreign_lora(path / "other.safetensors"), "does not fit the model"),
])  # fmt: skip
def test_a_lora_that_cannot_be_used_is_refused_in_a_sentence(folder, tmp_path, prepare, message):
    with pytest.raises(InputError, match=message) as caught:
        DiffusersVisualizer(folder("flux2-klein"), loras=[prepare(tmp_path)], device="cpu", dtype=torch.float32).load()
    assert "\n" not in str(caught.value)


def save_foreign_lora(path: Path) -> Path:
    from safetensors.torch import save_file

    save_file({f"transformer.elsewhere.{part}.weight": torch.zeros(4, 4) for part in ("lora_A", "lora_B")}, path)
    return path


# ---- number formats and where weights wait


@pytest.mark.parametrize(("quantization", "library", "extra"), [("nf4", "bitsandbytes", "bnb"), ("int8", "torchao", "int8")])
def test_quantised_weights_draw_and_a_missing_extra_is_named(folder, klein, tmp_path, quantization, library, extra):
    def quantised(**more):
        return DiffusersVisualizer(folder("flux2-klein"), quantization=quantization, device="cpu", dtype=torch.bfloat16, reference_side=64, **more)

    if find_spec(library) is None:
        with pytest.raises(ImportError, match=f'needs {library}: pip install "wan-weaver\\[{extra}\\]"'):
            quantised()
        return
    visualizer = quantised()
    drawn = draw(visualizer, shot(1))
    assert drawn == draw(visualizer, shot(1)) and drawn != draw(klein, shot(1))
    for part in (visualizer._pipeline.transformer, visualizer._pipeline.text_encoder):
        assert any(is_packed(module, quantization) for module in part.modules())
    with_lora = quantised(loras=[save_lora(folder("flux2-klein"), tmp_path / "one.safetensors")], offload="model")
    assert draw(with_lora, shot(1)) != drawn


def is_packed(module: torch.nn.Module, quantization: str) -> bool:
    weight = getattr(module, "weight", None)
    return type(module).__name__ == "Linear4bit" and weight.dtype == torch.uint8 if quantization == "nf4" else "Int8" in type(weight).__name__


@pytest.mark.parametrize("offload", ["model", "group"])
def test_where_weights_wait_does_not_change_the_picture(folder, klein, offload):
    visualizer = DiffusersVisualizer(folder("flux2-klein"), offload=offload, device="cpu", dtype=torch.float32, reference_side=64)
    assert draw(visualizer, shot(1)) == draw(klein, shot(1)) == draw(visualizer, shot(1))
    assert visualizer.fingerprint == klein.fingerprint


def test_a_model_that_draws_without_references_through_another_class_waits_in_the_same_place(folder):
    plain, waiting = (
        DiffusersVisualizer(folder("qwen-image-edit-plus"), offload=offload, device="cpu", dtype=torch.float32) for offload in ("none", "model")
    )
    assert draw(plain, shot()) == draw(waiting, shot()) == draw(waiting, shot())


@pytest.mark.parametrize(("how", "message"), [
    ({"quantization": "fp3"}, "must be nf4 or int8"), ({"offload": "disk"}, "must be one of auto, none"),
    ({"quantization": "nf4", "offload": "group"}, "layer by layer"), ({"device": "nowhere"}, "cannot be used here"),
])  # fmt: skip
def test_choices_that_do_not_exist_are_refused(folder, how, message):
    with pytest.raises(InputError, match=message):
        DiffusersVisualizer(folder("flux2-klein"), **{"device": "cpu", **how})


# ---- memory runs out


class Exhausted:
    """A hook before the transformer that reports, so many times, what torch reports of a full card."""

    def __init__(self, visualizer: DiffusersVisualizer, times: int):
        self.left = times
        self.handle = visualizer.load()._pipeline.transformer.register_forward_pre_hook(self)

    def __call__(self, module, arguments) -> None:
        if self.left:
            self.left -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(("times", "told"), [(1, ["offload model"]), (2, ["offload model", "offload group"])])
def test_when_memory_runs_out_weights_wait_elsewhere_and_the_picture_is_the_same(folder, klein, times, told):
    visualizer = DiffusersVisualizer(folder("flux2-klein"), device="cpu", dtype=torch.float32, reference_side=64)
    Exhausted(visualizer, times)
    assert draw(visualizer, shot(3)) == draw(klein, shot(3))
    assert [text in note for text, note in zip(told, visualizer.notes, strict=True)] == [True] * len(told)
    assert visualizer.offload == told[-1].split()[-1]
    draw(visualizer, shot(1))
    assert visualizer.notes == [], "the next picture has its own notes"


def test_when_memory_never_suffices_the_error_says_what_to_do(folder):
    visualizer = DiffusersVisualizer(folder("flux2-klein"), device="cpu", dtype=torch.float32, reference_side=64)
    Exhausted(visualizer, 99)
    with pytest.raises(WeaverError, match="64 x 64 pixels and 1 references; take a smaller size, or quantization nf4"):
        draw(visualizer, shot(1))


def test_other_errors_are_not_taken_for_a_full_card(folder):
    visualizer = DiffusersVisualizer(folder("flux2-klein"), device="cpu", dtype=torch.float32).load()

    def fail(*_):
        raise RuntimeError("a shape is wrong")

    visualizer._pipeline.transformer.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        draw(visualizer, shot())


def test_the_loop_gives_up_speed_first_and_references_then_and_says_so(folder):
    """The page is drawn from fewer references, and its rendering tells which."""
    visualizer = DiffusersVisualizer(folder("flux2-klein"), device="cpu", dtype=torch.float32, reference_side=64)
    Exhausted(visualizer, 3)
    plan, _ = parse_markup(PLAN)
    heroes = tuple(ReferenceImage.read(image, f"hero-{number}")[0] for number, image in enumerate(pictures(2)))
    events = list(weave_plan(plan, visualizer, request=Request(prompt="Two friends", size=(256, 256), images=heroes)))
    told = [event.message for event in events if isinstance(event, Warning) and "memory is full" in event.message]
    assert len(told) == 3 and all(message.startswith("p1: ") for message in told)
    for words in ("at most 1 reference instead of 2", "offload model", "offload group"):
        assert sum(words in message for message in told) == 1
    drawn = [event.rendering for event in events if isinstance(event, ImageReady)]
    assert [used.source for used in drawn[0].references] == ["hero-0"] and not events[-1].missing


# ---- folders, the hub, what is told apart


def copy_of(folder: Path, path: Path) -> Path:
    return Path(shutil.copytree(folder, path / "copy"))


def changed_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def as_pickle(path: Path) -> None:
    (path / "vae" / "diffusion_pytorch_model.safetensors").rename(path / "vae" / "diffusion_pytorch_model.bin")


def cut(path: Path) -> None:
    weights = path / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize(("change", "message"), [
    (lambda path: (path / "model_index.json").unlink(), "holds no model_index.json"),
    (lambda path: (path / "model_index.json").write_text("{"), "cannot be read as JSON"),
    (lambda path: (path / "model_index.json").write_text("[]"), "no JSON object"),
    (lambda path: changed_json(path / "model_index.json", _class_name="StableDiffusionXLPipeline"), "StableDiffusionXLPipeline, which cannot"),
    (lambda path: changed_json(path / "model_index.json", _class_name=["evil", "Evil"]), "cannot draw stories here"),
    (lambda path: changed_json(path / "model_index.json", _class_name="WeaverModel"), "give it with --model"),
    (lambda path: changed_json(path / "model_index.json", vae=["os", "system"]), "wants code of 'os'"),
    (lambda path: changed_json(path / "model_index.json", **{"../vae": ["diffusers", "AutoencoderKL"]}), "has no folder ../vae"),
    (lambda path: changed_json(path / "model_index.json", **{"..": ["diffusers", "AutoencoderKL"]}), r"has no folder \.\."),
    (lambda path: shutil.rmtree(path / "text_encoder"), "has no folder text_encoder"),
    (as_pickle, "pickles, which can run code"),
    (lambda path: (path / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "holds no .safetensors files"),
    (cut, "cut short"),
    (lambda path: (path / "transformer" / "config.json").unlink(), "has no transformer/config.json"),
    (lambda path: changed_json(path / "transformer" / "config.json", num_attention_heads=8), "cannot be loaded"),
    (lambda path: changed_json(path / "model_index.json", transformer=["diffusers", "NoSuchModel"]), "cannot be loaded"),
])  # fmt: skip
def test_a_folder_that_cannot_draw_is_refused_in_a_sentence(folder, tmp_path, change, message):
    path = copy_of(folder("flux2-klein"), tmp_path)
    change(path)
    with pytest.raises(InputError, match=message) as caught:
        DiffusersVisualizer(path, device="cpu", dtype=torch.float32).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("source", "message"), [
    ("nowhere/at/all", "neither a folder nor a name"), ("/no/such/folder", "neither a folder nor a name"),
    (__file__, "is a file; give the folder"),
])  # fmt: skip
def test_a_source_that_is_none_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        DiffusersVisualizer(source, device="cpu")


def test_a_hub_name_without_the_hub_is_an_error_in_a_sentence(tmp_path):
    """In a process of its own: the hub's library asks the environment once, when it is imported."""
    code = (
        "from weaver_core.visualizers.diffusers_visualizer import DiffusersVisualizer\n"
        "try: DiffusersVisualizer('somebody/some-model', device='cpu')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1],
                          env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin"})  # fmt: skip
    assert "somebody/some-model cannot be fetched from the Hugging Face hub" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


def test_the_fingerprint_is_of_the_content_wherever_it_lies(folder, klein, tmp_path):
    path = copy_of(folder("flux2-klein"), tmp_path)

    def fingerprint(**how):
        return DiffusersVisualizer(path, **{"device": "cpu", "dtype": torch.float32, "reference_side": 64, **how}).fingerprint

    assert fingerprint() == klein.fingerprint and fingerprint().startswith("diffusers-flux2-klein-")
    assert fingerprint(dtype=torch.bfloat16) != klein.fingerprint != fingerprint(reference_side=512)
    (path / "README.md").write_text("told")
    assert fingerprint() == klein.fingerprint
    changed_json(path / "scheduler" / "scheduler_config.json", base_shift=0.6)
    shifted = fingerprint()
    assert shifted != klein.fingerprint
    weights = path / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    assert fingerprint() != shifted


def test_every_family_is_a_class_of_diffusers():
    import diffusers

    for family in FAMILIES.values():
        assert hasattr(diffusers, family.pipeline) and (not family.without or hasattr(diffusers, family.without))


# ---- on the command line


@pytest.fixture
def weaver(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("plan.md").write_text(PLAN)

    def run(*arguments):
        code = cli.main([*map(str, arguments)])
        return code, capsys.readouterr()

    return run


def test_a_plan_is_drawn_with_a_folder_and_goes_on_with_it(weaver, folder, tmp_path):
    own = ("--visualizer", folder("flux2-klein"), "--lora", f"{save_lora(folder('flux2-klein'), tmp_path / 'one.safetensors')}:0.5",
           "--device", "cpu", "--offload", "model")  # fmt: skip
    code, told = weaver("render", "plan.md", "--out", "book", "--size", "256x256", "--only", "p1", "--no-check-images", *own)
    assert code == cli.INCOMPLETE, told.err
    code, told = weaver("resume", "book")
    assert code == cli.ERROR and f"was made with the image model {folder('flux2-klein')} and the LoRA" in told.err and "--visualizer" in told.err
    code, told = weaver("resume", "book", *own)
    assert code == cli.OK, told.err
    with StoryFolder.open("book") as story:
        assert [used.source for used in story.renderings["p2"].references] == ["p1"]
        assert {rendering.visualizer for rendering in story.renderings.values()} == {
            DiffusersVisualizer(own[1], loras=[own[3]], device="cpu").fingerprint}  # fmt: skip
        assert story.renderings["p1"].steps == 4


def test_the_embedded_planner_writes_for_an_image_model_without_one(weaver, folder):
    code, told = weaver("story", "A small blue fox at the beach, one picture", "--seed", "1", "--out", "book", "--size", "256x256",
                        "--steps", "1", "--no-check-images", "--visualizer", folder("flux2-klein"), "--device", "cpu")  # fmt: skip
    assert code == cli.OK, told.err
    with StoryFolder.open("book") as story:
        assert story.image("p1").size == (256, 256) and "fox" in story.plan.images[0].prompt


@pytest.mark.parametrize(("arguments", "message"), [
    (["--lora", "x.safetensors"], "the LoRA x.safetensors is not there, or no .safetensors file"),
    (["--quantize", "nf4"], "--quantize is for an image model"),
    (["--visualizer", "no such folder"], "neither a folder nor a name"),
])  # fmt: skip
def test_wrong_options_are_told_before_anything_is_drawn(weaver, arguments, message):
    code, told = weaver("render", "plan.md", "--out", "book", *arguments)
    assert code == cli.ERROR and message in told.err and not Path("book").exists()
