"""Node schemas that fit hosts of different ages, and the sockets of this pack."""

from __future__ import annotations

from inspect import signature

from comfy_api.latest import io

from ..weaver_core.errors import InputError

CATEGORY = "Weaver"
MODEL = io.Custom("WEAVER_MODEL")
PLAN = io.Custom("WEAVER_PLAN")
STORY = io.Custom("WEAVER_STORY")
REQUEST = io.Custom("WEAVER_REQUEST")
CAST = io.Custom("WEAVER_CAST")
REFERENCES = io.Custom("WEAVER_REFERENCES")

# Nice to have where the host knows them: aliases since ComfyUI 0.11, `advanced` since 0.10, `is_dev_only` since 0.12.
_OPTIONAL = ("search_aliases", "advanced", "is_dev_only")


def fitted(kind: type, *args, **values):
    """`kind(...)` without those optional arguments that this host's version of it does not know."""
    known = signature(kind.__init__).parameters
    return kind(*args, **{name: value for name, value in values.items() if name in known or name not in _OPTIONAL})


def checked(value, kind: type, node: str, source: str):
    """The value of one of our sockets; InputError when something else was put there (the host does not check literals)."""
    if not isinstance(value, kind):
        raise InputError(f"{node} got {type(value).__name__} where it needs the output of {source}; connect that node")
    return value


def single(values: list, name: str, node: str, otherwise=None):
    """The one value of an input of a node that takes lists; InputError when there are several."""
    if not values:
        return otherwise
    if len(values) > 1:
        raise InputError(f"{node} got {len(values)} values for {name!r} and makes one story at a time; choose one of them")
    return values[0]
