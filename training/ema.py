"""Exponential moving average of the trainable weights."""

from __future__ import annotations

from contextlib import contextmanager

import torch


class Ema:
    """Shadow of named parameters in fp32; decay = min(limit, (1 + t) / (10 + t)) after t updates, so short runs follow.

    With a limit of 0 there is no average: nothing is kept, and `applied` leaves the trained weights in place.
    """

    def __init__(self, parameters: dict[str, torch.nn.Parameter], limit: float):
        self.limit = limit
        self.updates = 0
        self.parameters = parameters
        self.shadow = {name: p.detach().float().clone() for name, p in parameters.items()} if limit else {}

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self.limit, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        if not self.shadow:
            return
        torch._foreach_lerp_(list(self.shadow.values()), [p.detach().float() for p in self.parameters.values()], 1 - decay)

    @contextmanager
    def applied(self):
        """The averaged weights in the modules; the trained ones come back afterwards, also after an error."""
        trained = {name: self.parameters[name].detach().clone() for name in self.shadow}
        try:
            self._write(self.shadow)
            yield
        finally:
            self._write(trained)

    @torch.no_grad()
    def _write(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)
