"""Where the marks of the charts stand; the template draws them as SVG. Numbers only: what is text stays the template's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..statistics import Interval

SCALE = 10.0
LABEL_WIDTH, PLOT_WIDTH, VALUE_WIDTH = 210, 440, 130
LANE, GAP, TOP = 20, 14, 26


def forest(rows: Sequence[tuple[str, Sequence[Interval], Sequence[tuple[str, float]]]]) -> dict:
    """A plot of means with intervals on 0-10: a row for each name, in it a lane for each system.

    rows   name, the systems' estimates, published (name, score) marks
    """

    def x(score: float) -> float:
        return round(LABEL_WIDTH + PLOT_WIDTH * min(max(score, 0.0), SCALE) / SCALE, 1)

    y, placed = TOP, []
    for name, estimates, marks in rows:
        lanes = []
        for number, value in enumerate(estimates):
            if value.n:
                low, high = (value.low, value.high) if value.n > 1 else (value.mean, value.mean)
                middle = y + LANE * number + LANE / 2
                lanes.append({"system": number, "y": middle, "x": x(value.mean), "low": x(low), "high": x(high), "value": value})
        height = LANE * max(1, len(estimates))
        placed.append({"name": name, "y": y, "middle": y + height / 2, "height": height, "lanes": lanes,
                       "marks": [{"name": label, "x": x(score), "score": score} for label, score in marks]})  # fmt: skip
        y += height + GAP
    return {
        "width": LABEL_WIDTH + PLOT_WIDTH + VALUE_WIDTH, "height": y + 4, "left": LABEL_WIDTH, "right": LABEL_WIDTH + PLOT_WIDTH,
        "bottom": y - GAP + 6, "ticks": [{"x": x(tick), "label": tick} for tick in range(0, 11, 2)], "rows": placed,
    }  # fmt: skip


def curve(series: Sequence[Sequence[Interval]], width: int = 350, height: int = 210) -> dict:
    """A plot of estimates by image index (from 1), a line with its interval's band for each system."""
    left, right, top, bottom = 44, width - 12, 14, height - 34
    points = [point for line in series for point in line if point.n]
    lows = [point.low if point.n > 1 else point.mean for point in points]
    highs = [point.high if point.n > 1 else point.mean for point in points]
    ticks = nice_ticks(min(lows), max(highs))
    low, high = ticks[0], ticks[-1]
    count = max(len(line) for line in series)

    def x(index: int) -> float:
        return round(left + (right - left) * (index / (count - 1) if count > 1 else 0.5), 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - top) * (value - low) / (high - low), 1)

    lines = []
    for number, line in enumerate(series):
        known = [(index, point) for index, point in enumerate(line) if point.n]
        banded = [(index, point) for index, point in known if point.n > 1]
        band = [f"{x(i)},{y(point.high)}" for i, point in banded] + [f"{x(i)},{y(point.low)}" for i, point in reversed(banded)]
        lines.append({
            "system": number,
            "points": [{"x": x(index), "y": y(point.mean), "index": index + 1, "value": point} for index, point in known],
            "line": " ".join(f"{x(index)},{y(point.mean)}" for index, point in known),
            "band": " ".join(band) if len(banded) > 1 else "",
        })  # fmt: skip
    step = max(1, math.ceil(count / 12))
    return {
        "width": width, "height": height, "left": left, "right": right, "top": top, "bottom": bottom, "lines": lines,
        "y_ticks": [{"y": y(tick), "label": f"{tick:g}"} for tick in ticks],
        "x_ticks": [{"x": x(index), "label": index + 1} for index in range(0, count, step)],
    }  # fmt: skip


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`; at least two."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]
