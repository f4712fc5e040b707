"""A planner and a visualizer small enough to follow by hand, both whole implementations of the protocols.

The planner tells a story it was given; the visualizer draws flat shapes whose colours are decided by everything that
may decide an image (prompt, seed, references, size, steps), so any difference in those shows in the pixels.
"""

from __future__ import annotations

import hashlib
import re

from PIL import Image, ImageDraw

from weaver_core.errors import Cancelled
from weaver_core.visualizers import Capabilities

FOX = """# Robin's day
In the morning Robin peeks out of his den. <imagine>A small orange fox peeks out of a den.</imagine><BOI>
At noon he walks to the river. <imagine>The fox walks along a river.</imagine><BOI>
In the evening he is tired. <imagine>The fox sleeps under a tree.</imagine><BOI>
"""


class TellingPlanner:
    """Writes the markup it was made with, in pieces; with a history, what comes after it."""

    max_images = None

    def __init__(self, markup: str = FOX, piece: int = 7):
        self.markup = markup
        self.piece = piece
        self.calls: list[tuple] = []

    def write(self, request, history, *, options, cancel):
        self.calls.append((history, options))
        told = "".join(item for item in history if isinstance(item, str))
        assert self.markup.startswith(told)
        rest = self.markup[len(told) :]
        for start in range(0, len(rest), self.piece):
            if cancel():
                return
            yield rest[start : start + self.piece]


class FeatureTellingPlanner(TellingPlanner):
    """Its features of an image are the words of its dense prompt, and how many images of the history it has seen."""

    def context(self, plan, segment, request, *, history=()):
        return re.findall(r"\w+", segment.prompt), sum(not isinstance(item, str) for item in history)


class ShapeVisualizer:
    """Draws a disc on a ground; keeps the shots it was given."""

    def __init__(self, *, max_references: int = 2, needs_context: bool = False, fails_on: str = ""):
        self.capabilities = Capabilities(
            max_references=max_references,
            default_size=(32, 32),
            sizes=((32, 32), (40, 30), (30, 40)),
            needs_context=needs_context,
            steps=3,
        )
        self.fingerprint = "shapes-1"
        self.fails_on = fails_on
        self.shots = []

    def render(self, shot, *, on_step, cancel):
        if self.fails_on and self.fails_on in shot.prompt:
            raise RuntimeError("out of paint")
        self.shots.append(shot)
        facts = (shot.prompt, shot.seed, shot.reference_keys, shot.size, shot.steps, shot.guidance)
        digest = hashlib.sha256(repr(facts).encode()).digest()
        image = Image.new("RGB", shot.size, tuple(digest[:3]))
        for step in range(shot.steps):
            if cancel():
                raise Cancelled
            ImageDraw.Draw(image).ellipse((4, 4, 8 + 6 * step, 8 + 6 * step), fill=tuple(digest[3:6]))
            on_step(step + 1, shot.steps, None)
        return image
