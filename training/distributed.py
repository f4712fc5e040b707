"""Several processes that train one model: every step's micro-batches are shared out, gradients are summed.

`torchrun --standalone --nproc-per-node N training/train.py CONFIG` (on GPUs also `accelerate launch`, with a file of
`training/configs/accelerate/`) starts the processes and says by the environment who is who. Which micro-batch is drawn from which
random numbers does not depend on the number of processes, so N processes take the steps that one process takes, up to the order
of sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.config import NO_FP16

MESSAGE_BYTES = 2**28  # of gradients that are sent at once
# The first process fills caches, looks at samples and exports while the others wait: longer than the ten minutes that NCCL allows.
PATIENCE = timedelta(hours=12)


class World:
    """This process among those that train together; alone where nobody else was started."""

    def __init__(self, device: torch.device):
        _refuse_what_would_be_ignored()
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = device
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)

    @property
    def is_first(self) -> bool:
        """The process that writes files, looks at samples and talks."""
        return self.rank == 0

    def share(self, accumulate: int) -> range:
        """Which of a step's micro-batches this process computes.

        Raises   ValueError if they cannot be shared out evenly
        """
        if accumulate % self.size:
            raise ValueError(f"train.accumulate is {accumulate}, but {self.size} processes share the work; "
                             f"set it to a multiple of {self.size}")
        return range(self.rank, accumulate, self.size)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes, in messages of a bounded size: a copy of them all would not fit beside a large model."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:  # unused on this process's micro-batches, but perhaps not on another's
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        for message in messages(gradients, MESSAGE_BYTES):
            flat = torch.cat([gradient.flatten() for gradient in message])
            dist.all_reduce(flat)
            for gradient, total in zip(message, flat.split([gradient.numel() for gradient in message])):
                gradient.copy_(total.view_as(gradient))

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a number over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave together. Without it, the threads of the last process to go find their partners gone, and it aborts."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


def _refuse_what_would_be_ignored() -> None:
    """`accelerate launch` asks by the environment for engines that only its own Accelerator would start. Raises ValueError."""
    for variable, engine in (("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"), ("ACCELERATE_USE_FSDP", "FSDP")):
        if os.environ.get(variable, "").lower() in ("true", "1"):
            raise ValueError(f"accelerate was set up for {engine}, which this trainer does not use: it keeps the whole model on every card "
                             f"and shares out the batches. Launch it with training/configs/accelerate/ddp.yaml; where the model is too "
                             f"large for that, train a LoRA or QLoRA, or set optimizer.eight_bit and train.activation_checkpointing")
    if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "fp16":
        raise ValueError(f"accelerate was set up for fp16: {NO_FP16}. Set mixed_precision to no")


def messages(tensors: Iterable[Tensor], most: int) -> Iterator[list[Tensor]]:
    """The tensors in order, in lists of at most `most` bytes; a larger one goes alone."""
    waiting, size = [], 0
    for tensor in tensors:
        if waiting and size + tensor.nbytes > most:
            yield waiting
            waiting, size = [], 0
        waiting.append(tensor)
        size += tensor.nbytes
    if waiting:
        yield waiting


def local_device(name: str) -> torch.device:
    """The device of this process: "auto" takes a GPU if there is one, each process its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(torch.device(name))
    return torch.device(name)
