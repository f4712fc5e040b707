"""The stages by kind. Each is a class with `version`, a `Settings` dataclass, and `shard(records)` or `whole(records)`.

A stage sees nothing but its records, its settings and the tools; its version is raised when its results change, so that
finished shards of the older one are made anew.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from training.data_engine.record import Dropped, Outcome, Record, Rejected

if TYPE_CHECKING:
    from training.data_engine.recipe import Recipe

KINDS = {
    "write_requests": "stories", "ask_about": "stories", "write_plan": "stories", "weave": "stories", "refine": "stories",
    "request_for": "stories", "check_plan": "checks",
    "read": "reading", "check_picture": "pictures", "caption": "captions", "instruct": "captions",
    "embed": "pictures", "drop_copies": "groups", "cluster": "groups", "check_group": "groups", "collect": "groups", "pair": "pairs",
}


def stage_class(kind: str) -> type[Stage]:
    module = importlib.import_module(f"training.data_engine.stages.{KINDS[kind]}")
    return getattr(module, "".join(part.capitalize() for part in kind.split("_")))


@dataclass
class Tools:
    """What stages share in one process; models are opened when they are first used."""

    recipe: Recipe
    work: Path

    @cached_property
    def store(self):
        from training.data_engine.store import PictureStore

        return PictureStore(self.work / "pictures")

    @cached_property
    def writer(self):
        from training.data_engine.backend import Writer

        return Writer(self.recipe.backend, self.work)

    @cached_property
    def embedder(self):
        from training.data_engine.vectors import open_embedder

        return open_embedder(self.recipe.embedder.folder, self.recipe.embedder.device)


class Stage:
    """Record -> records. `asks` and `embeds` say whose settings its results depend on. A kind has `one`, or a `shard` of its own, or `whole`."""

    version: ClassVar[int] = 1
    is_whole: ClassVar[bool] = False
    asks: ClassVar[bool] = False
    embeds: ClassVar[bool] = False
    Settings: ClassVar[type]
    one: Callable[[Record], Iterable[Outcome]]  # what becomes of one record; may raise Rejected
    whole: Callable[[Sequence[Record]], Iterable[Outcome]]  # what becomes of all records together (`is_whole`)

    def __init__(self, settings: Any, tools: Tools):
        self.settings, self.tools = settings, tools

    def shard(self, records: Sequence[Record]) -> list[Outcome]:
        """What becomes of a shard, in its order. Stages that ask a server do so for several records at once."""
        backend = self.tools.recipe.backend
        workers = backend.workers if self.asks and backend.kind == "server" else 1
        if workers == 1:
            return [outcome for record in records for outcome in self._safe(record)]
        pool = ThreadPoolExecutor(workers)
        try:
            return [outcome for outcomes in list(pool.map(self._safe, records)) for outcome in outcomes]
        finally:
            pool.shutdown(cancel_futures=True)

    def _safe(self, record: Record) -> list[Outcome]:
        return self.safe(record, lambda: self.one(record))

    def safe(self, record: Record, make: Callable[[], Iterable[Outcome]]) -> list[Outcome]:
        """What is made of a record. Where that ends with Rejected or Failed, what came before is kept: it may have been paid for."""
        from training.data_engine.backend import Failed

        outcomes: list[Outcome] = []
        try:
            for outcome in make():
                outcomes.append(outcome)
        except Rejected as error:
            outcomes.append(Dropped(record=record, reason=error.reason, detail=error.detail))
        except Failed as error:
            outcomes.append(Dropped(record=record, reason="no answer", detail=str(error), failed=True))
        return outcomes
