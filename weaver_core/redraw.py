"""A second look at what was drawn: an image that looks wrong is drawn once more, and a critic may ask for more of them.

It always ends, and it can cost time but never an image: the best of all drawings is kept, and a redraw that fails leaves
what there was.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from .errors import Cancelled, StoryError, reason
from .events import Event, ImageJudged, Warning
from .picture_faults import FaultFinder, fault_sentence, is_better
from .pictures import image_key
from .plan import ImageSegment, image_seed
from .references import ReferenceChoice
from .rendering import Rendering

if TYPE_CHECKING:
    from PIL.Image import Image

    from .critic import Critic, Verdict
    from .painter import Painter
    from .planners import HistoryItem

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One image that is being drawn: of which segment, from which references, and after what.

    rendering   everything that it is drawn from; the pixels' marks are added as they become known
    history     what the planner wrote before it and the images in it; empty when the whole plan is known
    """

    segment: ImageSegment
    choices: tuple[ReferenceChoice, ...]
    rendering: Rendering
    history: tuple[HistoryItem, ...]


class Redraws:
    """Has a painter draw, looks at the result, and has it draw again."""

    def __init__(self, painter: Painter, critic: Critic | None):
        self.painter = painter
        self.critic = critic
        self._faults = FaultFinder()

    def wants(self, rendering: Rendering) -> bool:
        """Whether an image that the story has is to be looked at once more."""
        return self._wants_redraw(rendering) or (self.critic is not None and not self.critic.is_done_with(rendering))

    def draw(self, drawing: Drawing) -> Generator[Event, None, tuple[Image, Rendering]]:
        """The image and its rendering. It is kept at once, so that it is there whatever becomes of a second look."""
        image = yield from self.painter.draw(drawing.segment, self.painter.shot(drawing))
        self.painter.cancel.check()
        return image, self._keep(drawing, image, fault=self._fault(drawing.segment, image))

    def improved(self, drawing: Drawing, image: Image, rendering: Rendering) -> Generator[Event, None, tuple[Image, Rendering]]:
        """The best of this image, of the one that is drawn when it looks wrong, and of those that the critic asks for."""
        if self._wants_redraw(rendering):
            image, rendering = yield from self._after_fault(drawing, image, rendering)
        if self.critic is not None and not self.critic.is_done_with(rendering):
            image, rendering = yield from self._judged(drawing, image, rendering)
        return image, rendering

    def _after_fault(self, drawing: Drawing, image: Image, first: Rendering) -> Generator[Event, None, tuple[Image, Rendering]]:
        """The better of an image that looks wrong and another drawing of it; both are kept."""
        segment, fault, seed = drawing.segment, first.fault, None
        yield Warning(message=redraw_sentence(segment.id, fault), segment_id=segment.id)
        again = seed_after_fault(first.seed)
        second = yield from self._tried(segment, self.painter.draw(segment, replace(self.painter.shot(drawing), seed=again)))
        if second is not None and is_better(second_fault := self._fault(segment, second), fault):
            image, fault, seed = second, second_fault, again
        if fault:
            yield Warning(message=kept_sentence(segment.id, fault, twice=second is not None), segment_id=segment.id)
        return image, self._keep(drawing, image, fault=fault, redrawn=first.fault, drawn_seed=seed)

    def _judged(self, drawing: Drawing, image: Image, rendering: Rendering) -> Generator[Event, None, tuple[Image, Rendering]]:
        """What the critic likes best: this image, or one of those that are drawn at its wish, under the words that it gives."""
        segment, best, verdict, wishes = drawing.segment, (image, rendering), rendering.verdict, rendering.wishes
        while True:
            if verdict is None:
                verdict = yield from self._verdict(segment, image)
                if verdict is None:
                    break
                redraws = wishes < self.critic.max_redraws and not self.critic.is_content(verdict)
                yield ImageJudged(segment_id=segment.id, attempt=wishes + 1, image=image, verdict=verdict, redraws=redraws)
                if best[1].verdict is None or verdict.rank > best[1].verdict.rank:
                    best = image, replace(rendering, verdict=verdict)
                if not redraws:
                    break
            redrawn = yield from self._tried(segment, self._draw_reworded(drawing, verdict.prompt, wishes + 1))
            if redrawn is None:
                break
            (image, rendering), verdict, wishes = redrawn, None, wishes + 1
        self.painter.cancel.check()
        image, rendering = best
        return image, self.painter.story.keep(replace(rendering, wishes=wishes), image) if rendering.verdict else rendering

    def _keep(self, drawing: Drawing, image: Image, **marks) -> Rendering:
        return self.painter.story.keep(replace(drawing.rendering, image_key=image_key(image), **marks), image)

    def _tried(self, segment: ImageSegment, drawing: Generator[Event, None, T]) -> Generator[Event, None, T | None]:
        """What another drawing returns; None (with a Warning) when it fails: the picture that was drawn stays."""
        try:
            return (yield from drawing)
        except (Cancelled, StoryError):
            raise
        except Exception as error:
            self.painter.cancel.check()
            message = f"{segment.id} could not be drawn once more: {reason(error)}. The picture that was drawn is kept"
            yield Warning(message=message, segment_id=segment.id)
            return None

    def _verdict(self, segment: ImageSegment, image: Image) -> Generator[Event, None, Verdict | None]:
        """What the critic says; None (with a Warning) when it cannot. One that fails is not asked again."""
        try:
            verdict = self.critic.judge(image, segment, self.painter.plan.cast, cancel=self.painter.cancel)
        except (Cancelled, StoryError):
            raise
        except Exception as error:
            self.painter.cancel.check()
            self.critic = None
            yield Warning(message=critic_fails_sentence(error), segment_id=segment.id)
            return None
        self.painter.cancel.check()
        if verdict is None:
            yield Warning(message=no_verdict_sentence(segment.id), segment_id=segment.id)
        return verdict

    def _draw_reworded(self, drawing: Drawing, prompt: str, attempt: int) -> Generator[Event, None, tuple[Image, Rendering]]:
        """The image drawn again, with another seed and (where it is not "") under another dense prompt.

        The rendering keeps prompt, seed and key of the segment: it is the answer to those, however it came about.
        """
        segment, rendering = drawing.segment, drawing.rendering
        other = reworded(segment, prompt)
        history = tuple(item.replace(segment.prompt, other.prompt) if isinstance(item, str) else item for item in drawing.history)
        seed = seed_of_wish(rendering.seed, attempt)
        told = replace(rendering, prompt=self.painter.words(other, drawing.choices), seed=seed)
        shot = self.painter.shot(replace(drawing, segment=other, rendering=told, history=history))
        image = yield from self.painter.draw(segment, shot)
        drawn_prompt = "" if other.prompt == segment.prompt else other.prompt
        drawn = {"fault": self._fault(segment, image), "drawn_seed": seed, "drawn_prompt": drawn_prompt}
        return image, replace(rendering, image_key=image_key(image), **drawn)

    def _wants_redraw(self, rendering: Rendering) -> bool:
        return self.painter.settings.check_images and rendering.lacks_redraw

    def _fault(self, segment: ImageSegment, image: Image) -> str:
        return self._faults.find(image, segment, self.painter.plan, self.painter.story) if self.painter.settings.check_images else ""


# ---- what redraws in a graph of nodes share with these (visualizers/graph/attempts.py)


def seed_after_fault(seed: int) -> int:
    """The seed of the drawing that follows one that looks wrong."""
    return image_seed(seed, "redraw")


def seed_of_wish(seed: int, number: int) -> int:
    """The seed of the n-th drawing that the critic asks for."""
    return image_seed(seed, f"critic {number}")


def redraw_sentence(segment_id: str, fault: str) -> str:
    return f"{fault_sentence(segment_id, fault)}; it is drawn once more with another seed"


def kept_sentence(segment_id: str, fault: str, *, twice: bool) -> str:
    both = " in both drawings" if twice else ""
    return f"{fault_sentence(segment_id, fault)}{both}; it is kept and marked. Another seed or prompt may help"


def critic_sentence(segment_id: str, verdict: Verdict) -> str:
    return f"{segment_id}: the critic says {verdict}"


def critic_fails_sentence(error: Exception) -> str:
    return f"the critic cannot judge: {reason(error)}. Pictures are kept as they are drawn"


def no_verdict_sentence(segment_id: str) -> str:
    return f"the critic's answer about {segment_id} is no verdict; the picture is kept"


def reworded(segment: ImageSegment, prompt: str) -> ImageSegment:
    """The segment with the critic's dense prompt; as it is where there is none, or one that no plan may hold."""
    try:
        return replace(segment, prompt=prompt or segment.prompt)
    except ValueError:
        return segment
