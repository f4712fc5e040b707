"""A blocking call that reports by callback, turned into a generator that its consumer paces.

The call runs on a thread of its own, but the two sides take turns: while the consumer works, the call waits inside
`emit`, and while the call works, the consumer waits. So nothing runs ahead, and models are never used by two threads
at once.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator
from queue import Empty, SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_S = 0.2  # a wait without a limit cannot be interrupted by Ctrl-C everywhere


class Abandoned(BaseException):
    """Raised inside the call by `emit` when nobody listens any more; not an Exception, so that nobody swallows it."""


def in_turns(work: Callable[[Callable[[Item], None]], Result]) -> Generator[Item, None, Result]:
    """Yields every item that `work(emit)` emits and returns what it returns; its exception is raised here.

    When the generator is closed or interrupted, the next `emit` raises `Abandoned` in the call, and closing waits
    until the call has ended.
    """
    messages: SimpleQueue[tuple[str, object]] = SimpleQueue()
    may_go_on = threading.Semaphore(0)
    abandoned = threading.Event()

    def emit(item: Item) -> None:
        if abandoned.is_set():
            raise Abandoned
        messages.put(("item", item))
        may_go_on.acquire()
        if abandoned.is_set():
            raise Abandoned

    def run() -> None:
        try:
            message = ("result", work(emit))
        except BaseException as error:
            message = ("error", error)
        messages.put(message)

    # The host's context variables (which node is running, for one) hold in the call too.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="weaver-render", daemon=True)
    thread.start()
    try:
        while True:
            try:
                kind, value = messages.get(timeout=_POLL_S)
            except Empty:
                continue
            if kind == "result":
                return value
            if kind == "error":
                raise value
            yield value
            may_go_on.release()
    finally:
        abandoned.set()
        may_go_on.release()
        while thread.is_alive():
            thread.join(timeout=_POLL_S)
