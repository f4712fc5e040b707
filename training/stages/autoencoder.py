"""Stage `autoencoder`: the picture-book autoencoder on scenes rendered as they are needed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.estimate import Inspection, Part, layer_outputs
from training.stages import step_rng
from weaver_core.model.autoencoder import TinyAutoencoder
from weaver_core.picturebook import compose, splits

log = logging.getLogger("training")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    latent_channels: int = 8
    shuffle: int = 2
    encoder_widths: tuple[int, ...] = (32, 64, 128)
    encoder_blocks: tuple[int, ...] = (0, 1, 2)
    decoder_widths: tuple[int, ...] = (32, 96, 128)
    decoder_blocks: tuple[int, ...] = (1, 2, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    batch_size: int = 16
    image_size: int = 128
    held_out_scenes: int = 64

    def __post_init__(self):
        if self.image_size < 8 or self.image_size % 8:
            raise ValueError(f"data.image_size is {self.image_size}; latents have a stride of 8 pixels, so it must be a multiple of 8")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    squared: float = 0.5  # share of the squared error beside the absolute error
    edge: float = 0.5  # share of the error of neighbouring differences: keeps outlines crisp
    figure_weight: float = 3.0  # of pixels that show a figure or a prop: faces are small and matter most
    latent_noise: float = 0.05  # standard deviation, on latents of unit variance


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    init: str | None = None  # folder of an exported autoencoder to start from
    train_encoder: bool = True  # false: only the decoder learns, so that latents, and a visualizer trained on them, stay valid
    compile: bool = False  # fuses elementwise work; needs a C++ compiler


def build(settings: Settings, *, seed: int, run_dir: Path, device) -> AutoencoderStage:
    return AutoencoderStage(settings, seed=seed, device=device)


def inspect(settings: Settings, config, problems) -> Inspection:
    """Counted on the meta device. See `training.stages`."""
    if settings.init and not (Path(settings.init) / "config.json").is_file():
        problems.add("init", f"init = {settings.init!r}: no config.json there; give the export folder of an autoencoder run")
    if config.train.activation_checkpointing:
        problems.add("train.activation_checkpointing", "train.activation_checkpointing = true, but the autoencoder has no blocks to compute again; "
                     "set it to false, or lower data.batch_size")
    with torch.device("meta"):
        model = new_autoencoder(settings.model)
        pixels = torch.empty(settings.data.batch_size, 3, settings.data.image_size, settings.data.image_size)
        latents = torch.empty(settings.data.batch_size, settings.model.latent_channels, pixels.shape[2] // 8, pixels.shape[3] // 8)
    parts = {"encoder": (model.encoder, pixels), "decoder": (model.decoder, latents)}
    found = Inspection(batch=f"{settings.data.batch_size} pictures of {settings.data.image_size} x {settings.data.image_size}")
    for name, (part, given) in parts.items():
        count = sum(p.numel() for p in part.parameters())
        trains = name == "decoder" or settings.train_encoder
        found.parts.append(Part(name=name, num_values=count, num_trained=count if trains else 0, bytes=4 * count))
        found.activations += layer_outputs(part, given) * (2 if config.train.autocast else 4) if trains else 0
    return found


def new_autoencoder(shape: ModelSettings) -> TinyAutoencoder:
    return TinyAutoencoder(
        latent_channels=shape.latent_channels, shuffle=shape.shuffle,
        encoder_widths=shape.encoder_widths, encoder_blocks=shape.encoder_blocks,
        decoder_widths=shape.decoder_widths, decoder_blocks=shape.decoder_blocks)


class AutoencoderStage:
    """Reconstruction under latent noise. Latents are normalised with the batch's own statistics while training;
    the model's stored statistics are measured on training scenes whenever it is evaluated."""

    def __init__(self, settings: Settings, *, seed: int, device):
        self.settings, self.seed, self.device = settings, seed, device
        model = new_autoencoder(settings.model)
        if settings.init:
            _start_from(model, settings.init)
        elif not settings.train_encoder:
            raise ValueError("train_encoder = false needs an encoder: name the folder of an exported autoencoder as init")
        # nn.Module's own `to`: that of ModelMixin warns about layers to keep in fp32, of which there are none
        self.model = nn.Module.to(model, device=device, dtype=torch.float32, memory_format=torch.channels_last)
        self.trainable, self.frozen = {"autoencoder": self.model}, {}
        if not settings.train_encoder:
            self.model.encoder.requires_grad_(False)
            self.trainable, self.frozen = {"decoder": self.model.decoder}, {"encoder": self.model.encoder}
        if settings.compile:
            self.model.decoder.compile()

    def batch(self, index: int) -> dict:
        rng = step_rng(self.seed, index, "autoencoder")
        scenes = [splits.sample_scene(rng, split="train") for _ in range(self.settings.data.batch_size)]
        return self._render(scenes)

    def loss(self, batch: dict) -> tuple[torch.Tensor, dict]:
        options = self.settings.loss
        truth_BCHW, weight_B1HW = self._pixels(batch)
        latents_BChw = self._training_latents(truth_BCHW)
        latents_BChw = latents_BChw + options.latent_noise * torch.randn_like(latents_BChw)
        error_BCHW = self.model.decode(latents_BChw).float() - truth_BCHW
        mean_weight = weight_B1HW.mean()
        absolute = (error_BCHW.abs() * weight_B1HW).mean() / mean_weight
        squared = (error_BCHW.square() * weight_B1HW).mean() / mean_weight
        edge = (error_BCHW.diff(dim=-1).abs() * weight_B1HW[..., 1:]).mean() / mean_weight
        edge = edge + (error_BCHW.diff(dim=-2).abs() * weight_B1HW[..., 1:, :]).mean() / mean_weight
        loss = absolute + options.squared * squared + 0.5 * options.edge * edge
        return loss, {"psnr": psnr(error_BCHW.detach().square().mean()), "absolute": absolute.detach()}

    def _training_latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        if not self.settings.train_encoder:
            with torch.no_grad():
                return self.model.encode(pixels_BCHW).float()
        raw_BChw = self.model.encoder(pixels_BCHW).float()
        std_C11, mean_C11 = torch.std_mean(raw_BChw, dim=(0, 2, 3), keepdim=True)
        return (raw_BChw - mean_C11) / (std_C11 + 1e-4)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        if self.settings.train_encoder:
            self._measure_statistics()
        rng = step_rng(self.seed, 0, "autoencoder held out")
        scenes = [splits.sample_scene(rng, split="held_out") for _ in range(self.settings.data.held_out_scenes)]
        batch = self._render(scenes)
        truth, weight = self._pixels({key: torch.from_numpy(value).to(self.device) for key, value in batch.items()})
        latents = self.model.encode(truth)
        error = self.model.decode(latents).clamp(-1, 1) - truth
        noisy = self.model.decode(latents + 0.2 * torch.randn_like(latents)).clamp(-1, 1) - truth
        figure = (weight > 1).expand_as(error)
        return {"psnr": psnr(error.square().mean()).item(), "psnr_figures": psnr(error[figure].square().mean()).item(),
                "psnr_noisy": psnr(noisy.square().mean()).item(),
                "latent_mean": latents.mean().item(), "latent_std": latents.std().item()}

    @torch.no_grad()
    def samples(self, folder: Path) -> None:
        from PIL import Image

        rng = step_rng(self.seed, 1, "autoencoder held out")
        batch = self._render([splits.sample_scene(rng, split="held_out") for _ in range(16)])
        truth, _ = self._pixels({key: torch.from_numpy(value).to(self.device) for key, value in batch.items()})
        decoded = self.model.decode(self.model.encode(truth)).clamp(-1, 1)
        rows = [torch.cat(list(pictures), dim=-1) for start in (0, 8) for pictures in
                (truth[start:start + 8], decoded[start:start + 8])]
        sheet = ((torch.cat(rows, dim=-2) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        Image.fromarray(sheet).save(folder / "truth_above_decoded.png")

    def export(self, folder: Path) -> None:
        # fp16, not bf16: three more bits of weights are worth a fraction of a decibel, and the range is no concern here
        model = TinyAutoencoder.from_config(self.model.config)
        model.load_state_dict(self.model.state_dict())
        nn.Module.to(model, torch.float16).save_pretrained(folder)

    def _render(self, scenes) -> dict[str, np.ndarray]:
        size = self.settings.data.image_size
        pixels = np.stack([compose.render_array(scene, size) for scene in scenes])
        figures = np.zeros(pixels.shape[:3], dtype=bool)
        for row, scene in zip(figures, scenes):
            boxes = list(compose.hero_boxes(scene, size))
            if scene.prop is not None:
                boxes.append(compose.prop_box(scene, size))
            for x0, y0, x1, y1 in boxes:
                row[max(0, y0):y1, max(0, x0):x1] = True
        return {"pixels_BHWC": pixels, "figures_BHW": figures}

    def _pixels(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        truth_BCHW = batch["pixels_BHWC"].permute(0, 3, 1, 2).float() / 127.5 - 1  # channels last already
        weight_B1HW = 1 + (self.settings.loss.figure_weight - 1) * batch["figures_BHW"].float()[:, None]
        return truth_BCHW, weight_B1HW

    @torch.no_grad()
    def _measure_statistics(self, batches: int = 16) -> None:
        """Mean and standard deviation per latent channel over training scenes, into the model."""
        raw = []
        for index in range(batches):
            pixels, _ = self._pixels({k: torch.from_numpy(v).to(self.device) for k, v in self.batch(index).items()})
            raw.append(self.model.encoder(pixels).float())
        std_C, mean_C = torch.std_mean(torch.cat(raw), dim=(0, 2, 3))
        self.model.set_statistics(mean_C, std_C)


def _start_from(model: TinyAutoencoder, folder: str) -> None:
    """Copy encoder, statistics and, if it has the same shape, decoder of an exported autoencoder."""
    source = TinyAutoencoder.from_pretrained(folder)
    values, wanted = source.state_dict(), model.state_dict()
    decoder_fits = all(name in values and values[name].shape == value.shape
                       for name, value in wanted.items() if name.startswith("decoder."))
    for name, value in wanted.items():
        if name.startswith("decoder.") and not decoder_fits:
            continue
        if name not in values or values[name].shape != value.shape:
            raise ValueError(f"init = {folder}: its {name} does not fit; give [model] the encoder and channels of that run")
        value.copy_(values[name])
    if not decoder_fits:
        log.info("the decoder starts anew: that of %s has another shape", folder)


def psnr(squared_error: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of pixels in [-1, 1]."""
    return 10 * torch.log10(4 / squared_error.clamp_min(1e-10))
