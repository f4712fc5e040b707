"""The oracle: exact scores inside the picture-book world, from pixels and texts, without a model and without requests.

What a picture shows is read by `picturebook.reader` from its pixels, what a text says by `told_facts`, what was asked for
comes from the prompt's `ref`. All scores are 0 to 10:

PA  mean of what the request fixes: the number of different pictures; on every picture an asked hero and an asked place,
    and each of them somewhere; the asked thing on some picture; the asked time on the first one.
NC  mean of: each picture shows what its page says (dense prompt, or text where there is none); no other page of the story
    fits it better; the texts' connectives follow each other.
CC  share of the facts told by the texts (who, where, when, which thing, what the hero does) that the picture beside shows.
IC  how well every figure agrees with one cast of as many heroes as the story has (species, colour, worn), in the mean
    over images; collages, copies and pictures of something else show nobody. Needs two images.
CP  mean of: images that came of those wanted; pages that have both a text and a picture; texts that end; answer finished.

A copy is a near-duplicate of an earlier image, beyond as many as there are dense prompts that it fits best: two pages may
well say the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...picture_checks import fingerprint, is_blank, is_grid, same_picture
from ...picturebook import story_words as words
from ...picturebook.captions import parse_dense_prompt
from ...picturebook.reader import Reading, read
from ...picturebook.world import COLOURS, HEROES, PLACES, PROPS
from ...pictures import image_key
from ..records import DIMENSIONS, Document, JudgeRecord, Prompt
from ..run_folder import answer_hash
from .own_prompt import OwnPromptMetric
from .pixels import read_image
from .structure import is_cut_off

RUBRIC = {"id": "picturebook-oracle-1", "sha256": hashlib.sha256(__doc__.encode()).hexdigest()}
FOREIGN_FIT = 0.35  # above this a picture is of something else: true scenes fit to 0.01, spoilt ones to 0.2, noise to 0.5
_MAX_READINGS = 20_000


class OracleJudge:
    """Judges like any judge, exactly. Prompts of other worlds get "na"."""

    name = "oracle"

    def score(self, prompt: Prompt, document: Document, folder: Path, *, dims: Sequence[str] = DIMENSIONS, rep: int = 0) -> list[JudgeRecord]:
        if prompt.ref.get("world") != "picturebook":
            facets = dict.fromkeys(dims, "the oracle knows the truth of picture-book prompts only")
        elif not document.blocks:
            facets = {}
        else:
            facets = oracle_facets(prompt, document, folder)
        return [self._record(prompt, document, dim, facets.get(dim), rep, bool(document.blocks)) for dim in dims]

    def _record(self, prompt, document, dim, facets: dict[str, float] | str | None, rep, answered: bool) -> JudgeRecord:
        score, status = None, "na" if answered else "missing_output"
        if isinstance(facets, dict) and facets:
            score, status = round(10 * float(np.mean(list(facets.values()))), 4), "ok"
        if isinstance(facets, dict):
            rationale = "; ".join(f"{name} {value:.2f}" for name, value in facets.items()) or "nothing to measure"
        else:
            rationale = facets or f"the oracle does not score {dim}"
        rationale = rationale if answered else "there is no answer"
        parts = [self.name, RUBRIC["sha256"], prompt.id, answer_hash(document), dim, rep]
        return JudgeRecord(
            key=hashlib.sha256(json.dumps(parts).encode()).hexdigest(), prompt_id=prompt.id, system=document.system, rep=rep, dim=dim,
            score=score, status=status, rationale=rationale, usd=0.0, judge=self.name, rubric=RUBRIC,
        )  # fmt: skip


def oracle_metrics() -> list[OwnPromptMetric]:
    """Own-prompt margin and recall with the reader as the measure of likeness."""
    return [OwnPromptMetric("oracle", reader_likeness)]


def reader_likeness(images: Sequence[Image.Image], texts: Sequence[str]) -> np.ndarray:
    """(images, texts): share of what each dense prompt says that each picture shows."""
    said = [parse_dense_prompt(text) for text in texts]
    return np.array([[np.mean(list(agreement(reading_of(image), one).values())) for one in said] for image in images])


_readings: dict[str, Reading] = {}


def reading_of(image: Image.Image) -> Reading:
    """`reader.read`, each picture once per process (a probe shows the same pictures many times)."""
    key = image_key(image)
    if key not in _readings:
        if len(_readings) >= _MAX_READINGS:
            _readings.clear()
        _readings[key] = read(image)
    return _readings[key]


# ---- what is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a page's text tells. `prop` is always told: the grammar names the thing of the picture, or there is none."""

    species: tuple[str, ...]
    colours: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]
    props: tuple[str, ...]
    poses: tuple[str, ...]


# "waves" may be water and "Sunny" a name, so neither counts.
_TIME_WORDS = {"day": r"day|morning", "sunset": r"evening|sun began to set|sun went down|sunset|dusk", "night": r"night|dark|midnight"}
_POSE_WORDS = {"waving": "waved|waving", "jumping": "jumped|jumping", "sitting": "sat|sitting"}


def told_facts(text: str) -> Facts:
    """The facts of a page in the story grammar's words. Any text gives facts, never an exception."""
    low = text.lower()

    def named(options: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(re.findall(r"\b(" + "|".join(options) + r")\b", low)))

    def by(patterns: dict[str, str]) -> tuple[str, ...]:
        return tuple(name for name, pattern in patterns.items() if re.search(rf"\b(?:{pattern})\b", low))

    return Facts(species=named(HEROES), colours=named(COLOURS), places=named(PLACES), times=by(_TIME_WORDS), props=named(PROPS),
                 poses=by(_POSE_WORDS))  # fmt: skip


def facts_shown(facts: Facts, reading: Reading) -> list[bool]:
    """Per told fact, whether the picture shows it; that no thing and no other pose is told counts as one fact each."""
    shown = [species in {f.species for f in reading.figures} for species in facts.species]
    shown += [colour in {f.colour for f in reading.figures} for colour in facts.colours]
    shown += [place == reading.place for place in facts.places] + [time == reading.time for time in facts.times]
    shown += [prop == reading.prop for prop in facts.props] or [reading.prop is None]
    poses = {f.pose for f in reading.figures}
    return shown + ([pose in poses for pose in facts.poses] or [poses <= {"standing"}])


def agreement(reading: Reading, said: dict) -> dict[str, bool]:
    """Per attribute that a parsed dense prompt states, whether the picture shows it. Figures are matched left to right."""
    same = {"count": reading.count == said["figures"], "prop": reading.prop == said["prop"]}
    same |= {name: getattr(reading, name) == said[name] for name in ("place", "time") if said[name] is not None}
    figures = [{name: said[prefix + name] for name in ("species", "colour", "wearable", "pose", "position")}
               for prefix in ("", "second_")[: said["figures"]]]  # fmt: skip
    order = {"left": 0, "centre": 1, "right": 2, None: 1}
    figures.sort(key=lambda figure: order[figure["position"]])
    for number, figure in enumerate(figures):
        seen = reading.figures[number] if number < reading.count else None
        for name, value in figure.items():
            hidden = figure["species"] is None and name == "wearable"  # identity is not told, so nothing worn is said
            if (value is not None or name == "wearable") and not hidden:
                same[f"{name}{number}"] = seen is not None and getattr(seen, name) == value
    return same


# ---- pages


@dataclass(slots=True)
class _Page:
    """A text and the picture behind it; either may be missing. `fault`: why the picture shows nothing of the story."""

    text: str = ""
    reading: Reading | None = None
    dense: str = ""
    fault: str = ""
    has_image: bool = False
    fingerprint: tuple | None = None

    @property
    def good(self) -> bool:
        return self.reading is not None and not self.fault


def _pages(document: Document, folder: Path) -> list[_Page]:
    """Texts up to each image make its page; headings do not count, nor does a last word such as "The end."."""
    pages, page = [], _Page()
    for block in document.blocks:
        if block.type == "text":
            lines = [line for line in block.text.splitlines() if not line.lstrip().startswith("#")]
            page.text = " ".join([page.text, *lines]).strip()
            continue
        page.has_image, page.dense = True, block.dense_prompt
        image = read_image(folder, block)
        if image is None:
            page.fault = "unreadable"
        else:
            page.fingerprint = fingerprint(image)
            page.reading = reading_of(image)
            foreign = page.reading.fit > FOREIGN_FIT
            page.fault = "blank" if is_blank(image) else "grid" if is_grid(image) else "foreign" if foreign else ""
        pages.append(page)
        page = _Page()
    if len(page.text.split()) > 3:
        pages.append(page)
    _mark_copies(pages)
    return pages


def _mark_copies(pages: list[_Page]) -> None:
    """Gives "copy" to good pictures that show once more what earlier ones show, beyond what the dense prompts ask for."""
    said = [parse_dense_prompt(page.dense) for page in pages if page.dense]
    for number, page in enumerate(pages):
        if not page.good:
            continue
        before = sum(earlier.good and same_picture(earlier.fingerprint, page.fingerprint) for earlier in pages[:number])
        if before:
            fits = [float(np.mean(list(agreement(page.reading, one).values()))) for one in said]
            if before >= max(1, sum(fit >= max(fits) - 1e-9 for fit in fits)):
                page.fault = "copy"


# ---- the five dimensions


def oracle_facets(prompt: Prompt, document: Document, folder: Path) -> dict[str, dict[str, float] | str]:
    """Per dimension the named parts (0 to 1) whose mean is its score, or a sentence why it cannot be scored."""
    pages = _pages(document, folder)
    shown = [page for page in pages if page.has_image]
    return {
        "PA": _adherence(prompt, shown),
        "NC": _coordination(pages),
        "CC": _coherence(pages),
        "IC": _identity(prompt, shown) if len(shown) > 1 else "fewer than two images",
        "CP": _completeness(prompt, document, pages, shown),
    }


def _adherence(prompt: Prompt, shown: list[_Page]) -> dict[str, float]:
    known = prompt.ref["known"]
    different = sum(page.has_image and page.fault not in ("copy", "unreadable") for page in shown)
    facets = {"count": _count_share(prompt, different)}
    readings = [page.reading if page.good else None for page in shown]
    heroes = _asked_heroes(prompt)
    if any(heroes):
        fits = [[r is not None and any(_is_hero(figure, hero) for figure in r.figures) for hero in heroes] for r in readings]
        each_page = np.mean([any(one) for one in fits]) if fits else 0.0
        everyone = np.mean([any(one[i] for one in fits) for i in range(len(heroes))])
        facets["heroes"] = float(each_page * everyone)
    if known["places"]:
        at = [r is not None and r.place in known["places"] for r in readings]
        visited = np.mean([any(r is not None and r.place == place for r in readings) for place in known["places"]])
        facets["places"] = float(np.mean(at) * visited) if at else 0.0
    if known["prop"]:
        facets["prop"] = float(any(r is not None and r.prop == known["prop"] for r in readings))
    if known["time"]:
        facets["time"] = float(bool(readings) and readings[0] is not None and readings[0].time == known["time"])
    return facets


def _asked_heroes(prompt: Prompt) -> list[dict]:
    """Per hero what is fixed: by the request's words, or all of it by a reference picture."""
    names = ("species", "colour", "wearable")
    if prompt.ref["with_reference"]:
        return [{name: hero[name] for name in names} for hero in prompt.ref["cast"]]
    return [{name: hero[name] for name in names if hero[name] is not None} for hero in prompt.ref["known"]["heroes"]]


def _is_hero(figure, hero: dict) -> bool:
    return all(getattr(figure, name) == value for name, value in hero.items())


def _count_share(prompt: Prompt, got: int) -> float:
    wanted = min(max(got, prompt.want.images_min), prompt.want.images_max)
    return max(0.0, 1 - abs(got - wanted) / max(1, wanted))


def _coordination(pages: list[_Page]) -> dict[str, float]:
    if not pages:
        return {"in_place": 0.0}
    fit = np.array([[_page_fit(page, said) for said in pages] for page in pages])
    own = np.diag(fit)
    best = fit.max(1)
    facets = {"in_place": float(own.mean()), "own_page": float(np.mean([o >= b - 1e-9 and o > 0 for o, b in zip(own, best)]))}
    order = [place for place in (_connective(page.text, last=page is pages[-1]) for page in pages) if place is not None]
    if len(order) > 1:
        facets["order"] = float(np.mean([b > a for a, b in itertools.pairwise(order)]))
    return facets


def _page_fit(page: _Page, said: _Page) -> float:
    """How well the picture of one page shows what another page says."""
    if not page.good:
        return 0.0
    shown = facts_shown(told_facts(said.text), page.reading) if said.text else []
    if said.dense:
        shown = shown + list(agreement(page.reading, parse_dense_prompt(said.dense)).values())
    return float(np.mean(shown)) if shown else 0.0


def _connective(text: str, *, last: bool) -> int | None:
    """The place in the story that a page's first words claim (1 to 7, the end is 99); None where they claim none."""
    for number, options in words.CONNECTIVES.items():
        if text.startswith(options):
            return number
    if text.startswith(words.FINAL):
        return 99
    return 1 if text.startswith(tuple(w for options in words.OPENINGS.values() for w in options)) else None


def _coherence(pages: list[_Page]) -> dict[str, float] | str:
    facts: list[bool] = []
    for page in pages:
        if page.text and page.has_image:
            told = told_facts(page.text)
            facts += facts_shown(told, page.reading) if page.good else [False] * len(facts_shown(told, _NOTHING))
    return {"facts": float(np.mean(facts))} if facts else "no page has a text and a picture"


_NOTHING = Reading(place="", time="", figures=(), prop=None, margins={}, fit=1.0)


def _identity(prompt: Prompt, shown: list[_Page]) -> dict[str, float]:
    looks = [[(f.species, f.colour, f.wearable) for f in page.reading.figures] if page.good else [] for page in shown]
    seen = Counter(look for one in looks for look in one)
    size = max(1, min(len(prompt.ref["cast"]), len(seen)))
    candidates = sorted(seen, key=lambda look: (-seen[look], str(look)))[:8]

    def score(cast) -> float:
        return float(np.mean([np.mean([max(_alike(look, hero) for hero in cast) for look in one]) if one else 0.0 for one in looks]))

    return {"one_cast": max((score(cast) for cast in itertools.combinations(candidates, size)), default=0.0)}


def _alike(a: tuple, b: tuple) -> float:
    """1 for the same hero; another colour alone costs more than a third of it."""
    return float(np.mean([x == y for x, y in zip(a, b)])) ** 2


def _completeness(prompt: Prompt, document: Document, pages: list[_Page], shown: list[_Page]) -> dict[str, float]:
    readable = sum(page.fault not in ("unreadable", "blank") for page in shown)
    wanted = max(1, prompt.want.images_min)
    texts = [block.text for block in document.texts if not block.text.lstrip().startswith("#")]
    ended = [bool(text.strip()) and not is_cut_off(text) for text in texts]
    return {
        "images": min(1.0, readable / wanted),
        "pages": float(np.mean([bool(page.text) and page.has_image for page in pages])) if pages else 0.0,
        "texts_end": float(np.mean(ended)) if ended else 0.0,
        "finished": float(document.finish == "stop" and not document.error),
    }
