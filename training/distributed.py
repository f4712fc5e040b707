"""Several processes that train one model: who they are, and how they share out a step's micro-batches.

`torchrun --standalone --nproc-per-node N training/train.py CONFIG`, or `accelerate launch` with a file of
`training/configs/accelerate/`, starts the processes and says by the environment who is who. Which micro-batch is drawn from which
random numbers does not depend on the number of processes, so N processes take the steps that one process takes, up to the order
of sums. How they keep the weights is told in `engines.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

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
    def shards(self) -> bool:
        """Whether the launcher asks for FSDP: every process keeps a part of each weight."""
        return _is_set("ACCELERATE_USE_FSDP")

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

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a number over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def total(self, number: float) -> float:
        """As `sum`, for a number that is no tensor."""
        return number if self.size == 1 else self.sum(torch.tensor(number, device=self.device)).item()

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, in the order of processes."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

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
    """`accelerate launch` asks by the environment for what only its own Accelerator would do. Raises ValueError."""
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        raise ValueError("accelerate was set up for DeepSpeed, which this trainer does not use: its sharded engine is FSDP2. Launch it with "
                         "training/configs/accelerate/fsdp2.yaml, or with ddp.yaml where a card holds the whole model")
    if _is_set("ACCELERATE_USE_FSDP"):
        if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
            raise ValueError(f"accelerate was set up for FSDP version {version}, which mixes trained and frozen weights; set fsdp_version: 2, "
                             "as training/configs/accelerate/fsdp2.yaml does")
        if _is_set("FSDP_OFFLOAD_PARAMS"):
            raise ValueError("accelerate was set up with fsdp_offload_params, which this trainer does not do: set it to false, and share the "
                             "weights out among more cards, or train a LoRA")
        if _is_set("FSDP_ACTIVATION_CHECKPOINTING"):
            raise ValueError("accelerate was set up with fsdp_activation_checkpointing: set it to false, and train.activation_checkpointing to "
                             "true in the config, which does the same")
    if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "fp16":
        raise ValueError(f"accelerate was set up for fp16: {NO_FP16}. Set mixed_precision to no")


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1")


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


def missing_device(name: str) -> str | None:
    """Why nothing can be trained on a device of this name, or None. Nothing is put on it."""
    if name == "auto":
        return None
    try:
        device = torch.device(name)
        module = torch.get_device_module(device)
        if module.is_available() and (device.index or 0) < module.device_count():
            return None
    except (RuntimeError, AttributeError):  # no device, or one that only torch knows, such as "meta"
        pass
    found = ["cpu", *(f"{kind} ({module.device_count()})" for kind, module in (("cuda", torch.cuda), ("mps", torch.mps)) if module.is_available())]
    return f"train.device is {name!r}, but torch finds here: {', '.join(found)}; set it to one of them, or to \"auto\""


def local_device(name: str) -> torch.device:
    """The device of this process: "auto" takes a GPU if there is one, each process its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(torch.device(name))
    return torch.device(name)
