"""A user's records as the native planner reads them: `<user>{request}{images}<bot>{plan}<eos>`, plans in the paper's bare markup."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps

from training.packing import IGNORED, BatchOrder, length_table
from training.records import PlannerRecord, read_records, split
from training.stages.planner import PlannerData, Row
from training.stages.planner_checks import Prompt
from training.stages.sequence_loss import packed_positions
from weaver_core.errors import InputError
from weaver_core.model.tokens import encode, mrope_positions, prompt_ids
from weaver_core.model.vision import image_patches
from weaver_core.pictures import read_picture


class RecordData(PlannerData):
    """Training rows out of a user's records; batches as in `training.packing`."""

    def __init__(self, settings, tokenizer, vision_config, seed: int):
        super().__init__(settings, tokenizer, vision_config, seed)
        trained, self.held_out = split(read_records(settings.source), settings.held_out)
        self.lengths = [len(self._spell(record)[0]) for record in trained]
        fits = [length <= settings.batch_tokens for length in self.lengths]
        self.records = [record for record, fit in zip(trained, fits) if fit]
        self.left_out = [f"{record.where}: {length:,} tokens, more than data.batch_tokens = {settings.batch_tokens:,} allows"
                         for record, length, fit in zip(trained, self.lengths, fits) if not fit]
        if not self.records:
            raise InputError(f"no record of {settings.source} fits into data.batch_tokens = {settings.batch_tokens:,}; the shortest has "
                             f"{min(self.lengths, default=0):,} tokens")
        kept = [length for length, fit in zip(self.lengths, fits) if fit]
        self.order = BatchOrder([record.kind for record in self.records],
                                {"generation": settings.generation_ratio, "understanding": 1.0},
                                lambda draw: kept[draw.record], settings.batch_tokens, seed=seed, packed=settings.packing)

    def batch(self, index: int) -> dict:
        rows = [self.record_row(self.records[draw.record]) for draw in self.order.batch(index)]
        return self.pack(rows) if self.settings.packing else self.collate(rows)

    def names(self, index: int) -> list[str]:
        return [self.records[draw.record].where for draw in self.order.batch(index)]

    def table(self) -> list[str]:
        kinds = [record.kind for record in (*self.records, *self.held_out)]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        return [f"data: {counts} records, of which {len(self.held_out)} are held out",
                *length_table(self.lengths, self.settings.batch_tokens, packed=self.settings.packing),
                *(f"left out: {reason}" for reason in self.left_out)]

    def record_prompt(self, record: PlannerRecord) -> Prompt:
        return self.prompt_of(record.request, [self._pixels(path) for path in record.images])

    def record_row(self, record: PlannerRecord) -> Row:
        ids, labels, weights = self._spell(record)
        pictures = tuple(self._pixels(path) for path in (*record.images, *record.drawn))
        return Row(ids=ids, labels=labels, weights=weights, grids=(self.grid,) * len(pictures), pixels_HWC=pictures)

    def _spell(self, record: PlannerRecord) -> tuple[list[int], list[int], list[float]]:
        """Ids, labels and weights. Where there are `drawn` pictures, they follow their `<BOI>`, given and not learned."""
        answer = record.answer if record.plan is None else record.plan.to_bare_markup().strip()
        head = prompt_ids(self.tokenizer, self.tokens, record.request, [self.grid] * len(record.images))
        ids = [*encode(self.tokenizer, answer), self.tokens.eos]
        labels, weights = list(ids), [1.0] * len(ids)
        if record.drawn:
            ids, labels, weights = self._feed_back(ids, weights)
        return head + ids, [IGNORED] * len(head) + labels, [1.0] * len(head) + weights

    def pack(self, rows: list[Row]) -> dict:
        """All rows in one, kept apart by positions that begin again with each."""
        lengths = [len(row.ids) for row in rows]
        rope_3T = torch.cat([mrope_positions(row.ids, self.tokens, row.grids) for row in rows], 1)
        batch = {"input_ids": torch.tensor([[i for row in rows for i in row.ids]]),
                 # the first token of a sequence follows from nothing
                 "labels": torch.tensor([[i for row in rows for i in (IGNORED, *row.labels[1:])]]),
                 "weights": torch.tensor([[w for row in rows for w in row.weights]]),
                 "position_ids": packed_positions(lengths, rope_3T, "cpu"), "num_tokens": sum(lengths)}
        pixels = [picture for row in rows for picture in row.pixels_HWC]
        if pixels:
            patches, grids = image_patches(np.stack(pixels), self.vision_config)
            batch |= {"pixel_values": torch.from_numpy(patches), "image_grid_thw": torch.from_numpy(grids)}
        return batch

    def collate(self, rows: list[Row]) -> dict:
        return super().collate(rows) | {"num_tokens": sum(len(row.ids) for row in rows)}

    def _pixels(self, path) -> np.ndarray:
        """A picture at the planner's size, fitted as when it plans."""
        side = self.settings.image_size
        picture, _ = read_picture(path, path.name)
        return np.asarray(ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.LANCZOS))
