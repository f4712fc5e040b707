"""What a ComfyUI folder holds, looked at as files: which of our families' nodes its code names, and which models lie there.

Nothing in it is imported or executed. Links below models/ are followed; folders that extra_model_paths.yaml names are looked
at only when the user names them too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from .errors import InputError
from .memory import read_header
from .visualizers.graph import GraphFamily, Need, families

# Where ComfyUI looks for a kind of model, below models/: today's name first.
PLACES = {
    "model": ("diffusion_models", "unet"),
    "text encoder": ("text_encoders", "clip"),
    "VAE": ("vae",),
    "checkpoint": ("checkpoints",),
}
_ENDINGS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
_MAX_FILES = 100_000
_MAX_CODE = 4 * 2**20  # bytes of a file of code
_VERSION = re.compile(r"""^(?:__version__|version)\s*=\s*["']([^"'\n]{1,40})["']""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file that a family needs, by the names that it is published and renamed under.

    kind      a key of PLACES
    example   the name in ComfyUI's own templates, for the user to look for
    names     patterns; letters are small, and '-', '.' and ' ' are '_'
    without   words that make it another model's file
    """

    kind: str
    example: str
    names: tuple[str, ...]
    without: tuple[str, ...] = ()

    def matches(self, name: str) -> bool:
        plain = re.sub(r"[-. ]", "_", name.lower())
        return any(fnmatch(plain, pattern) for pattern in self.names) and not any(word in plain for word in self.without)


def _klein(size: str, kind: str, example: str) -> tuple[ModelFile, ...]:
    others = {"": ("base", "_kv"), "_base": ("_kv",), "_kv": ("base",)}[kind]
    encoder, size_of_encoder = {"4b": ("qwen_3_4b.safetensors", "4b"), "9b": ("qwen_3_8b_fp8mixed.safetensors", "8b")}[size]
    return (
        ModelFile("model", example, (f"*flux*2*klein*{kind}*{size}*", f"*flux*2*klein*{size}*{kind}*"), others),
        ModelFile("text encoder", encoder, (f"*qwen*3*_{size_of_encoder}*",), ("vl", "3_5")),
        FLUX2_VAE,
    )


FLUX2_VAE = ModelFile("VAE", "flux2-vae.safetensors", ("*flux2*vae*", "*flux_2*vae*", "*full_encoder_small_decoder*"))
FLUX_VAE = ModelFile("VAE", "ae.safetensors", ("ae_*", "*flux*vae*"), ("flux2", "flux_2"))
QWEN_VAE = ModelFile("VAE", "qwen_image_vae.safetensors", ("*qwen*image*vae*",), ("2_1", "layered"))
QWEN2_5_VL = ModelFile("text encoder", "qwen_2.5_vl_7b_fp8_scaled.safetensors", ("*qwen*2_5*vl*7b*",), ("mmproj",))
QWEN3_4B = ModelFile("text encoder", "qwen_3_4b.safetensors", ("*qwen*3*_4b*",), ("vl", "3_5"))
CLIP_L = ModelFile("text encoder", "clip_l.safetensors", ("*clip_l*",))
T5 = ModelFile("text encoder", "t5xxl_fp8_e4m3fn_scaled.safetensors", ("*t5*xxl*",), ("umt5",))

# Every family: sets of files of which one set is enough. `text-to-image` takes whatever there is.
FILES: dict[str, tuple[tuple[ModelFile, ...], ...]] = {
    "qwen-image-2.1": ((
        ModelFile("model", "qwen_image_2.1_int8_convrot.safetensors", ("*qwen*image*2_1*",), ("vae",)),
        ModelFile("text encoder", "qwen3vl_8b_int8_convrot.safetensors", ("*qwen3*vl*8b*", "*qwen_3*vl*8b*"), ("mmproj",)),
        ModelFile("VAE", "qwen_image_2.1_vae_bf16.safetensors", ("*qwen*image*2_1*vae*",)),
    ),),
    "qwen-image-edit-2511": ((
        ModelFile("model", "qwen_image_edit_2511_fp8mixed.safetensors", ("*qwen*image*edit*2511*",)), QWEN2_5_VL, QWEN_VAE,
    ),),
    "qwen-image-edit-2509": ((
        ModelFile("model", "qwen_image_edit_2509_fp8_e4m3fn.safetensors", ("*qwen*image*edit*2509*",)), QWEN2_5_VL, QWEN_VAE,
    ),),
    "flux2-klein": (_klein("4b", "", "flux-2-klein-4b-fp8.safetensors"), _klein("9b", "", "flux-2-klein-9b-fp8.safetensors")),
    "flux2-klein-base": (
        _klein("4b", "_base", "flux-2-klein-base-4b-fp8.safetensors"),
        _klein("9b", "_base", "flux-2-klein-base-9b-fp8.safetensors"),
    ),
    "flux2-klein-kv": (_klein("9b", "_kv", "flux-2-klein-9b-kv-fp8.safetensors"),),
    "flux2-dev": ((
        ModelFile("model", "flux2_dev_fp8mixed.safetensors", ("*flux2*dev*", "*flux_2*dev*")),
        ModelFile("text encoder", "mistral_3_small_flux2_fp8.safetensors", ("*mistral*small*",), ("mmproj",)), FLUX2_VAE,
    ),),
    "flux-kontext": ((
        ModelFile("model", "flux1-dev-kontext_fp8_scaled.safetensors", ("*flux*kontext*",)), CLIP_L, T5, FLUX_VAE,
    ),),
    "qwen-image": ((
        ModelFile("model", "qwen_image_fp8_e4m3fn.safetensors", ("*qwen*image*",), ("edit", "2_1", "layered", "vae")),
        QWEN2_5_VL, QWEN_VAE,
    ),),
    "flux": (
        (ModelFile("model", "flux1-dev.safetensors", ("*flux*1*dev*", "*flux*schnell*", "*flux_dev*"),
                   ("kontext", "fill", "flux2", "flux_2", "canny", "depth")),
         CLIP_L, T5, FLUX_VAE),
        (ModelFile("checkpoint", "flux1-dev-fp8.safetensors", ("*flux1*", "*flux_1*")),),
    ),
    "z-image": ((
        ModelFile("model", "z_image_turbo_bf16.safetensors", ("*z_image*", "*zimage*")), QWEN3_4B, FLUX_VAE,
    ),),
    "sd3": ((ModelFile("checkpoint", "sd3.5_large_fp8_scaled.safetensors", ("*sd3*", "*sd_3*")),),),
    "sdxl": ((ModelFile("checkpoint", "sd_xl_base_1.0.safetensors", ("*xl*",), ("refiner",)),),),
    "sd15": ((ModelFile("checkpoint", "v1-5-pruned-emaonly-fp16.safetensors", ("*v1_5*", "*sd15*", "*sd1_5*", "*sd_1_5*")),),),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyState:
    """What is there of a family. `nodes` are those that the core lacks, with the version that has them first."""

    name: str
    title: str
    found: tuple[str, ...]
    missing: tuple[ModelFile, ...]
    nodes: tuple[Need, ...]

    @property
    def is_ready(self) -> bool:
        return not self.missing and not self.nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderState:
    """What there is in all. `damaged` are sentences about files that cannot be loaded."""

    folder: Path
    version: str
    families: tuple[FamilyState, ...]
    damaged: tuple[str, ...]
    notes: tuple[str, ...]


def look_at(folder: str | Path, more_models: Iterable[str | Path] = ()) -> FolderState:
    """Looks through a ComfyUI folder, and through further folders that are laid out like its models/.

    InputError when a folder is not there, or is no ComfyUI.
    """
    core = _core(Path(folder))
    places = [core / "models", *map(Path, more_models)]
    for place in places[1:]:
        if not place.is_dir():
            raise InputError(f"there is no folder {place}; give one that holds diffusion_models, text_encoders, vae, ...")
    held = {kind: _files(places, names) for kind, names in PLACES.items()}
    code = _code(core)
    states = tuple(_state(family, held, code) for name, family in families().items() if name in FILES)
    used = {name for state in states for name in state.found}
    damaged = [reason for files in held.values() for name, path in files.items() if name in used and (reason := _damage(path))]
    notes = []
    if (core / "extra_model_paths.yaml").is_file():
        notes.append("extra_model_paths.yaml names further model folders; name them with --models to have them looked at")
    if any(name.lower().endswith(".gguf") for name in used) and not _loads_gguf(core):
        notes.append("no custom node for .gguf files is there; they need one such as ComfyUI-GGUF")
    known = {file for sets in FILES.values() for files in sets for file in files if file.kind == "checkpoint"}
    if others := [name for name in held["checkpoint"] if not any(file.matches(name) for file in known)]:
        notes.append(f"{_listed(others)}: the name does not tell the family; ComfyUI will when it is loaded")
    return FolderState(folder=core, version=_version(core), families=states, damaged=tuple(damaged), notes=tuple(notes))


def has_node(need: Need, code: dict[str, str]) -> bool:
    """Whether some file of the core defines the node, and names the choice beside it."""
    defined = re.compile(rf"""class {re.escape(need.node)}\b|["']{re.escape(need.node)}["']""")
    return any(
        defined.search(text) and (not need.choice or re.search(rf"""["']{re.escape(need.choice)}["']""", text))
        for text in code.values()
    )


def _core(folder: Path) -> Path:
    """The folder with ComfyUI's code: the one given, or the one inside of a portable installation."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the one that holds ComfyUI's main.py")
    for core in (folder, folder / "ComfyUI"):
        if (core / "nodes.py").is_file() and (core / "comfy").is_dir():
            return core
    raise InputError(f"{folder} is no ComfyUI: it holds no nodes.py beside a folder comfy; give the one with main.py")


def _code(core: Path) -> dict[str, str]:
    """The core's node files as text. Files of custom nodes are not among them: they prove nothing about the core."""
    paths = [core / "nodes.py", *sorted((core / "comfy_extras").glob("*.py"))]
    found = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                found[path.name] = file.read(_MAX_CODE).decode("utf-8", errors="replace")
        except OSError:
            continue  # one file less to find nodes in
    return found


def _loads_gguf(core: Path) -> bool:
    """Whether custom nodes are there whose folder says so; they are not looked into."""
    return any("gguf" in path.name.lower() for path in (core / "custom_nodes").glob("*"))


def _version(core: Path) -> str:
    for name in ("comfyui_version.py", "pyproject.toml"):
        try:
            with open(core / name, "rb") as file:
                text = file.read(2**16).decode("utf-8", errors="replace")
        except OSError:
            continue
        if found := _VERSION.search(text):
            return found[1]
    return ""


def _files(places: list[Path], names: tuple[str, ...]) -> dict[str, Path]:
    """Weights below these folders by file name; the first of a name counts, as in ComfyUI. Links to folders are followed once."""
    found: dict[str, Path] = {}
    seen: set[str] = set()
    for root in (place / name for place in places for name in names):
        for folder, below, files in os.walk(root, followlinks=True):
            if (real := os.path.realpath(folder)) in seen or len(found) > _MAX_FILES:
                below.clear()
                continue
            seen.add(real)
            below.sort()
            for name in sorted(files):
                if name.lower().endswith(_ENDINGS):
                    found.setdefault(name, Path(folder) / name)
    return found


def _state(family: GraphFamily, held: dict[str, dict[str, Path]], code: dict[str, str]) -> FamilyState:
    """The set of files of which least is missing; the first of several."""
    best = None
    for files in FILES[family.name]:
        matches = {file: [name for name in held[file.kind] if file.matches(name)] for file in files}
        missing = tuple(file for file, names in matches.items() if not names)
        # A VAE or an encoder alone says nothing about what the user has of a family, so the model itself weighs more.
        weight = sum(2 if file.kind in ("model", "checkpoint") else 1 for file in missing)
        if best is None or weight < best[0]:
            best = weight, tuple(name for names in matches.values() for name in names), missing
    _, found, missing = best
    lacking = tuple(need for need in family.needs if not has_node(need, code))
    return FamilyState(name=family.name, title=family.title, found=found, missing=missing, nodes=lacking)


def _damage(path: Path) -> str:
    """A sentence when a file cannot be what its name says: a page of HTML, a pointer, or half of a download."""
    try:
        if path.suffix.lower() in (".safetensors", ".sft"):
            read_header(path)
        elif path.suffix.lower() == ".gguf":
            with open(path, "rb") as file:
                if file.read(4) != b"GGUF":
                    return f"{path} is no GGUF file; copy or download it again"
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    return ""


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
