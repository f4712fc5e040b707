"""What a judge's answer says. Models wrap their JSON in fences, thoughts and prose; a number is read where it is plain
which one is meant, and nothing is guessed: out of range or missing is a problem, never a score."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .rubric import TITLES

MAX_SCORE = 10
_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_START = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)
_NUMBER = r"[*_`\s]*(-?\d+(?:\.\d+)?)[*_`]*(?:\s*(?:/|out of)\s*(\d+(?:\.\d+)?))?[*_`]*"
_ALONE = re.compile(rf"{_NUMBER}\.?\s*\Z")
_SAID = re.compile(rf"(?:score|rating)[*_`\"']*\s*(?:is|of|:|=|-)?{_NUMBER}(?![\d.]*\d)", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\s*(?:i['’]m sorry|i am sorry|sorry,|i can(?:no|['’])t|i am (?:unable|not able)|i['’]m (?:unable|not able)|unfortunately, i can)",
    re.IGNORECASE,
)
_BEGIN = re.compile(r"\{|\[\s{0,20}\{")
_MAX_TRIES = 300  # an answer of brackets must not keep us busy
_MAX_PROSE = 20_000
_WRAPPERS = ("scores", "score", "evaluation", "result", "results", "judgement", "judgment", "output", "answer", "ratings")
_SCORE_KEYS = ("score", "rating", "value", "points")
_REASON_KEYS = ("rationale", "reason", "justification", "explanation", "reasoning", "comment")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A score from 0 to 10, or None and what is wrong. `strict`: the answer was the JSON that was asked for, nothing else."""

    score: float | None
    rationale: str = ""
    problem: str = ""
    strict: bool = False


def parse_scores(text: str, dims: Sequence[str]) -> dict[str, Parsed]:
    """The score of each dimension in a judge's answer. Never raises."""
    value = _load(text.strip())
    strict = isinstance(value, dict)
    for candidate in [value] if strict else _objects(text):
        found = {dim: _from_object(candidate, dim, len(dims) == 1, strict) for dim in dims}
        if any(parsed is not None for parsed in found.values()):
            return {dim: parsed or Parsed(None, problem=f"the answer has no score for {dim}") for dim, parsed in found.items()}
    return {dim: _from_prose(_without_thoughts(text), dim, len(dims) == 1) for dim in dims}


def parse_choice(text: str) -> tuple[str | None, str]:
    """Which of two answers is better: "A", "B" or "tie", None when it does not say; and why."""
    for candidate in [_load(text.strip()), *_objects(text)]:
        if isinstance(candidate, dict):
            named = {str(key).lower(): item for key, item in candidate.items()}
            for key in ("winner", "choice", "better", "preference", "answer", "verdict"):
                word = _choice_word(named.get(key))
                if word:
                    return word, _reason(named)
    said = re.findall(r"(?:winner|better|choice|prefer\w*|verdict)\W{0,10}(?:is\W{0,5})?(?:answer\W{0,3})?(A|B|tie)\b",
                      _without_thoughts(text), re.IGNORECASE)
    word = _choice_word(said[-1] if said else _without_thoughts(text))
    return word, ""


def is_refusal(text: str) -> bool:
    """Whether an answer without scores is one that declines to judge."""
    return bool(_REFUSAL.match(_without_thoughts(text)))


# ---- JSON in the answer


def _load(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None


def _without_thoughts(text: str) -> str:
    """The answer after the thinking; a thought that never ends is all there is of it, so nothing is left."""
    text = _THOUGHT.sub("", text)
    ends = list(_THOUGHT_END.finditer(text))
    text = text[ends[-1].end():] if ends else text
    begun = _THOUGHT_START.search(text)
    return (text[: begun.start()] if begun else text).strip()


def _objects(text: str) -> Iterator[Any]:
    """Objects and lists in the answer: the last one first, for models draft before they decide."""
    text = _without_thoughts(text)
    found = [value for block in _FENCE.findall(text) if isinstance(value := _load(block.strip()), (dict, list))]
    decoder = json.JSONDecoder(parse_constant=lambda name: None)
    position = 0
    for _ in range(_MAX_TRIES):
        begun = _BEGIN.search(text, position)
        if begun is None:
            break
        try:
            value, position = decoder.raw_decode(text, begun.start())
            found.append(value)
        except (ValueError, RecursionError):
            position = begun.start() + 1
    yield from (value for value in reversed(found) if isinstance(value, (dict, list)))


def _from_object(value: Any, dim: str, alone: bool, strict: bool, depth: int = 0) -> Parsed | None:
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and _names(dim, next((item[k] for k in item if k.lower() in
                                                            ("dimension", "dim", "criterion", "name", "id")), "")):
                return _from_object(item, dim, True, False)
        return None
    if not isinstance(value, dict):
        return None
    for key, item in value.items():
        if _names(dim, key):
            if isinstance(item, dict):
                return _from_object(item, dim, True, strict, depth) or Parsed(None, problem=f"the answer has no score for {dim}")
            return _number(item, _reason(value) if alone else "", strict and isinstance(item, (int, float)))
    named = {str(key).lower(): item for key, item in value.items()}
    if alone:
        for key in _SCORE_KEYS:
            if key in named and not isinstance(named[key], (dict, list)):
                return _number(named[key], _reason(named), strict and isinstance(named[key], (int, float)))
    if depth < 2:
        for key in _WRAPPERS:
            if isinstance(named.get(key), (dict, list)) and (found := _from_object(named[key], dim, alone, False, depth + 1)):
                return found
    return None


def _number(value: Any, rationale: str, strict: bool) -> Parsed:
    """A score of 0 to 10 from a number, "8" or "8/10"."""
    if isinstance(value, str):
        found = re.fullmatch(rf"{_NUMBER}\s*", value)
        if found is None:
            return Parsed(None, rationale, f"the score is {value[:40]!r}, no number")
        if found[2] is not None and float(found[2]) != MAX_SCORE:
            return Parsed(None, rationale, f"the score is {value[:40]!r}; it must be out of {MAX_SCORE}")
        value = float(found[1])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return Parsed(None, rationale, f"the score is {str(value)[:40]}, no number")
    if not 0 <= value <= MAX_SCORE:
        return Parsed(None, rationale, f"the score is {value:g}; it must lie in 0..{MAX_SCORE}")
    return Parsed(float(value), rationale, "", strict)


def _reason(value: dict) -> str:
    for key, item in value.items():
        if str(key).lower() in _REASON_KEYS and isinstance(item, str):
            return item.strip()
    return ""


def _names(dim: str, word: Any) -> bool:
    plain = re.sub(r"[^a-z]+", "", str(word).lower())
    return plain in (dim.lower(), re.sub(r"[^a-z]+", "", TITLES.get(dim, dim).lower()))


# ---- no JSON at all


def _from_prose(text: str, dim: str, alone: bool) -> Parsed:
    """A score in words, only where an answer puts its own: judges also quote what the judged text asks for."""
    nothing = Parsed(None, problem=f"the answer has no score for {dim}")
    if text.startswith(("{", "[", "```")):
        return Parsed(None, problem="the answer is JSON that breaks off")
    text = text[-_MAX_PROSE:]
    names = "|".join(re.escape(name) for name in (dim, TITLES.get(dim, dim)))
    said = list(re.finditer(rf"(?:^[\W_]{{0,20}}|[,;|]\s{{0,20}})(?:{names})\b[^\n\d]{{0,20}}?[:=|-]{_NUMBER}", text, re.IGNORECASE | re.MULTILINE))
    lines = [line for line in text.splitlines() if line.strip()]
    if alone and not said and lines:
        first = re.match(rf"[\W_]{{0,20}}{_SAID.pattern}", lines[0], re.IGNORECASE)
        said = list(_SAID.finditer(lines[-1])) or [found for found in (_ALONE.match(lines[-1]), first) if found]
    if not said:
        return nothing
    number, scale = said[-1].groups()[-2:]
    return _number(number if scale is None else f"{number}/{scale}", text[:2000], False)


def _choice_word(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    word = re.sub(r"^(?:answer|response|option)\s+", "", value.strip().strip(".*_`\"'[]()").lower())
    return {"a": "A", "b": "B", "tie": "tie", "equal": "tie", "neither": "tie"}.get(word)
