"""How often a judge prefers what people prefer: accuracy in both orders, consistency, position bias.

The pairs are those of MMRB2 (importers/mmrb2.py) or of a file in its layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .importers.mmrb2 import PreferencePair
from .records import Document, Prompt
from .statistics import mean_interval

WARN_BELOW = 0.6
CHOICES = ("first", "second", "tie")


Preference = Callable[[Prompt, Document, Document], str | None]
"""(prompt, first, second) -> "first", "second", "tie", or None when the judge gave no answer that can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a judge does on pairs that people have judged.

    accuracy        share of right answers, both orders of every pair, a tie half right, no answer wrong; with its interval
    forward, swapped  the same in the order of the file, and with the answers exchanged
    consistency     share of pairs with the same winner in both orders
    first_share     share of "first" among the answers that name a winner: 0.5 without position bias
    """

    num_pairs: int
    accuracy: float
    low: float
    high: float
    forward: float
    swapped: float
    consistency: float
    first_share: float | None
    ties: float
    unanswered: float

    @property
    def position_bias(self) -> float | None:
        return None if self.first_share is None else self.first_share - 0.5

    @property
    def warning(self) -> str | None:
        if self.accuracy >= WARN_BELOW:
            return None
        return (f"this judge agrees with people in {self.accuracy:.0%} of the comparisons, below {WARN_BELOW:.0%} (chance is 50%); "
                "its scores say little. Use a stronger judge")  # fmt: skip

    def lines(self) -> list[str]:
        """For the terminal and the report."""
        bias = "–" if self.first_share is None else f'{self.first_share:.1%} "first" ({self.position_bias:+.1%})'
        return [
            f"accuracy       {self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] on {self.num_pairs} pairs in both orders",
            f"by order       {self.forward:.1%} as given, {self.swapped:.1%} swapped",
            f"consistency    {self.consistency:.1%} of pairs have the same winner in both orders",
            f"position bias  {bias}",
            f"ties           {self.ties:.1%}; unanswered {self.unanswered:.1%}",
        ] + ([f"Warning: {self.warning}"] if self.warning else [])


def calibrate(
    pairs: Sequence[PreferencePair],
    prefer: Preference,
    *,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Calibration:
    """Asks `prefer` about every pair in both orders. InputError without pairs; ValueError for an answer of no known word."""
    if not pairs:
        raise InputError("there are no pairs to calibrate with")
    answers = []
    for number, pair in enumerate(pairs):
        answers.append((_asked(prefer, pair.prompt, pair.a, pair.b), _asked(prefer, pair.prompt, pair.b, pair.a)))
        on_progress("pairs", number + 1, len(pairs))
    right = np.array([[_rightness(forward, pair.chosen == "A"), _rightness(swapped, pair.chosen == "B")]
                      for pair, (forward, swapped) in zip(pairs, answers)])  # fmt: skip
    every = [answer for both in answers for answer in both]
    named = [answer for answer in every if answer in ("first", "second")]
    opposite = {"first": "second", "second": "first", "tie": "tie"}
    found = mean_interval(right.mean(1), seed=seed)
    return Calibration(
        num_pairs=len(pairs), accuracy=found.mean, low=found.low, high=found.high, forward=float(right[:, 0].mean()),
        swapped=float(right[:, 1].mean()), consistency=float(np.mean([a is not None and opposite[a] == b for a, b in answers])),
        first_share=named.count("first") / len(named) if named else None, ties=every.count("tie") / len(every),
        unanswered=every.count(None) / len(every),
    )  # fmt: skip


def _asked(prefer: Preference, prompt: Prompt, first: Document, second: Document) -> str | None:
    answer = prefer(prompt, first, second)
    if answer is not None and answer not in CHOICES:
        raise ValueError(f"the judge answered {answer!r}; it must be one of {', '.join(CHOICES)}, or None")
    return answer


def _rightness(answer: str | None, first_is_right: bool) -> float:
    if answer is None or answer == "tie":
        return 0.5 if answer else 0.0
    return float((answer == "first") == first_is_right)
