"""Which records make which batch: filled up to a budget of tokens, none cut, none left out, the same in every process.

A batch is either *packed* (its sequences one after another in one row; who may see whom follows from positions that begin at 0
with every sequence) or *padded* (a row each, filled up to the longest). Which batch an index names is a pure function of the seed,
so nothing about the data has to be saved to go on exactly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

WINDOW = 64  # draws that are looked through for the one that fits best
IGNORED = -100  # label of tokens without a loss


@dataclass(frozen=True, slots=True)
class Draw:
    """A record's turn: its index, and how often it came before."""

    record: int
    epoch: int


class BatchOrder:
    """Batches of draws.

    kinds    kind of every record; a kind's records all come once before any comes again
    shares   weight of each kind; kinds without records are left out
    length   tokens of a draw; at most `budget`
    """

    def __init__(self, kinds: Sequence[str], shares: dict[str, float], length: Callable[[Draw], int], budget: int, *, seed: int,
                 packed: bool):
        self.length, self.budget, self.packed = length, budget, packed
        self._draws = _draws(kinds, shares, random.Random(f"draws/{seed}"), seed)
        self._waiting: list[Draw] = []
        self._batches: list[list[Draw]] = []

    def batch(self, index: int) -> list[Draw]:
        while len(self._batches) <= index:
            self._batches.append(self._next())
        return self._batches[index]

    def _next(self) -> list[Draw]:
        self._fill()
        chosen = [self._waiting.pop(0)]  # the oldest always goes, so that none waits for ever
        while True:
            self._fill()
            fitting = [draw for draw in self._waiting if self._fits([*chosen, draw])]
            if not fitting:
                return chosen
            best = max(fitting, key=self.length) if self.packed else min(
                fitting, key=lambda draw: abs(self.length(draw) - self.length(chosen[0])))
            self._waiting.remove(best)
            chosen.append(best)

    def _fill(self) -> None:
        while len(self._waiting) < WINDOW:
            self._waiting.append(next(self._draws))

    def _fits(self, draws: list[Draw]) -> bool:
        lengths = [self.length(draw) for draw in draws]
        return (sum(lengths) if self.packed else len(lengths) * max(lengths)) <= self.budget


def _draws(kinds: Sequence[str], shares: dict[str, float], rng: random.Random, seed: int) -> Iterator[Draw]:
    members = {kind: [i for i, name in enumerate(kinds) if name == kind] for kind in shares}
    present = {kind: share for kind, share in shares.items() if members[kind] and share > 0}
    if not present:
        raise ValueError(f"there are no records of the kinds {', '.join(shares)} to train on")
    streams = {kind: _epochs(members[kind], f"{kind}/{seed}") for kind in present}
    while True:
        yield next(streams[rng.choices(list(present), list(present.values()))[0]])


def _epochs(members: list[int], name: str) -> Iterator[Draw]:
    epoch = 0
    while True:
        order = list(members)
        random.Random(f"epoch/{name}/{epoch}").shuffle(order)
        yield from (Draw(record, epoch) for record in order)
        epoch += 1


def length_table(lengths: Sequence[int], budget: int, *, packed: bool) -> list[str]:
    """How the records fill batches, a line each: the token counterpart of a bucket table."""
    if not lengths:
        return ["no records"]
    edges = [0, *(budget // 2**k for k in (4, 3, 2, 1, 0))]
    counts = [sum(low < length <= high for length in lengths) for low, high in zip(edges, edges[1:])]
    lines = [f"{len(lengths)} records of {min(lengths)} to {max(lengths)} tokens, {sum(lengths):,} in all; "
             f"{'packed' if packed else 'padded'} into batches of at most {budget:,}"]
    return lines + [f"  {low + 1:>6,} to {high:>6,} tokens: {count:,}" for low, high, count in zip(edges, edges[1:], counts) if count]
