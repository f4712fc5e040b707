"""Our own library as a back end: `weave` with any planner and any visualizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import monotonic

from ...errors import Cancelled, InputError, StoryError, WeaverError
from ...events import Finished, ImagePlanned, ImageReady, PlanReady, TextDelta
from ...painter import as_cancel
from ...plan import ImageSegment
from ...planners import Planner, PlannerOptions
from ...request import ReferenceImage, RenderSettings, Request
from ...story import StoryFolder
from ...visualizers import Visualizer
from ...weave import weave
from ..records import Prompt
from ..run_folder import inside
from . import Answer, AnswerImage, BackendDown


class LibraryBackend:
    """Weaves every prompt into a story folder of its own and hands over what it holds; a killed story goes on.

    model       name of the model, for the manifest
    num_images  "explicit": the planner is told the number where the prompt says it; "always"; "never"
    """

    name = "library"

    def __init__(
        self,
        planner: Planner,
        visualizer: Visualizer,
        *,
        model: str = "picture-book (embedded)",
        mode: str = "plan-first",
        policy: str = "auto",
        settings: RenderSettings | None = None,
        options: PlannerOptions | None = None,
        size: tuple[int, int] | None = None,
        num_images: str = "explicit",
        cancel: Callable[[], bool] | None = None,
    ):
        if num_images not in ("explicit", "always", "never"):
            raise InputError(f"num_images is {num_images!r}; it must be explicit, always or never")
        self.planner, self.visualizer, self.model = planner, visualizer, model
        self.mode, self.policy, self.size, self.num_images = mode, policy, size, num_images
        self.render_settings = settings or RenderSettings()
        self.options = options or PlannerOptions()
        self._cancel = as_cancel(cancel)

    def settings(self) -> dict:
        return {
            "model": self.model,
            "visualizer": self.visualizer.fingerprint,
            "mode": self.mode,
            "references": self.policy,
            "size": list(self.size) if self.size else None,
            "num_images": self.num_images,
            "temperature": self.options.temperature,
            "max_tokens": self.options.max_tokens,
            **asdict(self.render_settings),
        }

    def answer(self, prompt: Prompt, folder: Path, *, seed: int, work: Path) -> Answer:
        started = monotonic()
        try:
            request = self._request(prompt, folder, seed)
        except InputError as error:
            return Answer(finish="error", error=str(error), fingerprint=self.visualizer.fingerprint)
        with self._open(work, request) as story:
            error, missing, drawn_ms = self._weave(request, story)
            parts = self._parts(story, drawn_ms)
            texts = [story.failures[segment_id] for segment_id in missing if segment_id in story.failures]
        if missing and not error:
            error = f"{len(missing)} images could not be drawn: " + "; ".join(texts or missing)
        return Answer(
            parts=parts,
            finish="error" if error else "stop",
            error=error[:2000],
            timing={"s": round(monotonic() - started, 3)},
            fingerprint=self.visualizer.fingerprint,
        )

    def _request(self, prompt: Prompt, folder: Path, seed: int) -> Request:
        images = [ReferenceImage.read(inside(folder, block.path), f"image-{number}")[0]
                  for number, block in enumerate((b for b in prompt.input if b.type == "image"), 1)]
        told = self.num_images == "always" or (self.num_images == "explicit" and prompt.want.explicit)
        request, _ = Request(
            prompt=prompt.text, images=tuple(images), num_images=prompt.want.images_max if told else None, size=self.size,
            language=prompt.lang, seed=seed,
        ).validated()  # fmt: skip
        return request

    def _open(self, work: Path, request: Request) -> StoryFolder:
        """The story begun before the program was killed, or a fresh one."""
        if (work / "story.jsonl").exists():
            return StoryFolder.open(work)
        shutil.rmtree(work, ignore_errors=True)  # a folder without its journal was being made
        return StoryFolder.create(work, request, mode=self.mode, settings=self.render_settings, policy=self.policy)

    def _weave(self, request: Request, story: StoryFolder) -> tuple[str, tuple[str, ...], dict[str, float]]:
        """The error that ended it ("" = none), ids of images not drawn, and the time that drawing each took, writing not counted."""
        missing: tuple[str, ...] = ()
        drawn_ms: dict[str, float] = {}
        before = monotonic()
        events = weave(request, self.planner, self.visualizer, story=story, options=self.options, cancel=self._cancel)
        try:
            for event in events:
                if isinstance(event, (TextDelta, ImagePlanned, PlanReady)):
                    before = monotonic()  # the planner wrote up to here
                elif isinstance(event, ImageReady):
                    if not event.cached:
                        drawn_ms[event.segment_id] = round((monotonic() - before) * 1000, 1)
                    before = monotonic()
                elif isinstance(event, Finished):
                    missing = event.missing
        except (StoryError, BackendDown, Cancelled):
            raise  # a full disk, a folder in use, no server: every other prompt would fail as well
        except (WeaverError, ValueError, RuntimeError) as error:
            self._cancel.check()
            return f"{type(error).__name__}: {error}", story.missing(), drawn_ms
        return "", missing, drawn_ms

    def _parts(self, story: StoryFolder, drawn_ms: dict[str, float]) -> tuple[str | AnswerImage, ...]:
        if story.plan is None:
            return (story.markup,) if story.markup.strip() else ()
        parts: list[str | AnswerImage] = [f"# {story.plan.title}"] if story.plan.title else []
        for segment in story.plan.segments:
            if not isinstance(segment, ImageSegment):
                parts.append(segment.text)
            elif segment.id in story.renderings:
                rendering = story.renderings[segment.id]
                parts.append(AnswerImage(
                    data=story.path(segment.id).read_bytes(), dense_prompt=segment.prompt, seed=rendering.seed,
                    refs=tuple(used.source for used in rendering.references), ms=drawn_ms.get(segment.id),
                ))  # fmt: skip
        return tuple(parts)
