"""Rows of reference-guided sets: text-to-image, one reference, several references, out of groups that show one subject."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from training.data_engine.record import Dropped, Outcome, Record, seed_of
from training.data_engine.stages import Stage
from training.data_engine.stages.groups import by_group


class Pair(Stage):
    """Pictures with captions, some in groups -> rows (picture, text, references).

    Every picture makes one row of text-to-image. In a group, each is the target of up to `single` rows with one reference
    and `several` rows with two or more, chosen by chance among the others.
    """

    is_whole = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        single: int = 1
        several: int = 1
        most_references: int = 3
        text_only: bool = True  # rows without references

        def __post_init__(self):
            if self.most_references < 2 and self.several:
                raise ValueError(f"most_references is {self.most_references}; rows with several references need at least 2")

    def whole(self, records: Sequence[Record]) -> Iterator[Outcome]:
        for group, members in by_group(records).items():
            told = [record for record in members if record.fields.get("caption")]
            for record in members:
                if record not in told:
                    yield Dropped(record=record, reason="no caption", detail="put a stage of kind 'caption' before 'pair', or texts beside the files")
                    continue
                if self.settings.text_only:
                    yield _row(record, "text", [])
                if group is not None:
                    yield from self._with_references(record, [other for other in told if other is not record])

    def _with_references(self, record: Record, others: list[Record]) -> Iterator[Record]:
        rng = random.Random(seed_of(self.tools.recipe.seed, "pair", record.id))
        for number, other in enumerate(rng.sample(others, min(self.settings.single, len(others)))):
            yield _row(record, f"one-{number}", [other])
        seen = set()
        for number in range(self.settings.several if len(others) > 1 else 0):
            chosen = rng.sample(others, rng.randint(2, min(self.settings.most_references, len(others))))
            if (key := frozenset(other.id for other in chosen)) not in seen:
                seen.add(key)
                yield _row(record, f"several-{number}", chosen)


def _row(record: Record, name: str, references: list[Record]) -> Record:
    row = record.child(name, text=record.fields["caption"], references=[other.fields["picture"] for other in references])
    return row.without("caption", "embedding", "hash", "width", "height")
