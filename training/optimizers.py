"""The optimizers of a run: AdamW for everything, or Muon for the hidden matrices and AdamW for the rest."""

from __future__ import annotations

import torch

from training.config import OptimizerConfig


def build_optimizers(parameters: dict[str, torch.nn.Parameter], config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Optimizers that share all parameters among them; weights with two or more axes decay, vectors do not.

    With `config.muon`, matrices take orthogonalised steps (Muon), scaled to the size of AdamW's so that one learning rate
    serves both. Embeddings and heads stay with AdamW: their rows are words, not directions. Our choice.
    """
    hidden = {name for name, p in parameters.items()
              if config.muon and p.ndim == 2 and not any(part in name for part in ("embed", "lm_head"))}
    rest = {name: p for name, p in parameters.items() if name not in hidden}
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(
        [{"params": [p for p in rest.values() if p.ndim > 1], "weight_decay": config.weight_decay},
         {"params": [p for p in rest.values() if p.ndim <= 1], "weight_decay": 0.0}],
        lr=config.lr, betas=(config.beta1, config.beta2), fused=True)]
    if hidden:
        optimizers.append(torch.optim.Muon([parameters[name] for name in parameters if name in hidden], lr=config.lr,
                                           weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def optimizer_tensors(optimizers: list[torch.optim.Optimizer], parameters: dict) -> dict[str, torch.Tensor]:
    """State of the optimizers as flat tensors, `parameter name|slot`."""
    names = {id(p): name for name, p in parameters.items()}
    return {f"{names[id(p)]}|{slot}": value for optimizer in optimizers for p, state in optimizer.state.items()
            for slot, value in state.items()}


def load_optimizer_tensors(optimizers: list[torch.optim.Optimizer], parameters: dict, tensors: dict[str, torch.Tensor]) -> None:
    """The inverse of `optimizer_tensors`. Raises ValueError if a state belongs to no parameter or another optimizer."""
    states: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("|")
        if name not in parameters:
            raise ValueError(f"the optimizer state of {name} belongs to no parameter of this config; "
                             f"use the config of that run, or --fresh")
        if value.ndim:
            # The fused kernel walks raw memory: moments must be laid out like their weight (say, channels last).
            value = torch.empty_like(parameters[name]).copy_(value)
        states.setdefault(name, {})[slot] = value
    names = {id(p): name for name, p in parameters.items()}
    for optimizer in optimizers:
        slots = {"momentum_buffer"} if isinstance(optimizer, torch.optim.Muon) else {"step", "exp_avg", "exp_avg_sq"}
        order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        for name in order:
            if name in states and set(states[name]) != slots:
                raise ValueError(f"the optimizer state of {name} is of another optimizer; set optimizer.muon as in that run, "
                                 f"or start a new run from its export with init")
        whole = optimizer.state_dict()
        whole["state"] = {i: states[name] for i, name in enumerate(order) if name in states}
        optimizer.load_state_dict(whole)
