"""Memory told before loading: weights and caches are exact against the real classes, and known models against their configs."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import tiny_chat_models
import torch

from weaver_core import card_table
from weaver_core.errors import InputError
from weaver_core.memory import (
    GIB,
    NATIVE,
    cache_bytes_per_token,
    estimate_pipeline,
    estimate_planner,
    read_header,
    weights_by_part,
    weights_of,
    weights_of_config,
    weights_of_module,
)

FLUX2 = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": 96,
         "axes_dims_rope": [4, 4, 4, 4]}  # fmt: skip
QWEN = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": 64, "axes_dims_rope": (4, 6, 6)}
Q3 = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "num_hidden_layers": 36}


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "qwen3_5", "qwen3"])
def chat_model(request, tmp_path_factory):
    """The folder of a tiny chat model, for reading only."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return tiny_chat_models.writing(folder) if request.param == "qwen3" else tiny_chat_models.seeing(request.param, folder)


def loaded(folder):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    sees = hasattr(AutoConfig.from_pretrained(folder), "vision_config")
    return (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_pretrained(folder, dtype=torch.float32).eval()


def tiny_pipeline(folder):
    """A folder as diffusers lays it out: a transformer, a text encoder, and the index."""
    from diffusers import Flux2Transformer2DModel

    Flux2Transformer2DModel(**FLUX2).save_pretrained(folder / "transformer")
    tiny_chat_models.writing(folder / "text_encoder")
    (folder / "scheduler").mkdir()
    (folder / "model_index.json").write_text("{}")
    return folder


# ---- weights


def test_stored_weights_are_the_bytes_of_the_loaded_model(chat_model):
    model = loaded(chat_model)
    weights = weights_of(chat_model)
    assert weights.stored == weights.bytes_as("float32") == sum(value.nbytes for value in model.parameters())
    assert weights.bytes_as("bfloat16") == sum(value.nbytes for value in model.to(torch.bfloat16).parameters())


def test_headers_configs_and_modules_count_the_same(chat_model):
    """Also which of the weights are in linear layers, which headers only tell by name."""
    read = weights_of(chat_model)
    for counted in (weights_of_config(chat_model), weights_of_module(loaded(chat_model))):
        assert (counted.num_values, counted.num_linear) == (read.num_values, read.num_linear)
    assert 0 < read.num_linear < read.num_values


def test_tied_embeddings_count_once(tmp_path):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                         head_dim=16, vocab_size=100, tie_word_embeddings=True)  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    read, counted = weights_of(tmp_path), weights_of_config(tmp_path)
    assert (read.num_values, read.num_linear) == (counted.num_values, counted.num_linear)


@pytest.mark.parametrize(("name", "config"), [("Flux2Transformer2DModel", FLUX2), ("QwenImageTransformer2DModel", QWEN)])
def test_image_models_count_the_same_with_and_without_files(name, config, tmp_path):
    import diffusers

    model = getattr(diffusers, name)(**config)
    model.save_pretrained(tmp_path)
    read = weights_of(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    counted = weights_of(tmp_path)
    assert read.stored == sum(value.nbytes for value in model.parameters())
    assert (counted.num_values, counted.num_linear) == (read.num_values, read.num_linear)
    assert counted.stored is None


def test_a_pipeline_is_told_part_by_part(tmp_path):
    parts = weights_by_part(tiny_pipeline(tmp_path))
    assert set(parts) == {"transformer", "text_encoder"}
    assert weights_of(tmp_path).stored == parts["transformer"].stored + parts["text_encoder"].stored


def test_the_embedded_model_is_read_too():
    from weaver_core.model.checkpoint import default_folder

    assert set(weights_by_part(default_folder())) == {"planner", "visualizer", "vae"}


def test_shards_count_once_and_a_second_precision_not_at_all(tmp_path):
    from diffusers import Flux2Transformer2DModel

    model = Flux2Transformer2DModel(**FLUX2)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model.to(torch.float16).save_pretrained(tmp_path / "half")
    shutil.copy(tmp_path / "half" / "diffusion_pytorch_model.safetensors", tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert weights_of(tmp_path).stored == 2 * sum(value.nbytes for value in model.parameters())


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
    from safetensors.torch import save_file

    save_file({"a.weight": torch.zeros(4, 4)}, tmp_path / "secret.safetensors")
    (tmp_path / "model").mkdir()
    save_file({"b.weight": torch.zeros(2, 2)}, tmp_path / "model" / "inside.safetensors")
    index = {"weight_map": {"a.weight": "../secret.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="cannot be read"):
        weights_of(tmp_path / "model")


def test_eight_bit_files_keep_their_bytes_as_stored(tmp_path):
    from safetensors.torch import save_file

    save_file({"a.weight": torch.zeros(8, 8).to(torch.float8_e4m3fn), "a.scale": torch.zeros(8), "b.weight": torch.zeros(4, 4, dtype=torch.int8)},
              tmp_path / "model.safetensors")  # fmt: skip
    weights = weights_of(tmp_path)
    assert weights.bytes_as(NATIVE) == 64 + 8 * 4 + 16
    assert weights.bytes_as("bfloat16") == 2 * (64 + 8) + 16


def test_four_bit_weights_are_what_bitsandbytes_makes_of_them(tmp_path):
    from transformers import AutoModelForCausalLM

    from weaver_core.planners.transformers_planner import _nf4

    folder = tiny_chat_models.writing(tmp_path, width=128)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=_nf4(torch.bfloat16), device_map={"": "cpu"})
    packed, tables = 0, 0
    for value in model.parameters():
        packed += value.nbytes
        if (state := getattr(value, "quant_state", None)) is not None:
            packed += state.absmax.nbytes + state.state2.absmax.nbytes
            tables += 1
    assert tables == 14
    # Blocks are filled up: at most one more entry of a scale table per layer.
    assert packed == pytest.approx(weights_of(folder).bytes_as("nf4"), abs=8 * tables)


# ---- files that are none


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404 Not Found</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n",
     (2).to_bytes(8, "little") + b"[]", (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":["x"],"data_offsets":[0,4]}}    '],
)  # fmt: skip
def test_what_is_no_weights_is_refused_in_one_sentence(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"no \.safetensors file .*copy or download it again"):
        read_header(tmp_path / "model.safetensors")


def test_half_a_download_is_noticed_without_reading_it(tmp_path):
    folder = tiny_chat_models.writing(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is cut short"):
        weights_of(folder)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither .safetensors files nor a config.json"):
        weights_of(tmp_path)


def test_code_that_a_config_brings_is_never_run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}, "architectures": ["Mine"]}))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(InputError):
        weights_of(tmp_path)
    assert not (tmp_path / "ran").exists() and "mine" not in sys.modules


def test_only_model_classes_are_built_from_a_name_in_a_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "logging"}))
    with pytest.raises(InputError, match="diffusers .* has not"):
        weights_of(tmp_path)


# ---- caches and estimates


def test_the_cache_per_token_is_that_of_a_real_cache(chat_model):
    model = loaded(chat_model)

    def kept(num_tokens):
        with torch.no_grad():
            cache = model(input_ids=torch.arange(1, num_tokens + 1)[None], use_cache=True).past_key_values
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if getattr(layer, "keys", None) is not None)

    assert (kept(24) - kept(16)) / 8 == cache_bytes_per_token(model.config.get_text_config(), bytes_per_value=4)


def test_a_planner_s_estimate_adds_weights_cache_and_work(chat_model):
    short, long = (estimate_planner(chat_model, tokens=tokens) for tokens in (1000, 2000))
    assert short.weights == long.weights == weights_of(chat_model).bytes_as("bfloat16")
    assert long.cache == 2 * short.cache and long.working == 2 * short.working
    assert "estimated, not measured" in str(long) and "roughly" in str(long)
    assert estimate_planner(chat_model, format="nf4").weights < short.weights


def test_a_pipeline_whose_parts_come_one_by_one_needs_less(tmp_path):
    tiny_pipeline(tmp_path)
    one_by_one, together = (estimate_pipeline(tmp_path, size=(64, 64), offloads=offloads) for offloads in (True, False))
    assert one_by_one.weights < together.weights == weights_of(tmp_path).bytes_as("bfloat16")
    more = estimate_pipeline(tmp_path, size=(1024, 1024), references=4)
    assert more.working > estimate_pipeline(tmp_path, size=(1024, 1024), references=0).working


def test_a_chat_model_is_no_pipeline(tmp_path):
    with pytest.raises(InputError, match="no pipeline"):
        estimate_pipeline(tiny_chat_models.writing(tmp_path))


# ---- models that users know, counted again from their published configs


def rope(*section):
    return {"mrope_interleaved": True, "mrope_section": list(section), "rope_theta": 5e6, "rope_type": "default"}


def known_models():
    """Name in card_table -> a function that builds the model."""
    import diffusers
    import transformers as t

    def qwen3_vl(text, vision, tied):
        config = t.Qwen3VLConfig(text_config=dict(**text, **Q3, rope_parameters=rope(24, 20, 20), tie_word_embeddings=tied),
                                 vision_config=vision, tie_word_embeddings=tied)  # fmt: skip
        return t.Qwen3VLForConditionalGeneration(config)

    small = {"hidden_size": 2560, "intermediate_size": 9728}
    large = {"hidden_size": 4096, "intermediate_size": 12288}
    seen_small = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560,
                  "deepstack_visual_indexes": [5, 11, 17]}  # fmt: skip
    seen_large = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096,
                  "deepstack_visual_indexes": [8, 16, 24]}  # fmt: skip
    qwen2_5 = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
               "num_key_value_heads": 4, "vocab_size": 152064,
               "rope_parameters": {"mrope_section": [16, 24, 24], "rope_theta": 1e6, "rope_type": "default"}}  # fmt: skip
    klein = {"num_attention_heads": 24, "num_layers": 5, "num_single_layers": 20, "joint_attention_dim": 7680, "guidance_embeds": False}
    klein_9b = klein | {"num_attention_heads": 32, "num_layers": 8, "num_single_layers": 24, "joint_attention_dim": 12288}
    sdxl = {"block_out_channels": (320, 640, 1280), "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
            "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"), "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816, "use_linear_projection": True}  # fmt: skip
    return {
        "QWEN3_4B": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**small, **Q3, tie_word_embeddings=True)),
        "QWEN3_8B": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**large, **Q3, tie_word_embeddings=False)),
        "QWEN3_VL_4B": lambda: qwen3_vl(small, seen_small, True),
        "QWEN3_VL_8B": lambda: qwen3_vl(large, seen_large, False),
        "QWEN2_5_VL_7B": lambda: t.Qwen2_5_VLForConditionalGeneration(t.Qwen2_5_VLConfig(
            text_config=qwen2_5, tie_word_embeddings=False,
            vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584})),
        "MISTRAL_SMALL_3": lambda: t.MistralForCausalLM(t.MistralConfig(
            hidden_size=5120, intermediate_size=32768, num_hidden_layers=40, num_attention_heads=32, num_key_value_heads=8,
            head_dim=128, vocab_size=131072)),
        "T5_XXL": lambda: t.T5EncoderModel(t.T5Config(
            d_model=4096, d_ff=10240, num_layers=24, num_heads=64, d_kv=64, vocab_size=32128, feed_forward_proj="gated-gelu")),
        "CLIP_G": lambda: t.CLIPTextModelWithProjection(t.CLIPTextConfig(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280)),
        "QWEN_IMAGE": lambda: diffusers.QwenImageTransformer2DModel(),
        "QWEN_IMAGE_2_1": lambda: diffusers.QwenImage21Transformer2DModel(),
        "FLUX2_DEV": lambda: diffusers.Flux2Transformer2DModel(),
        "KLEIN_4B": lambda: diffusers.Flux2Transformer2DModel(**klein),
        "KLEIN_9B": lambda: diffusers.Flux2Transformer2DModel(**klein_9b),
        "FLUX_1": lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
        "Z_IMAGE": lambda: diffusers.ZImageTransformer2DModel(),
        "SDXL_UNET": lambda: diffusers.UNet2DConditionModel(**sdxl),
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, value in vars(card_table).items() if isinstance(value, card_table.Weights)])
def test_known_numbers_of_weights_are_those_of_the_configs(name):
    with torch.device("meta"):
        counted = weights_of_module(known_models()[name]())
    assert getattr(card_table, name) == counted


def test_known_planners_keep_what_their_configs_say():
    with torch.device("meta"):
        built = {name: known_models()[name]().config.get_text_config() for name in ("QWEN3_4B", "QWEN3_VL_4B", "QWEN2_5_VL_7B", "QWEN3_8B", "QWEN3_VL_8B")}
    facts = [(cache_bytes_per_token(config), config.hidden_size) for config in built.values()]
    assert [(planner.cache, planner.width) for planner in card_table.PLANNERS] == facts


def test_a_larger_card_never_takes_a_smaller_format():
    order = ["-", "offload", "NF4", "Q4", "fp8", "bf16"]
    for model in (*card_table.PLANNERS, *card_table.IMAGE_MODELS):
        ways = [order.index(card_table.fit(model, size * GIB).how) for size in (2, *card_table.CARD_SIZES, 200)]
        assert ways == sorted(ways) and ways[0] < 2 and ways[-1] == 5, model.title


@pytest.mark.parametrize("size", card_table.CARD_SIZES)
def test_every_card_size_has_a_planner_and_an_image_model_with_references(size):
    assert any(card_table.fit(model, size * GIB).fits for model in card_table.PLANNERS)
    assert any(card_table.fit(model, size * GIB).fits for model in card_table.IMAGE_MODELS if model.references)


def test_what_fits_leaves_room_on_the_card():
    for model in (*card_table.PLANNERS, *card_table.IMAGE_MODELS):
        for size in card_table.CARD_SIZES:
            found = card_table.fit(model, size * GIB)
            assert found.fits == (found.estimate.total <= size * GIB - card_table.RESERVED)
