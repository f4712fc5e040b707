"""What happens when a device's memory is full in the middle of the work: less is asked of it, once, and that is said."""

from __future__ import annotations

import gc
import sys
from typing import Protocol, runtime_checkable


@runtime_checkable
class Frugal(Protocol):
    """A visualizer that can do with less memory.

    `save_memory` makes it so from then on and returns what it gives up, as the rest of a sentence ("weights wait in main
    memory now, which is slower"); "" when there is nothing left to give up.
    """

    def save_memory(self) -> str: ...


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or a library on it, could not get the memory that it wanted. Main memory counts too."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(("OutOfMemoryError", "MemoryError")) or (
        isinstance(error, RuntimeError)
        and any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
    )


def give_back() -> None:
    """Lets go of what nobody holds any more. To be called after the error is gone: it holds what the attempt had."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
