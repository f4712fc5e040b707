"""How processes keep the networks of a stage: alone, each its own copy (data-parallel), or a part of every weight (sharded).

    python training/train.py CONFIG                                                        Alone
    accelerate launch --config_file training/configs/accelerate/ddp.yaml ...               DataParallel
    accelerate launch --config_file training/configs/accelerate/fsdp2.yaml ...             Sharded: torch's `fully_shard` (FSDP2)

The loop asks an engine for losses and gradients, and holds optimizers and averages of `engine.parameters`: what this process keeps
of each trained weight. Checkpoints hold whole tensors whatever the engine, so that a run goes on with another one, or with another
number of processes. All processes must call an engine's methods together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_

from training.distributed import MESSAGE_BYTES, World, messages
from training.ema import Ema
from training.optimizers import Whole
from training.stages import Stage


def build_engine(stage: Stage, world: World, rebuild: Callable[[], Stage]) -> Alone:
    """The engine that `accelerate launch` asks for by the environment; one process is always alone.

    rebuild   builds the stage again: a sharded engine looks at samples and exports with whole networks
    """
    if world.size == 1:
        return Alone(stage, world)
    return Sharded(stage, world, rebuild) if world.shards else DataParallel(stage, world)


class Alone(Whole):
    """One process with whole networks.

    parameters   what this process keeps of each trained weight, by name
    buffers      of the trained networks; whole in every process
    shapes       of whole weights and buffers, by name
    """

    def __init__(self, stage: Stage, world: World):
        self.stage, self.world = stage, world
        self.parameters: dict[str, nn.Parameter] = _trained(stage)
        # Frozen weights inside a trained network (the base of a LoRA) are not kept: they come from where they came from.
        self.buffers = _buffers(stage)
        self.shapes = {name: tensor.shape for name, tensor in {**self.parameters, **self.buffers}.items()}

    def __str__(self) -> str:
        return "one process"

    # -- a step

    def loss(self, batch: dict) -> tuple[Tensor, dict]:
        return self.stage.loss(batch)

    def finish_gradients(self) -> None:
        """Bring together what the micro-batches of all processes left as gradients of `parameters`."""

    def clip(self, most: float) -> Tensor:
        """Scale the gradients down to a norm of at most `most`; returns the norm that they had."""
        return clip_grad_norm_(self.parameters.values(), most)

    # -- checkpoints

    def gathered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors for a checkpoint, in the first process. Names are those of parameters, or `name|slot` of an optimizer's state."""
        return tensors

    def parted(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `gathered`: what of a checkpoint's tensors belongs to this process."""
        return tensors

    @property
    def reads_to(self) -> torch.device:
        """Where checkpoints are read to: they are whole, and parts alone may have room on a card."""
        return self.world.device

    # -- looking

    @contextmanager
    def looking(self, ema: Ema) -> Iterator[Stage | None]:
        """The stage under averaged weights for samples and the export, in the first process; None in all others."""
        if not self.world.is_first:
            yield None
            return
        with ema.applied():
            yield self.stage


class DataParallel(Alone):
    """Every process has whole networks and takes its share of a step's micro-batches; gradients are summed."""

    def __str__(self) -> str:
        return f"{self.world.size} processes, each with whole networks (data-parallel)"

    def finish_gradients(self) -> None:
        """Add up the gradients, in messages of a bounded size: a copy of them all would not fit beside a large model."""
        used = _used_somewhere(self.world, [p.grad is not None for p in self.parameters.values()])
        gradients = []
        for parameter, is_used in zip(self.parameters.values(), used):
            if not is_used:
                continue  # by none: the optimizers leave it alone, as those of one process do
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        for message in messages(gradients, MESSAGE_BYTES):
            flat = torch.cat([gradient.flatten() for gradient in message])
            dist.all_reduce(flat)
            for gradient, total in zip(message, flat.split([gradient.numel() for gradient in message])):
                gradient.copy_(total.view_as(gradient))


class Sharded(Alone):
    """Every process keeps its rows of each weight, and with them of gradients, moments and averages (FSDP2, `fully_shard`).

    Weights are whole only while they are used. The layers that a stage names (`Stage.layers`) are gathered one at a time; all the rest
    of the trained networks together, for the length of a micro-batch: which of it a batch runs through differs from one process to
    the next (pictures or none, references or none), and processes that gather different things wait for each other for ever.

    `parameters` are plain tensors that share memory with the shards, so that any optimizer works on them that takes each number for
    itself; Muon, which does not, gathers its updates by `whole`.
    """

    is_whole = False

    def __init__(self, stage: Stage, world: World, rebuild: Callable[[], Stage]):
        self.rebuild = rebuild
        self.step = _LossOfStage(stage)
        _shard(self.step, world)
        super().__init__(stage, world)
        self.shards = self.parameters  # DTensors, the networks' own
        self.parameters = {name: nn.Parameter(shard.detach().to_local()) for name, shard in self.shards.items()}
        self._shard_of = {id(mine): self.shards[name] for name, mine in self.parameters.items()}
        self._used = {name: False for name in self.shards}

    def __str__(self) -> str:
        return (f"{self.world.size} processes, each with a part of every trained network's weights, gradients, moments and averages (FSDP2); "
                f"{len(self.step.layers)} layers are gathered one at a time, all else together")

    # -- a step

    def loss(self, batch: dict) -> tuple[Tensor, dict]:
        loss, logs = self.step(batch)
        for name in self._used:
            self._used[name] |= name not in self.step.unused
        return loss, logs

    def finish_gradients(self) -> None:
        """They are summed already, each process's rows in it; here they go to the tensors that the optimizers hold."""
        used = _used_somewhere(self.world, list(self._used.values()))
        for (name, shard), is_used in zip(self.shards.items(), used):
            self.parameters[name].grad = shard.grad.to_local() if is_used and shard.grad is not None else None
            shard.grad, self._used[name] = None, False

    def clip(self, most: float) -> Tensor:
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        squares = torch.stack([gradient.float().square().sum() for gradient in gradients]).sum()
        norm = self.world.sum(squares).sqrt()
        clip_grads_with_norm_(self.parameters.values(), most, norm)
        return norm

    # -- whole tensors and parts

    def whole(self, parameter: nn.Parameter, part: Tensor) -> Tensor:
        return _whole(self._shard_of[id(parameter)], part)

    def part(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        return _part(self._shard_of[id(parameter)], whole)

    def gathered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for key, tensor in tensors.items():
            name = key.partition("|")[0]
            # An optimizer's counters are no parts of anything, and the same everywhere.
            whole = _whole(self.shards[name], tensor) if tensor.shape == self.parameters[name].shape else tensor
            if self.world.is_first:
                found[key] = whole.cpu()  # one after the other: together they would not fit on a card
        return found

    def parted(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for key, tensor in tensors.items():
            name = key.partition("|")[0]
            is_whole = name in self.shards and tensor.shape == self.shapes[name]
            found[key] = _part(self.shards[name], tensor) if is_whole else tensor
        return found

    @property
    def reads_to(self) -> torch.device:
        return torch.device("cpu")

    # -- looking

    @contextmanager
    def looking(self, ema: Ema) -> Iterator[Stage | None]:
        """As `Alone.looking`, with networks that the first process builds for this moment: its card must hold the weights once."""
        values = self.gathered(ema.shadow or self.parameters)
        if not self.world.is_first:
            yield None
            return
        stage = self.rebuild()
        stage.num_batches = self.stage.num_batches
        buffers = _buffers(stage)
        with torch.no_grad():
            for name, target in {**_trained(stage), **buffers}.items():
                target.copy_(values[name] if name in values else self.buffers[name])
        yield stage
        for name, mine in self.buffers.items():  # some are measured while looking
            mine.copy_(buffers[name])


class _LossOfStage(nn.Module):
    """A stage as a network whose forward pass is its loss: the root of what is sharded, whole for as long as that takes.

    After a forward pass `unused` names the weights outside the stage's layers that this batch did not run through. They get a
    gradient of zeros all the same, since processes add up their gradients as one list.
    """

    def __init__(self, stage: Stage):
        super().__init__()
        self.networks = nn.ModuleDict(stage.trainable)
        self.layers = tuple(getattr(stage, "layers", ()))  # a tuple, or they would be modules of this one a second time
        self._loss = stage.loss
        in_layers = {id(p) for layer in self.layers for p in layer.parameters()}
        self._names = [name for name, p in self.networks.named_parameters() if p.requires_grad and id(p) not in in_layers]
        self.unused: set[str] = set()

    def forward(self, batch: dict) -> tuple[Tensor, dict]:
        loss, logs = self._loss(batch)
        reached = _leaves(loss)
        mine = {name: self.networks.get_parameter(name) for name in self._names}
        self.unused = {name for name, p in mine.items() if id(p) not in reached}
        for name in sorted(self.unused):
            loss = loss + 0 * mine[name].sum()
        return loss, logs


def _shard(root: _LossOfStage, world: World) -> None:
    """Leave each process its rows of every weight."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for name, parameter in root.named_parameters():
        if parameter.ndim == 0 and parameter.is_floating_point():
            raise ValueError(f"{name.removeprefix('networks.')} is a single number, which FSDP2 cannot share out; launch with "
                             "training/configs/accelerate/ddp.yaml")
        parameter.data = parameter.data.contiguous()  # rows must lie together: no channels-last
    whole = {p for p in root.parameters() if not p.is_floating_point()}  # 4-bit weights under a LoRA stay whole in every process
    how = {"mesh": init_device_mesh(world.device.type, (world.size,)), "ignored_params": whole}
    reshards = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
    for layer in root.layers:
        fully_shard(layer, reshard_after_forward=reshards, **how)
    fully_shard(root, **how)
    for module in (*root.layers, root):  # losses are divided by the loop: gradients are summed, not averaged
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction


def _whole(shard, part: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(part.detach(), shard.device_mesh, shard.placements, run_check=False, shape=shard.shape,
                              stride=shard.stride()).full_tensor()


def _part(shard, whole: Tensor) -> Tensor:
    """Rows of a tensor that every process has."""
    mesh, (placement,) = shard.device_mesh, shard.placements
    parts = whole.chunk(mesh.size(), placement.dim)  # fewer where there are fewer rows than processes
    rank = mesh.get_local_rank()
    return parts[rank] if rank < len(parts) else whole.narrow(placement.dim, 0, 0)


def _leaves(loss: Tensor) -> set[int]:
    """Ids of the tensors that a backward pass from here would give gradients to."""
    waiting, seen, found = [loss.grad_fn], {loss.grad_fn}, set()
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def _used_somewhere(world: World, used: list[bool]) -> list[bool]:
    """Of each weight, whether a micro-batch of any process ran through it."""
    return (world.sum(torch.tensor(used, dtype=torch.float32, device=world.device)) > 0).tolist()


def _trained(stage: Stage) -> dict[str, nn.Parameter]:
    return {f"{part}.{name}": p for part, module in stage.trainable.items() for name, p in module.named_parameters() if p.requires_grad}


def _buffers(stage: Stage) -> dict[str, Tensor]:
    """Those that the networks' own files hold."""
    return {f"{part}.{name}": b for part, module in stage.trainable.items() for names in [dict(module.named_buffers())]
            for name, b in module.state_dict().items() if name in names}
