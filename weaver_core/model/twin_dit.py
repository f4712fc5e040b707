"""Twin DiT: the visualizer, a diffusion transformer that reads the planner's memory at every layer (paper section 2).

What is unusual in this network
* It is the planner's twin: as many layers, heads, key/value heads and the same head size; weights and width are its own.
* It never sees text. At layer l the noisy target looks at the planner's layer-l keys and values of one Dense Prompt
  Context Window, at the references, and at itself.
* Planner keys come through a *bridge*: the planner's rotation is undone, one linear map per layer makes new keys and
  values. A *pooled window* joins the time modulation. Both are our choice; without them a small planner's words are
  ignored. `bridge="identity"` with no pooled layers is the plain reading of the paper.
* References see only themselves, at the fixed time of a clean image, and their keys are kept before rotation: encoded
  once, they serve every step, every guidance branch and every page.

Axes: B shots, R references of a shot, C latent channels, Y/X latent rows and columns, T tokens, W width, G key/value heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from .attention import REFERENCE, TARGET, WINDOW, PADDING, TokenMap, attend, visible
from .dpcw import DensePromptContext, WindowRule
from .rope import Rotation, image_positions, rotate, rotation, unrotate

CLEAN = 0.0  # flow time of a finished image; 1 is pure noise


@dataclass(slots=True)
class Window:
    """A dense prompt as the visualizer reads it: computed once per image from one `DensePromptContext`.

    Shapes   keys, values: a (B, G, T, D) per layer; mask (B, T); pooled (B, W) or None; end (B,)
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    pooled: Tensor | None
    end: Tensor


@dataclass(slots=True)
class ReferenceCache:
    """Keys (not yet rotated) and values of encoded reference images, one row an image.

    Shapes   keys, values: a (N, G, T, D) per layer; grid = rows and columns of tokens, T = their product
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    grid: tuple[int, int]

    @property
    def num_bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (*self.keys, *self.values))

    def rows(self, index) -> ReferenceCache:
        return ReferenceCache(tuple(k[index] for k in self.keys), tuple(v[index] for v in self.values), self.grid)


@dataclass(slots=True)
class LayerContext:
    """What the target sees besides itself in one layer, with room behind it for the target's own keys."""

    keys: Tensor
    values: Tensor
    _buffers: tuple[Tensor, Tensor] | None = None

    def followed_by(self, k_BGTD: Tensor, v_BGTD: Tensor) -> tuple[Tensor, Tensor]:
        """Context and target as one; while sampling, written in place into one buffer that lasts all steps."""
        if torch.is_grad_enabled():
            return torch.cat([self.keys.to(k_BGTD.dtype), k_BGTD], 2), torch.cat([self.values.to(v_BGTD.dtype), v_BGTD], 2)
        held, total = self.keys.shape[2], self.keys.shape[2] + k_BGTD.shape[2]
        if self._buffers is None or self._buffers[0].shape[2] != total or self._buffers[0].dtype != k_BGTD.dtype:
            shape = (*k_BGTD.shape[:2], total, k_BGTD.shape[3])
            self._buffers = k_BGTD.new_empty(shape), k_BGTD.new_empty(shape)
            for buffer, context in zip(self._buffers, (self.keys, self.values)):
                buffer[:, :, :held] = context
        for buffer, own in zip(self._buffers, (k_BGTD, v_BGTD)):
            buffer[:, :, held:] = own
        return self._buffers


@dataclass(slots=True)
class ShotContext:
    """Window and references of a batch of shots, assembled once and used at every step.

    `mask` (B, context tokens) is None where everything may be seen: then attention needs no mask tensor at all.
    """

    layers: list[LayerContext]
    mask: Tensor | None
    pooled: Tensor | None
    origin: Tensor
    _masks: dict[int, Tensor] = field(default_factory=dict)

    def key_mask(self, num_target_tokens: int) -> Tensor | None:
        """The (B, 1, 1, context + target) mask of a target with so many tokens."""
        if self.mask is None:
            return None
        if num_target_tokens not in self._masks:
            own = self.mask.new_ones(self.mask.shape[0], num_target_tokens)
            self._masks[num_target_tokens] = torch.cat([self.mask, own], 1)[:, None, None]
        return self._masks[num_target_tokens]


class TwinDiT(ModelMixin, ConfigMixin):
    """The visualizer network.

    Source   paper section 2; bridge, pooled window, absolute 2-D embedding and adaLN with per-layer tables: our choice
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self, *,
        num_layers: int, num_heads: int, num_kv_heads: int, head_dim: int, width: int, mlp_width: int,
        latent_channels: int, patch: int,
        planner_rope_theta: float, planner_mrope_sections: Sequence[int],
        bridge: str = "linear", pooled_layers: Sequence[int] = (), rope_theta: float = 1e4,
        window_margin: int = 0, window_images: int = 0, window_history: bool = False, reference_slots: int = 0, prediction: str = "clean",
    ):
        super().__init__()
        if bridge not in ("linear", "identity"):
            raise ValueError(f"bridge is {bridge!r}; expected 'linear' (learned, the default) or 'identity' (planner keys as they are)")
        if prediction not in ("clean", "velocity"):
            raise ValueError(f"prediction is {prediction!r}; expected 'clean' or 'velocity'")
        if width % 4 or num_heads % num_kv_heads:
            raise ValueError(f"width {width} must divide by 4, and {num_heads} heads by {num_kv_heads} key/value heads")
        if any(not 0 <= layer < num_layers for layer in pooled_layers):
            raise ValueError(f"pooled_layers {tuple(pooled_layers)} must lie in 0..{num_layers - 1}")
        token_dim = latent_channels * patch * patch
        self.patch_in = nn.Linear(token_dim, width)
        self.time_embedding = TimeEmbedding(width)
        self.pooled_window = PooledWindow(len(pooled_layers), num_kv_heads * head_dim, width) if pooled_layers else None
        self.modulation = nn.Linear(width, 6 * width)
        self.bridges = nn.ModuleList(
            Bridge(num_kv_heads, head_dim) for _ in range(num_layers if bridge == "linear" else 0))
        self.blocks = nn.ModuleList(
            TwinBlock(width, mlp_width, num_heads, num_kv_heads, head_dim) for _ in range(num_layers))
        # What tells one reference from another besides its place in time: added to its keys, so "the first hero" can be found.
        self.slot_keys = nn.Parameter(torch.empty(num_layers, reference_slots, num_kv_heads, head_dim)) if reference_slots else None
        self.final_table = nn.Parameter(torch.zeros(2, width))
        self.patch_out = nn.Linear(width, token_dim)
        self.gradient_checkpointing = False
        self.init_weights()

    @property
    def window_rule(self) -> WindowRule:
        """Which of the planner's tokens this visualizer was trained to read."""
        return WindowRule(margin=self.config.window_margin, images=self.config.window_images, history=self.config.window_history)

    # ---- the architecture -------------------------------------------------------------------------------------

    def forward(self, noisy_BCYX: Tensor, time_B: Tensor, context: ShotContext) -> Tensor:
        """One denoising step under a window and references.

        Shapes   noisy (B, C, Y, X), time (B,); returns the prediction, shaped like `noisy`
        Units    time in [0, 1], 1 = pure noise; latents of unit variance
        """
        tokens_BTW, grid = self.to_tokens(noisy_BCYX)
        condition_BW = self.time_embedding(time_B).to(tokens_BTW.dtype)
        if context.pooled is not None:
            condition_BW = condition_BW + context.pooled
        modulation = self.modulate(condition_BW)
        turn = self.turn(torch.zeros_like(context.origin), grid, context.origin)
        mask = context.key_mask(tokens_BTW.shape[1])
        for block, seen in zip(self.blocks, context.layers):
            tokens_BTW = self.run(block, tokens_BTW, modulation, turn, seen, mask)
        return self.to_latents(tokens_BTW, condition_BW, grid)

    def read_window(self, context: DensePromptContext) -> Window:
        """The planner's window through the bridge. Once per image; no rotation is left on bridged keys."""
        pooled = None
        if self.pooled_window is not None:
            values = [context.values[layer] for layer in self.config.pooled_layers]
            pooled = self.pooled_window(values, context.mask)
        keys, values = context.keys, context.values
        if len(self.bridges):
            turned = rotation(context.positions, self.config.head_dim, self.config.planner_rope_theta,
                              tuple(self.config.planner_mrope_sections))
            bridged = [bridge(unrotate(k, turned), v) for bridge, k, v in zip(self.bridges, keys, values)]
            keys, values = zip(*bridged)
        return Window(tuple(keys), tuple(values), context.mask, pooled, context.end)

    def encode_references(self, clean_NCYX: Tensor) -> ReferenceCache:
        """Keys and values of clean images, each seeing only itself, at the fixed time of a clean image.

        Shapes   clean (N, C, Y, X), all of one size; returns N rows
        """
        tokens_NTW, grid = self.to_tokens(clean_NCYX)
        time_N = torch.full((clean_NCYX.shape[0],), CLEAN, device=clean_NCYX.device)
        modulation = self.modulate(self.time_embedding(time_N).to(tokens_NTW.dtype))
        turn = self.turn(torch.zeros_like(time_N, dtype=torch.long), grid)
        keys, values = [], []
        for block in self.blocks[:-1]:
            tokens_NTW, k, v = self.run(block.see_itself, tokens_NTW, modulation, turn)
            keys.append(k)
            values.append(v)
        # Nobody reads what the last layer would make of its tokens: its keys and values are all that is needed.
        _, k, v = self.blocks[-1].project(tokens_NTW, self.blocks[-1].shifts(modulation))
        keys.append(k)
        values.append(v)
        return ReferenceCache(tuple(keys), tuple(values), grid)

    def assemble(self, window: Window, references: Sequence[ReferenceCache] = (), reference_mask: Tensor | None = None) -> ShotContext:
        """Window and references as the keys and values that the target will look at.

        The reference in slot r stands at time r + 1, on the target's own rows and columns; its row count must be B or 1.
        Shapes   reference_mask (B, R), False = this shot does not see that reference; None = all seen
        """
        batch = window.mask.shape[0]
        origin = torch.zeros_like(window.end) if len(self.bridges) else window.end
        turns = [self.turn(torch.full_like(origin, slot + 1), cache.grid, origin) for slot, cache in enumerate(references)]
        layers = []
        for layer in range(len(self.blocks)):
            keys, values = [window.keys[layer]], [window.values[layer]]
            for slot, (cache, turn) in enumerate(zip(references, turns)):
                turned = self.mark_slot(rotate(cache.keys[layer].expand(batch, -1, -1, -1), turn), layer, slot)
                keys.append(turned.to(keys[0].dtype))
                values.append(cache.values[layer].expand(batch, -1, -1, -1).to(values[0].dtype))
            layers.append(LayerContext(torch.cat(keys, 2), torch.cat(values, 2)))
        mask = [window.mask]
        for slot, cache in enumerate(references):
            seen = window.mask.new_ones(batch) if reference_mask is None else reference_mask[:, slot]
            mask.append(seen[:, None].expand(batch, cache.grid[0] * cache.grid[1]))
        mask = torch.cat(mask, 1)
        return ShotContext(layers, None if bool(mask.all()) else mask, window.pooled, origin)

    def forward_joint(self, noisy_BCYX: Tensor, time_B: Tensor, window: Window, references_BRCYX: Tensor) -> Tensor:
        """The same step with everything in one sequence under the mask rule, nothing cached: what the cached path must equal."""
        batch, num_references = references_BRCYX.shape[:2]
        target_BTW, grid = self.to_tokens(noisy_BCYX)
        references_BTW, reference_grid = self.to_tokens(references_BRCYX.flatten(0, 1))
        length, reference_length = target_BTW.shape[1], references_BTW.shape[1]
        references_BTW = references_BTW.reshape(batch, num_references * reference_length, -1)
        tokens = torch.cat([references_BTW, target_BTW], 1)
        condition_BW = self.time_embedding(time_B).to(tokens.dtype)
        if window.pooled is not None:
            condition_BW = condition_BW + window.pooled
        clean = self.modulate(self.time_embedding(torch.full_like(time_B, CLEAN)).to(tokens.dtype))
        modulation = torch.cat([clean.expand(-1, -1, num_references * reference_length, -1),
                                self.modulate(condition_BW).expand(-1, -1, length, -1)], 2)

        shot = torch.arange(batch, device=tokens.device)
        own = TokenMap.cat([TokenMap.block(shot, REFERENCE, r, reference_length) for r in range(num_references)]
                           + [TokenMap.block(shot, TARGET, 0, length)])
        words = TokenMap.block(shot, WINDOW, 0, window.mask.shape[1])
        words.kind = words.kind.masked_fill(~window.mask, PADDING)
        mask = visible(own, TokenMap.cat([words, own]))

        origin = torch.zeros_like(window.end) if len(self.bridges) else window.end
        turns = [self.turn(torch.full_like(origin, slot + 1), reference_grid, origin) for slot in range(num_references)]
        turns.append(self.turn(torch.zeros_like(origin), grid, origin))
        turn = tuple(torch.cat(part, 2) for part in zip(*turns))
        for layer, (block, window_k, window_v) in enumerate(zip(self.blocks, window.keys, window.values)):
            shifts = block.shifts(modulation)
            q, k, v = block.project(tokens, shifts)
            # A slot's mark adds the same to all keys that a reference sees, its own: its softmax does not change by it.
            references = rotate(k, turn)[:, :, :-length].split(reference_length, 2)
            marked = [self.mark_slot(part, layer, slot) for slot, part in enumerate(references)]
            k = torch.cat([window_k.to(k.dtype), *marked, rotate(k, turn)[:, :, -length:]], 2)
            v = torch.cat([window_v.to(v.dtype), v], 2)
            tokens = block.finish(tokens, shifts, attend(rotate(q, turn), k, v, mask))
        return self.to_latents(tokens[:, -length:], condition_BW, grid)

    # ---- the parts forward is made of ---------------------------------------------------------------------------

    def to_tokens(self, latents_BCYX: Tensor) -> tuple[Tensor, tuple[int, int]]:
        batch, channels, rows, columns = latents_BCYX.shape
        p = self.config.patch
        if rows % p or columns % p or channels != self.config.latent_channels:
            raise ValueError(f"latents of shape {tuple(latents_BCYX.shape)}; expected {self.config.latent_channels} channels "
                             f"and rows and columns that divide by the patch size {p}")
        grid = rows // p, columns // p
        patches = latents_BCYX.reshape(batch, channels, grid[0], p, grid[1], p).permute(0, 2, 4, 1, 3, 5)
        tokens = self.patch_in(patches.reshape(batch, grid[0] * grid[1], channels * p * p))
        return tokens + grid_embedding(*grid, self.config.width, tokens), grid

    def to_latents(self, tokens_BTW: Tensor, condition_BW: Tensor, grid: tuple[int, int]) -> Tensor:
        shift, scale = (condition_BW[:, None] + row for row in self.final_table.to(tokens_BTW.dtype))
        patches = self.patch_out(normalise(tokens_BTW) * (1 + scale) + shift)
        p, channels = self.config.patch, self.config.latent_channels
        patches = patches.reshape(-1, *grid, channels, p, p).permute(0, 3, 1, 4, 2, 5)
        return patches.reshape(-1, channels, grid[0] * p, grid[1] * p)

    def mark_slot(self, k_BGTD: Tensor, layer: int, slot: int) -> Tensor:
        """Keys of the reference in a slot, as the target sees them (our choice; without slots their place in time is all there is).

        Raises   ValueError for a slot beyond those that were trained
        """
        if self.slot_keys is None:
            return k_BGTD
        if slot >= self.config.reference_slots:
            raise ValueError(f"{slot + 1} references, but this visualizer knows {self.config.reference_slots} slots; give fewer")
        return k_BGTD + self.slot_keys[layer, slot][None, :, None].to(k_BGTD.dtype)

    def modulate(self, condition_BW: Tensor) -> Tensor:
        """Shift, scale and gate of both block halves. Shape (B, 6, 1, W)."""
        return self.modulation(F.silu(condition_BW)).view(condition_BW.shape[0], 6, 1, -1)

    def turn(self, time_B: Tensor, grid: tuple[int, int], origin_B: Tensor | None = None) -> Rotation:
        # Beside planner keys that kept their rotation the visualizer must turn the way the planner does.
        sections = None if len(self.bridges) else tuple(self.config.planner_mrope_sections)
        theta = self.config.rope_theta if len(self.bridges) else self.config.planner_rope_theta
        return rotation(image_positions(time_B, *grid, origin_B), self.config.head_dim, theta, sections)

    def run(self, block, *inputs):
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def init_weights(self) -> None:
        """Modulation starts near identity with half-open gates, the output near zero; other layers keep torch's defaults.

        modulation.weight x 0.1, bias 0 but 0.5 for both gates | block tables N(0, 0.02) | patch_out.weight x 0.1, bias 0
        slot_keys N(0, 0.5): half the size of a key, so that queries feel them from the first step
        """
        with torch.no_grad():
            self.modulation.weight.mul_(0.1)
            self.modulation.bias.zero_()
            gates = self.modulation.bias.view(6, -1)
            gates[2] = gates[5] = 0.5
            self.patch_out.weight.mul_(0.1)
            self.patch_out.bias.zero_()
            if self.slot_keys is not None:
                nn.init.normal_(self.slot_keys, std=0.5)
            for block in self.blocks:
                nn.init.normal_(block.table, std=0.02)


class TwinBlock(nn.Module):
    """One layer: attention over window, references and self, then a gated MLP, both under time modulation."""

    def __init__(self, width: int, mlp_width: int, num_heads: int, num_kv_heads: int, head_dim: int):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.qkv = nn.Linear(width, (num_heads + 2 * num_kv_heads) * head_dim)
        self.q_norm = nn.RMSNorm(head_dim, eps=1e-6)
        self.k_norm = nn.RMSNorm(head_dim, eps=1e-6)
        self.out = nn.Linear(num_heads * head_dim, width)
        self.gate_up = nn.Linear(width, 2 * mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)
        self.table = nn.Parameter(torch.zeros(6, width))

    def forward(self, tokens_BTW: Tensor, modulation: Tensor, turn: Rotation, seen: LayerContext, mask: Tensor | None) -> Tensor:
        shifts = self.shifts(modulation)
        q, k, v = self.project(tokens_BTW, shifts)
        keys, values = seen.followed_by(rotate(k, turn), v)
        return self.finish(tokens_BTW, shifts, attend(rotate(q, turn), keys, values, mask))

    def see_itself(self, tokens_NTW: Tensor, modulation: Tensor, turn: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """A reference's step through this layer: its new tokens, its keys before rotation, its values."""
        shifts = self.shifts(modulation)
        q, k, v = self.project(tokens_NTW, shifts)
        return self.finish(tokens_NTW, shifts, attend(rotate(q, turn), rotate(k, turn), v)), k, v

    def shifts(self, modulation_B61W: Tensor) -> tuple[Tensor, ...]:
        return (modulation_B61W + self.table[None, :, None].to(modulation_B61W.dtype)).unbind(1)

    def project(self, tokens_BTW: Tensor, shifts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, not yet rotated."""
        hidden = normalise(tokens_BTW) * (1 + shifts[1]) + shifts[0]
        heads = self.qkv(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        q, k, v = heads.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], 1)
        return self.q_norm(q), self.k_norm(k), v

    def finish(self, tokens_BTW: Tensor, shifts: tuple[Tensor, ...], attended_BTV: Tensor) -> Tensor:
        tokens_BTW = tokens_BTW + shifts[2] * self.out(attended_BTV)
        hidden = normalise(tokens_BTW) * (1 + shifts[4]) + shifts[3]
        gate, up = self.gate_up(hidden).chunk(2, dim=-1)
        return tokens_BTW + shifts[5] * self.down(F.silu(gate) * up)


class Bridge(nn.Module):
    """From one planner layer's un-rotated keys and values to keys and values the visualizer can use (our choice)."""

    def __init__(self, num_kv_heads: int, head_dim: int):
        super().__init__()
        planner_dim = num_kv_heads * head_dim
        self.head_dim = head_dim
        self.to_keys = nn.Linear(2 * planner_dim, planner_dim)
        self.to_values = nn.Linear(2 * planner_dim, planner_dim)

    def forward(self, k_BGTD: Tensor, v_BGTD: Tensor) -> tuple[Tensor, Tensor]:
        both_BTP = torch.cat([k_BGTD.transpose(1, 2).flatten(2), v_BGTD.transpose(1, 2).flatten(2)], dim=-1)
        both_BTP = normalise(both_BTP.float()).to(self.to_keys.weight.dtype)
        keys, values = (linear(both_BTP).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
                        for linear in (self.to_keys, self.to_values))
        return normalise(keys), values


class PooledWindow(nn.Module):
    """Mean and last-token values of a few planner layers, as one vector beside the time embedding (our choice)."""

    def __init__(self, num_layers: int, planner_dim: int, width: int):
        super().__init__()
        self.inner = nn.Linear(2 * num_layers * planner_dim, width)
        self.outer = nn.Linear(width, width)
        self.nothing = nn.Parameter(torch.zeros(width))  # stands for a window without words

    def forward(self, values: Sequence[Tensor], mask_BT: Tensor) -> Tensor:
        batch, length = mask_BT.shape
        if length == 0:
            return self.nothing.expand(batch, -1)
        count_B = mask_BT.sum(1)
        last_B = (count_B - 1).clamp(min=0)
        row_B = torch.arange(batch, device=mask_BT.device)
        features = []
        for v_BGTD in values:
            v_BTP = v_BGTD.transpose(1, 2).flatten(2).float()
            mean_BP = (v_BTP * mask_BT[..., None]).sum(1) / count_B.clamp(min=1)[:, None]
            features += [mean_BP, v_BTP[row_B, last_B]]
        features_BF = normalise(torch.cat(features, dim=-1)).to(self.inner.weight.dtype)
        pooled_BW = self.outer(F.silu(self.inner(features_BF)))
        return torch.where((count_B > 0)[:, None], pooled_BW, self.nothing.to(pooled_BW.dtype))


class TimeEmbedding(nn.Module):
    """Sinusoids of the flow time through a small MLP."""

    def __init__(self, width: int, num_frequencies: int = 64):
        super().__init__()
        self.num_frequencies = num_frequencies
        self.inner = nn.Linear(2 * num_frequencies, width)
        self.outer = nn.Linear(width, width)

    def forward(self, time_B: Tensor) -> Tensor:
        frequency = torch.exp(-math.log(1e4) * torch.arange(self.num_frequencies, device=time_B.device) / self.num_frequencies)
        angle = 1000.0 * time_B.float()[:, None] * frequency
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1)
        return self.outer(F.silu(self.inner(waves.to(self.inner.weight.dtype))))


def grid_embedding(rows: int, columns: int, width: int, like: Tensor) -> Tensor:
    """Absolute 2-D embedding: half of the channels tell the row, half the column. Shape (1, rows * columns, width).

    Rows and columns count from the corner of the page's largest square, which lies at the bottom, in the middle: what stands on
    the ground keeps its place whatever the shape, so that what was learned on squares holds on wide and tall pages (our choice).
    """
    side = min(rows, columns)
    quarter = width // 4
    frequency = torch.exp(-math.log(100.0) * torch.arange(quarter, device=like.device) / quarter)

    def axis(length: int, corner: int) -> Tensor:
        angle = (torch.arange(length, device=like.device) - corner)[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    y, x = axis(rows, rows - side), axis(columns, (columns - side + 1) // 2)
    grid = torch.cat([y[:, None].expand(-1, columns, -1), x[None].expand(rows, -1, -1)], dim=-1)
    return grid.reshape(1, rows * columns, width).to(like.dtype)


def normalise(x: Tensor) -> Tensor:
    """RMS norm without weights; modulation supplies the scale."""
    return F.rms_norm(x, (x.shape[-1],), eps=1e-6)
