"""Exponential moving average of the trainable weights."""

from __future__ import annotations

from contextlib import contextmanager

import torch


class Ema:
    """Shadow of named parameters in fp32; decay = min(limit, (1 + t) / (10 + t)) after t updates, so short runs follow."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], limit: float):
        self.limit = limit
        self.updates = 0
        self.parameters = parameters
        self.shadow = {name: p.detach().float().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self.limit, (1 + self.updates) / (10 + self.updates)) if self.limit else 0.0
        self.updates += 1
        torch._foreach_lerp_(list(self.shadow.values()), [p.detach().float() for p in self.parameters.values()], 1 - decay)

    @contextmanager
    def applied(self):
        """The averaged weights in the modules; the trained ones come back afterwards, also after an error."""
        trained = {name: p.detach().clone() for name, p in self.parameters.items()}
        try:
            self._write(self.shadow)
            yield
        finally:
            self._write(trained)

    @torch.no_grad()
    def _write(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
