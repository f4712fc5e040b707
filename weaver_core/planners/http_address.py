"""Addresses of servers, and the keys that go to them and nowhere else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..errors import InputError

_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def server_address(url: str) -> str:
    """The part before `/chat/completions`; InputError for what is no address of a server."""
    text = url.strip()
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  raises where it is no number
    except ValueError:
        raise InputError("the server's address is not valid; give one such as http://localhost:11434/v1") from None
    if parts.username or parts.password:
        raise InputError("the server's address holds a name or key before the '@'; leave it out and set WEAVER_API_KEY")
    if parts.query or parts.fragment:
        raise InputError("the server's address goes on after a '?' or '#'; leave that out, and set WEAVER_API_KEY for a key")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{text[:80]!r} is no address of a server; give one such as http://localhost:11434/v1")
    path = re.sub(r"/(?:chat/)?completions$", "", parts.path.rstrip("/")) or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def is_local(url: str) -> bool:
    return urlsplit(url).hostname in _LOCAL


def key_from_environment(url: str, environment: Mapping[str, str] | None = None, *, bound: bool = False) -> str:
    """The key for this server, "" = none.

    WEAVER_API_KEY is for the server in WEAVER_API_URL; where that is not set, for any server, unless `bound` (a program
    that takes addresses out of files of strangers asks for it). Else `openai_key`.
    """
    environment = os.environ if environment is None else environment
    bound_to = _named("WEAVER_API_URL", environment)
    if (key := environment.get("WEAVER_API_KEY", "").strip()) and (_place(url) == bound_to or not (bound_to or bound)):
        return key
    return openai_key(url, environment)


def openai_key(url: str, environment: Mapping[str, str] | None = None) -> str:
    """OPENAI_API_KEY for api.openai.com and the server in OPENAI_BASE_URL; "" for any other, which must not get it."""
    environment = os.environ if environment is None else environment
    is_there = _place(url) in (("https", "api.openai.com"), _named("OPENAI_BASE_URL", environment))
    return environment.get("OPENAI_API_KEY", "").strip() if is_there else ""


def _place(address: str) -> tuple[str, str]:
    """Scheme and host: a key that is meant for https must not travel in the clear."""
    parts = urlsplit(address)
    return parts.scheme.lower(), parts.netloc.lower()


def _named(name: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The place that a variable names; None where it is not set."""
    value = environment.get(name, "").strip()
    if not value:
        return None
    scheme = "http" if is_local(f"http://{value}") else "https"
    return _place(value if "://" in value else f"{scheme}://{value}")


class Key:
    """A key that does not show itself."""

    __slots__ = ("value",)

    def __init__(self, value: str):
        self.value = value.strip()
        if not re.fullmatch(r"[\x21-\x7e]*", self.value):
            raise InputError("the key holds spaces or characters that keys have not; copy it anew")

    def __repr__(self) -> str:
        return "***" if self.value else "none"

    def __reduce__(self):
        raise TypeError("a key is not stored")

    def removed_from(self, text: str) -> str:
        if not self.value:
            return text
        for spelled in (self.value, json.dumps(self.value)[1:-1]):
            text = text.replace(spelled, "***")
        return text
