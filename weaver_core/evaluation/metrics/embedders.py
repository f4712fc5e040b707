"""Pictures (and texts) as unit vectors: a built-in embedder that needs nothing, and folders of CLIP, SigLIP or DINO."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ...errors import InputError


class Embedder(Protocol):
    """`images` and `texts` return float32 unit vectors (N, D); where `reads_text`, both lie in one space."""

    name: str
    reads_text: bool

    def images(self, images: Sequence[Image.Image]) -> np.ndarray: ...

    def texts(self, texts: Sequence[str]) -> np.ndarray: ...


class BuiltinEmbedder:
    """Colour and texture: a soft colour histogram, where it lies, and the Gram matrix of a fixed filter bank.

    Weak about who somebody is, good enough to see that a style or a palette has changed: an alarm, not a judge. The Gram
    matrix is of rectified responses to edges and bars in four directions and two widths (Gatys et al. 2015 use those of
    a trained network).
    """

    name = "builtin"
    reads_text = False

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.stack([self._one(image) for image in images]) if len(images) else np.zeros((0, 1), np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        raise InputError("the built-in embedder reads no texts; give a CLIP or SigLIP folder")

    def _one(self, image: Image.Image) -> np.ndarray:
        from .pixels import palette

        rgb = np.asarray(image.convert("RGB").resize((48, 48), Image.Resampling.BOX), np.float32) / 255
        spectrum = np.fft.rfft2(rgb.mean(2) - rgb.mean())
        responses = np.abs(np.fft.irfft2(spectrum * _filter_bank(), s=(48, 48))).reshape(len(_filter_bank()), -1)
        gram = responses @ responses.T / responses.shape[1]
        texture = np.sqrt(gram[np.triu_indices(len(gram))])
        places = rgb.reshape(3, 16, 3, 16, 3).mean((1, 3)).ravel()
        parts = (palette(image), texture, places - places.mean())
        vector = np.concatenate([part / max(1e-6, float(np.linalg.norm(part))) for part in parts])
        return (vector / np.linalg.norm(vector)).astype(np.float32)


@lru_cache(maxsize=1)
def _filter_bank() -> np.ndarray:
    """Spectra (16, 48, 25) of edges and bars: first and second derivatives of Gaussians, 4 directions, widths 1 and 2.5."""
    y, x = np.fft.fftfreq(48)[:, None], np.fft.rfftfreq(48)[None]
    bank = []
    for width in (1.0, 2.5):
        blur = np.exp(-2 * (np.pi * width) ** 2 * (x**2 + y**2))
        for angle in np.arange(4) * np.pi / 4:
            along = 2j * np.pi * width * (x * np.cos(angle) + y * np.sin(angle))
            bank += [along * blur, along**2 * blur]
    return np.stack(bank)


class TransformersEmbedder:
    """A local folder of CLIP, SigLIP (pictures and texts) or DINOv2 (pictures), through transformers.

    Texts longer than the model reads are cut into pieces and their vectors averaged, so the end of a dense prompt counts.
    """

    def __init__(self, folder: str | Path, *, device: str | None = None, batch_size: int = 32):
        if not Path(folder).is_dir():
            raise InputError(f"{folder} is no folder; give one with a CLIP, SigLIP or DINOv2 model as transformers saves it")
        try:
            import torch
            from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
        except ImportError:
            raise InputError('embedders need transformers: pip install "wan-weaver"') from None
        self._torch, self.batch_size = torch, batch_size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.name = Path(folder).name
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._model = AutoModel.from_pretrained(str(folder), use_safetensors=True, **local).to(self.device).eval()
            self._processor = AutoImageProcessor.from_pretrained(str(folder), **local)
            self.reads_text = hasattr(self._model, "get_text_features")
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), **local) if self.reads_text else None
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} holds no embedder that transformers can load from safetensors: {error}") from None

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        found = []
        with self._torch.inference_mode():
            for start in range(0, len(images), self.batch_size):
                batch = [image.convert("RGB") for image in images[start : start + self.batch_size]]
                pixels = self._processor(images=batch, return_tensors="pt")["pixel_values"].to(self.device)
                if hasattr(self._model, "get_image_features"):
                    found.append(self._unit(self._model.get_image_features(pixel_values=pixels)))
                else:
                    found.append(self._unit(self._model(pixel_values=pixels)))
        return np.concatenate(found) if found else np.zeros((0, 1), np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        if not self.reads_text:
            raise InputError(f"{self.name} reads no texts; give a CLIP or SigLIP folder")
        return np.stack([self._text(text) for text in texts]) if len(texts) else np.zeros((0, 1), np.float32)

    def _text(self, text: str) -> np.ndarray:
        most = self._model.config.text_config.max_position_embeddings
        special = self._tokenizer.num_special_tokens_to_add()
        ids = self._tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]
        step = max(1, most - special)
        pieces = [self._tokenizer.decode(ids[i : i + step]) for i in range(0, max(1, len(ids)), step)]
        tokens = self._tokenizer(pieces, padding="max_length", truncation=True, max_length=most, return_tensors="pt").to(self.device)
        given = {key: tokens[key] for key in ("input_ids", "attention_mask") if key in tokens}
        with self._torch.inference_mode():
            vector = self._unit(self._model.get_text_features(**given)).mean(0)
        return vector / max(1e-6, float(np.linalg.norm(vector)))

    def _unit(self, output) -> np.ndarray:
        """The pooled vectors of an output, by whatever name this version of transformers gives them."""
        vectors = output if isinstance(output, self._torch.Tensor) else getattr(output, "pooler_output", None)
        if vectors is None:
            vectors = output.last_hidden_state[:, 0]
        return self._torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
