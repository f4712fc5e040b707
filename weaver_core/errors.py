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
