"""The native pair on disk: a diffusers-style folder, safetensors only, every key accounted for.

    model_index.json   what lies here, and how it samples
    planner/           transformers: config.json, model.safetensors
    tokenizer/         tokenizer.json, tokenizer_config.json
    visualizer/        TwinDiT: config.json, diffusion_pytorch_model.safetensors
    vae/               TinyAutoencoder or AutoencoderKLWan
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import WeaverError, first_line
from .autoencoder import TinyAutoencoder
from .latents import num_latent_channels
from .twin_dit import TwinDiT

FORMAT_VERSION = 1
_CLASS_NAME = "WeaverModel"


class CheckpointError(WeaverError):
    """A model folder that is missing, broken or not ours; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """How a trained pair is best used; written by whoever trained it."""

    steps: int = 20
    text_guidance: float = 2.5
    reference_guidance: float = 1.5
    shift: float = 1.0
    image_size: int = 128  # pixels a side of a picture that the planner sees
    sizes: tuple[tuple[int, int], ...] = ((128, 128),)  # (width, height) the visualizer was trained on, the default first
    size_multiple: int = 0  # it draws every size with sides in these steps, mostly with the pixels of sizes[0]; 0 = `sizes` only
    max_references: int = 4
    max_images: int = 8  # the longest story the planner was trained on


@dataclass(slots=True)
class WeaverModel:
    """Planner, tokenizer, visualizer and autoencoder that belong together."""

    planner: nn.Module
    tokenizer: object
    visualizer: TwinDiT
    vae: nn.Module
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    fingerprint: str = "unsaved"  # changes with every weight: the planner's features shape the picture too

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike | None = None, *, device=None, dtype: torch.dtype | None = None) -> WeaverModel:
        """Load a model folder; without one, the embedded picture-book pair.

        `device` None takes a GPU if there is one, `dtype` None takes bf16 where the device is fast in it, else float32.
        Raises   CheckpointError for a folder that is missing, foreign, incomplete, corrupt, or holds pickles
        """
        folder = Path(folder) if folder is not None else default_folder()
        index = read_index(folder)
        device = torch.device(device) if device is not None else default_device()
        dtype = dtype or default_dtype(device)
        planner, tokenizer = load_planner(folder, device=device, dtype=dtype)
        visualizer = load_twin(folder / "visualizer", device=device, dtype=dtype)
        vae = load_autoencoder(folder / "vae", device=device, dtype=dtype)
        _check_twins(planner, visualizer, vae, folder)
        return cls(planner, tokenizer, visualizer, vae, index, weights_fingerprint(folder / part for part in ("planner", "visualizer", "vae")))

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the folder that `from_pretrained` reads; safetensors only."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.planner.save_pretrained(folder / "planner")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.visualizer.save_pretrained(folder / "visualizer")
        self.vae.save_pretrained(folder / "vae")
        write_index(folder, self.planner, self.tokenizer, self.visualizer, self.vae, self.defaults)

    @property
    def device(self) -> torch.device:
        return self.visualizer.device

    @property
    def dtype(self) -> torch.dtype:
        return self.visualizer.dtype


def default_folder() -> Path:
    """Where the embedded picture-book pair lies."""
    return Path(__file__).resolve().parents[1] / "picturebook" / "weights"


def default_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device is fast in it (measured 1.5 x and more on CPUs with matrix units); float32 elsewhere."""
    return torch.bfloat16 if has_fast_bf16(device) else torch.float32


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run on units of their own: GPUs, and CPUs with AMX; other CPUs emulate them."""
    return device.type == "cuda" or device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def read_index(folder: Path) -> SamplingDefaults:
    if not folder.is_dir():
        raise CheckpointError(f"there is no model folder {folder}; give a folder that holds model_index.json, "
                              "or leave the option out for the embedded picture-book model")
    path = folder / "model_index.json"
    if not path.is_file():
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise CheckpointError(f"{folder} holds {held}, but no model_index.json; give the folder that training exported")
    index = _read_json(path)
    if index.get("_class_name") != _CLASS_NAME:
        raise CheckpointError(f"{path} says {index.get('_class_name')!r}, expected {_CLASS_NAME!r}: this is another kind of model; "
                              "use it through the ComfyUI or diffusers visualizers")
    if index.get("_format") != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format {index.get('_format')!r}, this version reads {FORMAT_VERSION}; update the package")
    known = {f.name for f in fields(SamplingDefaults)}
    given = index.get("sampling", {})
    unknown = sorted(set(given) - known)
    if unknown:
        raise CheckpointError(f"{path}: unknown sampling keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    if "sizes" in given:
        given["sizes"] = tuple(map(tuple, given["sizes"]))
    return SamplingDefaults(**given)


def write_index(folder: Path, planner, tokenizer, visualizer, vae, defaults: SamplingDefaults) -> None:
    def named(module):
        return [type(module).__module__.split(".")[0] if not isinstance(module, (TwinDiT, TinyAutoencoder)) else "weaver_core",
                type(module).__name__]

    index = {"_class_name": _CLASS_NAME, "_format": FORMAT_VERSION, "planner": named(planner), "tokenizer": named(tokenizer),
             "visualizer": named(visualizer), "vae": named(vae), "sampling": asdict(defaults)}
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def load_planner(folder: Path, *, device, dtype: torch.dtype):
    """Planner and tokenizer out of `folder`/planner and `folder`/tokenizer."""
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    path = _component(folder / "planner")
    try:
        planner, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(path, dtype=dtype, output_loading_info=True,
                                                                          local_files_only=True, use_safetensors=True)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"the planner in {path} cannot be loaded ({first_line(error)}); copy the folder again") from error
    _report_keys(path, info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the tokenizer in {folder / 'tokenizer'} cannot be loaded ({first_line(error)}); copy the folder again") from error
    return planner.to(device).eval(), tokenizer


def load_twin(path: Path, *, device, dtype: torch.dtype) -> TwinDiT:
    return _load_module(TwinDiT, path, device, dtype)


def load_autoencoder(path: Path, *, device, dtype: torch.dtype):
    """TinyAutoencoder or AutoencoderKLWan, by the name in its config."""
    name = _read_json(_component(path) / "config.json").get("_class_name")
    if name == "TinyAutoencoder":
        return _load_module(TinyAutoencoder, path, device, dtype).to(memory_format=torch.channels_last)
    if name == "AutoencoderKLWan":
        from diffusers import AutoencoderKLWan

        return _load_module(AutoencoderKLWan, path, device, dtype)
    raise CheckpointError(f"{path} holds a {name!r}; expected TinyAutoencoder or AutoencoderKLWan")


def _load_module(cls, path: Path, device, dtype: torch.dtype):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _component(path)
    config = _read_json(path / "config.json")
    if config.get("_class_name") != cls.__name__:
        raise CheckpointError(f"{path} holds a {config.get('_class_name')!r}, expected {cls.__name__}")
    weights: dict[str, Tensor] = {}
    for shard in sorted(path.glob("*.safetensors")):
        try:
            weights |= load_file(shard)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{shard} is damaged or cut short ({first_line(error)}); copy or download it again") from error
    try:
        module = cls.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path / 'config.json'} does not describe a {cls.__name__}: {first_line(error)}") from error
    wanted = module.state_dict()
    shapes = [(k, tuple(weights[k].shape), tuple(v.shape)) for k, v in wanted.items() if k in weights and weights[k].shape != v.shape]
    _report_keys(path, wanted.keys() - weights.keys(), weights.keys() - wanted.keys(), shapes)
    module.load_state_dict(weights)
    return nn.Module.to(module, device=device, dtype=dtype).eval()


def _component(path: Path) -> Path:
    """A component folder that holds a config and safetensors; a pickle in their place is named and refused."""
    if not path.is_dir():
        raise CheckpointError(f"the folder {path} is missing; copy the whole model folder")
    if not any(path.glob("*.safetensors")):
        pickles = [p.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl") for p in path.glob(kind)]
        if pickles:
            raise CheckpointError(f"{path} holds {pickles[0]}, a pickle, which can run code when it is opened and is never loaded; "
                                  "convert it to safetensors with the program that wrote it")
        raise CheckpointError(f"{path} holds no .safetensors file; copy the whole model folder")
    return path


def _report_keys(path: Path, missing, unexpected, mismatched) -> None:
    """Refuse weights that do not fit key by key, and say which."""
    parts = []
    for label, keys in (("missing", missing), ("not part of the model", unexpected), ("of another shape", mismatched)):
        names = sorted(map(str, keys))
        if names:
            parts.append(f"{len(names)} {label} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    if parts:
        raise CheckpointError(f"the weights in {path} do not fit its config.json: {'; '.join(parts)}; "
                              "weights and config must come from the same training run")


def _check_twins(planner, visualizer: TwinDiT, vae, folder: Path) -> None:
    text = planner.config.text_config
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    has = (text.num_hidden_layers, text.num_key_value_heads, size)
    wants = tuple(visualizer.config[k] for k in ("num_layers", "num_kv_heads", "head_dim"))
    if has != wants:
        raise CheckpointError(f"{folder}: the planner has {has} layers, key/value heads and head size, its twin {wants}; "
                              "the two must come from one training")
    channels = num_latent_channels(vae)
    if channels != visualizer.config.latent_channels:
        raise CheckpointError(f"{folder}: the autoencoder has {channels} latent channels, the visualizer {visualizer.config.latent_channels}")


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; copy the whole model folder") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({first_line(error)}); copy the folder again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object; copy the folder again")
    return value


def weights_fingerprint(folders: Iterable[Path]) -> str:
    """Hash of the weights that decide pixels: a story drawn with other ones is drawn anew."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")):
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return f"native-{digest.hexdigest()[:16]}"
