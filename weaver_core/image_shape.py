"""Which shape of images the words of a request ask for: "three wide pictures", "portrait format", "Querformat", "in 16:9".

Planners that choose a shape for every image are told nothing else; those that cannot need the loop to keep to what the user has
said. A word for a shape counts only beside a word for images or formats, so that a wide river stays a river; where two of them
disagree, nobody is sure what is meant, and the planner decides.
"""

from __future__ import annotations

import re

# Our choice: what is only called wide or tall gets the shape of a picture-book page.
WIDE, TALL, SQUARE = "4:3", "3:4", "1:1"
_RATIOS = "1:1 5:4 4:5 4:3 3:4 3:2 2:3 16:9 9:16 21:9 9:21"

_PICTURES = r"(?:pictures|images|illustrations|drawings|pages|panels|photos|pics)"  # many: "a square picture" may hang on a wall
_FORMAT = r"[\s-]+(?:format|orientation|layout|mode)"
_WORDS = {
    WIDE: (rf"(?:wide|horizontal|landscape)(?:{_FORMAT}|[\s-]+oriented)", rf"(?:wide|horizontal)\s+(?:[a-z]+\s+)?{_PICTURES}",
           r"querformat(?:ig\w*)?", r"format\s+paysage", r"横版|横图|横圖|横構図|横長の(?:絵|画像|ページ)"),
    TALL: (rf"(?:tall|upright|vertical|portrait)(?:{_FORMAT}|[\s-]+oriented)", rf"(?:tall|upright|vertical)\s+(?:[a-z]+\s+)?{_PICTURES}",
           r"hochformat(?:ig\w*)?", r"format\s+portrait", r"竖版|豎版|竖图|縦構図|縦長の(?:絵|画像|ページ)"),
    SQUARE: (rf"square{_FORMAT}", rf"square\s+(?:[a-z]+\s+)?{_PICTURES}", r"quadratische[nr]?\s+(?:Bild|Seite)\w*",
             r"format\s+carré|(?:images|pages|illustrations)\s+carrées", r"方形(?:的)?(?:图|圖|画)|正方形の(?:絵|画像|ページ)"),
}  # fmt: skip
_SHAPES = {aspect: re.compile("|".join(rf"(?<![a-zà-ÿ])(?:{word})" for word in words), re.IGNORECASE) for aspect, words in _WORDS.items()}
_RATIO = re.compile(r"(?<![\w:.,])(" + _RATIOS.replace(" ", "|") + r")(?![\w:]|[.,]\d)")
# What a ratio stands beside; a result of a match ("they won 3:2") stands beside nothing of the kind.
_BEFORE = re.compile(r"(?:\b(?:in|aspect(?:\s+ratio)?|ratio|formate?|seitenverhältnis)\s*[:=]?|比例|画幅)\s*\Z", re.IGNORECASE)
_BEHIND = re.compile(rf"[\s-]*(?:{_PICTURES}|aspect|format|bilder|seiten|的?图|の(?:絵|画像))", re.IGNORECASE)


def asked_aspect(prompt: str) -> str | None:
    """The aspect ratio that a prompt asks for in words or as a ratio, such as "4:3"; None where it asks for none, or for several."""
    found = {aspect for aspect, words in _SHAPES.items() if words.search(prompt)}
    for ratio in _RATIO.finditer(prompt):
        if _BEFORE.search(prompt[max(0, ratio.start() - 30):ratio.start()]) or _BEHIND.match(prompt, ratio.end()):
            found.add(ratio[1])
    return found.pop() if len(found) == 1 else None
