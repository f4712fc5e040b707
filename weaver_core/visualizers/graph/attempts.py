"""Drawing a page of a graph again: after a fault once, and as often as a critic may ask.

The rules are those of redraw.py. There one loop draws and looks; here every drawing is a node's, so what is known between two
of them lies in the story's folder (the best picture so far) and in a text that goes along (`Page`). The better picture is
kept at once: a later drawing can cost time, never a page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from ...errors import Cancelled, StoryError
from ...picture_faults import FaultFinder, is_better
from ...pictures import image_key
from ...redraw import (
    critic_fails_sentence,
    critic_sentence,
    kept_sentence,
    no_verdict_sentence,
    redraw_sentence,
    reworded,
    seed_after_fault,
    seed_of_wish,
)
from ...rendering import FAULT, Rendering
from ...story import Story
from ..slots import with_looks
from . import Graph, GraphShot, Link, Sampling, SlotReference, family_named
from .detect import is_link

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...critic import Critic
    from ...plan import ImageSegment, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One drawing of a page.

    fault    that of the drawing before, where this one is drawn because of it; "" = it is not
    wish     how many drawings the critic has asked for, this one included
    seed     its own, None = the page's
    prompt   the dense prompt in the critic's words, "" = the page's
    is_kept  it lies in the story already, and is to be looked at once more
    """

    fault: str = ""
    wish: int = 0
    seed: int | None = None
    prompt: str = ""
    is_kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a keeping node is told beside the picture, so that it can have the page drawn again.

    links    to model, clip and vae
    checks   whether a picture that looks wrong is drawn once more
    notes    what was found in the drawings before this one, for the user
    """

    family: str
    sampling: Sampling
    links: dict[str, Link]
    references: tuple[SlotReference, ...]
    checks: bool
    attempt: Attempt = Attempt()
    notes: tuple[str, ...] = ()

    def to_text(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def page_of(text: str) -> Page:
    """The page behind `to_text`, which may come from a stranger's workflow. ValueError, TypeError or KeyError for another text."""
    data = json.loads(text)
    links = data["links"]
    if sorted(links) != ["clip", "model", "vae"] or not all(is_link(link) for link in links.values()):
        raise ValueError("links: expected those to model, clip and vae")
    references = tuple(_reference(**reference) for reference in data["references"])
    attempt = Attempt(**data["attempt"])
    if not isinstance(attempt.wish, int) or not isinstance(attempt.prompt, str) or not FAULT.match(attempt.fault):
        raise ValueError("attempt: expected a fault, a number of wishes and a prompt")
    return Page(
        family=family_named(data["family"]).name, sampling=Sampling(**data["sampling"]), links=links,
        references=references, checks=bool(data["checks"]), attempt=attempt, notes=tuple(str(note) for note in data["notes"]),
    )  # fmt: skip


def _reference(others: list[str], beside: list[str], **reference) -> SlotReference:
    read = SlotReference(others=tuple(others), beside=tuple(beside), **reference)
    if not is_link(read.image) or not all(isinstance(name, str) for name in (read.name, read.member, *read.others, *read.beside)):
        raise ValueError("references: expected links to pictures, and names")
    return read


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at a drawing comes to.

    next           the drawing that comes next, None = the page is as good as it gets
    notes          sentences for the user
    critic_fails   the critic could not judge, and need not be asked again
    """

    next: Attempt | None = None
    notes: tuple[str, ...] = ()
    critic_fails: bool = False


def keep(page: Page, rendering: Rendering, image: Image, story: Story) -> tuple[Rendering, Image, Look]:
    """Keeps a drawing, unless there is a better one; the drawing that counts from here, and whether another is due at once.

    rendering   what the plan wants, without the pixels' marks
    """
    attempt, segment = page.attempt, _segment(story.plan, rendering)
    if attempt.is_kept:
        drawn = story.renderings[segment.id]
        return drawn, image, _after_fault(page, drawn)
    fault = FaultFinder().find(image, segment, story.plan, story) if page.checks else ""
    drawn = replace(
        rendering, image_key=image_key(image), fault=fault, redrawn=attempt.fault, drawn_seed=attempt.seed,
        drawn_prompt=attempt.prompt, wishes=attempt.wish,
    )  # fmt: skip
    if attempt.wish:
        return drawn, image, Look()  # it is kept when the critic likes it best
    told: tuple[str, ...] = ()
    if attempt.fault:
        first = story.renderings[segment.id]
        if not is_better(drawn.fault, first.fault):
            drawn, image = replace(first, redrawn=attempt.fault), story.image(segment.id)
        if drawn.fault:
            told = (kept_sentence(segment.id, drawn.fault, twice=True),)
    drawn = story.keep(drawn, image)
    look = _after_fault(page, drawn)
    return drawn, image, replace(look, notes=(*told, *look.notes))


def judge(
    page: Page, drawn: Rendering, image: Image, story: Story, critic: Critic, *, cancel: Callable[[], bool]
) -> Look:
    """What the critic says of a drawing that `keep` returned; it becomes the page's picture if it is the best so far."""
    segment, verdict = _segment(story.plan, drawn), drawn.verdict
    if critic.is_done_with(drawn):
        return Look()
    told: tuple[str, ...] = ()
    if verdict is None:
        try:
            verdict = critic.judge(image, segment, story.plan.cast, cancel=cancel)
        except (Cancelled, StoryError):
            raise
        except Exception as error:
            return Look(notes=(critic_fails_sentence(error),), critic_fails=True)
        if verdict is None:
            return Look(notes=(no_verdict_sentence(segment.id),))
        told = (critic_sentence(segment.id, verdict),)
        best = story.renderings[segment.id]
        if best.verdict is None or verdict.rank > best.verdict.rank:
            story.keep(replace(drawn, verdict=verdict), image)
        else:
            story.keep(replace(best, wishes=drawn.wishes), story.image(segment.id))
        if critic.is_content(verdict) or drawn.wishes >= critic.max_redraws:
            return Look(notes=told)
        told = (f"{told[0]}; it is drawn once more",)
    words, wish = reworded(segment, verdict.prompt).prompt, drawn.wishes + 1
    again = Attempt(wish=wish, seed=seed_of_wish(drawn.seed, wish), prompt="" if words == segment.prompt else words)
    return Look(next=again, notes=told)


def _after_fault(page: Page, drawn: Rendering) -> Look:
    if not (page.checks and drawn.lacks_redraw):
        return Look()
    again = Attempt(fault=drawn.fault, seed=seed_after_fault(drawn.seed))
    return Look(next=again, notes=(redraw_sentence(drawn.segment_id, drawn.fault),))


def _segment(plan: Plan, rendering: Rendering) -> ImageSegment:
    return next(image for image in plan.images if image.id == rendering.segment_id)


def emit_again(graph: Graph, page: Page, rendering: Rendering, plan: Plan) -> Link:
    """Adds the nodes of one more drawing, that of `page.attempt`; returns the link to its IMAGE."""
    attempt, prompt = page.attempt, rendering.prompt
    segment = _segment(plan, rendering)
    if attempt.prompt:
        prompt = with_looks(plan, reworded(segment, attempt.prompt), page.references)
    shot = GraphShot(
        id=segment.id, prompt=prompt, size=rendering.size, seed=attempt.seed, sampling=page.sampling, references=page.references
    )
    return family_named(page.family).emit(graph, *(page.links[name] for name in ("model", "clip", "vae")), shot)

