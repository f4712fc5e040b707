"""Chat models of the real classes with random weights, a few thousand parameters each, saved as users have them."""

from __future__ import annotations

from pathlib import Path

import tiny_tokenizers

_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "vocab_size": 320, "max_position_embeddings": 32768, "pad_token_id": 269, "eos_token_id": 268}  # fmt: skip
_TOKENS = {"image_token_id": 280, "video_token_id": 281, "vision_start_token_id": 277, "vision_end_token_id": 278}
_VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}


def seeing(family: str, folder: Path) -> Path:
    """A `qwen2_5_vl`, `qwen3_vl` or `qwen3_5` with its processor, in this folder."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, Qwen2VLImageProcessor

    text = {**_TEXT}
    vision = {**_VISION, "patch_size": 16, "num_position_embeddings": 64}
    if family == "qwen2_5_vl":
        text["rope_parameters"] = {"mrope_section": [2, 3, 3], "rope_theta": 1e6, "rope_type": "default"}
        vision = {**_VISION, "patch_size": 14, "fullatt_block_indexes": [1], "window_size": 112}
    elif family == "qwen3_vl":
        text |= {"head_dim": 16, "rope_parameters": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_theta": 5e6, "rope_type": "default"}}
        vision["deepstack_visual_indexes"] = [0]
    else:
        text |= {"num_hidden_layers": 4, "head_dim": 32, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
                 "linear_key_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_value_head_dim": 16,
                 "rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 1e4, "rope_type": "default"}}  # fmt: skip
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, text_config=text, vision_config=vision, tie_word_embeddings=False, **_TOKENS)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    patch = vision["patch_size"]
    size = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (4 * patch) ** 2}
    image_processor = Qwen2VLImageProcessor(patch_size=patch, temporal_patch_size=2, merge_size=2, size=size)
    tokenizer = tiny_tokenizers.byte_level()
    if family == "qwen2_5_vl":
        from transformers import Qwen2_5_VLProcessor as Processor
        from transformers import Qwen2VLVideoProcessor as VideoProcessor
    else:
        from transformers import Qwen3VLProcessor as Processor
        from transformers import Qwen3VLVideoProcessor as VideoProcessor
    video_processor = VideoProcessor(patch_size=patch, temporal_patch_size=2, merge_size=2)
    Processor(image_processor=image_processor, tokenizer=tokenizer, video_processor=video_processor,
              chat_template=tiny_tokenizers.CHAT_TEMPLATE).save_pretrained(folder)  # fmt: skip
    return folder


def writing(folder: Path, *, layers: int = 2, width: int = 64, template: str = tiny_tokenizers.CHAT_TEMPLATE) -> Path:
    """A Qwen3 language model, which sees nothing, in this folder."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    text = {**_TEXT, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers, "head_dim": width // 4}
    Qwen3ForCausalLM(Qwen3Config(**text)).save_pretrained(folder)
    tokenizer = tiny_tokenizers.byte_level()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def lora_for(model: Path, folder: Path) -> Path:
    """A PEFT adapter of strong random weights for a model in a folder, in this folder."""
    import peft
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    kind = AutoModelForImageTextToText if hasattr(AutoConfig.from_pretrained(model), "vision_config") else AutoModelForCausalLM
    torch.manual_seed(1)
    layers = peft.LoraConfig(r=4, target_modules=r".*layers.*(q_proj|v_proj|o_proj|down_proj)", init_lora_weights=False)
    tuned = peft.get_peft_model(kind.from_pretrained(model), layers)
    for name, parameter in tuned.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    tuned.save_pretrained(folder)
    return folder
