"""What the model is asked, in texts of a version that never change, and how its answers are read: any answer gives something."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from training.data_engine.record import Rejected
from weaver_core.segments import ILLEGAL

VERSION = "v1"
_FOLDER = Path(__file__).parent / "prompts"
_LIST_MARK = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,3}[.):]\)?|#+)\s+")
_QUOTES = "\"'“”„«»‘’`*_ "


@lru_cache
def _text(name: str) -> str:
    return (_FOLDER / VERSION / f"{name}.md").read_text(encoding="utf-8").strip()


def question(name: str, **values) -> str:
    """A question of this version. Values are put in once, so braces inside of them mean nothing."""
    return re.sub(r"\{([a-z_]+)\}", lambda found: str(values[found[1]]), _text(name))


def lines_of(answer: str) -> list[str]:
    """The lines of an answer without list marks, quotation marks and fences."""
    lines = (_LIST_MARK.sub("", ILLEGAL.sub(" ", line)).strip(_QUOTES) for line in answer.splitlines())
    return [line for line in lines if line]


def one_line(answer: str, *, most_words: int) -> str:
    """The answer as one sentence or two. Rejected when there is none, or far too much."""
    text = " ".join(lines_of(answer))
    words = len(text.split())
    if not text:
        raise Rejected("empty answer", "the model wrote nothing")
    if words > most_words:
        raise Rejected("wordy answer", f"{words} words; at most {most_words} were asked for")
    return text


def count_wish(count: int | None) -> str:
    """What is asked about the number of images in a request."""
    return "It says no number of pictures." if count is None else f"It says that {count} picture{'s' * (count != 1)} are wanted, in digits or words."
