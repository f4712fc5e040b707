"""What needs all pictures at once: copies, clusters, groups that hold together, and collections of pictures."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from training.data_engine.record import Dropped, Outcome, Record, seed_of
from training.data_engine.stages import Stage
from training.data_engine.vectors import vectors_of
from weaver_core.errors import InputError
from weaver_core.picture_checks import HASH_DISTANCE, fingerprint, same_picture


class DropCopies(Stage):
    """Pictures -> those that are no near-copy of an earlier one.

    Perceptual hashes find candidates, and `picture_checks.same_picture` decides; with embeddings, pictures that are more
    alike than `most_alike` count as copies too.
    """

    is_whole = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        distance: int = HASH_DISTANCE  # of 64 bits, up to which two hashes make candidates
        most_alike: float = 1.0  # cosine of embeddings; 1 = do not look (0.97 suits SigLIP)

    def whole(self, records: Sequence[Record]) -> Iterator[Outcome]:
        if missing := next((record.id for record in records if "hash" not in record.fields), None):
            raise InputError(f"{missing} has no perceptual hash; put a stage of kind 'check_picture' before 'drop_copies'")
        hashes = np.array([int(record.fields["hash"], 16) for record in records], np.uint64)
        vectors = vectors_of(records) if self.settings.most_alike < 1 and records else None
        kept: list[int] = []
        for index, record in enumerate(records):
            original = self._original(records, kept, index, hashes, vectors)
            if original is None:
                kept.append(index)
                yield record
            else:
                of = records[original]
                yield Dropped(record=record.with_fields(copy_of=of.fields["picture"]), reason="copy", detail=f"of {of.id}")

    def _original(self, records, kept: list[int], index: int, hashes: np.ndarray, vectors) -> int | None:
        if not kept:
            return None
        others = np.array(kept)
        if vectors is not None:
            alike = vectors[others] @ vectors[index]
            if alike.max() > self.settings.most_alike:
                return int(others[alike.argmax()])
        near = others[_bits(hashes[others] ^ hashes[index]) <= self.settings.distance]
        if not len(near):
            return None
        mine = self._print(records[index])
        return next((int(other) for other in near if same_picture(mine, self._print(records[other]))), None)

    def _print(self, record: Record):
        return fingerprint(self.tools.store.get(record.fields["picture"]))


class Cluster(Stage):
    """Pictures with embeddings -> the same with a group, by what they look like; those that are like no others are dropped."""

    is_whole = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        method: str = "hdbscan"  # finds the number of clusters; "kmeans" (mini-batches) takes any number of pictures
        least_size: int = 3  # of a cluster
        clusters: int = 0  # of kmeans; 0 = a twelfth of the pictures

        def __post_init__(self):
            if self.method not in ("hdbscan", "kmeans"):
                raise ValueError(f"method is {self.method!r}; it must be 'hdbscan' or 'kmeans'")
            if self.least_size < 2:
                raise ValueError(f"least_size is {self.least_size}; a cluster has at least 2 pictures")

    def whole(self, records: Sequence[Record]) -> Iterator[Outcome]:
        if not records:
            return
        labels = self._labels(vectors_of(records))
        sizes = np.bincount(labels[labels >= 0], minlength=1)
        for record, label in zip(records, labels):
            if label < 0 or sizes[label] < self.settings.least_size:
                yield Dropped(record=record, reason="in no cluster", detail=f"fewer than {self.settings.least_size} pictures are like it")
            else:
                yield record.with_fields(group=f"cluster-{label:05}")

    def _labels(self, vectors_ND: np.ndarray) -> np.ndarray:
        try:
            from sklearn.cluster import HDBSCAN, MiniBatchKMeans
        except ImportError:
            raise InputError('to cluster needs scikit-learn: pip install "wan-weaver[data]"') from None
        if len(vectors_ND) < self.settings.least_size:
            return np.full(len(vectors_ND), -1)
        if self.settings.method == "hdbscan":
            return HDBSCAN(min_cluster_size=self.settings.least_size, copy=True).fit_predict(vectors_ND)
        number = min(self.settings.clusters or max(1, len(vectors_ND) // 12), len(vectors_ND))
        return MiniBatchKMeans(number, random_state=self.tools.recipe.seed, n_init=3).fit_predict(vectors_ND)


class CheckGroup(Stage):
    """Grouped pictures -> those that look like the middle of their group; groups that become too small are dropped."""

    is_whole = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        least_alike: float = 0.5  # cosine to the picture nearest to all others of the group (0.5 suits SigLIP)
        least_size: int = 2

    def whole(self, records: Sequence[Record]) -> Iterator[Outcome]:
        for group, members in by_group(records).items():
            if group is None:
                yield from (Dropped(record=record, reason="in no group") for record in members)
                continue
            vectors = vectors_of(members)
            likeness = vectors @ vectors.T
            alike = likeness[likeness.sum(1).argmax()]
            rest = int((alike >= self.settings.least_alike).sum())
            for record, value in zip(members, alike):
                if value < self.settings.least_alike:
                    yield Dropped(record=record, reason="unlike its group", detail=f"likeness {value:.2f} to the middle of {group}")
                elif rest < self.settings.least_size:
                    yield Dropped(record=record, reason="small group", detail=f"{rest} pictures in {group}")
                else:
                    yield record


class Collect(Stage):
    """Pictures -> collections of some that belong together (a group), or of single ones: what stories are written around."""

    version = 2
    is_whole = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        least: int = 1  # pictures in a collection
        most: int = 1
        per_group: int = 1  # collections of one group, at most; without groups every picture stands alone

        def __post_init__(self):
            if not 1 <= self.least <= self.most:
                raise ValueError(f"least is {self.least} and most {self.most}; 1 <= least <= most is needed")

    def whole(self, records: Sequence[Record]) -> Iterator[Outcome]:
        for group, members in by_group(records).items():
            if group is None:
                for record in members:
                    yield self._collection(record.id, [record])
                continue
            rng = random.Random(seed_of(self.tools.recipe.seed, "collect", group))
            rng.shuffle(members)
            wanted, used, number = self.settings, set(), 0
            while number < wanted.per_group:
                start = number * wanted.most
                chosen = members[start:start + rng.randint(wanted.least, wanted.most)]
                if len(chosen) < wanted.least:
                    break
                used.update(record.id for record in chosen)
                yield self._collection(f"{group}/{number}", chosen)
                number += 1
            reason, detail = "small group", f"{len(members)} pictures in {group}"
            if len(members) >= wanted.least:
                reason, detail = "not chosen", f"{len(used)} of {detail} are in its {number} collections"
            yield from (Dropped(record=record, reason=reason, detail=detail) for record in members if record.id not in used)

    def _collection(self, name: str, members: list[Record]) -> Record:
        captions = [record.fields.get("caption", "") for record in members]
        return Record(id=name, fields={"pictures": [record.fields["picture"] for record in members], "captions": captions})


def by_group(records: Sequence[Record]) -> dict[str | None, list[Record]]:
    """Records by their group, in the order in which groups first appear; None = in no group."""
    groups: dict[str | None, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.fields.get("group")].append(record)
    return dict(groups)


def _bits(values: np.ndarray) -> np.ndarray:
    """The number of set bits of each of some 64-bit numbers."""
    return np.unpackbits(np.ascontiguousarray(values).view(np.uint8).reshape(len(values), 8), axis=1).sum(1)
