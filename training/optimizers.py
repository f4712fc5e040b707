"""The optimizers of a run: AdamW (or one that keeps 8-bit moments) for everything, or Muon for the hidden matrices and AdamW for the rest."""

from __future__ import annotations

import torch

from training.config import OptimizerConfig
from weaver_core.model.checkpoint import has_fast_bf16


class Whole:
    """Parameters that are whole where they are. An engine whose processes keep parts of them says here how parts make a whole."""

    is_whole = True

    def whole(self, parameter: torch.nn.Parameter, part: torch.Tensor) -> torch.Tensor:
        """The tensor of which every process gives its part, cut as the parameter is."""
        return part

    def part(self, parameter: torch.nn.Parameter, whole: torch.Tensor) -> torch.Tensor:
        """The inverse of `whole`: what of a tensor belongs to this process."""
        return whole


def build_optimizers(parameters: dict[str, torch.nn.Parameter], config: OptimizerConfig, cut=Whole()) -> list[torch.optim.Optimizer]:
    """Optimizers that share all parameters among them; weights with two or more axes decay, vectors do not.

    With `config.muon`, matrices take orthogonalised steps (Muon), scaled to the size of AdamW's so that one learning rate
    serves both. Embeddings, heads and modulation stay with AdamW: their rows are words, pixels or times, not directions. Our choice.

    cut   how parts of parameters make a whole: an engine (`engines.py`), or `Whole`
    """
    if config.eight_bit and not cut.is_whole:
        raise ValueError("optimizer.eight_bit keeps a scale for every 256 numbers of a whole weight, and FSDP cuts weights elsewhere; set it "
                         "to false: moments in parts take less than 8-bit ones from four processes on")
    hidden = {name for name, p in parameters.items()
              if config.muon and p.ndim == 2 and not any(part in name for part in ("embed", "lm_head", "patch_", "modulation", "table"))}
    rest = {name: p for name, p in parameters.items() if name not in hidden}
    groups = [{"params": [p for p in rest.values() if p.ndim > 1], "weight_decay": config.weight_decay},
              {"params": [p for p in rest.values() if p.ndim <= 1], "weight_decay": 0.0}]
    betas = (config.beta1, config.beta2)
    optimizers: list[torch.optim.Optimizer] = [
        _eight_bit_adamw()([group for group in groups if group["params"]], lr=config.lr, betas=betas) if config.eight_bit
        else torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)]
    if hidden:
        optimizers.append(Muon([parameters[name] for name in parameters if name in hidden], lr=config.lr,
                               weight_decay=config.weight_decay, cut=cut))
    return optimizers


def missing_for_eight_bit() -> str | None:
    """Why 8-bit AdamW cannot be had here, in a sentence; None where it can."""
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        return 'optimizer.eight_bit needs bitsandbytes: pip install "wan-weaver[bnb]", or set it to false'
    return None


def _eight_bit_adamw():
    if reason := missing_for_eight_bit():
        raise ValueError(reason)
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by Newton-Schulz steps, at the root mean square of an AdamW step (Jordan et al. 2024, Liu et al. 2025).

    torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`, except for the number format of the Newton-Schulz steps: torch always
    takes bf16, which a processor without bf16 units emulates fifty times slower than fp32.
    """

    COEFFICIENTS = (3.4445, -4.7750, 2.0315)
    STEPS = 5

    def __init__(self, parameters, *, lr: float, weight_decay: float, momentum: float = 0.95, cut=Whole()):
        self.cut = cut
        super().__init__(parameters, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                update = self.orthogonal(self.cut.whole(p, p.grad.lerp(momentum, group["momentum"])))  # rows alone have other directions
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(self.cut.part(p, update), alpha=-group["lr"] * 0.2 * max(update.shape) ** 0.5)
        return loss

    @classmethod
    def orthogonal(cls, matrix: torch.Tensor) -> torch.Tensor:
        """A matrix with the same singular vectors and singular values near 1."""
        a, b, c = cls.COEFFICIENTS
        x = matrix.to(torch.bfloat16 if has_fast_bf16(matrix.device) else torch.float32)
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        x = x / x.norm().clamp(min=1e-7)
        for _ in range(cls.STEPS):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return (x.T if tall else x).to(matrix.dtype)


# What each kind of optimizer keeps of a weight. 8-bit AdamW keeps small weights whole, without tables and scales.
_SLOTS = {"AdamW": ({"step", "exp_avg", "exp_avg_sq"},), "Muon": ({"momentum_buffer"},),
          "AdamW8bit": ({"step", "state1", "state2"}, {"step", "state1", "state2", "qmap1", "qmap2", "absmax1", "absmax2"})}


def optimizer_tensors(optimizers: list[torch.optim.Optimizer], parameters: dict) -> dict[str, torch.Tensor]:
    """State of the optimizers as flat tensors, `parameter name|slot`."""
    names = {id(p): name for name, p in parameters.items()}
    return {f"{names[id(p)]}|{slot}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
            for optimizer in optimizers for p, state in optimizer.state.items() for slot, value in state.items()}


def load_optimizer_tensors(optimizers: list[torch.optim.Optimizer], parameters: dict, tensors: dict[str, torch.Tensor]) -> None:
    """The inverse of `optimizer_tensors`. Raises ValueError if a state belongs to no parameter or another optimizer."""
    states: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("|")
        if name not in parameters:
            raise ValueError(f"the optimizer state of {name} belongs to no parameter of this config; "
                             f"use the config of that run, or --fresh")
        states.setdefault(name, {})[slot] = value
    names = {id(p): name for name, p in parameters.items()}
    for optimizer in optimizers:
        kind = type(optimizer).__name__
        mine = [p for group in optimizer.param_groups for p in group["params"] if names[id(p)] in states]
        for p in mine:
            if set(states[names[id(p)]]) not in _SLOTS[kind]:
                raise ValueError(f"the optimizer state of {names[id(p)]} is of another optimizer; set optimizer.muon and "
                                 f"optimizer.eight_bit as in that run, or start a new run from its export with init")
            optimizer.state[p] = {slot: _fitting(value, p, slot, kind) for slot, value in states[names[id(p)]].items()}


def _fitting(value: torch.Tensor, parameter: torch.Tensor, slot: str, kind: str):
    """A state as its optimizer keeps it. Values keep their number format: `load_state_dict` would make floats of 8-bit moments."""
    if slot == "step":
        return int(value) if kind == "AdamW8bit" else value.to(parameter.device, copy=True)
    if value.shape != parameter.shape:  # tables and scales of 8-bit moments
        return value.to(parameter.device, copy=True)
    # The fused kernel walks raw memory: moments must be laid out like their weight (say, channels last).
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
