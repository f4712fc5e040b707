"""The two headers that every client of a server here reads or writes: who may ask, and when to ask again."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime


def bearer(key: str) -> Callable:
    """What signs a request of the library `requests` with the key; "" = no header.

    Given as `auth`, because requests would put a login from ~/.netrc in the place of a plain header.
    """

    def sign(request):
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    return sign


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After asks to wait, from a number or a date (RFC 9110, section 10.2.3); None = it does not say."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
