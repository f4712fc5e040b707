"""Activation checkpointing: a block's inner values are thrown away after the forward pass and computed again for the backward pass."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(part: str, module: nn.Module) -> None:
    """Switch it on in a trained network: by its own switch where it has one, else around each of `module.blocks`.

    Raises   ValueError for a network without blocks
    """
    if hasattr(module, "gradient_checkpointing_enable"):
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return
    if isinstance(getattr(module, "gradient_checkpointing", None), bool):  # the twin's: it covers references too
        module.gradient_checkpointing = True
        return
    blocks = getattr(module, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise ValueError(f"train.activation_checkpointing: {part} has no blocks to compute again; set it to false")
    for block in blocks:
        block.forward = partial(_again_in_backward, block.forward)


def _again_in_backward(forward, *args, **kwargs):
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
