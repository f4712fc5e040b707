"""What `--check` tells of the stages `visualizer` and `dpcw`: parts, bucket table, memory and disk, without loading weights."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import torch
from transformers import AutoConfig

from training.estimate import Inspection, Part, transformer_activations
from training.picture_records import PictureRecord, bucket_of, bucket_sizes, bucket_table, read_picture_folder
from training.stages.exported_pair import sampling_of
from training.stages.planner import check_image_size
from training.stages.twin_lora import add_twin_lora
from training.stages.visualizer import new_twin, planner_side
from training.stages.visualizer_settings import Settings
from weaver_core.errors import WeaverError
from weaver_core.memory import weights_of_files
from weaver_core.model.checkpoint import default_device, default_dtype
from weaver_core.model.twin_dit import TwinDiT

STRIDE = 8  # pixels a side of a latent
PROMPT_TOKENS = 64  # of a dense prompt, about


def inspect_visualizer(settings: Settings, config, problems) -> Inspection:
    """See `training.stages`. Wrong folders and records become problems."""
    found, known = Inspection(), len(problems.messages)
    folders = {"planner": Path(settings.planner) / "planner", "autoencoder": Path(settings.autoencoder)}
    if settings.init is not None:
        folders["init"] = Path(settings.init)
    for key, folder in folders.items():
        if not (folder / "config.json").is_file():
            problems.add(key, f"{key} = {str(getattr(settings, key))!r}: no {(folder / 'config.json')} there; give the export folder of an "
                         "earlier run" + (", or base, a whole pair" if settings.base is None else ""))
    if len(problems.messages) > known:
        return found
    vision_config = AutoConfig.from_pretrained(folders["planner"], local_files_only=True).vision_config
    check_image_size("data.image_size", planner_side(settings), vision_config, problems)
    with torch.device("meta"):
        twin = _twin(settings)
    count = sum(p.numel() for p in twin.parameters())
    if settings.lora.rank:
        try:
            add_twin_lora(twin, settings.lora)
        except ValueError as error:
            problems.add("lora.targets", str(error))
        except ImportError:
            problems.add("lora.rank", 'a LoRA needs peft: pip install "wan-weaver[lora]"')
    trained = sum(p.numel() for p in twin.parameters() if p.requires_grad)
    added = trained if settings.lora.rank else 0
    found.parts = [Part(name="visualizer", num_values=count + added, num_trained=trained, bytes=4 * (count + added)),
                   *(_frozen(name, folders[name], half=name == "planner", config=config) for name in ("planner", "autoencoder"))]
    side, images = settings.data.image_size, 1.0
    if settings.data.source is not None:
        images = _own_pictures(settings, config, twin, found, problems)
    else:
        found.notes += [f"pages of {width}x{height} ({aspect}): {share / sum(settings.data.aspects.values()):.0%} of the batches"
                        for (aspect, share), (width, height) in zip(settings.data.aspects.items(), settings.data.sizes().values())]
        last = settings.data.phases[-1]
        images += 2 if last.mi2i else 1 if last.si2i or last.story else 0
    step = STRIDE * twin.config.patch
    tokens = int(settings.data.batch_size * (images * (side // step) ** 2 + PROMPT_TOKENS))
    found.batch = found.batch or f"{settings.data.batch_size} pictures of about {side} x {side} pixels with up to {images - 1:g} references"
    found.activations = transformer_activations(
        tokens, twin.config.width, twin.config.num_layers, checkpointed=config.train.activation_checkpointing,
        bytes_per_value=2 if config.train.autocast else 4)
    return found


def _own_pictures(settings: Settings, config, twin: TwinDiT, found: Inspection, problems) -> float:
    """Tells of the records, and returns how many pictures a shot has at most, its references among them."""
    if config.stage == "dpcw":
        problems.add("data.source", 'data.source is for stage = "visualizer": pictures with captions are no stories with windows to cut out')
        return 1.0
    try:
        records = read_picture_folder(settings.data.source, most_references=twin.config.reference_slots or 4)
    except WeaverError as error:
        problems.add("data.source", f"data.source = {settings.data.source!r}:\n{error}")
        return 1.0
    buckets = bucket_sizes(settings.data.image_size, STRIDE * twin.config.patch, settings.data.max_aspect)
    found.notes += bucket_table(records, buckets, settings.data.batch_size)
    groups = Counter(tuple(bucket_of(size, buckets) for size in (record.size, *record.reference_sizes)) for record in records)
    batches = sum(-(-count // settings.data.batch_size) for count in groups.values())  # that show every picture once
    found.notes.append(f"every picture is seen about {config.train.steps * config.train.accumulate / batches:.0f} times")
    found.notes.append(f"latents take {_latent_bytes(records, buckets, twin) / 2**20:.1f} MB in {settings.data.cache}")
    drawn = sampling_of(settings)
    if not drawn.size_multiple and (others := {bucket_of(record.size, buckets) for record in records} - set(map(tuple, drawn.sizes))):
        told = ", ".join(f"{width}x{height}" for width, height in drawn.sizes)
        found.notes.append(f"the pair draws pages of {told} only; {len(others)} buckets have other sizes, from which it learns all the same "
                           "(data.max_aspect = 1 cuts every picture square)")
    return 1.0 + max(len(record.references) for record in records)


def _latent_bytes(records: list[PictureRecord], buckets: list, twin: TwinDiT) -> int:
    sizes = [bucket_of(size, buckets) for record in records for size in (record.size, *record.reference_sizes)]
    return sum(4 * twin.config.latent_channels * (width // STRIDE) * (height // STRIDE) for width, height in sizes)


def _twin(settings: Settings) -> TwinDiT:
    if settings.init is not None:
        facts = json.loads((Path(settings.init) / "config.json").read_text(encoding="utf-8"))
        return TwinDiT.from_config({key: value for key, value in facts.items() if not key.startswith("_")})
    planner = AutoConfig.from_pretrained(Path(settings.planner) / "planner", local_files_only=True).get_text_config()
    facts = json.loads((Path(settings.autoencoder) / "config.json").read_text(encoding="utf-8"))
    return new_twin(settings.model, planner, facts.get("latent_channels") or facts["z_dim"])


def _frozen(name: str, folder: Path, *, half: bool, config) -> Part:
    device = torch.device(config.train.device) if config.train.device != "auto" else default_device()
    count = weights_of_files(folder).num_values
    return Part(name=name, num_values=count, num_trained=0, bytes=count * (default_dtype(device).itemsize if half else 4))
