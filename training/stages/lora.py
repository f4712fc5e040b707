"""LoRA and its files: put into a model by PEFT, written as a PEFT folder, reopened and compared before success is reported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from weaver_core.memory import NOT_QUANTIZED

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_NEVER = rf"(?:.*\.)?(?:{'|'.join(map(re.escape, NOT_QUANTIZED))})(?:\..*)?"  # the eyes and the head of a model


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """A small addition to the layers of a model, which stays as it is."""

    rank: int = 0  # 0 trains the whole model
    alpha: float = 0.0  # strength times rank; 0 takes the rank itself, strength 1
    targets: tuple[str, ...] = TARGETS  # names of linear layers of the language model
    dropout: float = 0.0

    def __post_init__(self):
        if self.rank < 0 or self.alpha < 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"lora.rank is {self.rank}, alpha {self.alpha}, dropout {self.dropout}; rank and alpha must be 0 or more, "
                             "dropout in [0, 1)")
        if self.rank and not self.targets:
            raise ValueError("lora.targets is empty; name linear layers, or leave it out for all of the language model")


def add_lora(model, settings: LoraSettings, base: str):
    """The model with a fresh LoRA in it, all else frozen. Raises ValueError if no layer has such a name."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha or settings.rank, target_modules=list(settings.targets),
                        lora_dropout=settings.dropout, exclude_modules=_NEVER, bias="none")
    try:
        with_lora = get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(f"lora.targets = {list(settings.targets)} names no layers of {base}: {str(error).splitlines()[0][:200]}") from None
    for name, parameter in with_lora.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # its steps are too small for 16 bits
    return with_lora


def save_lora(with_lora, folder: Path) -> str:
    """Write a PEFT folder, open it again and compare; returns a line that says what fits.

    Raises   ValueError naming the keys if anything is missing, foreign, of another shape or not finite
    """
    trained = {name.replace(".default.", "."): p.detach() for name, p in with_lora.named_parameters() if p.requires_grad}
    with_lora.save_pretrained(folder)
    path = folder / "adapter_model.safetensors"
    written = load_file(path)
    missing, foreign = sorted(set(trained) - set(written)), sorted(set(written) - set(trained))
    if missing or foreign:
        raise ValueError(f"{path} would not load: missing {missing[:3]}, foreign {foreign[:3]}")
    modules = dict(with_lora.named_modules())
    for name, value in written.items():
        layer = modules.get(re.sub(r"\.lora_[AB]\.weight$", "", name))
        side = 1 if ".lora_A." in name else 0
        if layer is None or value.shape[side] != (layer.in_features if side else layer.out_features):
            raise ValueError(f"{path}: {name} {tuple(value.shape)} fits no layer of the base model")
        if not torch.isfinite(value).all() or not torch.equal(value.to(trained[name].device, trained[name].dtype), trained[name]):
            raise ValueError(f"{path}: {name} is not what was trained")
    layers = len(written) // 2
    idle = sum(not value.any() for name, value in written.items() if ".lora_B." in name)
    return f"{len(written)} of {len(written)} keys match {layers} layers" + (f"; {idle} of them have learned nothing yet" if idle else "")
