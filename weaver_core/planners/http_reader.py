"""One HTTP request whose answer is read by a thread of its own, so that who waits for it can stop at any moment."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

from ..http_headers import bearer, retry_after_s

if TYPE_CHECKING:
    from .http import Timeouts

MAX_ERROR_BODY = 64 * 1024
_PIECE = 64 * 1024
_GRACE_S = 5.0  # the socket's own clock runs later than those of who reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A request that has no usable answer.

    status       the server's, None = there was none (`reason` says why; `is_final` = trying again is of no use)
    body         what it said, cut after MAX_ERROR_BODY
    retry_after  seconds that it asks to wait, or None
    location     where it has moved to
    """

    reason: str = ""
    status: int | None = None
    body: str = ""
    retry_after: float | None = None
    location: str = ""
    is_final: bool = False


class HttpReader:
    """POSTs a JSON body (None = GET) and gives the answer's bytes: `next(timeout_s)` is a piece of them, b"" at the end,
    None when nothing has come in that time, or Failed. Leaving the `with` closes the connection.

    Redirects are not followed, and the key goes nowhere but to this address; `is_local` = no proxy is asked.
    """

    def __init__(self, url: str, body: bytes | None, key: str, timeouts: Timeouts, is_local: bool):
        try:
            import requests  # noqa: F401
        except ImportError:
            raise ImportError('asking a server needs requests: pip install "wan-weaver[http]"') from None
        self._url, self._body, self._key, self._timeouts, self._is_local = url, body, key, timeouts, is_local
        self._pieces: Queue = Queue(maxsize=256)
        self._abandoned = threading.Event()
        self._response = None
        threading.Thread(target=self._run, name="weaver-http", daemon=True).start()

    def next(self, timeout_s: float) -> bytes | Failed | None:
        try:
            return self._pieces.get(timeout=timeout_s)
        except Empty:
            return None

    def __enter__(self) -> HttpReader:
        return self

    def __exit__(self, *_) -> None:
        self._abandoned.set()
        if self._response is not None:
            try:
                self._response.raw.shutdown()  # wakes the thread, which then closes
            except (AttributeError, ValueError, OSError, RuntimeError):
                pass  # an older urllib3, or closed already: the thread ends with the next bytes or its own clock

    # ---- the thread

    def _put(self, piece: bytes | Failed) -> None:
        while not self._abandoned.is_set():
            try:
                self._pieces.put(piece, timeout=0.2)
                return
            except Full:
                continue

    def _run(self) -> None:
        try:
            self._put(self._read() or b"")
        except Exception as error:  # of whatever kind, who waits must hear of it
            self._put(Failed(reason=f"the connection failed ({type(error).__name__})"))

    def _read(self) -> Failed | None:
        """Puts the pieces; returns what went wrong. No exception leaves: theirs carry the request with its key."""
        import requests
        import urllib3

        session = requests.Session()
        session.trust_env = not self._is_local
        try:
            with self._send(session) as response:
                self._response = response
                if response.status_code != 200:
                    return self._failure(response)
                while not self._abandoned.is_set() and (piece := self._piece(response)):
                    self._put(piece)
        except requests.exceptions.SSLError:
            return Failed(reason="its certificate is not trusted; check the address, or the date of this computer", is_final=True)
        except requests.exceptions.ConnectTimeout:
            return Failed(reason=f"no connection within {self._timeouts.connect_s:g} s")
        except requests.exceptions.ProxyError:
            return Failed(reason="the proxy does not let us through; check HTTPS_PROXY", is_final=True)
        except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError):
            return Failed(reason="the server does not answer in time")
        except requests.exceptions.ConnectionError as error:
            if any(text in str(error) for text in ("refused", "NameResolution", "getaddrinfo", "Name or service", "unreachable")):
                return Failed(reason="no server answers there; start it (for Ollama: ollama serve), or change the address", is_final=True)
            return Failed(reason="the connection was cut")
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
            return Failed(reason="this is no address of a server; give one such as http://localhost:11434/v1", is_final=True)
        except (urllib3.exceptions.DecodeError, requests.exceptions.ContentDecodingError):
            return Failed(reason="the answer is compressed and damaged")
        except (urllib3.exceptions.HTTPError, requests.exceptions.RequestException, OSError):
            return Failed(reason="the connection was cut")
        finally:
            session.close()
        return None

    def _send(self, session):
        longest = max(self._timeouts.first_token_s, self._timeouts.between_tokens_s) + _GRACE_S
        return session.request(
            "GET" if self._body is None else "POST",
            self._url,
            data=self._body,
            headers={"Content-Type": "application/json", "Accept": "text/event-stream, application/json",
                     "Accept-Encoding": "identity"},
            auth=bearer(self._key),
            stream=True,
            allow_redirects=False,
            timeout=(self._timeouts.connect_s, longest),
        )  # fmt: skip

    def _piece(self, response) -> bytes:
        """Some bytes as soon as there are any; b"" at the end."""
        raw = response.raw
        if hasattr(raw, "read1"):
            while True:
                piece = raw.read1(_PIECE, decode_content=True)
                # A decoder may have taken bytes and given none yet.
                if piece or raw.closed or getattr(raw, "_fp", None) is None or raw._fp.isclosed():
                    return piece
        return raw.read(1, decode_content=True)  # urllib3 before 2.1: only single bytes are given at once

    def _failure(self, response) -> Failed:
        body = b""
        while len(body) < MAX_ERROR_BODY and (piece := self._piece(response)):
            body += piece
        return Failed(status=response.status_code, body=body[:MAX_ERROR_BODY].decode("utf-8", "replace"),
                      retry_after=retry_after_s(response.headers.get("Retry-After")),
                      location=response.headers.get("Location") or "")  # fmt: skip
