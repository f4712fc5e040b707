"""What is wrong with a page that has just been drawn, in words that can be stored and shown: blank, grid, copy of p2.

The detectors are those of picture_checks.py. A copy counts as a fault only where the dense prompts differ: two pages that
ask for the same may look the same, and the picture-book's planner does ask for one scene twice in other words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .errors import StoryError
from .picturebook.captions import parse_dense_prompt

if TYPE_CHECKING:
    from PIL.Image import Image

    from .plan import ImageSegment, Plan
    from .story import Story

BLANK, GRID, COPY_OF = "blank", "grid", "copy of "  # what `Rendering.fault` holds; a copy is followed by a segment id
_SEVERITY = (BLANK, GRID, "copy", "")  # the worst first


class FaultFinder:
    """Finds the faults of a story's pages. Of earlier pages it remembers the fingerprints (3 KB each), not the pictures."""

    def __init__(self):
        self._fingerprints: dict[str, object] = {}  # by the image's key

    def find(self, image: Image, segment: ImageSegment, plan: Plan, story: Story) -> str:
        """The fault of a segment's image beside the pages before it, "" when it looks right."""
        return find_fault(image, segment.prompt, self._earlier(segment, plan, story))

    def _earlier(self, segment: ImageSegment, plan: Plan, story: Story) -> Iterator[tuple[str, str, object]]:
        for other in plan.images:
            if other.id == segment.id:
                return
            if rendering := story.renderings.get(other.id):
                if rendering.image_key not in self._fingerprints:
                    try:
                        self._fingerprints[rendering.image_key] = print_of(story.image(other.id))
                    except StoryError:
                        continue  # a lost page is told where it is needed; this one can be drawn without
                yield other.id, other.prompt, self._fingerprints[rendering.image_key]


def find_fault(image: Image, prompt: str, earlier: Iterable[tuple[str, str, object]]) -> str:
    """The fault of an image, "" when it looks right.

    earlier   (segment id, dense prompt, `print_of`) of the pages before it
    """
    from .picture_checks import fingerprint, is_blank, is_grid, same_picture  # numpy: not before a picture is drawn

    if is_blank(image):
        return BLANK
    if is_grid(image):
        return GRID
    mine = None
    for segment_id, other_prompt, other in earlier:
        if not _ask_the_same(prompt, other_prompt):
            mine = mine or fingerprint(image)
            if same_picture(mine, other):
                return COPY_OF + segment_id
    return ""


def print_of(image: Image) -> object:
    """What `find_fault` compares pages by, 3 KB."""
    from .picture_checks import fingerprint

    return fingerprint(image)


def is_better(fault: str, than: str) -> bool:
    """Whether an image with this fault is better than one with the other."""
    return _severity(fault) > _severity(than)


def fault_sentence(segment_id: str, fault: str) -> str:
    """"p3 looks blank", "p3 looks like a copy of p1"."""
    looks = {BLANK: "looks blank", GRID: "looks like a grid of panels"}.get(fault, f"looks like a {fault}")
    return f"{segment_id} {looks}"


def _severity(fault: str) -> int:
    return _SEVERITY.index(fault.split(" ")[0])


def _ask_the_same(prompt: str, other: str) -> bool:
    """Whether two dense prompts want one picture: the same words, or the same picture-book scene in other words."""
    if prompt.casefold().split() == other.casefold().split():
        return True
    scenes = [parse_dense_prompt(text) | {"roles": None} for text in (prompt, other)]
    return all(scene["figures"] and scene["pose"] and scene["place"] for scene in scenes) and scenes[0] == scenes[1]
