"""How many images the words of a request ask for: "in four pictures", "length: 5 images", "vier Bilder", "4张图".

Small planners lose count, and large ones now and then: a number that the user has said is kept by the loop, not left to
them. Only a plain number before (or, after a colon, behind) a word for images counts; where two such numbers disagree,
nobody is sure what is meant, and the planner decides.
"""

from __future__ import annotations

import re

_WORDS = {
    "en": ("one two three four five six seven eight nine ten eleven twelve", ("a single", "single", "only one", "just one")),
    "de": ("ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf", ("eine", "ein einziges", "einem")),
    "fr": ("un deux trois quatre cinq six sept huit neuf dix onze douze", ("une", "une seule", "un seul")),
}
_NOUNS = {
    "en": "pictures? images? illustrations? drawings? pages? panels? scenes? photos? pics?",
    "de": "Bild(?:er|ern)? Seiten? Szenen? Illustration(?:en)? Zeichnung(?:en)?",
    "fr": "images? pages? illustrations? dessins? scènes?",
}
# What may stand between number and noun is an adjective or two, never one of these ("two heroes in pictures").
_BETWEEN = r"(?:(?!(?:in|on|of|with|and|or|the|for|from|to|at|by|as|und|mit|et|avec|de|des|dans)\b)[^\W\d_-]+(?:-[^\W\d_]+)?\s+){0,2}?"
_CJK_NUMBERS = {word: value for value, word in enumerate("一二三四五六七八九十", 1)} | {"两": 2, "兩": 2, "十一": 11, "十二": 12}
_CJK = re.compile(r"(\d{1,2}|十[一二]|[一二两兩三四五六七八九十])\s*(?:[张張幅枚页頁]|[个個]?(?:画面|场景|場景)|コマ|ページ)")


def _number_words() -> dict[str, int]:
    values: dict[str, int] = {}
    for line, ones in _WORDS.values():
        values |= {word: value for value, word in enumerate(line.split(), 1)} | dict.fromkeys(ones, 1)
    return values


_VALUES = _number_words()
_NUMBER = r"\d{1,2}|" + "|".join(sorted(map(re.escape, _VALUES), key=len, reverse=True))
_NOUN = "|".join(noun for nouns in _NOUNS.values() for noun in nouns.split())
_BEFORE = re.compile(rf"(?<![\w.,/:-])({_NUMBER})[\s-]+{_BETWEEN}(?:{_NOUN})\b", re.IGNORECASE)
_BEHIND = re.compile(rf"\b(?:{_NOUN})\s*[:=]\s*({_NUMBER})\b", re.IGNORECASE)


def asked_images(prompt: str) -> int | None:
    """The number of images that a prompt asks for in words or digits; None where it says none, or more than one."""
    found = {_value(match[1]) for pattern in (_BEFORE, _BEHIND, _CJK) for match in pattern.finditer(prompt)}
    return found.pop() if len(found) == 1 and 0 not in found else None


def recounted(prompt: str, count: int) -> str:
    """The prompt with this number in the place of every one that `asked_images` reads."""
    for pattern in (_BEFORE, _BEHIND, _CJK):
        prompt = pattern.sub(lambda found: _replaced(found, count), prompt)
    return prompt


def _replaced(found: re.Match, count: int) -> str:
    start, end = (at - found.start() for at in found.span(1))
    return f"{found[0][:start]}{count}{found[0][end:]}"


def _value(text: str) -> int:
    return int(text) if text.isdecimal() else _VALUES.get(text.lower()) or _CJK_NUMBERS[text]
