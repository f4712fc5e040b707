"""Pixels to latents and back, the same for the picture-book autoencoder and for the Wan VAE of full-size models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .autoencoder import TinyAutoencoder


def to_latents(vae: nn.Module, pixels_BCHW: Tensor) -> Tensor:
    """Latents of unit variance, without noise.

    Shapes   pixels (B, 3, H, W), sides multiples of 8; returns (B, C, H/8, W/8)
    Units    pixels in [-1, 1]
    Source   Wan VAE: an image is a video of one frame, z = (mode - mean) / std
    """
    pixels_BCHW = pixels_BCHW.to(vae.dtype)
    if isinstance(vae, TinyAutoencoder):
        return vae.encode(pixels_BCHW)
    mean, std = _statistics(vae, pixels_BCHW)
    return (vae.encode(pixels_BCHW[:, :, None]).latent_dist.mode()[:, :, 0] - mean) / std


def to_pixels(vae: nn.Module, latents_BCYX: Tensor) -> Tensor:
    """Pictures of latents, float32, clamped to [-1, 1]. Shapes   latents (B, C, Y, X); returns (B, 3, 8 Y, 8 X)"""
    latents_BCYX = latents_BCYX.to(vae.dtype)
    if isinstance(vae, TinyAutoencoder):
        pixels = vae.decode(latents_BCYX)
    else:
        mean, std = _statistics(vae, latents_BCYX)
        pixels = vae.decode((latents_BCYX * std + mean)[:, :, None]).sample[:, :, 0]
    return pixels.float().clamp(-1, 1)


def num_latent_channels(vae: nn.Module) -> int:
    return vae.config.latent_channels if isinstance(vae, TinyAutoencoder) else vae.config.z_dim


def _statistics(vae: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(vae.config[name], device=like.device, dtype=like.dtype)[:, None, None]
                 for name in ("latents_mean", "latents_std"))
