"""A LoRA in the visualizer: put in by PEFT, written as a file that nodes and command line load, reopened and compared first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training.stages.lora import LoraSettings
from weaver_core.model.lora import LowRank, lora_tensors, read_lora

FILE = "lora.safetensors"
TARGETS = ("qkv", "out", "gate_up", "down")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinLoraSettings(LoraSettings):
    """A small addition to the layers of the twin, which stays as it is."""

    targets: tuple[str, ...] = TARGETS  # names of linear layers: those of the blocks; also to_keys, to_values, patch_in, patch_out, ...


def add_twin_lora(twin: nn.Module, settings: LoraSettings) -> None:
    """Put a fresh LoRA into the twin, all else frozen. Raises ValueError if no layer has such a name."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha or settings.rank, target_modules=list(settings.targets),
                        lora_dropout=settings.dropout, bias="none")
    try:
        inject_adapter_in_model(config, twin)
    except ValueError as error:
        raise ValueError(f"lora.targets = {list(settings.targets)} names no linear layers of the visualizer "
                         f"(those of its blocks are {', '.join(TARGETS)}): {str(error).splitlines()[0][:150]}") from None


def trained_layers(twin: nn.Module, settings: LoraSettings) -> dict[str, LowRank]:
    """What the LoRA in a twin has become, by module path."""
    return {name: LowRank(down=module.lora_A["default"].weight.detach(), up=module.lora_B["default"].weight.detach(),
                          alpha=settings.alpha or settings.rank)
            for name, module in twin.named_modules() if hasattr(module, "lora_A")}


def without_lora(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the twin as it was, out of the state of one that has a LoRA in it."""
    return {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}


def save_twin_lora(twin: nn.Module, bare: nn.Module, settings: LoraSettings, folder: Path, facts: dict[str, str]) -> str:
    """Write the file, open it again as nodes do and compare; returns a line that says what fits.

    bare     a twin without LoRA, which the file has to fit
    Raises   ValueError if a key or a number is not what was trained; InputError if the file would not load
    """
    trained = trained_layers(twin, settings)
    path = folder / FILE
    alpha = settings.alpha or settings.rank
    save_file(lora_tensors(trained), path, metadata=facts | {"rank": str(settings.rank), "alpha": f"{alpha:g}"})
    written = read_lora(path, bare)
    if written.keys() != trained.keys():
        raise ValueError(f"{path} would not load whole: {sorted(written.keys() ^ trained.keys())[:3]} are on one side only")
    for name, low_rank in written.items():
        if any(not torch.equal(one, other.cpu()) for one, other in ((low_rank.down, trained[name].down), (low_rank.up, trained[name].up))):
            raise ValueError(f"{path}: {name} is not what was trained")
    idle = sum(not low_rank.up.any() for low_rank in written.values())
    return (f"{2 * len(written)} of {2 * len(trained)} keys match {len(written)} layers"
            + (f"; {idle} of them have learned nothing yet" if idle else ""))
