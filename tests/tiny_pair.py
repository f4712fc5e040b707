"""A native pair of the real classes with random weights, small enough to build in a test."""

from __future__ import annotations

import torch

from training.build_tokenizer import train_tokenizer
from training.stages.planner import ModelSettings as PlannerShape
from training.stages.planner import planner_config
from training.stages.visualizer import ModelSettings as TwinShape
from training.stages.visualizer import new_twin
from weaver_core.model.autoencoder import TinyAutoencoder
from weaver_core.model.checkpoint import SamplingDefaults, WeaverModel

TEXTS = ["# Tim at the beach\nOnce upon a time, Tim the blue fox sat down. A small blue fox sits on the left, at the beach by day.",
         "Draw a red bear with a scarf at night in the forest. 4 pictures (4 pictures)"]


def tiny_pair(*, seed: int = 0, layers: int = 2, bridge: str = "linear", pooled: tuple[int, ...] = (0, 1), width: int = 64,
              slots: int = 4) -> WeaverModel:
    """float32 on the CPU; 2 layers, 4 heads of size 16, 2 key/value heads; 128 px pictures."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(TEXTS * 20, 400)
    shape = PlannerShape(hidden_size=64, layers=layers, heads=4, kv_heads=2, intermediate_size=96, vision_depth=1, vision_hidden=32, vision_heads=2)
    planner = Qwen2_5_VLForConditionalGeneration._from_config(planner_config(shape, tokenizer, 128)).eval()
    twin = new_twin(TwinShape(width=width, mlp_width=96, bridge=bridge, pooled_layers=pooled, reference_slots=slots), planner.config.text_config, 4)
    with torch.no_grad():  # a fresh twin's output is near zero; random weights everywhere make equality tests sharp
        for parameter in twin.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    vae = TinyAutoencoder(latent_channels=4, encoder_widths=(8, 8, 16), encoder_blocks=(0, 0, 1), decoder_widths=(8, 8, 16), decoder_blocks=(0, 0, 1))
    return WeaverModel(planner, tokenizer, twin.eval(), vae.eval(), SamplingDefaults(steps=3))
