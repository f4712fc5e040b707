"""Records as a chat model reads them: the very conversation that `TransformersPlanner` holds with it, and the answer it should give.

Axes: B rows, T tokens, K tokens with a loss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from training.packing import IGNORED, Draw
from training.records import PlannerRecord
from training.stages import step_rng
from weaver_core.pictures import read_picture
from weaver_core.planners import PlannerOptions
from weaver_core.planners.instruction import build_messages
from weaver_core.planners.transformers_planner import ChatText
from weaver_core.request import ReferenceImage, Request

_PER_TOKEN = ("attention_mask", "token_type_ids", "mm_token_type_ids")  # inputs with a number for every token


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sequence; labels are not shifted. `pictures` are the inputs that belong to images, `types_T` says which tokens are images."""

    where: str
    ids_T: Tensor
    labels_T: Tensor
    types_T: Tensor
    pictures: dict[str, Tensor]


class ChatRows:
    """Spells records. `told_counts` is the share of requests that say how many images are wanted, as nodes and command line may."""

    def __init__(self, text: ChatText, records: list[PlannerRecord], *, told_counts: float, seed: int):
        self.text, self.records, self.told_counts, self.seed = text, records, told_counts, seed
        self._lengths: dict[tuple, int] = {}

    def length(self, draw: Draw) -> int:
        return self._length(draw.record, *self._variant(draw))

    def longest(self, index: int) -> int:
        """Tokens of a record with all pictures but the last drawn, which are many, and with the count said, if it ever is."""
        return self._length(index, max(0, len(self.records[index].drawn) - 1), self.told_counts > 0)

    def row(self, draw: Draw) -> Row:
        return self._row(self.records[draw.record], *self._variant(draw))

    def _length(self, index: int, pages: int, tells_count: bool) -> int:
        key = (index, pages, tells_count and self.records[index].plan is not None)
        if key not in self._lengths:
            self._lengths[key] = len(self._row(self.records[index], pages, tells_count).ids_T)
        return self._lengths[key]

    def _row(self, record: PlannerRecord, pages: int, tells_count: bool) -> Row:
        messages, answer = self._conversation(record, pages, tells_count)
        inputs = self.text.inputs(messages)
        prompt_T = inputs["input_ids"][0]
        answer_ids = [*self.text.tokenizer(answer, add_special_tokens=False)["input_ids"], self.text.tokenizer.eos_token_id]
        answer_K = torch.tensor(answer_ids)
        types_T = inputs.get("mm_token_type_ids", torch.zeros(1, len(prompt_T), dtype=torch.long))[0]
        return Row(
            where=record.where, ids_T=torch.cat([prompt_T, answer_K]),
            labels_T=torch.cat([torch.full_like(prompt_T, IGNORED), answer_K]),
            types_T=torch.cat([types_T, torch.zeros(len(answer_K), dtype=types_T.dtype)]),
            pictures={name: value for name, value in inputs.items() if name != "input_ids" and name not in _PER_TOKEN})

    def _variant(self, draw: Draw) -> tuple[int, bool]:
        """What differs from one turn of a record to the next: pages that are drawn already, and whether the count is said."""
        rng = step_rng(self.seed, draw.epoch, f"variant/{draw.record}")
        record = self.records[draw.record]
        return rng.randrange(len(record.drawn)) if record.drawn else 0, rng.random() < self.told_counts

    def _conversation(self, record: PlannerRecord, pages: int, tells_count: bool) -> tuple[list[dict], str]:
        part = (lambda image: {"type": "image", "image": image}) if self.text.sees_images else None
        if record.plan is None:
            content = [*({"type": "image", "image": read_picture(path, path.name)[0]} for path in record.images),
                       {"type": "text", "text": record.request}]
            return [{"role": "user", "content": content if self.text.sees_images else record.request}], record.answer
        request = request_of(record)
        pieces = re.split(r"(?<=</imagine>)", record.plan.to_markup().strip())
        history = []
        for piece, path in zip(pieces[:pages], record.drawn):
            history += [piece, read_picture(path, path.name)[0]]
        left = len(record.plan.images) - pages
        options = PlannerOptions(num_images=left if tells_count else None)
        return build_messages(request, tuple(history), options, picture_part=part), "".join(pieces[pages:]).strip()


def request_of(record: PlannerRecord) -> Request:
    """What a user would ask for the plan of a generation record."""
    return Request(prompt=record.request, images=tuple(ReferenceImage.read(path)[0] for path in record.images),
                   language=record.plan.language or "en").validated()[0]


def collate_packed(rows: list[Row], *, length: int | None = None, pad: int = 0) -> dict:
    """All rows in one, (1, T). With a `length`, filled up to it by a sequence that nothing is learned from."""
    batch = _pictures(rows) | {"num_tokens": sum(len(row.ids_T) for row in rows)}
    parts = [(row.ids_T, row.labels_T, row.types_T) for row in rows]
    missing = 0 if length is None else length - batch["num_tokens"]
    if missing > 0:
        parts.append((torch.full((missing,), pad), torch.full((missing,), IGNORED), torch.zeros(missing, dtype=torch.long)))
    ids, labels, types = (torch.cat(column)[None] for column in zip(*parts))
    labels[:, _starts([len(part[0]) for part in parts])] = IGNORED  # the first token of a sequence follows from nothing
    return batch | {"input_ids": ids, "labels": labels, "types": types, "lengths": [len(part[0]) for part in parts]}


def collate_padded(rows: list[Row], pad: int) -> dict:
    """A row each, (B, T), filled up on the right."""
    longest = max(len(row.ids_T) for row in rows)

    def filled(values_T: Tensor, filler: int) -> Tensor:
        return torch.nn.functional.pad(values_T, (0, longest - len(values_T)), value=filler)

    return _pictures(rows) | {
        "num_tokens": sum(len(row.ids_T) for row in rows),
        "input_ids": torch.stack([filled(row.ids_T, pad) for row in rows]),
        "labels": torch.stack([filled(row.labels_T, IGNORED) for row in rows]),
        "types": torch.stack([filled(row.types_T, 0) for row in rows]),
        "attention_mask": torch.stack([filled(torch.ones_like(row.ids_T), 0) for row in rows])}


def _pictures(rows: list[Row]) -> dict[str, Tensor]:
    names = dict.fromkeys(name for row in rows for name in row.pictures)
    return {name: torch.cat([row.pictures[name] for row in rows if name in row.pictures]) for name in names}


def _starts(lengths: list[int]) -> list[int]:
    starts, place = [], 0
    for length in lengths:
        starts.append(place)
        place += length
    return starts
