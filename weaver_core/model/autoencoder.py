"""The picture-book autoencoder: a small convolutional map between pixels and latents of stride 8.

Where full-size models use the Wan VAE (`AutoencoderKLWan`, 16 channels, stride 8), the embedded default has this one of
its own: 8 channels, no attention, no normalisation layers inside (they cost more than the convolutions on a CPU in
bf16); residual blocks start as the identity instead. Latents leave `encode` with zero mean and unit variance per
channel, measured on the training world, so that the flow-matching visualizer needs no scale of its own. Our choice
throughout; the paper uses the VAE of Wan2.1.

Axes: B batch, C latent channels, H W pixels, h w = H/8 W/8.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

STRIDE = 8


class TinyAutoencoder(ModelMixin, ConfigMixin):
    """Deterministic autoencoder of stride 8 with normalised latents.

    Widths are given from the finest grid (stride `shuffle`) to the coarsest (stride 8).
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        *,
        latent_channels: int = 8,
        shuffle: int = 2,
        encoder_widths: tuple[int, ...] = (32, 64, 128),
        encoder_blocks: tuple[int, ...] = (1, 1, 2),
        decoder_widths: tuple[int, ...] = (48, 96, 128),
        decoder_blocks: tuple[int, ...] = (2, 2, 2),
    ):
        super().__init__()
        stages = (STRIDE // shuffle).bit_length()
        for name, sizes in (("encoder_widths", encoder_widths), ("encoder_blocks", encoder_blocks),
                            ("decoder_widths", decoder_widths), ("decoder_blocks", decoder_blocks)):
            if len(sizes) != stages:
                raise ValueError(f"{name} has {len(sizes)} entries, but shuffle {shuffle} and stride {STRIDE} need {stages}")
        self.encoder = Encoder(latent_channels, shuffle, encoder_widths, encoder_blocks)
        self.decoder = Decoder(latent_channels, shuffle, decoder_widths, decoder_blocks)
        self.register_buffer("latent_mean_C", torch.zeros(latent_channels))
        self.register_buffer("latent_std_C", torch.ones(latent_channels))

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Latents of pictures.

        Shapes   pixels (B, 3, H, W), H and W multiples of 8; returns (B, latent channels, H/8, W/8)
        Units    pixels in [-1, 1]; latents have zero mean and unit variance per channel over the training world
        Raises   ValueError if a side is no multiple of 8 or there are not three channels
        """
        if pixels_BCHW.ndim != 4 or pixels_BCHW.shape[1] != 3:
            raise ValueError(f"pixels of shape {tuple(pixels_BCHW.shape)}; expected (batch, 3, height, width)")
        height, width = pixels_BCHW.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise ValueError(f"a picture of {width}x{height} pixels; both sides must be multiples of {STRIDE}: resize it")
        raw_BChw = self.encoder(pixels_BCHW)
        mean_C11, std_C11 = self._statistics(raw_BChw)
        return (raw_BChw - mean_C11) / std_C11

    def decode(self, latents_BChw: torch.Tensor) -> torch.Tensor:
        """Pictures of latents.

        Shapes   latents (B, latent channels, h, w); returns (B, 3, 8h, 8w)
        Units    pixels in about [-1, 1], not clamped
        """
        channels = self.latent_mean_C.shape[0]
        if latents_BChw.ndim != 4 or latents_BChw.shape[1] != channels:
            raise ValueError(f"latents of shape {tuple(latents_BChw.shape)}; expected (batch, {channels}, height/8, width/8)")
        return self.decoder(latents_BChw)

    @torch.no_grad()
    def set_statistics(self, raw_mean_C: torch.Tensor, raw_std_C: torch.Tensor) -> None:
        """Store the per-channel mean and standard deviation of the encoder's raw output; shapes (latent channels,)."""
        self.latent_mean_C.copy_(raw_mean_C)
        self.latent_std_C.copy_(raw_std_C)

    def _statistics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (self.latent_mean_C.to(like.dtype)[:, None, None], self.latent_std_C.to(like.dtype)[:, None, None])


class Encoder(nn.Module):
    def __init__(self, latent_channels: int, shuffle: int, widths, blocks):
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(shuffle), nn.Conv2d(3 * shuffle**2, widths[0], 3, padding=1)]
        for level, (width, count) in enumerate(zip(widths, blocks)):
            if level:
                layers.append(nn.Conv2d(widths[level - 1], width, 4, stride=2, padding=1))
            layers += [Residual(width) for _ in range(count)]
        layers += [nn.ReLU(), nn.Conv2d(widths[-1], latent_channels, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels_BCHW)


class Decoder(nn.Module):
    def __init__(self, latent_channels: int, shuffle: int, widths, blocks):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(latent_channels, widths[-1], 3, padding=1)]
        for level in reversed(range(len(widths))):
            layers += [Residual(widths[level]) for _ in range(blocks[level])]
            if level:
                # A 1x1 convolution and a pixel shuffle: cheaper than upsampling first and convolving the finer grid.
                layers += [nn.Conv2d(widths[level], 4 * widths[level - 1], 1), nn.PixelShuffle(2)]
        layers += [nn.ReLU(), nn.Conv2d(widths[0], 3 * shuffle**2, 3, padding=1), nn.PixelShuffle(shuffle)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents_BChw: torch.Tensor) -> torch.Tensor:
        return self.layers(latents_BChw)


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity; the second starts at zero."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.outer(F.relu(self.inner(F.relu(x))))
