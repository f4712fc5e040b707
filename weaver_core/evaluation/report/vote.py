"""A page on which people vote blindly between two systems, and what their votes say.

The page holds no name, no score and no dense prompt; pictures are encoded anew, so that files tell nothing either. Which
side was whose stands in a key file of its own, which voters do not get.
"""

from __future__ import annotations

import json
import math
import random
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...durable import write_whole
from ...errors import InputError
from ..importers.files import read_json
from ..importers.opening import steps_of
from .inputs import ReportInput
from .pictures import Thumbnails

CHOICES = ("left", "right", "equal")
MAX_PAIRS = 200
PICTURE_SIDE = 448


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one voter found on one prompt. winner: a system's name, None for equal."""

    prompt_id: str
    winner: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteResult:
    """Votes, unblinded. `share`: of the first system, a tie counts half; None without votes.

    p   two-sided sign test over the votes that are no tie, exact; None when there are none
    """

    systems: tuple[str, str]
    wins: dict[str, int]
    ties: int
    open: int
    share: float | None
    p: float | None
    outcomes: tuple[Outcome, ...]


def write_vote(
    a: ReportInput, b: ReportInput, out: str | Path, *, pairs: int = 48, seed: int | None = None
) -> tuple[Path, Path]:
    """Writes vote.html for voters and vote-key.json for whoever counts, into the folder `out`; returns both paths.

    At most `pairs` prompts that both have answered, in random order, each with the sides in random order. `seed` makes
    the same page again; without one nobody can.
    """
    from . import render

    if a.name == b.name:
        raise InputError(f"both systems are called {a.name}; give them names that tell them apart")
    if not 1 <= pairs <= MAX_PAIRS:
        raise InputError(f"{pairs} pairs; 1 to {MAX_PAIRS} can be voted on")
    answers = [{document.prompt_id: document for document in run.documents if document.blocks} for run in (a, b)]
    prompts = [prompt for prompt in a.prompts if all(prompt.id in known for known in answers)]
    if not prompts:
        raise InputError(f"{a.name} and {b.name} have answered no prompt in common; there is nothing to vote on")
    chance = random.Random(secrets.randbits(64) if seed is None else seed)
    chosen = chance.sample(prompts, min(pairs, len(prompts)))
    thumbnails = Thumbnails(PICTURE_SIDE)
    name = f"{chance.getrandbits(64):016x}"
    shown, key = [], []
    for number, prompt in enumerate(chosen, 1):
        sides = [(run, known[prompt.id]) for run, known in zip((a, b), answers, strict=True)]
        chance.shuffle(sides)
        shown.append({
            "number": number,
            "asked": [(block.type, block.text, thumbnails.get(a.folder, block.path) if block.type == "image" else None)
                      for block in prompt.input],
            "sides": [
                [{"text": step.text, "picture": None if step.image is None else thumbnails.get(run.folder, step.image.path)}
                 for step in steps_of(document)]
                for run, document in sides
            ],
        })  # fmt: skip
        key.append({"pair": str(number), "prompt": prompt.id, "left": sides[0][0].name})
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    page = render("vote.html.jinja", "vote.css", "vote.js", name=name, pairs=shown)
    write_whole(out / "vote.html", page.encode())
    secret = {"format": "weaver-vote-key", "version": 1, "vote": name, "systems": [a.name, b.name], "pairs": key}
    write_whole(out / "vote-key.json", (json.dumps(secret, ensure_ascii=False, indent=1) + "\n").encode())
    return out / "vote.html", out / "vote-key.json"


def read_votes(votes: str | Path, key: str | Path) -> VoteResult:
    """What a voter's file says, with the key. InputError when it belongs to another page or holds what is no vote."""
    secret = _checked(read_json(Path(key)), "weaver-vote-key", str(key))
    given = _checked(read_json(Path(votes)), "weaver-votes", str(votes))
    if given["vote"] != secret["vote"]:
        raise InputError(f"{votes} was voted on another page than the one {key} belongs to")
    try:
        first, second = secret["systems"]
        pairs = {item["pair"]: (item["prompt"], item["left"]) for item in secret["pairs"]}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{key}: systems or pairs are damaged") from None
    if not isinstance(given.get("votes"), dict):
        raise InputError(f"{votes}: votes: expected an object")
    outcomes = []
    for pair, choice in given["votes"].items():
        if pair not in pairs or choice not in CHOICES:
            raise InputError(f"{votes}: {str(pair)[:20]!r}: {str(choice)[:20]!r} is no vote on this page")
        prompt_id, left = pairs[pair]
        right = second if left == first else first
        outcomes.append(Outcome(prompt_id, {"left": left, "right": right, "equal": None}[choice]))
    wins = {name: sum(outcome.winner == name for outcome in outcomes) for name in (first, second)}
    ties = len(outcomes) - sum(wins.values())
    return VoteResult(
        systems=(first, second),
        wins=wins,
        ties=ties,
        open=len(pairs) - len(outcomes),
        share=(wins[first] + ties / 2) / len(outcomes) if outcomes else None,
        p=sign_test(wins[first], wins[second]),
        outcomes=tuple(outcomes),
    )


def sign_test(a: int, b: int) -> float | None:
    """Two-sided p of so uneven a split, or a more uneven one, if both were as likely; None for no votes."""
    n = a + b
    if not n:
        return None
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(a, b) + 1)) / 2**n)


def _checked(value: Any, kind: str, where: str) -> dict:
    right = isinstance(value, dict) and value.get("format") == kind and value.get("version") == 1
    if not right or not isinstance(value.get("vote"), str):
        raise InputError(f"{where}: expected a file of the format {kind}, version 1")
    return value
