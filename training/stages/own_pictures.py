"""Stage `visualizer` on a user's own pictures: a folder with captions, in buckets of one size each, latents from a cache.

Captions are read by the frozen planner as dense prompts that stand alone, as those of the picture-book world are. A batch holds
pictures of one bucket whose references have the same buckets too, so nothing is padded and nothing is left out.

Axes: B shots, R references, C Y X latents.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.latent_cache import Cut, LatentCache
from training.picture_records import PictureRecord, bucket_of, bucket_sizes, read_picture_folder
from training.records import split_evenly
from training.stages import step_rng
from training.stages.visualizer import VisualizerStage, shot_of_prompt
from training.stages.visualizer_settings import Settings
from weaver_core.model import flow
from weaver_core.pictures import read_picture

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # at which errors are measured: fixed, as the noise is, so that numbers of two steps compare
MOST_MEASURED, MOST_DRAWN = 32, 8


class OwnPicturesStage(VisualizerStage):
    """The visualizer's trainer with a user's pictures in place of the picture-book world."""

    def __init__(self, settings: Settings, *, seed: int, device):
        super().__init__(settings, seed=seed, device=device)
        options = settings.data
        self.buckets = bucket_sizes(options.image_size, 8 * self.twin.config.patch, options.max_aspect)
        slots = self.twin.config.reference_slots or 4
        self.records, self.held_out = split_evenly(read_picture_folder(options.source, most_references=slots), options.held_out)
        self.cache = LatentCache(options.cache, settings.autoencoder)
        self._groups: dict[tuple, list[int]] = defaultdict(list)
        for index, record in enumerate(self.records):
            self._groups[self._cuts(record)[0].size, *(cut.size for cut in self._cuts(record)[1:])].append(index)
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    # ---- data -------------------------------------------------------------------------------------------------

    def prepare(self) -> list[str]:
        """Fill the cache of latents. See `training.stages`."""
        return [self.cache.fill([cut for record in (*self.records, *self.held_out) for cut in self._cuts(record)],
                                lambda pixels_BHWC: self.encode_pixels(pixels_BHWC.to(self.device)))]

    def batch(self, index: int) -> dict:
        rng = step_rng(self.seed, index, "pictures")
        options = self.settings.data
        return self.collate(self._records_of(index), rng, drop_text=options.drop_text, drop_references=options.drop_references)

    def names(self, index: int) -> list[str]:
        return [record.where for record in self._records_of(index)]

    def _records_of(self, index: int) -> list[PictureRecord]:
        epoch, place = divmod(index, len(self._epoch(0)))
        return [self.records[i] for i in self._epoch(epoch)[place]]

    def _draw_epoch(self, number: int) -> list[list[int]]:
        """Batches in which every picture comes once. Every epoch has as many."""
        rng = step_rng(self.seed, number, "pictures epoch")
        batches, size = [], self.settings.data.batch_size
        for group in self._groups.values():
            shuffled = rng.sample(group, len(group))
            batches += [shuffled[start:start + size] for start in range(0, len(shuffled), size)]
        return rng.sample(batches, len(batches))

    def collate(self, records: list[PictureRecord], rng=None, *, drop_text: float = 0.0, drop_references: float = 0.0) -> dict:
        """What the network is given for records of one group; without `rng` nothing is left to chance."""
        shots = [shot_of_prompt(record.prompt, rng) for record in records]
        cuts = [self._cuts(record) for record in records]
        latents = np.stack([self.cache.read(cut[0]) for cut in cuts])
        batch = {"kind": "pictures", "latents_BCYX": latents, "weight_BYX": np.ones((len(records), *latents.shape[2:]), np.float32)}
        for slot in range(len(records[0].references)):
            batch[f"reference_{slot}_BCYX"] = np.stack([self.cache.read(cut[1 + slot]) for cut in cuts])
        if records[0].references:
            kept = [rng is None or rng.random() >= drop_references for _ in records]
            batch["kept_BR"] = np.array(kept)[:, None].repeat(len(records[0].references), 1)
        batch |= self._sequences(shots)
        batch["words_B"] = np.array([rng is None or rng.random() >= drop_text for _ in records])
        return batch

    def _cuts(self, record: PictureRecord) -> list[Cut]:
        """The picture and its references, each in the bucket that it has."""
        return [Cut(path, bucket_of(size, self.buckets)) for path, size in
                zip((record.path, *record.references), (record.size, *record.reference_sizes))]

    # ---- loss -------------------------------------------------------------------------------------------------

    def clean_latents(self, batch: dict) -> Tensor:
        return batch["latents_BCYX"]

    def encode_references(self, batch: dict):
        return [self.twin.encode_references(batch[f"reference_{slot}_BCYX"]) for slot in range(batch["kept_BR"].shape[1])]

    # ---- looking ----------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """The error at fixed times and noise, of pictures that are trained on and of those that are not: apart means learned by heart."""
        sets = {"loss_seen": self.records, "loss_held_out": self.held_out}
        with torch.autocast(self.device.type, torch.bfloat16), torch.compiler.set_stance("force_eager"):
            return {name: float(np.mean([self._error(record) for record in records[:MOST_MEASURED]]))
                    for name, records in sets.items() if records}

    def _error(self, record: PictureRecord) -> float:
        batch = {name: torch.from_numpy(value).to(self.device) for name, value in self.collate([record]).items() if name != "kind"}
        clean = self.clean_latents(batch)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)).to(self.device)
        errors = []
        for time in TIMES:
            time_B = torch.full((1,), time, device=self.device)
            prediction = self.predict(batch, flow.add_noise(clean, noise, time_B), time_B)
            errors.append(flow.squared_error(prediction, clean, noise, time_B, self.twin.config.prediction).mean().item())
        return sum(errors) / len(errors)

    def samples(self, folder: Path) -> None:
        """What the export draws for some captions, held-out ones first: each picture above its sample, by the nodes' own sampler."""
        pair = self.exported_pair()
        records = (self.held_out + self.records)[:min(self.settings.sample.count, MOST_DRAWN)]
        side = max(max(bucket) for bucket in self.buckets)
        sheet = Image.new("RGB", (side * len(records), 2 * side), "white")
        with torch.compiler.set_stance("force_eager"):
            for number, record in enumerate(records):
                truth = Image.fromarray(self._cuts(record)[0].pixels())
                references = tuple(read_picture(path)[0] for path in record.references)
                drawn = pair.draw(record.prompt, size=truth.size, seed=number, references=references)
                sheet.paste(truth, (number * side, 0))
                sheet.paste(drawn, (number * side, side))
        sheet.save(folder / "truth_above_drawn.png")
        (folder / "prompts.txt").write_text("\n".join(record.prompt for record in records), encoding="utf-8")
