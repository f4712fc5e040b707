"""Stage `chat_planner`: a chat model of the user's own learns to plan from the user's own records, whole, by LoRA or by QLoRA.

It reads the conversation that `weaver plan --planner` holds, so nothing is learned that is not asked for later. Generation and
understanding records come in a ratio, the paper's 5 to 1 by default (section 3); the loss lies on the answer only; pictures go
through the model's own ViT.

Axes: B rows, T tokens, K tokens with a loss.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from training.estimate import Inspection, Part, score_activations, transformer_activations
from training.packing import IGNORED, BatchOrder, Draw, length_table
from training.records import check_held_out, read_records, split
from training.stages.chat_rows import ChatRows, collate_packed, collate_padded, request_of
from training.stages.lora import LoraSettings, add_lora, save_lora
from training.stages.sequence_loss import answer_loss, keeps_apart, packed_positions
from weaver_core.errors import InputError
from weaver_core.memory import NOT_QUANTIZED, weights_of_module
from weaver_core.planners import PlannerOptions
from weaver_core.planners.transformers_planner import ChatText, TransformersPlanner

log = logging.getLogger("training")
ATTENTIONS = ("sdpa", "flex_attention", "eager", "flash_attention_2")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    quantization: str | None = None  # "nf4": the frozen weights of a LoRA in 4 bits (QLoRA); needs bitsandbytes
    attention: str = "sdpa"  # or "flex_attention" (GPU), whose block masks skip what packed sequences may not see
    train_vision: bool = False  # whether the ViT learns too, where the whole model is trained
    compile: bool = False  # block by block; costs a minute or more at the start, and again for every new length without packing

    def __post_init__(self):
        if self.quantization not in (None, "nf4"):
            raise ValueError(f"model.quantization is {self.quantization!r}; it must be \"nf4\", or be left out")
        if self.attention not in ATTENTIONS:
            raise ValueError(f"model.attention is {self.attention!r}; it must be one of {', '.join(ATTENTIONS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    source: str  # a .jsonl file of records, or a folder of such files; the keys of a record are in training/README.md
    batch_tokens: int = 4096  # budget of a batch; a record that is longer is left out, and named
    packing: bool = True  # sequences behind one another in one row, kept apart by the mask; else a row each, padded
    generation_ratio: float = 5.0  # generation records for one understanding record; the paper's 5g1u
    told_counts: float = 0.5  # share of the requests that say how many images are wanted
    held_out: float = 0.05  # share of the records that are only measured with

    def __post_init__(self):
        check_held_out(self.held_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    records: int = 32  # held-out records per kind whose loss is measured
    plans: int = 2  # written at every evaluation, by the sampler of nodes and command line
    max_new_tokens: int = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    base: str  # the chat model: a folder, or a name on the Hugging Face hub
    data: DataSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    checks: CheckSettings = field(default_factory=CheckSettings)

    def __post_init__(self):
        if self.model.quantization and not self.lora.rank:
            raise ValueError("model.quantization is set, but 4-bit weights cannot learn; give lora.rank (QLoRA), or leave it out")
        if self.model.train_vision and self.lora.rank:
            raise ValueError("model.train_vision = true, but lora.rank is set and a LoRA leaves the ViT alone; leave one of them out")


def build(settings: Settings, *, seed: int, run_dir: Path, device) -> ChatPlannerStage:
    return ChatPlannerStage(settings, seed=seed, device=torch.device(device))


class ChatPlannerStage:
    def __init__(self, settings: Settings, *, seed: int, device: torch.device):
        self.settings, self.device = settings, device
        # The nodes' own planner: the model is loaded by it, and samples are written by it.
        dtype = torch.float32 if not settings.lora.rank or device.type == "cpu" else torch.bfloat16
        self.writer = TransformersPlanner(settings.base, device=device, dtype=dtype, quantization=settings.model.quantization)
        model = self.writer.model
        if settings.model.attention != "sdpa":
            model.set_attn_implementation(settings.model.attention)
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        self.base, self.head = model.base_model, model.get_output_embeddings()
        self.softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self._check_scores(model)
        self.packs = settings.data.packing and self._can_pack()
        self.data = ChatData(settings.data, ChatText.open(settings.base), seed=seed, packed=self.packs,
                             fills=settings.model.attention == "flex_attention")
        if settings.lora.rank:
            model = add_lora(model, settings.lora, settings.base)
        else:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(settings.model.train_vision or not _is_vision(name))
        self.model = model
        self.trainable, self.frozen = {"planner": model}, {}
        language_model = getattr(self.base, "language_model", self.base)
        self.layers = language_model.layers
        if settings.model.compile:
            for layer in self.layers:
                layer.compile(dynamic=not self.data.fills)

    def batch(self, index: int) -> dict:
        return self.data.batch(index)

    def names(self, index: int) -> list[str]:
        """Where the records of a batch stand, for messages about it."""
        return self.data.names(index)

    def weight(self, batch: dict) -> float:
        """The number of answer tokens, which the loss is a mean over."""
        return float((batch["labels"][:, 1:] != IGNORED).sum())

    def loss(self, batch: dict) -> tuple[torch.Tensor, dict]:
        loss_K, right_K = self.losses(batch)
        return loss_K.mean() * batch.get("loss_factor", 1.0), {
            "cross_entropy": loss_K.detach().mean(), "accuracy": right_K.float().mean(),
            "tokens": batch["num_tokens"], "answer_tokens": len(loss_K)}

    def losses(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of every answer token, and whether the likeliest token is right."""
        pictures = {name: value for name, value in batch.items()
                    if isinstance(value, torch.Tensor) and name not in ("input_ids", "labels", "types", "attention_mask")}
        if "attention_mask" in batch:
            where = {"attention_mask": batch["attention_mask"]}
            if self._has_rope_index:
                where["position_ids"] = self.base.get_rope_index(
                    batch["input_ids"], mm_token_type_ids=batch["types"], attention_mask=batch["attention_mask"],
                    image_grid_thw=pictures.get("image_grid_thw"))[0]
        else:
            where = {"position_ids": self._positions(batch["lengths"], batch["input_ids"], batch["types"], pictures.get("image_grid_thw"))}
        hidden_BTD = self.base(input_ids=batch["input_ids"], use_cache=False, **where, **pictures).last_hidden_state
        return answer_loss(self.head, hidden_BTD, batch["labels"], self.softcap)

    def _positions(self, lengths: list[int], ids_1T: torch.Tensor, types_1T: torch.Tensor, grids) -> torch.Tensor:
        if not self._has_rope_index:
            return packed_positions(lengths, None, ids_1T.device)
        parts, seen = [], 0
        for ids, types in zip(ids_1T[0].split(lengths), types_1T[0].split(lengths)):
            # An image's tokens stand together, so every run of them is an image.
            count = int((types.diff(prepend=types.new_zeros(1)) > 0).sum())
            mine = None if grids is None or not count else grids[seen:seen + count]
            seen += count
            parts.append(self.base.get_rope_index(ids[None], mm_token_type_ids=types[None], image_grid_thw=mine)[0][:, 0])
        return packed_positions(lengths, torch.cat(parts, 1), ids_1T.device)

    @cached_property
    def _has_rope_index(self) -> bool:
        return hasattr(self.base, "get_rope_index")

    def _can_pack(self) -> bool:
        def positions(lengths: list[int]) -> torch.Tensor:
            ids = torch.zeros(1, sum(lengths), dtype=torch.long, device=self.device)
            return self._positions(lengths, ids, ids, None)

        if keeps_apart(self.base, positions, self.device, self.vocabulary):
            return True
        log.warning("%s mixes packed sequences (its layers have a memory of another kind); they are padded instead", self.settings.base)
        return False

    @torch.no_grad()
    def _check_scores(self, model) -> None:
        """The loss takes hidden states to scores itself; models that do more than that would learn something else."""
        ids = torch.arange(1, 4, device=self.device)[None]
        hidden = self.base(input_ids=ids, use_cache=False).last_hidden_state
        mine = self.head(hidden).float()
        mine = mine if self.softcap is None else self.softcap * torch.tanh(mine / self.softcap)
        if not torch.allclose(mine, model(input_ids=ids, use_cache=False).logits.float(), atol=0.1, rtol=0.02):
            raise InputError(f"{self.settings.base} scales its scores in a way of its own, which this trainer does not know; take another model")

    # ---- looking

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        numbers = {}
        rows = self.data.held_out_rows
        for kind in ("generation", "understanding"):
            mine = [i for i, record in enumerate(rows.records) if record.kind == kind][:self.settings.checks.records]
            losses = []
            for i in mine:
                row = rows.row(Draw(i, 0))
                if len(row.ids_T) <= self.settings.data.batch_tokens:
                    batch = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in self.data.collate([row]).items()}
                    losses.append(self.losses(batch)[0])
            if losses:
                numbers[f"loss_{kind}"] = torch.cat(losses).mean().item()
        return numbers

    def samples(self, folder: Path) -> None:
        """Plans for held-out requests (or the first ones), written by the sampler that nodes and command line use."""
        plans = [record for record in self.data.held_out_rows.records or self.data.kept if record.plan is not None]
        for number, record in enumerate(plans[:self.settings.checks.plans]):
            options = PlannerOptions(max_tokens=self.settings.checks.max_new_tokens, num_images=len(record.plan.images), temperature=0)
            text = "".join(self.writer.write(request_of(record), (), options=options, cancel=lambda: False))
            (folder / f"plan_{number + 1}.md").write_text(f"<!-- {record.where}: {record.request} -->\n{text}\n", encoding="utf-8")

    def export(self, folder: Path) -> None:
        base = self.settings.base
        if self.settings.lora.rank:
            report = save_lora(self.model, folder)
            option = " --planner-4bit" if self.settings.model.quantization else ""
            log.info('LoRA: %s. Use it: weaver plan "..." --planner %s%s --planner-lora <run>/export', report, base, option)
            return
        half = {name: value.to(torch.bfloat16) if value.is_floating_point() else value for name, value in self.model.state_dict().items()}
        config = copy.deepcopy(self.model.config)
        try:
            self.model.config.dtype = torch.bfloat16
            self.model.save_pretrained(folder, state_dict=half)
        finally:
            self.model.config = config
        (self.data.text.processor or self.data.text.tokenizer).save_pretrained(folder)
        log.info('the whole model is in <run>/export. Use it: weaver plan "..." --planner <run>/export')


class ChatData:
    """Batches of a user's records."""

    def __init__(self, settings: DataSettings, text: ChatText, *, seed: int, packed: bool, fills: bool = False):
        self.settings, self.text, self.packed, self.fills = settings, text, packed, fills
        trained, held_out = split(read_records(settings.source), settings.held_out)
        self.held_out_rows = ChatRows(text, held_out, told_counts=settings.told_counts, seed=seed)
        self.rows = ChatRows(text, trained, told_counts=settings.told_counts, seed=seed)
        self.lengths = [self.rows.longest(i) for i in range(len(trained))]
        room = settings.batch_tokens - 64  # for words that differ a little from one variant of a record to the next
        self.kept = [record for record, length in zip(trained, self.lengths) if length <= room]
        self.left_out = [f"{record.where}: {length:,} tokens, more than data.batch_tokens = {settings.batch_tokens:,} allows"
                         for record, length in zip(trained, self.lengths) if length > room]
        if not self.kept:
            raise InputError(f"no record of {settings.source} fits into data.batch_tokens = {settings.batch_tokens:,}; the shortest has "
                             f"{min(self.lengths, default=0):,} tokens and {settings.batch_tokens - room} more are kept free")
        kinds = [record.kind if length <= room else "left out" for record, length in zip(trained, self.lengths)]
        self.order = BatchOrder(kinds, {"generation": settings.generation_ratio, "understanding": 1.0},
                                self.rows.length, settings.batch_tokens, seed=seed, packed=packed)

    def batch(self, index: int) -> dict:
        return self.collate([self.rows.row(draw) for draw in self.order.batch(index)])

    def collate(self, rows) -> dict:
        pad = self.text.tokenizer.pad_token_id or 0
        if not self.packed:
            return collate_padded(rows, pad)
        return collate_packed(rows, length=self.settings.batch_tokens if self.fills else None, pad=pad)

    def names(self, index: int) -> list[str]:
        return [self.rows.records[draw.record].where for draw in self.order.batch(index)]

    def table(self) -> list[str]:
        kinds = [record.kind for record in (*self.kept, *self.held_out_rows.records)]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        lines = [f"data: {counts} records, of which {len(self.held_out_rows.records)} are held out"]
        lines += length_table(self.lengths, self.settings.batch_tokens, packed=self.packed)
        return lines + [f"left out: {reason}" for reason in self.left_out]


def inspect(settings: Settings, config, problems) -> Inspection:
    """Data, and memory counted on the meta device; no weights are read."""
    from importlib.util import find_spec

    if settings.lora.rank and find_spec("peft") is None:
        problems.add("lora.rank", 'LoRA needs peft: pip install "wan-weaver[lora]"')
    if settings.model.quantization and find_spec("bitsandbytes") is None:
        problems.add("model.quantization", 'QLoRA needs bitsandbytes: pip install "wan-weaver[bnb]"')
    found = Inspection()
    try:
        text = ChatText.open(settings.base)
    except InputError as error:
        problems.add("base", str(error))
        text = None
    try:
        if text is None:
            read_records(settings.data.source)
        else:
            found.notes = ChatData(settings.data, text, seed=config.train.seed, packed=settings.data.packing).table()
    except InputError as error:
        problems.add("data.source", f"data.source = {settings.data.source!r}:\n{error}")
    if not problems.messages:
        _count(settings, config, found)
    return found


def _count(settings: Settings, config, found: Inspection) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    shape = AutoConfig.from_pretrained(settings.base)
    with torch.device("meta"):
        try:
            model = AutoModelForImageTextToText.from_config(shape)
        except ValueError:
            model = AutoModelForCausalLM.from_config(shape)
        weights = weights_of_module(model)
        if settings.lora.rank:
            model = add_lora(model, settings.lora, settings.base)
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        else:
            trained = sum(p.numel() for name, p in model.named_parameters() if settings.model.train_vision or not _is_vision(name))
    on_cpu = config.train.device == "cpu" or (config.train.device == "auto" and not torch.cuda.is_available())
    kept = settings.model.quantization or ("bfloat16" if settings.lora.rank and not on_cpu else "float32")
    lora_values = trained if settings.lora.rank else 0
    words = shape.get_text_config()
    found.parts = [Part(name="planner", num_values=weights.num_values + lora_values, num_trained=trained,
                        bytes=weights.bytes_as(kept) + 4 * lora_values)]
    found.batch = f"{settings.data.batch_tokens:,} tokens"
    found.activations = transformer_activations(
        settings.data.batch_tokens, words.hidden_size, words.num_hidden_layers, checkpointed=config.train.activation_checkpointing,
        bytes_per_value=2 if config.train.autocast else 4) + score_activations(settings.data.batch_tokens, words.vocab_size)


def _is_vision(name: str) -> bool:
    return not set(NOT_QUANTIZED[:-1]).isdisjoint(name.split("."))
