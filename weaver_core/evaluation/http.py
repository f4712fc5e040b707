"""Requests to a server that may be slow, busy or broken: time limits, retries, sizes, and a key that never gets out.

The key comes from the environment and goes into one header. It is in no message, file or representation: everything
that a server says passes `Server.scrub`, because some servers repeat the key in their errors.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import InputError, WeaverError
from ..http_headers import bearer, retry_after_s
from ..planners.http_address import Key, openai_key

MAX_REPLY = 256 * 2**20
MAX_WAIT_S = 300.0
_TRY_AGAIN = (408, 409, 425, 429)


class RequestFailed(WeaverError):
    """A request that did not succeed. kind: "timeout", "unreachable", "status" (`status` says which) or "reply".

    retry_after   seconds that the server asks to wait; None = it does not say
    """

    def __init__(self, message: str, *, kind: str, status: int = 0, body: str = "", retry_after: float | None = None):
        super().__init__(message)
        self.kind, self.status, self.body, self.retry_after = kind, status, body, retry_after


class Server:
    """A server under one address. Usable from several threads.

    key             None = from the environment, "" = none
    key_variables   names of environment variables; the first that is set is the key. OPENAI_API_KEY counts for its own
                    servers only (http_address.openai_key)
    timeout_s       for a whole reply
    attempts        a request is tried so often, when it is worth trying again
    backoff_s       the first wait; doubled every time; a Retry-After of the server's wins
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        key_variables: tuple[str, ...] = (),
        timeout_s: float = 180.0,
        attempts: int = 5,
        backoff_s: float = 1.0,
    ):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{_plain(url)!r} is no address of a server; use one such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise InputError("the server's address holds a name, password or query; give a key through the environment instead")
        self.url = urlunsplit(parts).rstrip("/")
        self.timeout_s, self.attempts, self.backoff_s = timeout_s, attempts, backoff_s
        self.num_requests = 0
        self._key = Key(_read_key(key_variables, self.url) if key is None else key)
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"Server({self.url!r})"

    def scrub(self, text: str) -> str:
        """The text without the key."""
        return self._key.removed_from(text)

    def json(self, method: str, path: str, body: Any = None, *, again: bool = True) -> Any:
        """The decoded reply. RequestFailed when there is none. `again`: whether it may be tried several times."""
        return self._request(method, path, again=again, decode=True, json=body)

    def post(self, path: str, body: Any) -> None:
        """Sends JSON to where nothing comes back."""
        self._request("POST", path, again=True, decode=False, json=body)

    def bytes(self, path: str, params: dict[str, str] | None = None) -> bytes:
        return self._request("GET", path, again=True, decode=False, params=params)

    def upload(self, path: str, fields: dict[str, str], files: list[tuple[str, tuple[str, bytes, str]]], *, again: bool = True) -> Any:
        """Sends a form with files (field, (name, data, type)) and returns the decoded reply."""
        return self._request("POST", path, again=again, decode=True, data=fields, files=files)

    def _request(self, method: str, path: str, *, again: bool, decode: bool, **how) -> Any:
        attempts = self.attempts if again else 1
        for attempt in range(1, attempts + 1):
            try:
                return self._once(method, path, decode, how)
            except RequestFailed as failure:
                hopeless = failure.kind == "status" and failure.status not in _TRY_AGAIN and failure.status < 500
                if hopeless or attempt == attempts:
                    raise
                wait = failure.retry_after
                if wait is None:
                    wait = self.backoff_s * 2 ** (attempt - 1) * random.uniform(0.8, 1.2)  # workers must not come back at once
                time.sleep(min(wait, MAX_WAIT_S))
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, decode: bool, how: dict) -> Any:
        requests = needs_requests()
        deadline = time.monotonic() + self.timeout_s
        self.num_requests += 1
        try:
            with self._session().request(
                method, self.url + path, timeout=(min(30.0, self.timeout_s), self.timeout_s), stream=True, allow_redirects=False, **how
            ) as reply:
                body = self._read(reply, deadline)
                status, headers = reply.status_code, reply.headers
        except requests.Timeout:
            raise RequestFailed(f"{self.url} did not answer within {self.timeout_s:g} s", kind="timeout") from None
        except (requests.RequestException, OSError) as error:
            # The library's own message is not shown: it may hold the whole request.
            raise RequestFailed(f"{self.url} cannot be reached, or cut the connection ({type(error).__name__})", kind="unreachable") from None
        if not 200 <= status < 300:
            text = self.scrub(body[:4000].decode(errors="replace"))
            raise RequestFailed(
                f"{self.url} answered {status}: {_reason(text)}", kind="status", status=status, body=text,
                retry_after=retry_after_s(headers.get("Retry-After")),
            )  # fmt: skip
        if not decode:
            return body
        try:
            return json.loads(self.scrub(body.decode()))
        except (ValueError, RecursionError):
            text = self.scrub(body[:4000].decode(errors="replace"))
            raise RequestFailed(f"{self.url} answered something that is no JSON: {text[:120]!r}", kind="reply", body=text) from None

    def _read(self, reply, deadline: float) -> bytes:
        data = bytearray()
        for piece in reply.iter_content(1 << 16):
            data += piece
            if len(data) > MAX_REPLY:
                raise RequestFailed(f"{self.url} sent more than {MAX_REPLY >> 20} MB", kind="reply")
            if time.monotonic() > deadline:
                raise RequestFailed(f"{self.url} did not finish its answer within {self.timeout_s:g} s", kind="timeout")
        return bytes(data)

    def _session(self):
        if not hasattr(self._local, "session"):
            session = needs_requests().Session()
            session.auth = bearer(self._key.value)
            self._local.session = session
        return self._local.session


def needs_requests():
    """The library `requests`; InputError says how to get it."""
    try:
        import requests
    except ImportError:
        raise InputError('evaluation over HTTP needs requests: pip install "wan-weaver[eval]"') from None
    return requests


def _read_key(variables: tuple[str, ...], url: str) -> str:
    for name in variables:
        key = openai_key(url) if name == "OPENAI_API_KEY" else os.environ.get(name, "").strip()
        if key:
            if not key.isascii() or not key.isprintable() or " " in key:
                raise InputError(f"the environment variable {name} holds no key (it has spaces or unusual characters)")
            return key
    return ""


def _reason(text: str) -> str:
    """The message in an error reply; the beginning of the text where it is no JSON."""
    try:
        error = json.loads(text).get("error")
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str):
            return message[:300]
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())[:120] or "nothing"


def _plain(url: str) -> str:
    """An address without what may be secret in it."""
    return url.rsplit("@", 1)[-1].split("?", 1)[0][:100]
