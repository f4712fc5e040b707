"""LoRAs of the native visualizer: in files that ComfyUI's tools read too, checked key by key, added to a twin's weights.

    diffusion_model.<module path>.lora_A.weight   (rank, in)
    diffusion_model.<module path>.lora_B.weight   (out, rank)
    diffusion_model.<module path>.alpha           strength times rank; left out where it is the rank, strength 1
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from .checkpoint import WeaverModel

PREFIX = "diffusion_model."
_PART = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|alpha)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """What a LoRA adds to one linear layer. Shapes   down (rank, in), up (out, rank)"""

    down: Tensor
    up: Tensor
    alpha: float | None = None

    def change(self, strength: float) -> Tensor:
        """Shape (out, in), float32; the same operations in the same order as ComfyUI's, so that both draw the same pixels."""
        scale = 1.0 if self.alpha is None else self.alpha / self.down.shape[0]
        return (strength * scale) * torch.mm(self.up.float(), self.down.float())


def read_lora(path: str | Path, twin: nn.Module) -> dict[str, LowRank]:
    """The changes in a file by the twin's module path.

    Raises   InputError for a file that is damaged, incomplete, or made for another model
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"the LoRA {path.name} cannot be read ({str(error).splitlines()[0][:150]}); copy or download it again") from None
    layers = {name: module for name, module in twin.named_modules() if isinstance(module, nn.Linear)}
    found, foreign = {}, []
    for key, value in tensors.items():
        match = _PART.fullmatch(key.removeprefix(PREFIX)) if key.startswith(PREFIX) else None
        if match is None or match[1] not in layers:
            foreign.append(key)
        else:
            found.setdefault(match[1], {})[match[2]] = value
    if foreign or not found:
        example = f", such as {str(foreign[0])[:80]!r}" if foreign else ""
        raise InputError(f"the LoRA {path.name} does not fit this visualizer: {len(foreign)} of its {len(tensors)} keys name none of its "
                         f"layers{example}; take one that was trained for it with training/train.py")
    return {name: _low_rank(path, name, parts, layers[name]) for name, parts in sorted(found.items())}


def add_to_weights(twin: nn.Module, loras: Sequence[tuple[dict[str, LowRank], float]]) -> None:
    """Add LoRAs with their strengths to the twin's weights; all in float32, rounded once."""
    changed = {}
    for layers, strength in loras:
        for name, low_rank in layers.items():
            weight = twin.get_submodule(name).weight
            before = changed[name] if name in changed else weight.detach().float().clone()
            changed[name] = before + low_rank.change(strength).to(weight.device)
    with torch.no_grad():
        for name, value in changed.items():
            twin.get_submodule(name).weight.copy_(value)


def with_loras(model: WeaverModel, loras: Sequence[tuple[Path, float]]) -> WeaverModel:
    """The pair with LoRA files in its visualizer, whose weights change, and a fingerprint of its own. InputError as `read_lora`."""
    add_to_weights(model.visualizer, [(read_lora(path, model.visualizer), strength) for path, strength in loras])
    fingerprint = model.fingerprint
    for path, strength in loras:
        fingerprint = lora_fingerprint(fingerprint, path, strength)
    return replace(model, fingerprint=fingerprint)


def lora_fingerprint(before: str, path: Path, strength: float) -> str:
    """The fingerprint of a pair that had another one before the LoRA: pages are drawn anew with it."""
    digest = hashlib.sha256(f"{before}\nlora {float(strength)}\n".encode())
    digest.update(Path(path).read_bytes())
    return f"native-{digest.hexdigest()[:16]}"


def lora_tensors(layers: dict[str, LowRank]) -> dict[str, Tensor]:
    """What is written into a file, by key."""
    tensors = {}
    for name, low_rank in layers.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = low_rank.down.detach().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = low_rank.up.detach().cpu().contiguous()
        if low_rank.alpha is not None and low_rank.alpha != low_rank.down.shape[0]:
            tensors[f"{PREFIX}{name}.alpha"] = torch.tensor(float(low_rank.alpha))
    return tensors


def _low_rank(path: Path, name: str, parts: dict[str, Tensor], layer: nn.Linear) -> LowRank:
    down, up = parts.get("lora_A.weight"), parts.get("lora_B.weight")
    if down is None or up is None:
        raise InputError(f"the LoRA {path.name} holds half of {name}: lora_{'A' if down is None else 'B'} is missing; copy it again")
    fits = down.ndim == up.ndim == 2 and down.shape[0] == up.shape[1] > 0
    if not fits or (up.shape[0], down.shape[1]) != tuple(layer.weight.shape):
        raise InputError(f"the LoRA {path.name} was made for another model: {name} is changed by {tuple(up.shape)} x {tuple(down.shape)}, "
                         f"and has the shape {tuple(layer.weight.shape)} here")
    alpha = parts.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise InputError(f"the LoRA {path.name} holds {alpha.numel()} numbers where {name} has one strength (alpha); copy it again")
    if not all(torch.isfinite(part).all() for part in parts.values()):
        raise InputError(f"the LoRA {path.name} holds numbers that are none in {name}; it was broken in training: take an earlier one")
    return LowRank(down=down, up=up, alpha=None if alpha is None else float(alpha))
