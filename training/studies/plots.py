"""Plots of the findings as SVG files of their own; where the marks stand is computed by `weaver_core.evaluation.report.charts`."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from weaver_core.evaluation.report import charts
from weaver_core.evaluation.statistics import Interval

COLOURS = ("#2563a8", "#c2571a", "#3d7f4b", "#7d4a94")  # of the arms, in order
_STYLE = 'font-family="system-ui, sans-serif" font-size="12" fill="#333"'
LEGEND = 22


def bars(rows: Sequence[tuple[str, Sequence[Interval]]], arms: Sequence[str]) -> str:
    """Shares in [0, 1] with their intervals: a row for each measure, in it a lane for each arm."""
    def tenfold(value: Interval) -> Interval:
        return Interval(10 * value.mean, 10 * value.low, 10 * value.high, value.n)  # the chart's scale ends at 10

    chart = charts.forest([(name, [tenfold(value) for value in values], ()) for name, values in rows])
    marks = []
    for tick in chart["ticks"]:
        marks.append(_line(tick["x"], 18, tick["x"], chart["bottom"], "#ddd"))
        marks.append(_text(tick["x"], 11, f"{tick['label'] / 10:g}", "middle"))
    for row in chart["rows"]:
        marks.append(_text(chart["left"] - 12, row["middle"] + 4, row["name"], "end"))
        for lane in row["lanes"]:
            colour, value = COLOURS[lane["system"] % len(COLOURS)], lane["value"]
            marks.append(_line(lane["low"], lane["y"], lane["high"], lane["y"], colour, 3))
            marks.append(f'<circle cx="{lane["x"]}" cy="{lane["y"]}" r="4.5" fill="{colour}"/>')
            marks.append(_text(chart["right"] + 12, lane["y"] + 4, f"{value.mean / 10:.2f}", "start"))
    return _svg(chart["width"], chart["height"], marks, arms)


def lines(series: Sequence[Sequence[Interval]], arms: Sequence[str], labels: Sequence[str], below: str) -> str:
    """Means with bands over what `labels` name, a line for each arm; `below` says what the labels are."""
    chart = charts.curve(series, width=560, height=280)
    marks = []
    for tick in chart["y_ticks"]:
        marks.append(_line(chart["left"], tick["y"], chart["right"], tick["y"], "#ddd"))
        marks.append(_text(chart["left"] - 7, tick["y"] + 4, tick["label"], "end"))
    for tick in chart["x_ticks"]:
        marks.append(_text(tick["x"], chart["bottom"] + 15, labels[tick["label"] - 1], "middle"))
    marks.append(_text((chart["left"] + chart["right"]) / 2, chart["height"] - 3, below, "middle"))
    for line in chart["lines"]:
        colour = COLOURS[line["system"] % len(COLOURS)]
        if line["band"]:
            marks.append(f'<polygon points="{line["band"]}" fill="{colour}" fill-opacity="0.15"/>')
        marks.append(f'<polyline points="{line["line"]}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks += [f'<circle cx="{point["x"]}" cy="{point["y"]}" r="2.5" fill="{colour}"/>' for point in line["points"]]
    return _svg(chart["width"], chart["height"], marks, arms)


def _svg(width: float, height: float, marks: Sequence[str], arms: Sequence[str]) -> str:
    legend, x = [], 12.0
    for number, arm in enumerate(arms):
        legend.append(f'<circle cx="{x}" cy="11" r="5" fill="{COLOURS[number % len(COLOURS)]}"/>{_text(x + 10, 15, arm, "start")}')
        x += 30 + 7 * len(arm)
    body = "\n".join(marks)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + LEGEND}" width="{width}" height="{height + LEGEND}" {_STYLE}>\n'
            f'<rect width="100%" height="100%" fill="#fff"/>\n{"".join(legend)}\n<g transform="translate(0 {LEGEND})">\n{body}\n</g>\n</svg>\n')


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(str(text))}</text>'
