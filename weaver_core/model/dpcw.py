"""The Dense Prompt Context Window: what of the planner's memory the visualizer sees for one image (paper section 2).

The window of an image is the tokens strictly between its `<imagine>` and `</imagine>`, optionally with a margin of
neighbouring text and with the ViT tokens of images in context. Its content is a slice of the key/value cache that
the planner filled while it wrote: no second forward pass. Because those keys and values came out of causal layers,
the small window still carries the story before it.

Axes: L planner layers, B batch, G key/value heads, T tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class DensePromptContext:
    """A batch of windows, right-padded: per layer the planner's keys (already rotated) and values.

    Shapes   keys, values: L tensors (B, G, T, D); mask (B, T), True = a token of the window;
             positions (3, B, T): where each token stood, so that the bridge can undo the planner's rotation
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    positions: Tensor

    @property
    def end(self) -> Tensor:
        """First free position after each window. Shape (B,)."""
        if self.mask.shape[1] == 0:
            return self.positions.new_zeros(self.mask.shape[0])
        return self.positions.amax(dim=0).masked_fill(~self.mask, -1).amax(dim=1) + 1

    def to(self, device=None, dtype=None) -> DensePromptContext:
        return DensePromptContext(
            tuple(k.to(device=device, dtype=dtype) for k in self.keys),
            tuple(v.to(device=device, dtype=dtype) for v in self.values),
            self.mask.to(device), self.positions.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """Which of the planner's tokens belong to the window of an image.

    Always those strictly between its two tags (paper, Figure 2). The figure draws the ViT tokens of images in context as a
    second span: `images` takes in those of the last so many images before the prompt, so that a window stays bounded
    however long the story is (our choice; 0 for the picture-book pair). A `margin` of neighbouring tokens takes the tags in
    before the text around them. `history` is the ablation: no window, but all that was read and written up to `</imagine>`.
    """

    margin: int = 0
    images: int = 0
    history: bool = False

    def find(self, token_ids: Sequence[int], *, begin: int, end: int, image: int) -> list[list[int]]:
        """The window of every dense prompt in a sequence, as token indices in order.

        `begin`, `end` and `image` are the ids of `<imagine>`, `</imagine>` and of a picture's ViT tokens. An unclosed last
        prompt reaches to the end.
        """
        windows, pictures, start = [], [], None
        for index, token in enumerate(token_ids):
            if token == image:
                if not index or token_ids[index - 1] != image:
                    pictures.append([])
                pictures[-1].append(index)
            elif token == begin:
                start = index + 1
            elif token == end and start is not None:
                windows.append(self._window(pictures, start, index, len(token_ids)))
                start = None
        if start is not None:
            windows.append(self._window(pictures, start, len(token_ids), len(token_ids)))
        return windows

    def _window(self, pictures: list[list[int]], start: int, stop: int, length: int) -> list[int]:
        words = range(0 if self.history else max(0, start - self.margin), min(length, stop + self.margin))
        seen = [index for picture in (pictures[-self.images:] if self.images else ()) for index in picture]
        return [index for index in seen if index < words.start] + list(words)


def slice_cache(cache, positions_3T: Tensor, window: Sequence[int], row: int = 0) -> DensePromptContext:
    """One window out of a transformers key/value cache. No copy is kept alive beyond the slice.

    Shapes   positions_3T (3, all tokens of the sequence); returns a batch of one
    Raises   ValueError if the cache does not reach the window's end
    """
    index = torch.as_tensor(list(window), dtype=torch.long, device=cache.layers[0].keys.device)
    held = cache.layers[0].keys.shape[2]
    if len(index) and int(index.max()) >= held:
        raise ValueError(f"the window reaches token {int(index.max())}, but the planner's cache holds {held} tokens; "
                         "let the planner write past </imagine> before the image is drawn")
    return DensePromptContext(
        tuple(layer.keys[row:row + 1].index_select(2, index) for layer in cache.layers),
        tuple(layer.values[row:row + 1].index_select(2, index) for layer in cache.layers),
        torch.ones(1, len(index), dtype=torch.bool, device=index.device),
        positions_3T[:, None].index_select(2, index.to(positions_3T.device)))


def gather_windows(cache, positions_3BT: Tensor, rows_N: Tensor, index_NT: Tensor) -> DensePromptContext:
    """Many windows out of one batched cache: the training form of `slice_cache`.

    Shapes   positions (3, B, T); rows (N,) which sequence; index (N, longest window), its tokens, right-padded with -1;
             returns N windows
    """
    rows, mask = rows_N, index_NT >= 0
    index = index_NT.clamp(min=0)

    def take(x: Tensor) -> Tensor:
        return x[rows[:, None], :, index].transpose(1, 2)  # (windows, T, G, D) -> (windows, G, T, D)

    return DensePromptContext(
        tuple(take(layer.keys) for layer in cache.layers),
        tuple(take(layer.values) for layer in cache.layers),
        mask, positions_3BT[:, rows[:, None], index])


def empty_context(num_layers: int, num_kv_heads: int, head_dim: int, batch: int = 1, device=None, dtype=None) -> DensePromptContext:
    """A window with nothing in it: the text-free branch of guidance."""
    nothing = torch.zeros(batch, num_kv_heads, 0, head_dim, device=device, dtype=dtype)
    return DensePromptContext((nothing,) * num_layers, (nothing,) * num_layers,
                              torch.zeros(batch, 0, dtype=torch.bool, device=device),
                              torch.zeros(3, batch, 0, dtype=torch.long, device=device))


def stack_contexts(contexts: Sequence[DensePromptContext]) -> DensePromptContext:
    """Several batches of windows as one, right-padded to the longest."""
    longest = max(context.mask.shape[1] for context in contexts)

    def pad(x: Tensor, dim: int) -> Tensor:
        missing = longest - x.shape[dim]
        if not missing:
            return x
        shape = list(x.shape)
        shape[dim] = missing
        return torch.cat([x, x.new_zeros(shape)], dim=dim)

    layers = range(len(contexts[0].keys))
    return DensePromptContext(
        tuple(torch.cat([pad(c.keys[layer], 2) for c in contexts]) for layer in layers),
        tuple(torch.cat([pad(c.values[layer], 2) for c in contexts]) for layer in layers),
        torch.cat([pad(c.mask, 1) for c in contexts]),
        torch.cat([pad(c.positions, 2) for c in contexts], dim=1))
