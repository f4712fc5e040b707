"""Draws the images of a plan: finds them in the story, or chooses references, draws and stores them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from .errors import Cancelled, StoryError, WeaverError, reason
from .events import Event, Finished, ImageReady, StepProgress, Warning
from .out_of_memory import Frugal, give_back, is_out_of_memory
from .plan import ImageSegment, Plan, image_seed
from .planners import FeaturePlanner, Planner
from .redraw import Drawing, Redraws
from .references import ReferenceChoice, choose_references
from .rendering import Rendering, UsedReference, is_only_stale, rendering_key
from .request import ReferenceImage, RenderSettings, Request
from .story import Story
from .turns import in_turns
from .visualizers import Shot, Visualizer
from .visualizers.slots import slot_of, whom, with_looks

if TYPE_CHECKING:
    from PIL.Image import Image

    from .planners import HistoryItem


class Painter:
    """Draws the images of one plan."""

    def __init__(self, plan, visualizer, planner, request, story, settings, policy, cancel, critic=None):
        self.plan: Plan = plan
        self.visualizer: Visualizer = visualizer
        self.planner: Planner | None = planner
        self.request: Request = request
        self.story: Story = story
        self.settings: RenderSettings = settings or story.settings
        self.policy: str = policy or story.policy
        self.cancel: CancelCheck = cancel
        self.redraws = Redraws(self, critic)
        self._most_references: int | None = None  # fewer than the visualizer takes, where its memory was full
        self._said_sizes: set[str] = set()

    def paint_all(self, *, only: Collection[str] | None = None, redraw_stale: bool = False) -> Iterator[Event]:
        for index, segment in enumerate(self.plan.images):
            wanted = only is None or segment.id in only
            yield from self.paint(segment, index, wanted=wanted, redraw_stale=redraw_stale)
        yield from end_story(self.story, self.plan)

    def paint(
        self,
        segment: ImageSegment,
        index: int,
        *,
        wanted: bool = True,
        redraw_stale: bool = False,
        history: tuple[HistoryItem, ...] = (),
    ) -> Generator[Event, None, None]:
        """One image: found in the story, or drawn and stored, or (with a Warning) failed."""
        self.cancel.check()
        current = self.story.renderings.get(segment.id)
        if not wanted or (segment.locked and current and current.is_of(segment.prompt)):
            if current:
                yield from self._cached(segment, index, current)
            return
        saved = False
        while True:
            try:
                yield from self._find_or_draw(segment, index, current, redraw_stale, history)
                return
            except (Cancelled, StoryError):
                self.cancel.check()  # what the caller's `cancel` raised comes first
                raise
            except Exception as error:
                self.cancel.check()
                message, is_full = f"{segment.id} could not be drawn: {reason(error)}", is_out_of_memory(error)
            told = self._save_memory(segment) if is_full and not saved else ""
            if not told:
                self.story.note_failure(segment.id, message)
                yield Warning(message=f"{message}. The other images are not affected", segment_id=segment.id)
                return
            saved = True
            yield Warning(message=f"{segment.id}: the memory is full; {told}", segment_id=segment.id)

    def _find_or_draw(
        self,
        segment: ImageSegment,
        index: int,
        current: Rendering | None,
        redraw_stale: bool,
        history: tuple[HistoryItem, ...],
    ) -> Generator[Event, None, None]:
        choices, notes = self._choose(segment)
        wanted = self._rendering(segment, choices)
        known = self._known(current, wanted)
        if current and current.key != wanted.key and known is None and not redraw_stale and is_only_stale(current, wanted):
            yield from self._cached(segment, index, current)
            return
        drawing = Drawing(segment=segment, choices=choices, rendering=wanted, history=history)
        if known:
            rendering = self.story.reuse(known, segment.id)
            if not self.redraws.wants(rendering):
                yield from self._cached(segment, index, rendering)
                return
            image = self.story.image(segment.id)
        else:
            for note in notes:
                yield Warning(message=note, segment_id=segment.id)
            yield from self._say_size(segment, wanted.size)
            image, rendering = yield from self.redraws.draw(drawing)
        image, rendering = yield from self.redraws.improved(drawing, image, rendering)
        yield self._ready(segment, index, image, rendering, cached=bool(known) and rendering.image_key == known.image_key)

    def _known(self, current: Rendering | None, wanted: Rendering) -> Rendering | None:
        """The rendering that the story has under the wanted key, unless it is one that the settings do not want."""
        known = current if current and current.key == wanted.key else self.story.find(wanted.key)
        if known and (self.settings.check_images or known.drawn_seed is None or known.verdict is not None):
            return known
        return None

    def _save_memory(self, segment: ImageSegment) -> str:
        """Asks for less memory from here on, and says what is given up; "" when there is nothing."""
        give_back()
        num_references = len(self._choose(segment)[0])
        if num_references > 1:
            self._most_references = num_references // 2
            fewer = "1 reference" if self._most_references == 1 else f"{self._most_references} references"
            return f"from here on an image is drawn from at most {fewer} instead of {num_references}"
        return self.visualizer.save_memory() if isinstance(self.visualizer, Frugal) else ""

    def _choose(self, segment: ImageSegment) -> tuple[tuple[ReferenceChoice, ...], tuple[str, ...]]:
        able = self.visualizer.capabilities
        return choose_references(
            self.plan,
            segment,
            drawn=self.story.renderings,
            user_images=[picture.name for picture in self.request.images],
            budget=min(_default(limit, able.max_references) for limit in
                       (able.max_references, self.settings.max_references, self._most_references)),
            policy=self.policy,
            max_tokens=self.settings.max_reference_tokens,
            tokens_of=lambda choice: able.reference_tokens(self._source_size(choice)),
        )

    def _rendering(self, segment: ImageSegment, choices: tuple[ReferenceChoice, ...]) -> Rendering:
        """What the image is going to be drawn from; its pixels are not known yet."""
        able = self.visualizer.capabilities
        size = able.fit_size(*self.request.size_and_aspect(segment))
        references = tuple(
            UsedReference(source=choice.source, key=self._source_key(choice), whom="" if able.needs_context else whom(slot_of(choice)))
            for choice in choices
        )
        facts = {
            "prompt": self.words(segment, choices),
            "size": size,
            "seed": image_seed(self.request.seed, segment.id) if segment.seed == "auto" else segment.seed,
            "visualizer": self.visualizer.fingerprint,
            "steps": _default(self.settings.steps, able.steps),
            "guidance": float(_default(self.settings.guidance, able.guidance)),
            "reference_guidance": float(_default(self.settings.reference_guidance, able.reference_guidance)),
        }
        key = rendering_key(references=references, **facts)
        return Rendering(segment_id=segment.id, key=key, image_key="", references=references, **facts)

    def words(self, segment: ImageSegment, choices: tuple[ReferenceChoice, ...]) -> str:
        """What the visualizer is told: the dense prompt, with the looks of those whom no reference shows."""
        if self.visualizer.capabilities.needs_context:
            return segment.prompt
        return with_looks(self.plan, segment, map(slot_of, choices))

    def _source_key(self, choice: ReferenceChoice) -> str:
        if choice.kind == "user":
            return self._user_image(choice.source).key
        return self.story.renderings[choice.source].image_key

    def _user_image(self, name: str) -> ReferenceImage:
        return next(picture for picture in self.request.images if picture.name == name)

    def _source_image(self, choice: ReferenceChoice) -> Image:
        if choice.kind == "user":
            return self._user_image(choice.source).image
        return self.story.image(choice.source)

    def _source_size(self, choice: ReferenceChoice) -> tuple[int, int]:
        if choice.kind == "user":
            return self._user_image(choice.source).image.size
        return self.story.renderings[choice.source].size

    def shot(self, drawing: Drawing) -> Shot:
        segment, choices, rendering = drawing.segment, drawing.choices, drawing.rendering
        context = None
        if isinstance(self.planner, FeaturePlanner):
            plan = replace(self.plan, segments=tuple(segment if s.id == segment.id else s for s in self.plan.segments))
            context = self.planner.context(plan, segment, self.request, history=drawing.history)
        return Shot(
            prompt=rendering.prompt,
            size=rendering.size,
            seed=rendering.seed,
            steps=rendering.steps,
            guidance=rendering.guidance,
            reference_guidance=rendering.reference_guidance,
            references=tuple(self._source_image(choice) for choice in choices),
            reference_keys=tuple(used.key for used in rendering.references),
            slots=tuple(map(slot_of, choices)),
            context=context,
        )

    def draw(self, segment: ImageSegment, shot: Shot) -> Generator[Event, None, Image]:
        def work(emit):
            def on_step(step: int, total: int, preview: Image | None = None) -> None:
                emit(StepProgress(segment_id=segment.id, step=step, total=total, preview=preview))

            return self.visualizer.render(shot, on_step=on_step, cancel=self.cancel)

        image = yield from in_turns(work)
        for note in getattr(self.visualizer, "notes", ()):
            yield Warning(message=f"{segment.id}: {note}", segment_id=segment.id)
        if image.size != shot.size:
            raise WeaverError(f"the visualizer drew {image.size} pixels where {shot.size} were asked for")
        return image.convert("RGB")

    def _cached(self, segment: ImageSegment, index: int, rendering: Rendering) -> Iterator[Event]:
        yield self._ready(segment, index, self.story.image(segment.id), rendering, cached=True)

    def _ready(self, segment, index, image, rendering, *, cached: bool) -> ImageReady:
        return ImageReady(
            segment_id=segment.id, index=index, image=image, rendering=rendering, path=self.story.path(segment.id),
            cached=cached,
        )  # fmt: skip

    def _say_size(self, segment: ImageSegment, drawn: tuple[int, int]) -> Iterator[Event]:
        size, aspect = self.request.size_and_aspect(segment)
        across, down = size or (int(number) for number in (aspect or "1:1").split(":"))
        fits = size in (None, drawn) and 0.9 <= (drawn[0] / drawn[1]) / (across / down) <= 1.1
        wish = f"{size[0]} x {size[1]}" if size else aspect
        if wish and not fits and wish not in self._said_sizes:
            self._said_sizes.add(wish)  # once per story, not once per page
            message = f"{wish} cannot be drawn; the nearest that this visualizer can is {drawn[0]} x {drawn[1]}"
            yield Warning(message=message, segment_id=segment.id)


def end_story(story: Story, plan: Plan) -> Iterator[Event]:
    for mark in story.stale():
        reason = f"from an earlier {' and '.join(mark.changed)}" if mark.changed else "from images that are stale"
        yield Warning(message=f"{mark.segment_id} was drawn {reason}; it is kept as it was", segment_id=mark.segment_id)
    missing = tuple(segment.id for segment in plan.images if segment.id not in story.renderings)
    if not missing:
        story.finish()
    yield Finished(story=story, missing=missing)


class CancelCheck:
    """The caller's `cancel`, made safe to ask from the drawing thread: what it raises comes out of `check`."""

    def __init__(self, ask: Callable[[], bool] | None):
        self._ask = ask
        self._error: BaseException | None = None

    def __call__(self) -> bool:
        if self._error is not None:
            return True
        try:
            return self._ask is not None and bool(self._ask())
        except BaseException as error:
            self._error = error
            return True

    def check(self) -> None:
        if self():
            raise self._error if self._error is not None else Cancelled()


def as_cancel(cancel: Callable[[], bool] | None) -> CancelCheck:
    return cancel if isinstance(cancel, CancelCheck) else CancelCheck(cancel)


def _default(value, otherwise):
    return otherwise if value is None else value
