"""What a training run needs of memory and disk, told before any weight is loaded.

Weights, gradients, AdamW's moments and averages are counted exactly (`weaver_core.memory` counts weights on the meta device or in
file headers), Muon's moments as if they were AdamW's, which are twice as many; activations are rough and called so. The fixed costs
of libraries (half a GB to one GB of CUDA) are not in it.
All sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from training.config import RunConfig
from weaver_core.memory import ACTIVATION_WIDTHS, GIB

LOSS_CHUNK = 1024  # answer tokens whose scores over the vocabulary are held at once; more are computed again in the backward pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One network of a stage. `num_trained` of its values learn; `bytes` is what all of them take while training."""

    name: str
    num_values: int
    num_trained: int
    bytes: int

    def __str__(self) -> str:
        if not self.num_trained:
            return f"frozen {self.name}: {_millions(self.num_values)} parameters"
        of = "" if self.num_trained == self.num_values else f" of {_millions(self.num_values)}"
        return f"trains {self.name}: {_millions(self.num_trained)}{of} parameters"


@dataclass(slots=True, kw_only=True)
class Inspection:
    """What a stage says about a config without building itself.

    parts         its networks
    activations   rough bytes that one batch leaves for the backward pass
    batch         what one batch holds, in words
    notes         tables and warnings for the user, a line each
    """

    parts: list[Part] = field(default_factory=list)
    activations: int = 0
    batch: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEstimate:
    """Bytes on one device at the highest point of a step, and on the disk for checkpoints and the export."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    disk: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations

    def __str__(self) -> str:
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer, "average": self.average}
        told = ", ".join(f"{_size(size)} {name}" for name, size in parts.items() if size)
        return (f"about {_size(self.total)} of memory: {told}, roughly {_size(self.activations)} activations "
                f"(estimated, not measured); up to {_size(self.disk)} of disk for checkpoints")


def estimate(inspection: Inspection, config: RunConfig) -> TrainingEstimate:
    trained = sum(part.num_trained for part in inspection.parts)
    optimizer = trained * (2 if config.optimizer.eight_bit else 8)
    average = 4 * trained if config.train.ema_decay else 0
    return TrainingEstimate(
        weights=sum(part.bytes for part in inspection.parts), gradients=4 * trained, optimizer=optimizer, average=average,
        activations=inspection.activations,
        disk=(config.train.keep_checkpoints + 1) * (4 * trained + optimizer + average) + 2 * trained)


def parts_of(stage) -> list[Part]:
    """The networks of a stage that is built, counted."""
    parts = []
    for name, module in {**stage.trainable, **stage.frozen}.items():
        trains = name in stage.trainable
        parameters = list(module.parameters())
        parts.append(Part(
            name=name, num_values=sum(_count(p) for p in parameters), bytes=sum(p.nbytes for p in parameters),
            num_trained=sum(p.numel() for p in parameters if p.requires_grad) if trains else 0))
    return parts


def transformer_activations(tokens: int, width: int, layers: int, *, checkpointed: bool, bytes_per_value: int = 2) -> int:
    """Rough: what the blocks of a transformer keep for the backward pass. Checkpointed: their inputs, and one block whole."""
    block = ACTIVATION_WIDTHS * tokens * width * bytes_per_value
    return layers * tokens * width * bytes_per_value + block if checkpointed else layers * block


def layer_outputs(module, *inputs) -> int:
    """Values that the innermost layers of a module on the meta device put out for inputs: about what a backward pass keeps."""
    import torch

    total = 0

    def count(layer, given, output):
        nonlocal total
        total += output.numel() if isinstance(output, torch.Tensor) else 0

    handles = [layer.register_forward_hook(count) for layer in module.modules() if not list(layer.children())]
    with torch.no_grad():
        module(*inputs)
    for handle in handles:
        handle.remove()
    return total


def score_activations(answer_tokens: int, vocabulary: int) -> int:
    """Scores over the vocabulary, their softmax and their gradient in fp32, for one chunk of tokens."""
    return 3 * 4 * min(answer_tokens, LOSS_CHUNK) * vocabulary


def _count(parameter) -> int:
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)  # 4-bit weights lie packed, two in a byte
    return shape.numel() if shape is not None else parameter.numel()


def _size(number: int) -> str:
    return f"{number / GIB:.1f} GB" if number >= GIB else f"{number / 2**20:.1f} MB"


def _millions(number: int) -> str:
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.2f}M"
