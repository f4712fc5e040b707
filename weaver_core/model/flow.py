"""Flow matching: time law, training target, guidance and the sampler, all in one place (paper section 3: flow matching).

Time runs from 1 (pure noise) to 0 (the image). A noisy latent is z = (1 - t) x + t e, its velocity dz/dt = e - x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_TIME = 0.05  # velocity = (z - x) / t is not asked for below this time: the division would blow errors up


def draw_times(count: int, *, mean: float, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Logit-normal training times (Esser et al. 2024). A larger mean puts more weight on noisy images."""
    return torch.sigmoid(mean + std * torch.randn(count, generator=generator))


def shift_time(time: Tensor, shift: float) -> Tensor:
    """Bend times towards noise: t -> s t / (1 + (s - 1) t). Larger images need a larger shift."""
    return shift * time / (1 + (shift - 1) * time)


def add_noise(clean_BCYX: Tensor, noise_BCYX: Tensor, time_B: Tensor) -> Tensor:
    t = time_B.view(-1, 1, 1, 1)
    return (1 - t) * clean_BCYX + t * noise_BCYX


def velocity(prediction: Tensor, noisy: Tensor, time_B: Tensor, kind: str) -> Tensor:
    """What the network predicted, as a velocity. `kind` is the network's `prediction`: clean or velocity."""
    if kind == "velocity":
        return prediction
    return (noisy - prediction) / time_B.view(-1, 1, 1, 1).clamp(min=SMALLEST_TIME)


def squared_error(prediction: Tensor, clean: Tensor, noise: Tensor, time_B: Tensor, kind: str) -> Tensor:
    """Squared velocity error of every latent, in fp32: the loss before weighting and averaging.

    Shapes   all (B, C, Y, X); a `clean` prediction is compared as a clean image and weighted like a velocity
    """
    if kind == "velocity":
        return (prediction.float() - (noise - clean)) ** 2
    return ((prediction.float() - clean) / time_B.view(-1, 1, 1, 1).clamp(min=SMALLEST_TIME)) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """How strongly to lean on the words and on the references; 1 is the plain conditional model.

    velocity = nothing + reference * (references only - nothing) + text * (everything - references only)
    """

    text: float
    reference: float

    def branches(self, has_references: bool) -> list[tuple[bool, bool, float]]:
        """(sees words, sees references, weight) of every forward pass that is needed; weights sum to 1."""
        if not has_references:
            wanted = [(True, False, self.text), (False, False, 1 - self.text)]
        else:
            wanted = [(True, True, self.text), (False, True, self.reference - self.text), (False, False, 1 - self.reference)]
        return [branch for branch in wanted if branch[2] != 0]


def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    noise_BCYX: Tensor,
    *,
    steps: int,
    shift: float,
    weights: Sequence[float],
    kind: str,
    on_step: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Euler integration from noise to image, guidance branches batched.

    `predict(noisy, time)` gets the latents once per branch, branch-major (branches * B rows), and its result is mixed by `weights`.
    `on_step(done, steps, clean estimate)` may raise to interrupt.
    Shapes   noise (B, C, Y, X); returns clean latents of the same shape, float32
    """
    batch, branches = noise_BCYX.shape[0], len(weights)
    mix = torch.tensor(list(weights), device=noise_BCYX.device).view(branches, 1, 1, 1, 1)
    times = shift_time(torch.linspace(1, 0, steps + 1), shift).tolist()
    noisy = noise_BCYX.float()
    for index, (now, then) in enumerate(zip(times, times[1:])):
        time = torch.full((branches * batch,), now, device=noisy.device)
        repeated = noisy.repeat(branches, 1, 1, 1)
        speed = velocity(predict(repeated, time).float(), repeated, time, kind)
        speed = (mix * speed.view(branches, *noisy.shape)).sum(0)
        noisy = noisy + (then - now) * speed
        if on_step is not None:
            on_step(index + 1, steps, noisy - then * speed)
    return noisy
