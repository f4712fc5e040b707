"""The critic: a model that sees looks at a drawn image, scores it against its dense prompt and cast, and may ask for another.

Pure but for the planner that is asked: a question in, JSON out, and a parser that makes a verdict of whatever comes, or
none. The weave loop draws again (redraw.py) and keeps the picture with the best score, so a critic can cost time and never
a good picture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from .errors import InputError
from .planners import PlannerOptions, SeeingPlanner
from .segments import ILLEGAL

if TYPE_CHECKING:
    from PIL.Image import Image

    from .plan import CastMember, ImageSegment
    from .rendering import Rendering

# What is looked at, and what the model is told that it means.
ASPECTS = {
    "people": "the characters of the description are there, each exactly once, and nobody else",
    "looks": "every character is of the described kind, colours, clothes and things",
    "scene": "place, time of day, action and composition are those of the description",
    "single": "it is one picture: no collage, no panels, no character drawn twice",
    "clean": "it holds no letters, captions or watermarks that the description does not ask for",
}
BEST = 10
LEAST = 6  # where an aspect is scored below this, the picture is drawn again (our choice)
MAX_REDRAWS = 8
MAX_FAULTS, MAX_FAULT_LENGTH, MAX_PROMPT_LENGTH = 5, 200, 4000
ANSWER_TOKENS = 2048  # a verdict is a tenth of it; models that think use the rest
MAX_ANSWER = 20_000  # characters, from the end: far above any verdict

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TAGS = re.compile(r"<[^<>]{0,200}>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the critic found in one image.

    scores   aspect -> 0 (wrong) to 10 (right), for those of ASPECTS that it has scored
    faults   sentences about what is wrong
    prompt   the dense prompt in other words, for another drawing; "" = as it is
    """

    scores: dict[str, int]
    faults: tuple[str, ...] = ()
    prompt: str = ""

    @property
    def score(self) -> int:
        """The lowest one: a picture is as good as its worst fault."""
        return min(self.scores.values())

    @property
    def rank(self) -> tuple[int, float]:
        """Larger is better: the score, and among equals the mean of all."""
        return self.score, sum(self.scores.values()) / len(self.scores)

    def __str__(self) -> str:
        low = [f"{name} {score}" for name, score in self.scores.items() if score == self.score]
        why = f" ({', '.join(low)})" if self.score < BEST else ""
        faults = f": {'; '.join(self.faults)}" if self.faults and self.score < BEST else ""
        return f"{self.score} of {BEST}{why}{faults}"


class Critic:
    """Judges images with a planner that sees.

    max_redraws   how often an image may be drawn again
    least         an image with a lower score is

    InputError for a planner that cannot look at pictures.
    """

    def __init__(self, planner: SeeingPlanner, *, max_redraws: int = 1, least: int = LEAST):
        if not isinstance(planner, SeeingPlanner):
            raise InputError(
                "the critic needs a model that can look at a picture and answer, and the picture-book planner only writes "
                "stories; give it a model that sees, such as Qwen3-VL, on a server or on this computer"
            )
        if not 0 <= max_redraws <= MAX_REDRAWS:
            raise InputError(f"the critic may ask for {max_redraws} redraws; it must be 0 to {MAX_REDRAWS}")
        if not 0 <= least <= BEST:
            raise InputError(f"the critic's least score is {least}; it must be 0 to {BEST}")
        self.planner, self.max_redraws, self.least = planner, max_redraws, least

    def judge(
        self, image: Image, segment: ImageSegment, cast: Sequence[CastMember], *, cancel: Callable[[], bool]
    ) -> Verdict | None:
        """What it finds; None when the answer is no verdict. Whatever the planner raises comes out."""
        options = PlannerOptions(temperature=0, max_tokens=ANSWER_TOKENS)
        text = self.planner.answer(question(segment, cast), (image,), options=options, cancel=cancel, schema=verdict_schema())
        return read_verdict(text)

    def is_content(self, verdict: Verdict) -> bool:
        return verdict.score >= self.least

    def is_done_with(self, rendering: Rendering) -> bool:
        """Whether an image need not be looked at: it was, and is good enough or was drawn as often as it may be."""
        return is_done_with(rendering, max_redraws=self.max_redraws, least=self.least)


def is_done_with(rendering: Rendering, *, max_redraws: int, least: int) -> bool:
    """`Critic.is_done_with`, for those who do not want to load a model to know."""
    verdict = rendering.verdict
    return verdict is not None and (verdict.score >= least or rendering.wishes >= max_redraws)


# ---- question and answer


def question(segment: ImageSegment, cast: Sequence[CastMember]) -> str:
    """What the model is asked about the picture that goes along."""
    looks = [f"- {member.name}: {member.look}" for member in cast if member.name in segment.cast and member.look]
    known = ["Who is in it:", *looks, ""] if looks else []
    form = {**dict.fromkeys(ASPECTS, 0), "faults": ["..."], "prompt": "..."}
    return "\n".join([
        "You check a picture of an illustrated story. It was to be drawn from this description:",
        f'"{segment.prompt}"',
        "",
        *known,
        "Look at the picture, and score from 0 (wrong) to 10 (right) whether",
        *(f"- {name}: {meaning}." for name, meaning in ASPECTS.items()),
        "faults: what is wrong, one short sentence each; [] when nothing is.",
        "prompt: when something is wrong, the whole description again, worded so that a painter gets it right: say how many "
        "characters there are and what each wears. Say what is there, never what is not. Else an empty text.",
        "",
        f"Answer with JSON only, such as {json.dumps(form)}",
    ])  # fmt: skip


def verdict_schema() -> dict:
    """JSON schema of the answer, strict: every key required, no others."""
    properties: dict[str, dict] = {name: {"type": "integer"} for name in ASPECTS}
    properties |= {"faults": {"type": "array", "items": {"type": "string"}}, "prompt": {"type": "string"}}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_verdict(text: str) -> Verdict | None:
    """The verdict in a model's answer, whatever stands around it; None when no aspect is scored. Never raises."""
    answer = _object_in(text)
    nested = answer.get("scores")
    places = [answer, *([nested] if isinstance(nested, dict) else [])]
    scores = {name: score for name in ASPECTS for place in places if (score := _score(place.get(name))) is not None}
    if not scores:
        return None
    faults = answer.get("faults")
    faults = [faults] if isinstance(faults, str) else faults if isinstance(faults, list) else []
    told = [line for item in faults if (line := _line(item, MAX_FAULT_LENGTH))]
    return Verdict(scores=scores, faults=tuple(dict.fromkeys(told))[:MAX_FAULTS], prompt=_line(answer.get("prompt"), MAX_PROMPT_LENGTH))


def _object_in(text: str) -> dict:
    """The last JSON object with a known key, because models think before they answer; {} when there is none."""
    text, decoder, found, position = text[-MAX_ANSWER:], json.JSONDecoder(), {}, 0
    known = {*ASPECTS, "scores"}
    while (start := text.find("{", position)) >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
            continue
        if isinstance(value, dict) and known & value.keys():
            found = value
        position = end
    return found


def _score(value: object) -> int | None:
    """0 to 10 out of 7, 7.5, "7", "7/10"; None for what is no score."""
    if isinstance(value, str) and (number := _NUMBER.search(value[:20])):
        value = float(number[0])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (isinstance(value, float) and not isfinite(value)):
        return None
    return round(min(max(value, 0), BEST))


def _line(value: object, length: int) -> str:
    """A text on one line, without tags, at most so long; "" for what is no text."""
    if not isinstance(value, str):
        return ""
    text = " ".join(_TAGS.sub(" ", ILLEGAL.sub(" ", value)).replace("<", " ").split())
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0]


# ---- in the journal


def verdict_to_json(verdict: Verdict) -> dict:
    return {"scores": dict(verdict.scores), "faults": list(verdict.faults), "prompt": verdict.prompt}


def verdict_from_json(data: object) -> Verdict:
    """ValueError for what `verdict_to_json` never writes."""
    verdict = read_verdict(json.dumps(data, ensure_ascii=False)) if isinstance(data, dict) else None
    if verdict is None or verdict_to_json(verdict) != data:
        raise ValueError("image.verdict: this is no verdict of a critic")
    return verdict
