"""Errors whose message is written for the user: what was got, what was expected, what to do.

Everything else that escapes the library is a fault of ours. The command line and the nodes show these without a
traceback.
"""

from __future__ import annotations


class WeaverError(Exception):
    """The base of all errors that are for the user."""


class InputError(WeaverError, ValueError):
    """A request, a setting or a file of the user's cannot be used as it is."""


class PlanError(InputError):
    """A plan in JSON is not valid; the message names the path inside it, such as `segments[3].prompt`."""


class StoryError(WeaverError):
    """A story folder cannot be read or written (foreign, damaged, full disk, in use)."""


class Cancelled(WeaverError):
    """The user asked to stop. What was finished before is kept."""

    def __init__(self, message: str = "stopped; everything finished before is kept"):
        super().__init__(message)


def reason(error: Exception) -> str:
    """What to tell the user of any error: its message where that is written for them, else its type along with it."""
    text = str(error).strip()
    return text if isinstance(error, (WeaverError, ValueError)) and text else f"{type(error).__name__}: {text}"


def first_line(error: BaseException) -> str:
    """What a library says of an error, short enough to stand in a message of ours."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
