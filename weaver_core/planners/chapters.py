"""Stories longer than a planner has learned, told in chapters: it never reads more pages than it knows how to count.

A chapter begins with the story's title and opening page (who the hero is, and where), which the planner has before it as if it
had just written them, and goes on with pages of its own. So hero, name and place stay, the number of pages that the planner
reads and remembers is bounded however long the story is, and only the last chapter brings the story to its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import HistoryItem

MIN_PAGES = 3  # the opening, one more page, and the one that would end the story


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """Images `start` to `stop` (exclusive, counted from 0) of a story; `told` = how many the planner believes there are."""

    start: int
    stop: int
    told: int


def chapter_of(index: int, total: int, most: int, *, ended: int = 0) -> Chapter:
    """The chapter that the image with this index lies in, in a story of `total` images for a planner that learned `most`.

    ended   the first so many images were a story of their own, which is gone on with
    """
    if ended and most >= MIN_PAGES:
        start = index - (index - ended) % (most - 2)
        stop = start + most - 2
        return Chapter(start=start, stop=min(stop, total), told=most if stop < total else total - start + 1)
    if total <= most or most < MIN_PAGES:
        return Chapter(start=0, stop=total, told=total)
    first, others = most - 1, most - 2  # one place is left for the end, one is taken by the opening page
    start = 0 if index < first else index - (index - first) % others
    stop = start + (others if start else first)
    if stop < total:
        return Chapter(start=start, stop=stop, told=most)
    return Chapter(start=start, stop=total, told=total - start + bool(start))


def read_from(history: Sequence[HistoryItem], start: int) -> tuple[HistoryItem, ...]:
    """The opening page and the pages from image `start` on: texts up to and with their dense prompt, and drawn images."""
    if start == 0:
        return tuple(history)
    kept, page = [], 0  # `page` = dense prompts that have ended before
    for item in history:
        if not isinstance(item, str):
            if page - 1 == 0 or page - 1 >= start:
                kept.append(item)
            continue
        for part in re.split(r"(?<=<BOI>)", item):
            if page == 0 or page >= start:
                kept.append(part)
            page += part.endswith("<BOI>")
    return tuple(part for part in kept if not isinstance(part, str) or part)
