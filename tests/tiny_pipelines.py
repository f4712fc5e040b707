"""Image pipelines of the real diffusers classes with random weights, saved as users have them; a few hundred kilobytes each.

Encoders are as deep as the layers that the pipelines read from real ones (27 of Qwen3, 30 of Mistral), and as narrow as they can be.
"""

from __future__ import annotations

from pathlib import Path

import tiny_tokenizers

_QWEN_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "vocab_size": 320, "max_position_embeddings": 32768, "pad_token_id": 269, "eos_token_id": 268}  # fmt: skip
_QWEN_TOKENS = {"image_token_id": 280, "video_token_id": 281, "vision_start_token_id": 277, "vision_end_token_id": 278}
_QWEN_VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}
_FLUX2_VAE = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "latent_channels": 32,
              "block_out_channels": [8] * 4, "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 32}  # fmt: skip


def save(kind: str, folder: Path) -> Path:
    """One of KINDS, in this folder."""
    import torch

    torch.manual_seed(0)
    KINDS[kind]().save_pretrained(folder)
    return folder


def _scheduler(**settings):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **settings)


def _qwen_scheduler():
    return _scheduler(max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02)


def _qwen_processor(kind: str, patch: int, longest: int):
    import transformers

    seen = "2_5_VL" if kind == "Qwen2_5_VL" else "3VL"
    image_processor = transformers.Qwen2VLImageProcessor(
        patch_size=patch, temporal_patch_size=2, merge_size=2, size={"shortest_edge": (2 * patch) ** 2, "longest_edge": longest})
    videos = "Qwen2VLVideoProcessor" if kind == "Qwen2_5_VL" else "Qwen3VLVideoProcessor"
    return getattr(transformers, f"Qwen{seen}Processor")(
        image_processor=image_processor, tokenizer=tiny_tokenizers.byte_level(), chat_template=tiny_tokenizers.CHAT_TEMPLATE,
        video_processor=getattr(transformers, videos)(patch_size=patch, temporal_patch_size=2, merge_size=2))  # fmt: skip


def _qwen_image_edit_plus():
    from diffusers import AutoencoderKLQwenImage, QwenImageEditPlusPipeline, QwenImageTransformer2DModel
    from transformers import AutoConfig, AutoModelForImageTextToText

    text = {**_QWEN_TEXT, "rope_parameters": {"mrope_section": [2, 3, 3], "rope_theta": 1e6, "rope_type": "default"}}
    vision = {**_QWEN_VISION, "patch_size": 14, "fullatt_block_indexes": [1], "window_size": 112}
    config = AutoConfig.for_model("qwen2_5_vl", text_config=text, vision_config=vision, tie_word_embeddings=False, **_QWEN_TOKENS)
    processor = _qwen_processor("Qwen2_5_VL", 14, 56**2)
    return QwenImageEditPlusPipeline(
        scheduler=_qwen_scheduler(),
        vae=AutoencoderKLQwenImage(base_dim=16, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        text_encoder=AutoModelForImageTextToText.from_config(config), tokenizer=processor.tokenizer, processor=processor,
        transformer=QwenImageTransformer2DModel(attention_head_dim=32, axes_dims_rope=(8, 12, 12), in_channels=64, out_channels=16,
                                                joint_attention_dim=64, num_attention_heads=2, num_layers=2))  # fmt: skip


def _qwen_image_21():
    from diffusers import AutoencoderKLQwenImage21, QwenImage21Pipeline, QwenImage21Transformer2DModel
    from transformers import AutoConfig, AutoModelForImageTextToText

    text = {**_QWEN_TEXT, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8,
            "rope_parameters": {"mrope_interleaved": True, "mrope_section": [1, 1, 2], "rope_theta": 5e6, "rope_type": "default"}}
    vision = {**_QWEN_VISION, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "patch_size": 16,
              "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}  # fmt: skip
    config = AutoConfig.for_model("qwen3_vl", text_config=text, vision_config=vision, tie_word_embeddings=False, **_QWEN_TOKENS)
    return QwenImage21Pipeline(
        scheduler=_qwen_scheduler(),
        vae=AutoencoderKLQwenImage21(base_dim=8, decoder_base_dim=8, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1),
        text_encoder=AutoModelForImageTextToText.from_config(config), processor=_qwen_processor("Qwen3VL", 16, 2048**2),
        transformer=QwenImage21Transformer2DModel(attention_head_dim=16, axes_dims_rope=(4, 6, 6), context_in_dim=32,
                                                  num_attention_heads=2, num_layers=2))  # fmt: skip


def _flux2_transformer(*, guidance_embeds: bool):
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(attention_head_dim=16, num_attention_heads=4, axes_dims_rope=(4, 4, 4, 4), in_channels=128,
                                   joint_attention_dim=192, num_layers=1, num_single_layers=1, guidance_embeds=guidance_embeds)  # fmt: skip


def _flux2_klein(*, is_distilled: bool = True):
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline
    from transformers import Qwen3Config, Qwen3ForCausalLM

    encoder = Qwen3Config(**{**_QWEN_TEXT, "head_dim": 16, "num_hidden_layers": 27, "intermediate_size": 64})
    return Flux2KleinPipeline(
        scheduler=_scheduler(), vae=AutoencoderKLFlux2(**_FLUX2_VAE), text_encoder=Qwen3ForCausalLM(encoder),
        tokenizer=tiny_tokenizers.byte_level(), transformer=_flux2_transformer(guidance_embeds=False),
        is_distilled=is_distilled)  # fmt: skip


def _flux2_dev():
    from diffusers import AutoencoderKLFlux2, Flux2Pipeline
    from transformers import (
        AutoConfig,
        Mistral3ForConditionalGeneration,
        PixtralImageProcessor,
        PixtralProcessor,
    )

    text = {"model_type": "mistral", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 30, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320, "max_position_embeddings": 2048, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": 10}  # fmt: skip
    vision = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 2,
              "head_dim": 8, "image_size": 112, "patch_size": 14}  # fmt: skip
    config = AutoConfig.for_model("mistral3", text_config=text, vision_config=vision, image_token_index=7, spatial_merge_size=1)
    processor = PixtralProcessor(
        image_processor=PixtralImageProcessor(size={"longest_edge": 112}, patch_size=14), tokenizer=_mistral_tokenizer(), patch_size=14,
        spatial_merge_size=1, chat_template=tiny_tokenizers.CHAT_TEMPLATE)  # fmt: skip
    return Flux2Pipeline(
        scheduler=_scheduler(), vae=AutoencoderKLFlux2(**_FLUX2_VAE), text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=processor, transformer=_flux2_transformer(guidance_embeds=True))  # fmt: skip


def _mistral_tokenizer():
    """256 bytes behind 11 special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG_BREAK]", "[IMG_END]", "[IMG]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
               "<pad>"]  # fmt: skip
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={piece: id for id, piece in enumerate(pieces)}, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                   additional_special_tokens=special[3:10])  # fmt: skip


def _flux_kontext():
    from diffusers import AutoencoderKL, FluxKontextPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

    letters = [chr(number) for number in range(33, 127)]
    clip = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    words = CLIPTextConfig(vocab_size=len(clip), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                           projection_dim=32, bos_token_id=len(clip) - 2, eos_token_id=len(clip) - 1)  # fmt: skip
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)]
    text = T5Config(vocab_size=len(pieces), d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4, feed_forward_proj="relu")
    return FluxKontextPipeline(
        scheduler=_scheduler(shift=3.0),
        vae=AutoencoderKL(down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, latent_channels=16,
                          block_out_channels=[8] * 4, layers_per_block=1, norm_num_groups=4, scaling_factor=0.3611, shift_factor=0.1159,
                          use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModel(words),
        tokenizer=CLIPTokenizer(vocab={piece: id for id, piece in enumerate(clip)}, merges=[], model_max_length=77),
        text_encoder_2=T5EncoderModel(text), tokenizer_2=T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512),
        transformer=FluxTransformer2DModel(attention_head_dim=16, num_attention_heads=4, axes_dims_rope=(4, 4, 8), in_channels=64,
                                           joint_attention_dim=32, pooled_projection_dim=32, num_layers=1, num_single_layers=1,
                                           guidance_embeds=True))  # fmt: skip


def _flux2_klein_base():
    return _flux2_klein(is_distilled=False)


KINDS = {
    "qwen-image-edit-plus": _qwen_image_edit_plus,
    "qwen-image-2.1": _qwen_image_21,
    "flux2-klein": _flux2_klein,
    "flux2-klein-base": _flux2_klein_base,
    "flux2-dev": _flux2_dev,
    "flux-kontext": _flux_kontext,
}
