"""Two runs against each other, document by document: a judge sees both answers, in both orders.

A document's win counts 1, a tie (also: another verdict in the other order) 0.5. Position bias is the share of verdicts for
the answer shown first among verdicts that are no ties; 0.5 is none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import stdev

from ..durable import Journal, JournalCopy
from ..errors import InputError
from .judge import FAILED, Preference, VlmJudge
from .run_folder import RunFolder, answer_hash
from .statistics import Interval, detectable_difference, mean_interval

ORDERS = ("ab", "ba")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One comparison of one prompt in one order. choice: "a" or "b" (the run, not the place), "tie", None = failed."""

    prompt_id: str
    order: str
    choice: str | None
    status: str
    rationale: str
    answers: str
    judge: str
    usd: float | None = None

    @property
    def for_first(self) -> bool | None:
        """Whether it is for the answer shown first; None for ties and failures."""
        return None if self.choice not in ("a", "b") else self.choice == self.order[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseResult:
    """win_rate of b against a; consistent: share of prompts with the same verdict in both orders; detectable: how far from one
    half a true win rate must be for so many prompts to find it with 80 % power."""

    a: str
    b: str
    win_rate: Interval
    wins: int
    ties: int
    losses: int
    consistent: float
    first_place: float
    failed: int
    detectable: float = math.nan


def pairwise(
    a: RunFolder,
    b: RunFolder,
    judge: VlmJudge,
    out: Path,
    *,
    retry_failed: bool = False,
    on_progress: Callable[[Verdict, int, int], None] | None = None,
) -> PairwiseResult:
    """Compares every prompt that both runs have answered; verdicts grow in `out` (JSONL), so a killed run goes on."""
    shared = [prompt_id for prompt_id in a.prompts if prompt_id in b.prompts]
    if not shared:
        raise InputError(f"{a.folder} and {b.folder} share no prompt")
    out.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(out, create=not out.exists())
    try:
        known = {(v.prompt_id, v.order, v.answers): v for v in map(_read, journal.records)
                 if v.judge == judge.name and not (retry_failed and v.status in FAILED)}
        todo, verdicts = [], []
        for prompt_id in shared:
            left, right = a.document(prompt_id), b.document(prompt_id)
            answers = f"{answer_hash(left)}/{answer_hash(right)}"
            for order in ORDERS:
                if verdict := known.get((prompt_id, order, answers)):
                    verdicts.append(verdict)
                else:
                    todo.append((prompt_id, left, right, order, answers))
        for number, (prompt_id, left, right, order, answers) in enumerate(todo, 1):
            found = _prefer(a, b, judge, prompt_id, left, right, order)
            choice = found.choice if found.choice in (None, "tie") else order["AB".index(found.choice)]
            verdict = Verdict(prompt_id=prompt_id, order=order, choice=choice, status=found.status, rationale=found.rationale,
                              answers=answers, judge=judge.name, usd=found.usd)  # fmt: skip
            journal.append(asdict(verdict))
            verdicts.append(verdict)
            if on_progress:
                on_progress(verdict, number, len(todo))
    finally:
        journal.close()
    return count(a.system, b.system, verdicts)


def verdicts_usd(out: Path) -> float:
    """What the verdicts in a file have cost, those that failed and were asked for again too."""
    return sum(_read(value).usd or 0.0 for value in JournalCopy(out).records) if out.exists() else 0.0


def count(a: str, b: str, verdicts: Sequence[Verdict]) -> PairwiseResult:
    """The win rate of b over prompts, and how much of it is the order of showing."""
    by_prompt: dict[str, dict[str, Verdict]] = {}
    for verdict in verdicts:
        by_prompt.setdefault(verdict.prompt_id, {})[verdict.order] = verdict
    points, same = [], []
    for orders in by_prompt.values():
        choices = [verdict.choice for verdict in orders.values()]
        if len(choices) < len(ORDERS) or None in choices:
            continue
        same.append(choices[0] == choices[1])
        points.append({"a": 0.0, "b": 1.0}.get(choices[0], 0.5) if same[-1] else 0.5)
    first = [verdict.for_first for verdict in verdicts if verdict.for_first is not None and verdict.status == "ok"]
    return PairwiseResult(
        a=a, b=b, win_rate=mean_interval(points), wins=points.count(1.0), ties=points.count(0.5), losses=points.count(0.0),
        consistent=sum(same) / len(same) if same else math.nan, first_place=sum(first) / len(first) if first else math.nan,
        failed=len(by_prompt) - len(points), detectable=detectable_difference(stdev(points), len(points)) if len(points) > 1 else math.nan,
    )  # fmt: skip


def _prefer(a, b, judge, prompt_id, left, right, order) -> Preference:
    """An answer that is missing loses; two that are missing are a tie. No judge is asked for that."""
    there = [document is not None and bool(document.blocks) for document in (left, right)]
    if not all(there):
        winner = "tie" if not any(there) else "AB"[order.index("ab"[there.index(True)])]
        return Preference(choice=winner, status="missing_output")
    first, second = ((left, a), (right, b)) if order == "ab" else ((right, b), (left, a))
    return judge.prefer(a.prompts[prompt_id], first[0], second[0], a.folder, folders=(first[1].folder, second[1].folder))


def _read(value: dict) -> Verdict:
    try:
        return Verdict(**value)
    except TypeError:
        raise InputError(f"this is no file of verdicts: {json.dumps(value)[:200]}") from None
