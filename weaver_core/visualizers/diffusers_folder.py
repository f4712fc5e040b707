"""A pipeline of diffusers on disk or on the hub: found, and checked before anything of it is loaded.

Only safetensors are read, and only classes of diffusers and transformers are built: no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..memory import _read_json, _weight_files, read_header
from .diffusers_families import FAMILIES

MIN_DIFFUSERS = "0.42"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CONFIGS = (".json", ".jinja", ".txt", ".model")  # of parts, their schedules, tokenizers and chat templates
_LIBRARIES = ("diffusers", "transformers")
_SAMPLES, _SAMPLE_BYTES = 32, 4096  # what the fingerprint reads of a file of weights besides its header


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineFolder:
    """A checked folder. `index` is model_index.json, `transformer` the transformer's config.json."""

    path: Path
    name: str
    index: dict
    transformer: dict

    @property
    def parts(self) -> dict[str, tuple[str, str]]:
        """Name -> (library, class) of the parts that are there."""
        return {
            name: tuple(value) for name, value in self.index.items()
            if isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value)
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A LoRA file and how strongly it counts; 1 = as it was trained."""

    path: Path
    strength: float = 1.0

    @classmethod
    def read(cls, text: str) -> Lora:
        """`FILE` or `FILE:STRENGTH`. InputError when there is no such .safetensors file."""
        name, colon, number = text.rpartition(":")
        strength = _number(number) if colon else None
        path = Path(text if strength is None else name).expanduser()
        if path.suffix.lower() in _PICKLES:
            raise InputError(f"the LoRA {path} is a pickle, which can run code; take the .safetensors file of it")
        if path.suffix.lower() != ".safetensors" or not path.is_file():
            raise InputError(f"the LoRA {path} is not there, or no .safetensors file; give FILE.safetensors, or FILE.safetensors:0.8")
        if strength is not None and not -10 <= strength <= 10:
            raise InputError(f"the LoRA {path.name} has the strength {strength:g}; it must lie in -10..10, and is mostly 0.5..1")
        read_header(path)
        return cls(path=path, strength=1.0 if strength is None else strength)


def find_pipeline(source: str | Path) -> PipelineFolder:
    """The pipeline in a folder, or under a name on the Hugging Face hub (fetched now, unless it was before).

    Raises   InputError in a sentence for what is missing, foreign, damaged, or cannot be fetched
    """
    _check_diffusers()
    text = str(source)
    path = Path(text).expanduser()
    if path.is_dir():
        return _checked(path)
    if path.is_file():
        raise InputError(f"{text} is a file; give the folder with model_index.json. Single files are for ComfyUI's own loaders")
    if _HUB_NAME.match(text):
        return _checked(_fetched(text), text)
    raise InputError(f"{text} is neither a folder nor a name on the Hugging Face hub (such as black-forest-labs/FLUX.2-klein-4B)")


def fingerprint_of(folder: PipelineFolder, loras: Iterable[Lora], settings: object) -> str:
    """16 hex digits of what is in the folder's files, the LoRAs and the settings, wherever they lie.

    Of weights the header and 32 samples of 4 KB are read: whole files have tens of gigabytes, and training changes them all over.
    """
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update((folder.path / "model_index.json").read_bytes())
    for name in sorted(folder.parts):
        for path in sorted(file for file in (folder.path / name).iterdir() if file.suffix in _CONFIGS):
            digest.update(f"\n{name}/{path.name}\n".encode() + path.read_bytes())
        for path in _weight_files(folder.path / name):
            digest.update(f"\n{name}/{path.name}\n".encode())
            _add_weights(digest, path)
    for lora in loras:
        digest.update(f"\nlora {lora.strength}\n".encode())
        _add_weights(digest, lora.path)
    return digest.hexdigest()[:16]


# ---- checking


def _checked(path: Path, name: str = "") -> PipelineFolder:
    index = _read_json(path / "model_index.json") if (path / "model_index.json").is_file() else None
    if index is None:
        raise InputError(f"{path} holds no model_index.json; give the folder of a diffusers pipeline, which holds a folder transformer")
    kind = index.get("_class_name")
    if kind == "WeaverModel":
        raise InputError(f"{path} holds a native Weaver model; give it with --model, or load it with Load Weaver Model")
    _check_class(str(path), kind)
    folder = PipelineFolder(path=path, name=name or path.name, index=index, transformer={})
    for part, (library, _) in folder.parts.items():
        _check_part(path, part, library)
    if "transformer" not in folder.parts or not (path / "transformer" / "config.json").is_file():
        raise InputError(f"{path} has no transformer/config.json; copy or download the whole folder again")
    return PipelineFolder(path=path, name=folder.name, index=index, transformer=_read_json(path / "transformer" / "config.json"))


def _check_class(name: str, kind: object) -> None:
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"{name} holds a {str(kind)[:80]}, which cannot draw stories here; it can be a {', '.join(FAMILIES)}")


def _check_part(path: Path, part: str, library: str) -> None:
    place = path / part
    if library not in _LIBRARIES:
        raise InputError(f"{path} wants code of {library[:80]!r} for its {part[:80]}; only models of diffusers and transformers are loaded")
    if Path(part).name != part or part in ("", "..") or not place.is_dir():
        raise InputError(f"{path} has no folder {part[:80]}; copy or download the whole folder again")
    weights = _weight_files(place)
    for file in weights:
        read_header(file)
    if weights or not (place / "config.json").is_file():
        return
    if any(file.suffix.lower() in _PICKLES for file in place.iterdir()):
        raise InputError(f"{place} holds its weights as pickles, which can run code; take a version of the model in safetensors")
    raise InputError(f"{place} holds no .safetensors files; copy or download the whole folder again")


def _check_diffusers() -> None:
    import diffusers
    from packaging.version import Version

    if Version(diffusers.__version__) < Version(MIN_DIFFUSERS):
        raise InputError(f"diffusers is {diffusers.__version__}; image models need {MIN_DIFFUSERS} or newer: pip install --upgrade diffusers")


def _fetched(name: str) -> Path:
    """The folder in the hub's cache. What it is comes first, so that tens of gigabytes are not fetched in vain."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import hf_hub_download

    try:
        index = _read_json(Path(hf_hub_download(name, "model_index.json")))
        _check_class(name, index.get("_class_name"))
        return Path(DiffusionPipeline.download(name, use_safetensors=True))
    except InputError:
        raise
    except Exception as error:  # of many kinds: no such name, no access, no network, offline and not in the cache, a full disk
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{name} cannot be fetched from the Hugging Face hub: {reason}. If it is on this computer, give its "
                         "folder; if it wants a licence accepted, do so on its page and run: hf auth login") from None  # fmt: skip


# ---- small parts


def _add_weights(digest, path: Path) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        digest.update(f"{size}\n".encode() + file.read(length))
        begin, room = 8 + length, max(0, size - 8 - length - _SAMPLE_BYTES)
        for sample in range(_SAMPLES):
            file.seek(begin + room * sample // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
