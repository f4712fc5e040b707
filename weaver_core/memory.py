"""How much memory a model is going to take, told before any of it is loaded.

Weights are exact: they are read from the headers of the .safetensors files, or counted on the meta device from a config where
there are no files yet. The key/value cache is exact too for attention that keeps every token. Activations and the
autoencoder's work are rough (our choice, by the widths of the layers) and are always called so.

All sizes are bytes; GIB = 2**30 of them, which is what graphics cards are sold in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from .errors import InputError
from .planners.transformers_planner import NOT_QUANTIZED

GIB = 2**30
NATIVE = "as stored"
# Bytes per weight of linear layers; all else (norms, embeddings, convolutions) stays in 16 bits below that.
#   fp8   one byte, scales not counted
#   q4    GGUF Q4_K: 256 weights in a block of 144 bytes
#   nf4   4 bits, a byte per 64 weights (its scale, itself quantized), and 4 bytes per 256 of those
FORMATS = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "fp8": 1.0, "q4": 144 / 256, "nf4": 0.5 + 1 / 64 + 4 / (64 * 256)}
PLAN_TOKENS = 8192  # instruction with its examples, some pictures, and a long plan
ACTIVATION_WIDTHS = 24  # values per token and width that live at once in a block: queries, keys, values, the wide layer, norms
DECODE_BYTES_PER_PIXEL = 1536  # of an autoencoder at full resolution: a few maps of about 256 channels in 16 bits
IMAGE_STRIDE = 16  # pixels per token and side: autoencoders of stride 8 with patches of 2, or stride 16

_MAX_HEADER = 100 * 2**20  # the format's own limit
_EMBEDDINGS = {  # tables of vectors, which are stored like linear layers; by what transformers and diffusers call them
    "embed_tokens", "embed_positions", "token_embedding", "position_embedding", "word_embeddings", "position_embeddings",
    "token_type_embeddings", "pos_embed", "shared", "wte", "wpe", "relative_attention_bias",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What the weights of a model are made of.

    num_values   numbers in floating-point tensors
    num_linear   of those, the ones in linear layers that 4-bit loading packs
    stored       bytes of all tensors as they lie on disk; None = there are no files
    fixed        bytes of tensors that are no floating-point numbers, which keep their format
    """

    num_values: int
    num_linear: int
    stored: int | None = None
    fixed: int = 0

    def bytes_as(self, format: str) -> int:
        """Bytes when loaded in one of FORMATS, or as they are stored."""
        if format == NATIVE and self.stored is not None:
            return self.stored
        if format not in FORMATS:
            raise InputError(f"format is {format!r}; it must be one of {', '.join(FORMATS)}")
        rest = max(FORMATS[format], 2.0)
        return round(self.num_linear * FORMATS[format] + (self.num_values - self.num_linear) * rest) + self.fixed

    def __add__(self, other: Weights) -> Weights:
        known = self.stored is not None and other.stored is not None
        return Weights(
            num_values=self.num_values + other.num_values, num_linear=self.num_linear + other.num_linear,
            stored=self.stored + other.stored if known else None, fixed=self.fixed + other.fixed,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes at the highest point of the work. `working` (activations, decoding) is rough."""

    weights: int
    cache: int = 0
    working: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.working

    def __str__(self) -> str:
        kept = f", {self.cache / GIB:.1f} GB key/value cache" if self.cache else ""
        return (f"about {self.total / GIB:.1f} GB: {self.weights / GIB:.1f} GB weights{kept}, roughly "
                f"{self.working / GIB:.1f} GB while it works (estimated, not measured)")  # fmt: skip


# ---- whole models


def estimate_planner(folder: str | Path, *, format: str = "bfloat16", tokens: int = PLAN_TOKENS) -> Estimate:
    """A chat model that reads and writes `tokens` in all. InputError for a folder that holds no such model."""
    config = _config(Path(folder)).get_text_config()
    if not all(hasattr(config, name) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")):
        raise InputError(f"{folder} is a {config.model_type} model, which writes no text; take a chat model such as Qwen3-VL")
    return Estimate(
        weights=weights_of(folder).bytes_as(format), cache=tokens * cache_bytes_per_token(config),
        working=activation_bytes(tokens, config.hidden_size),
    )  # fmt: skip


def estimate_pipeline(
    folder: str | Path, *, format: str = "bfloat16", size: tuple[int, int] = (1024, 1024), references: int = 2,
    offloads: bool = True,
) -> Estimate:  # fmt: skip
    """A folder of a diffusers pipeline that draws one image.

    offloads   parts come to the card one after the other (ComfyUI, or model offload), else all stay there
    """
    parts = {name: weights.bytes_as(format) for name, weights in weights_by_part(folder).items()}
    if not any(map(_draws, parts)):
        raise InputError(f"{folder} is no pipeline: it has no folder transformer or unet; give the one with model_index.json")
    width = max((_width(Path(folder) / name / "config.json") for name in parts))
    drawing = drawing_bytes(size, width, references)
    decoding = size[0] * size[1] * DECODE_BYTES_PER_PIXEL
    if not offloads:
        return Estimate(weights=sum(parts.values()), working=max(drawing, decoding))
    work = {name: drawing if _draws(name) else decoding if name.startswith("vae") else 0 for name in parts}
    highest = max(parts, key=lambda name: parts[name] + work[name])
    return Estimate(weights=parts[highest], working=work[highest])


def cache_bytes_per_token(config, bytes_per_value: int = 2) -> int:
    """Bytes of keys and values that a language model keeps for a token; layers without attention keep nothing per token.

    config   of transformers, the text part. Layers with a sliding window are counted as if they kept everything: a bound
    """
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    num_layers = sum("linear" not in kind and "mamba" not in kind and "conv" not in kind for kind in kinds)
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * num_layers * num_heads * head * bytes_per_value


def activation_bytes(num_tokens: int, width: int) -> int:
    """Rough: what one block of a transformer holds while it works, in 16 bits, with attention that keeps no score matrix."""
    return ACTIVATION_WIDTHS * num_tokens * width * 2


def drawing_bytes(size: tuple[int, int], width: int, references: int) -> int:
    """Rough: activations for an image and its references, which are as large as itself."""
    return activation_bytes((1 + references) * (size[0] // IMAGE_STRIDE) * (size[1] // IMAGE_STRIDE), width)


# ---- weights


def weights_of(folder: str | Path) -> Weights:
    """All weights of a model folder together."""
    first, *others = weights_by_part(folder).values()
    return sum(others, start=first)


def weights_by_part(folder: str | Path) -> dict[str, Weights]:
    """Weights of a transformers folder under "", or of each part of a diffusers (or our own) folder under its name.

    Files are read where there are any, configs where there are none. InputError when the folder holds no model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the folder of a model")
    places = {"": folder}
    if (folder / "model_index.json").is_file():
        places = {path.name: path for path in sorted(folder.iterdir()) if (path / "config.json").is_file()}
    parts = {}
    for name, place in places.items():
        if any(place.glob("*.safetensors")):
            parts[name] = weights_of_files(place)
        elif (place / "config.json").is_file():
            parts[name] = weights_of_config(place)
    if not parts:
        raise InputError(f"{folder} holds neither .safetensors files nor a config.json; give the folder of a model")
    return parts


def weights_of_files(folder: Path) -> Weights:
    """Counted in the headers of a folder's .safetensors files. InputError for a damaged file."""
    found = Weights(num_values=0, num_linear=0, stored=0)
    for path in _weight_files(folder):
        for name, tensor in read_header(path).items():
            count, (begin, end) = prod(tensor["shape"]), tensor["data_offsets"]
            is_float = tensor["dtype"].startswith(("F", "BF"))
            found += Weights(
                num_values=count if is_float else 0, num_linear=count if is_float and _is_linear(name, tensor["shape"]) else 0,
                stored=end - begin, fixed=0 if is_float else end - begin,
            )  # fmt: skip
    return found


def weights_of_config(folder: Path) -> Weights:
    """Counted on the meta device, which has shapes and no numbers; only classes of transformers and diffusers are built."""
    import torch

    with torch.device("meta"):
        return weights_of_module(_built(Path(folder)))


def weights_of_module(module) -> Weights:
    """Counted in a torch module: parameters once each, and the buffers that are saved with them."""
    import torch

    linear = {
        id(layer.weight): layer.weight.numel()
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and not _stays_whole(name)
    }
    tensors = {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}.values()
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    return Weights(
        num_values=sum(tensor.numel() for tensor in floats), num_linear=sum(linear.values()),
        fixed=sum(tensor.nbytes for tensor in tensors if not tensor.is_floating_point()),
    )  # fmt: skip


def read_header(path: Path) -> dict[str, dict]:
    """{tensor: {"dtype", "shape", "data_offsets"}} of a .safetensors file. InputError when it is damaged or cut short.

    Read here and not through the library, which needs to know every dtype: ComfyUI's files have some of their own.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _MAX_HEADER:
                raise ValueError("it does not begin like one")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for tensor in header.values():
            begin, end = tensor["data_offsets"]
            if not all(isinstance(number, int) and number >= 0 for number in (*tensor["shape"], begin, end - begin)):
                raise ValueError("the sizes in its header are none")
            if not isinstance(tensor["dtype"], str):
                raise ValueError("a number format in its header is none")
        wanted = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no .safetensors file ({str(error)[:100]}); copy or download it again") from None
    if path.stat().st_size < wanted:
        raise InputError(f"{path} is cut short: {path.stat().st_size:,} of {wanted:,} bytes; copy or download it again")
    return header


# ---- small parts


def _weight_files(folder: Path) -> list[Path]:
    """The files that are loaded: those of the index, or the usual one; never a second copy in another precision."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        if index.name.count(".") == 3:  # a fourth dot is a variant, such as .fp16
            named = _read_json(index).get("weight_map")
            if not isinstance(named, dict) or not named:
                raise InputError(f"{index} names no files; copy it again")
            return [folder / name for name in sorted({Path(str(name)).name for name in named.values()})]
    files = sorted(folder.glob("*.safetensors"))
    usual = [path for path in files if path.name in ("model.safetensors", "diffusion_pytorch_model.safetensors")]
    return usual or files


def _is_linear(name: str, shape) -> bool:
    """Whether 4-bit loading packs a tensor: by its name and shape, since headers do not tell layers."""
    *path, kind = name.split(".")
    return kind == "weight" and len(shape) == 2 and bool(path) and path[-1] not in _EMBEDDINGS and not _stays_whole(name)


def _stays_whole(name: str) -> bool:
    return not set(NOT_QUANTIZED).isdisjoint(name.split("."))


def _config(folder: Path):
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{folder} holds no model that transformers knows: {reason}") from None


def _built(folder: Path):
    """The model that config.json describes, without numbers in it."""
    facts = _read_json(folder / "config.json")
    if "_class_name" in facts:
        import diffusers

        kind = getattr(diffusers, str(facts["_class_name"]), None)
        if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
            raise InputError(f"{folder} holds a {facts['_class_name']!r}, which diffusers {diffusers.__version__} has not")
        return _checked(folder, kind.from_config, {key: value for key, value in facts.items() if not key.startswith("_")})
    import transformers

    config = _config(folder)
    name = str((getattr(config, "architectures", None) or [""])[0])
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise InputError(f"{folder} holds a {name or 'model without a name'!r}, which transformers {transformers.__version__} "
                         "has not")  # fmt: skip
    return _checked(folder, kind, config)


def _checked(folder: Path, build, config):
    try:
        return build(config)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise InputError(f"{folder / 'config.json'} does not describe a model: {str(error)[:200]}; copy it again") from None


def _width(config: Path) -> int:
    """Values per token in the part of a pipeline that draws; 0 for other parts."""
    facts = _read_json(config)
    if not _draws(config.parent.name):
        return 0
    heads = facts.get("num_attention_heads") or facts.get("n_heads") or 0
    if isinstance(heads, int) and heads and "attention_head_dim" in facts:
        return heads * facts["attention_head_dim"]
    return facts.get("dim") or max(facts.get("block_out_channels") or [0])


def _draws(part: str) -> bool:
    return part.startswith(("transformer", "unet"))


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object; copy the folder again")
    return value
