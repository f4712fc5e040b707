"""Tells the page what a running node writes and draws, so that the book view behind it shows the story while it is made."""

from __future__ import annotations

import logging
import time

from ..weaver_core.events import Event, ImageReady, PlanReady, StepProgress, TextDelta
from ..weaver_core.plan import ImageSegment, Plan, TextSegment
from ..weaver_core.story import StoryFolder
from . import host
from .book import page_facts
from .seeds import seeds_before
from .values import DrawnImage

_PAUSE_S = 0.2  # between two messages: the page cannot show more, and the loop must not wait for it
_WHOLE_S = 3.0  # after so long all pages go again, for a page that was reloaded meanwhile


class LiveBook:
    """`hear` every event of the loop, `close` at the end. Never fails: it is a comfort, not a result.

    Messages hold those pages that have changed, each one whole; so a lost message is mended by the next.
    """

    def __init__(self, hidden):
        self._messages = host.BookMessages(hidden)
        # With them the page can go on with this very story when the run is stopped.
        self._seeds = seeds_before(getattr(hidden, "prompt", None) or {}, host.node_in_graph(hidden.unique_id))
        self._plan: Plan | None = None
        self._title, self._segments = "", dict[str, TextSegment | ImageSegment]()
        self._unfinished = dict[str, str]()  # segment id -> its text so far
        self._drawn = dict[str, DrawnImage]()
        self._progress = dict[str, list[int]]()
        self._now: str | None = None  # the segment that is being written or drawn
        self._sent = dict[int, dict]()
        self._last = self._last_whole = float("-inf")
        self._fresh = True

    def hear(self, event: Event) -> None:
        try:
            self._take(event)
            if time.monotonic() - self._last >= _PAUSE_S:
                self._send()
        except Exception as error:
            self._give_up(error)

    def hear_draft(self, draft: StoryFolder) -> None:
        """All that is there of a story whose pages are drawn by other nodes."""
        try:
            self._plan = draft.plan
            drawn = (image.id for image in draft.plan.images if image.id in draft.renderings)
            self._drawn = {image_id: DrawnImage(rendering=draft.renderings[image_id], path=draft.path(image_id)) for image_id in drawn}
        except Exception as error:
            self._give_up(error)
        else:
            self.close()

    def close(self) -> None:
        """Sends what has not been sent yet."""
        try:
            self._now = None
            self._send()
        except Exception as error:
            self._give_up(error)

    def _take(self, event: Event) -> None:
        if isinstance(event, TextDelta):
            if event.kind == "title":
                self._title = event.text
                return
            text = self._unfinished[event.segment_id] = self._unfinished.get(event.segment_id, "") + event.text
            self._now = event.segment_id
            if text.strip():
                is_prompt = event.kind == "prompt"
                self._segments[event.segment_id] = (
                    ImageSegment(id=event.segment_id, prompt=text) if is_prompt else TextSegment(id=event.segment_id, text=text)
                )
        elif isinstance(event, PlanReady):
            self._plan, self._now = event.plan, None
        elif isinstance(event, StepProgress):
            self._progress[event.segment_id] = [event.step, event.total]
            self._now = event.segment_id
        elif isinstance(event, ImageReady) and event.path is not None:
            self._drawn[event.segment_id] = DrawnImage(rendering=event.rendering, path=event.path)
            self._progress.pop(event.segment_id, None)
            self._now = None

    def _send(self) -> None:
        plan = self._plan or Plan(title=self._title, segments=tuple(self._segments.values()))
        pages = [self._page(page) for page in plan.pages()]
        now = time.monotonic()
        whole = now - self._last_whole >= _WHOLE_S
        changed = {number: page for number, page in enumerate(pages) if whole or self._sent.get(number) != page}
        if not changed and not self._fresh and not whole:
            return
        self._messages.send({
            "fresh": self._fresh, "title": plan.title, "language": plan.language, "count": len(pages), "pages": changed,
            "seeds": self._seeds,
        })  # fmt: skip
        self._sent, self._last, self._fresh = dict(enumerate(pages)), now, False
        self._last_whole = now if whole else self._last_whole

    def _page(self, page) -> dict:
        image_id = page.image.id if page.image else None
        ids = [image_id, *(text.id for text in page.texts)]
        return page_facts(page, self._drawn.get(image_id)) | {
            "progress": self._progress.get(image_id),
            "now": self._now is not None and self._now in ids,
        }

    def _give_up(self, error: Exception) -> None:
        logging.debug("Weaver: the book view cannot be told what happens: %s", error)
        self._messages.stop()
