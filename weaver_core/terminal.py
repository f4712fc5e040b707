"""Shows a story in the terminal while it is woven: text as it is written, a bar per image, at the end where it is.

The story's text and the final path go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from .critic import verdict_to_json
from .events import Event, Finished, ImageJudged, ImagePlanned, ImageReady, PlanReady, StepProgress, TextDelta, Warning

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class Display:
    """One way of showing events; `follow` consumes them all and returns the last, None if there was none.

    quiet     nothing but errors and the final path
    as_json   nothing but one JSON object at the end
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False):
        self.quiet = quiet or as_json
        self.as_json = as_json
        self.warnings: list[str] = []
        self.finished: Finished | None = None
        self._colour = sys.stdout.isatty()
        self._segment = ""
        self._bar = None
        self._num_images = 0

    def follow(self, events: Iterable[Event]) -> Event | None:
        last = None
        try:
            for last in events:
                self.show(last)
        finally:
            self._end_bar()
            self._end_text()
        return last

    def show(self, event: Event) -> None:
        if isinstance(event, Warning):
            self.warn(event.message, event.line, event.column)
        elif isinstance(event, Finished):
            self.finished = event
        elif self.quiet:
            return
        elif isinstance(event, TextDelta):
            self._text(event)
        elif isinstance(event, ImagePlanned):
            self._num_images = max(self._num_images, event.index + 1)
            self._end_text()
        elif isinstance(event, PlanReady):
            self._num_images = len(event.plan.images)
            self._end_text()
        elif isinstance(event, StepProgress):
            self._step(event)
        elif isinstance(event, ImageJudged):
            self._end_bar()
            again = "; it is drawn once more" if event.redraws else ""
            self.note(f"{event.segment_id}: the critic says {event.verdict}{again}")
        elif isinstance(event, ImageReady):
            self._end_bar()
            if event.cached:
                self.note(f"{event.segment_id}: drawn before")
            elif not sys.stderr.isatty():
                self.note(f"{event.segment_id}: drawn ({event.index + 1} of {self._num_images})")

    def note(self, message: str) -> None:
        """A line for the user that is no warning."""
        if not self.quiet:
            self._end_text()
            print(message, file=sys.stderr, flush=True)

    def warn(self, message: str, line: int | None = None, column: int | None = None) -> None:
        place = f"line {line}, column {column}: " if line is not None else ""
        self.warnings.append(place + message)
        if not self.quiet:
            self._end_bar()
            self._end_text()
            print(f"note: {place}{message}", file=sys.stderr, flush=True)

    def result(self, folder: Path, page: Path) -> None:
        """The last line: where the story is."""
        if self.as_json:
            print(json.dumps(self._as_dict(folder, page), ensure_ascii=False, indent=1), flush=True)
        else:
            print(page, flush=True)

    def _as_dict(self, folder: Path, page: Path) -> dict:
        story = self.finished.story
        images = []
        for segment in story.plan.images:
            rendering = story.renderings.get(segment.id)
            images.append(
                {
                    "id": segment.id,
                    "prompt": segment.prompt,
                    "file": str(folder / rendering.file) if rendering else None,
                    "seed": rendering.seed if rendering else None,
                    "size": list(rendering.size) if rendering else None,
                    "references": [used.source for used in rendering.references] if rendering else [],
                    "verdict": verdict_to_json(rendering.verdict) if rendering and rendering.verdict else None,
                }
            )
        return {
            "folder": str(folder),
            "page": str(page),
            "title": story.plan.title,
            "seed": story.request.seed,
            "images": images,
            "missing": list(self.finished.missing),
            "stale": [mark.segment_id for mark in story.stale()],
            "warnings": self.warnings,
        }

    # ---- text

    def _text(self, event: TextDelta) -> None:
        if event.kind == "title":
            self._write(f"{self._style(_BOLD, event.text)}\n\n")
            return
        if event.segment_id != self._segment:
            self._end_text()
            self._segment = event.segment_id
            self._write("" if event.kind == "text" else "  ")
        self._write(event.text if event.kind == "text" else self._style(_DIM, event.text))

    def _end_text(self) -> None:
        if self._segment:
            self._segment = ""
            self._write("\n")

    def _style(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._colour else text

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    # ---- bars

    def _step(self, event: StepProgress) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._end_text()
            # disable=None: no bars where nobody watches them move
            self._bar = tqdm(total=event.total, desc=event.segment_id, unit="step", disable=None, dynamic_ncols=True)
        self._bar.update(event.step - self._bar.n)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
