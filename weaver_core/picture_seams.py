"""Collages by their seams: straight lines over the whole picture at which one panel ends and the next begins.

At every line of a picture the change from one side to the other is looked at, row by row, over a gutter of 0 to 4
hundredths of the width. In one picture the change at the line in the middle ranks, in the mean over rows, in the middle
of the changes at all lines; at a seam it ranks near the top in (almost) every row, in both halves of the line. A bar of a
window ranks as high, but the picture goes on behind it: right past the bar the change is an ordinary one.

Measured by tests/measure_collages.py on true scenes, drawings and crops of 19 photographs, with a seed that no threshold was
set on (photographs and kinds of drawings are the same): 100 single pictures of each kind, the same 100 behind a cross of
bars, 30 collages of unlike pictures for each number. Found with their shape, of 30:

                 2 x 2           3 x 3           2 x 1           blamed of 100
                 plain  gutter   plain  gutter   plain  gutter   single  behind bars
    scenes         25     22       25     22       18     15       0         0
    drawings       24     23       28     23        7      7       0         2
    photographs    26     25       28     26        5      4       1         1

A wrong alarm costs a drawing, so it rather misses. It is weak at two panels side by side, does not look for two on top of each
other (they cannot be told from a horizon, a table or a shelf), and misses most collages of four pages in one scenery, whose
seams are no sharper than the pictures themselves; such pages twice each are found by repetition (picture_checks.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE = 96
_GUTTERS = (0, 1, 2, 3, 4)  # half-widths in lines of a picture of 96
_BEYOND = 6  # half-width that is past any gutter and any bar
_CAP, _EQUAL = 80.0, 2.0  # grey levels: more is no more of a change; less apart is the same
_END = 4  # lines at the picture's frame, and at panels' corners, that are not looked at
_BARE, _LIKE, _WIDEST = 10.0, 14.0, 8  # a bar: grey levels that a column spans, and between columns; columns to a side


@dataclass(frozen=True, slots=True)
class Seam:
    """How much of a seam there is at the lines where panels of one direction would meet; all of them together.

    rank     share of all other lines at which a row changes less, mean over rows; 0.5 = a line like any other
    worst    the same in the worst of the pieces that the other direction's panels cut the line into
    lead     mean change here over that at the strongest other line; the weakest seam counts
    texture  grey levels between the quartiles of the colours beside the line, on the plainer side: a horizon has few
    """

    rank: float
    worst: float
    lead: float
    texture: float


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a seam must have; of two directions, the weaker one, but `beyond_rank` both together.

    beyond_rank, beyond_lead   past any gutter, where a bar has ended
    texture                    of two directions, the richer one
    """

    rank: float
    worst: float
    lead: float
    beyond_rank: float
    beyond_lead: float
    texture: float


_NINE = _Needs(rank=0.76, worst=0.45, lead=1.2, beyond_rank=1.1, beyond_lead=0.8, texture=12.0)
_FOUR = _Needs(rank=0.70, worst=0.60, lead=1.1, beyond_rank=1.17, beyond_lead=0.85, texture=12.0)
_TWO = _Needs(rank=0.88, worst=0.80, lead=1.7, beyond_rank=0.68, beyond_lead=1.1, texture=28.0)
_PAST_RANK, _PAST_LEAD = 1.3, 0.7  # right past a bar: both directions together, and the weaker one
_ALONE_RANK = 0.75  # the same for a seam alone


def seam_shape(pixels: np.ndarray, turned: np.ndarray) -> tuple[int, int] | None:
    """(columns, rows) of a collage with seams: (3, 3), (2, 2) or (2, 1); None where there are none.

    Shapes   pixels (96, 96, 3), 0 to 255; turned: the same with rows and columns exchanged
    """
    if _cross(pixels, turned, 3, _NINE):
        return 3, 3
    if _cross(pixels, turned, 2, _FOUR):
        return (2, 2) if _ends_behind_bars(pixels, turned) else None
    # One seam alone proves little. Level ones are horizons, tables and shelves more often than the edge of a panel.
    return (2, 1) if _stands_alone(pixels) else None


def seam_at(pixels: np.ndarray, panels: int) -> Seam:
    """The upright seams between so many panels, at the gutter that shows them best. pixels (96, 96, 3), 0 to 255."""
    return max((_seams_over(pixels, panels, gutter) for gutter in _GUTTERS), key=_evidence)


def beyond(pixels: np.ndarray, panels: int) -> Seam:
    """The same past any gutter."""
    return _seams_over(pixels, panels, _BEYOND)


def _cross(pixels: np.ndarray, turned: np.ndarray, panels: int, needs: _Needs) -> bool:
    """Whether seams of both directions are there. What lies beyond is looked at first: it clears most pictures at once."""
    past = beyond(pixels, panels), beyond(turned, panels)
    if sum(seam.rank for seam in past) < needs.beyond_rank or min(seam.lead for seam in past) < needs.beyond_lead:
        return False
    both = seam_at(pixels, panels), seam_at(turned, panels)
    return (
        min(seam.rank for seam in both) >= needs.rank
        and min(seam.worst for seam in both) >= needs.worst
        and min(seam.lead for seam in both) >= needs.lead
        and max(seam.texture for seam in past) >= needs.texture
    )


def _stands_alone(pixels: np.ndarray) -> bool:
    past = beyond(pixels, 2)
    if past.rank < _TWO.beyond_rank or past.lead < _TWO.beyond_lead or past.texture < _TWO.texture:
        return False
    seam, behind = seam_at(pixels, 2), _past_bar(pixels)
    if behind.rank < _ALONE_RANK or behind.lead < _TWO.beyond_lead:
        return False
    return seam.rank >= _TWO.rank and seam.worst >= _TWO.worst and seam.lead >= _TWO.lead


def _ends_behind_bars(pixels: np.ndarray, turned: np.ndarray) -> bool:
    """Whether another picture begins right past a cross of bars or gutters: behind those of a window it goes on."""
    past = _past_bar(pixels), _past_bar(turned)
    return sum(seam.rank for seam in past) >= _PAST_RANK and min(seam.lead for seam in past) >= _PAST_LEAD


def _evidence(seam: Seam) -> float:
    return seam.rank + 0.2 * min(seam.lead, 2.0)


def _seams_over(pixels: np.ndarray, panels: int, gutter: int) -> Seam:
    """The seams seen over a gutter of this half-width. Each may lie one line beside its cut: panels are rounded to pixels."""
    cuts = [round(number * SIDE / panels) for number in range(1, panels)]
    change_YX = _changes(pixels, 1 + 2 * gutter)  # column k: across line k + 1 + gutter
    others = _inner(change_YX)
    for cut in cuts:
        place = cut - 1 - gutter
        others[max(0, place - 3 - 2 * gutter) : place + 4 + 2 * gutter] = False
    found = [
        max((_seam(pixels, change_YX, place, others, cuts) for place in (cut - 2 - gutter, cut - 1 - gutter, cut - gutter)), key=_evidence)
        for cut in cuts
    ]
    return Seam(
        rank=float(np.mean([seam.rank for seam in found])),
        **{name: min(getattr(seam, name) for seam in found) for name in ("worst", "lead", "texture")},
    )


def _past_bar(pixels: np.ndarray) -> Seam:
    """The seam in the middle between what lies left and right of a bar of any width there; resizing has mixed one column more."""
    low_X3, high_X3 = np.quantile(pixels, (0.25, 0.75), axis=0)
    spread_X, colour_X3 = (high_X3 - low_X3).max(1), np.median(pixels, axis=0)
    cut = SIDE // 2
    middle = min((cut - 1, cut), key=lambda column: spread_X[column])
    bare_X = (spread_X < _BARE) & (np.abs(colour_X3 - colour_X3[middle]).max(1) < _LIKE)
    left, right = cut - 2, cut + 1
    if bare_X[middle]:
        left = right = middle
        while bare_X[left - 1] and middle - left < _WIDEST:
            left -= 1
        while bare_X[right + 1] and right - middle < _WIDEST:
            right += 1
        left, right = left - 2, right + 2
    change_YX = _changes(pixels, right - left)
    others = _inner(change_YX)
    others[cut - (right - left) - 3 : cut + 4] = False
    return _seam(pixels, change_YX, left, others, [cut])


def _changes(pixels: np.ndarray, gap: int) -> np.ndarray:
    """(96, 96 - gap): the change of every row from column x to column x + gap."""
    return np.minimum(np.abs(pixels[:, gap:] - pixels[:, :-gap]).max(2), _CAP)


def _inner(change_YX: np.ndarray) -> np.ndarray:
    inner = np.zeros(change_YX.shape[1], bool)
    inner[_END:-_END] = True
    return inner


def _seam(pixels: np.ndarray, change_YX: np.ndarray, place: int, others: np.ndarray, cuts: list[int]) -> Seam:
    """The change at one place, held against that at other places; the gap is what `change_YX` is narrower than the picture."""
    usual_YX, here_Y1 = change_YX[:, others], change_YX[:, place, None]
    rank_Y = (usual_YX < here_Y1 - _EQUAL).mean(1) + 0.5 * (np.abs(usual_YX - here_Y1) <= _EQUAL).mean(1)
    corners = [0, *cuts, SIDE]
    ranks = [float(rank_Y[begin + _END - 1 : end - _END + 1].mean()) for begin, end in zip(corners, corners[1:], strict=False)]
    beside = (pixels[:, place], pixels[:, place + SIDE - change_YX.shape[1]])
    return Seam(
        rank=sum(ranks) / len(ranks), worst=min(ranks),
        lead=float(here_Y1.mean()) / max(4.0, float(usual_YX.mean(0).max())),
        texture=min(float(np.subtract(*np.quantile(side, (0.75, 0.25), axis=0)).max()) for side in beside),
    )  # fmt: skip
