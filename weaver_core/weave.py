"""The loop that turns a request into a story, one for everybody: command line, nodes, evaluation, training samples.

    for event in weave(request, planner, visualizer, story=folder): ...

Two modes. *plan-first*: the whole plan, then all images; models are swapped once. *closed-loop*: each image goes back
to the planner before it writes on. Everything is a generator that runs only while the consumer asks for more; closing
it, `cancel` and Ctrl-C stop at the next step, and what was finished is in the story. Equal requests, seeds and models
give equal stories, in one go or resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from .errors import InputError, WeaverError
from .events import Event, Finished, ImageJudged, ImagePlanned, ImageReady, PlanReady, StepProgress, TextDelta, Warning
from .markup import ids_in
from .painter import CancelCheck, Painter, as_cancel, end_story
from .plan import ImageParsed, ImageSegment, IncrementalParser, Plan, PlanWarning, PromptPiece, TextPiece, TitleParsed
from .planners import FeaturePlanner, Planner, PlannerOptions
from .request import MAX_IMAGES, ReferenceImage, RenderSettings, Request
from .story import Story
from .visualizers import Visualizer

if TYPE_CHECKING:
    from .critic import Critic
    from .planners import HistoryItem

__all__ = [
    "Event", "Finished", "ImageJudged", "ImagePlanned", "ImageReady", "PlanReady", "ReferenceImage", "RenderSettings", "Request",
    "StepProgress", "TextDelta", "Warning", "weave", "weave_plan", "write_plan",
]  # fmt: skip

Cancel = Callable[[], bool]


# ---- the loop


def weave(
    request: Request,
    planner: Planner,
    visualizer: Visualizer,
    *,
    story: Story | None = None,
    mode: str = "plan-first",
    settings: RenderSettings | None = None,
    options: PlannerOptions | None = None,
    policy: str | None = None,
    critic: Critic | None = None,
    cancel: Cancel | None = None,
) -> Iterator[Event]:
    """Weaves a story from a request; or goes on with `story`, where that has begun.

    story      a `StoryFolder`, or None = in memory
    mode       "plan-first" or "closed-loop"       for a story in memory; one that is given has its own
    settings   how images are drawn; None = as the story says
    options    how the planner writes; its seed and number of images come from the request
    policy     which references images get where their segment does not say (references.py); None = as the story says
    critic     looks at what is drawn, and may have it drawn again (critic.py); None = nobody does
    cancel     asked often; when true, `Cancelled` is raised. What was finished is in the story

    Raises InputError for a request that cannot be used, StoryError when the story cannot be written (a full disk
    ends it at once), Cancelled, and whatever the planner raises. An image that fails does not end the story: a
    Warning says so, and `Finished.missing` names it.
    """
    cancel = as_cancel(cancel)
    request, notes = request.validated()
    story = story if story is not None else Story(request, mode=mode)
    yield from (Warning(message=note) for note in notes)
    _check_pair(planner, visualizer)
    if request.images and visualizer.capabilities.max_references == 0:
        yield Warning(message="this visualizer cannot use references; the pictures go to the planner only")
    if story.plan is None and story.mode == "closed-loop":
        yield from _check_count(request, planner)
        yield from _ClosedLoop(request, planner, visualizer, story, settings, options, policy, cancel, critic).run()
        return
    plan = story.plan
    if plan is None:
        plan = yield from _write_plan(request, planner, story, options, cancel)
    else:
        yield PlanReady(plan=plan)
    painter = Painter(plan, visualizer, planner, request, story, settings, policy, cancel, critic)
    yield from painter.paint_all()


def write_plan(
    request: Request,
    planner: Planner,
    *,
    story: Story | None = None,
    options: PlannerOptions | None = None,
    cancel: Cancel | None = None,
    before: Plan | None = None,
) -> Generator[Event, None, Plan]:
    """Writes the plan only: TextDelta, ImagePlanned, Warning, at last PlanReady. Returns the plan.

    before   a story that is to go on: its segments stay as they are (only the last text may grow), and the request's number
             of images are added

    With a story, the text is kept there as it comes; text of an attempt that was broken off is written anew (with the
    same seed it comes out the same).
    """
    request, notes = request.validated()
    yield from (Warning(message=note) for note in notes)
    return (yield from _write_plan(request, planner, story or Story(request), options, as_cancel(cancel), before))


def _write_plan(
    request: Request,
    planner: Planner,
    story: Story,
    options: PlannerOptions | None,
    cancel: CancelCheck,
    before: Plan | None = None,
) -> Generator[Event, None, Plan]:
    yield from _check_count(request, planner)
    story.begin_writing()
    parser, history, num_images = IncrementalParser(), (), 0
    options = _options(options, request, 0)
    if before is not None and before.images:
        parser, history, num_images = _read_before(before, planner, story)
        options = replace(options, continued=True)
    num_before = num_images
    pieces = planner.write(request, history, options=options, cancel=cancel)
    try:
        for piece in pieces:
            cancel.check()
            story.add_text(piece)
            for event in _told(parser.feed(piece), num_images):
                num_images += isinstance(event, ImagePlanned)
                yield event
            if num_images >= MAX_IMAGES:
                yield Warning(message=f"the plan has reached {MAX_IMAGES} images; the rest is not written")
                break
            cancel.check()
    finally:
        _close(pieces)
    cancel.check()
    yield from _notes(planner)
    yield from _told(parser.close(), num_images)
    plan = _with_cast(parser.plan(), request, planner)
    yield from _check_plan(plan, request, num_before)
    story.set_plan(plan)
    yield PlanReady(plan=plan)
    return plan


def _read_before(before: Plan, planner: Planner, story: Story) -> tuple[IncrementalParser, tuple[str, ...], int]:
    """A parser that has read the story that is to go on, what its planner is shown of it, and its number of images."""
    if len(before.images) >= MAX_IMAGES:
        raise InputError(f"the story has {len(before.images)} images already, and {MAX_IMAGES} are the most; begin a new one")
    markup = before.to_markup().rstrip() + "\n"
    parser = IncrementalParser(reserved_ids=ids_in(markup))
    parser.feed(markup)
    story.add_text(markup)
    shown = before.to_bare_markup() if isinstance(planner, FeaturePlanner) else markup
    return parser, (shown,), len(before.images)


def weave_plan(
    plan: Plan,
    visualizer: Visualizer,
    *,
    planner: Planner | None = None,
    request: Request | None = None,
    story: Story | None = None,
    settings: RenderSettings | None = None,
    policy: str | None = None,
    only: Collection[str] | None = None,
    redraw_stale: bool = False,
    critic: Critic | None = None,
    cancel: Cancel | None = None,
) -> Iterator[Event]:
    """Draws the images of a plan: PlanReady, ImageReady for each (cached ones too), Finished at the end.

    planner        needed where the visualizer reads a planner's features
    request        gives the story's seed, the user's pictures and the size; without it, seed 0 and none
    only           ids of the images to draw; the others are taken as they are
    redraw_stale   draw anew what was drawn from an earlier version of its references; otherwise it is kept, with a
                   Warning
    """
    request = request or (story.request if story is not None else None) or Request(prompt=plan.title or "a story")
    request, notes = request.validated()
    yield from (Warning(message=note) for note in notes)
    _check_pair(planner, visualizer)
    for segment_id in only or ():
        if not isinstance(plan.segment(segment_id), ImageSegment):
            raise InputError(f"{segment_id!r} is a text; only images can be drawn")
    story = story if story is not None else Story(request)
    story.set_plan(plan)
    yield PlanReady(plan=plan)
    painter = Painter(plan, visualizer, planner, request, story, settings, policy, as_cancel(cancel), critic)
    yield from painter.paint_all(only=only, redraw_stale=redraw_stale)


class _ClosedLoop:
    """Text up to an image, the image, more text that has seen it, ... A round is what is written up to one image."""

    def __init__(self, request, planner, visualizer, story, settings, options, policy, cancel, critic):
        self.request: Request = request
        self.planner: Planner = planner
        self.story: Story = story
        self.options: PlannerOptions | None = options
        self.cancel: CancelCheck = cancel
        self.parser = IncrementalParser()
        self.history: list[HistoryItem] = []
        self.num_images = 0
        self.painter = Painter(Plan(), visualizer, planner, request, story, settings, policy, cancel, critic)

    def run(self) -> Iterator[Event]:
        for text in tuple(self.story.rounds):
            yield from _told(self.parser.feed(text), self.num_images)
            yield from self._show(text)
        self.story.begin_writing()
        while self.num_images < MAX_IMAGES:
            self.cancel.check()
            options = _options(self.options, self.request, self.num_images)
            pieces = self.planner.write(self.request, tuple(self.history), options=options, cancel=self.cancel)
            try:
                text = yield from self._listen(pieces)
            finally:
                _close(pieces)
            self.cancel.check()
            yield from _notes(self.planner)
            if text is None:
                break
            self.story.end_round()
            yield from self._show(text)
        else:
            yield Warning(message=f"the story has reached {MAX_IMAGES} images; it ends here")
        yield from _told(self.parser.close(), self.num_images)
        plan = _with_cast(self.parser.plan(), self.request, self.planner)
        yield from _check_plan(plan, self.request)
        self.story.set_plan(plan)
        yield PlanReady(plan=plan)
        yield from end_story(self.story, plan)

    def _listen(self, pieces: Iterator[str]) -> Generator[Event, None, str | None]:
        """Reads until a dense prompt is complete and returns the text of the round; None when the story has ended."""
        wanted = self.request.wanted_images
        has_all = wanted is not None and self.num_images >= wanted
        text = ""
        for piece in pieces:
            self.cancel.check()
            # Character by character, because what a piece holds after </imagine> was written without seeing the image.
            for character in piece:
                text += character
                self.story.add_text(character)
                told = list(_told(self.parser.feed(character), self.num_images))
                yield from told
                if any(isinstance(event, ImagePlanned) for event in told):
                    self.parser.feed("<BOI>")
                    self.story.add_text("<BOI>")
                    return text + "<BOI>"
                if has_all and text[-8:].lower() == "<imagine":
                    yield Warning(message=f"the planner went on after {self.num_images} images; the rest is left out")
                    return None
        return None

    def _show(self, text: str) -> Generator[Event, None, None]:
        """Draws the image that the round ends with, and puts both into the history."""
        plan = _with_cast(self.parser.plan(), self.request, self.planner)
        segment = plan.images[-1]
        self.painter.plan = plan
        self.history.append(text)
        yield from self.painter.paint(segment, self.num_images, history=tuple(self.history))
        if segment.id in self.story.renderings:
            self.history.append(self.story.image(segment.id))
        self.num_images += 1


# ---- small parts


def _told(parse_events, num_images: int) -> Iterator[Event]:
    """What the parser found, as events; `num_images` were found before."""
    for event in parse_events:
        if isinstance(event, TextPiece):
            yield TextDelta(text=event.text, kind="text", segment_id=event.segment_id)
        elif isinstance(event, PromptPiece):
            yield TextDelta(text=event.text, kind="prompt", segment_id=event.segment_id)
        elif isinstance(event, TitleParsed):
            yield TextDelta(text=event.title, kind="title")
        elif isinstance(event, ImageParsed):
            yield ImagePlanned(segment=event.segment, index=num_images)
            num_images += 1
        elif isinstance(event, PlanWarning):
            yield Warning(message=f"plan: {event.message}", line=event.line, column=event.column)


def _options(options: PlannerOptions | None, request: Request, num_drawn: int) -> PlannerOptions:
    """The options with what the request decides: the seed, and how many images are still to come."""
    wanted = request.wanted_images
    left = None if wanted is None else max(0, wanted - num_drawn)
    return replace(options or PlannerOptions(), seed=request.seed, num_images=left)


def _with_cast(plan: Plan, request: Request, planner: Planner) -> Plan:
    """The plan with the request's cast in front; a member of the same name counts as the request has it.

    The plan is in the language that was asked for, unless it says otherwise, or its planner cannot be told a language.
    """
    names = {member.name for member in request.cast}
    others = tuple(member for member in plan.cast if member.name not in names)
    language = request.language if plan.language == "en" and getattr(planner, "obeys_language", True) else plan.language
    return replace(plan, cast=request.cast + others, language=language)


def _check_pair(planner: Planner | None, visualizer: Visualizer) -> None:
    if visualizer.capabilities.needs_context and not isinstance(planner, FeaturePlanner):
        raise InputError(
            "this visualizer reads its planner's features, and there is no planner that gives them; use the planner of "
            "the same model, or another visualizer"
        )


def _check_count(request: Request, planner: Planner) -> Iterator[Event]:
    most = planner.max_images
    wanted = request.wanted_images
    if most is not None and wanted is not None and wanted > most:
        yield Warning(
            message=f"{wanted} images were asked for; this planner was made for stories of 1 to {most}, "
            "and may lose count above it. Ask for fewer, or write the plan yourself"
        )


def _check_plan(plan: Plan, request: Request, num_before: int = 0) -> Iterator[Event]:
    if not plan.segments:
        raise WeaverError("the planner wrote nothing; try another seed, or say more about the story")
    wanted, got = request.wanted_images, len(plan.images) - num_before
    if wanted is not None and wanted != got:
        yield Warning(message=f"{wanted} {'more ' * bool(num_before)}images were asked for, the plan has {got}")


def _notes(planner: Planner) -> Iterator[Event]:
    """What the planner has to say about what it has just written, for planners that keep such notes."""
    for note in getattr(planner, "notes", ()):
        yield Warning(message=note)


def _close(pieces: Iterator[str]) -> None:
    if hasattr(pieces, "close"):
        pieces.close()
