"""A real server on the loopback address that answers chat completions in the ways that servers do, good and bad."""

from __future__ import annotations

import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PLAN = """# Robin's day
<cast name="Robin" look="a small orange fox">
In the morning Robin peeks out of his den. 早上好！
<imagine id="p1" cast="Robin" aspect="4:3">A small orange fox peeks out of a den.</imagine>
In the evening he is tired.
<imagine id="p2" cast="Robin" aspect="4:3">The fox sleeps under a tree.</imagine>
Good night.
"""


def pieces_of(text: str, length: int = 5) -> list[str]:
    return [text[i : i + length] for i in range(0, len(text), length)]


def event(text: str | None, finish: str | None = None, **more) -> bytes:
    delta = {} if text is None else {"content": text}
    chunk = {"id": "c1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return f"data: {json.dumps({**chunk, **more}, ensure_ascii=False)}\n\n".encode()


def stream_of(text: str, *, finish: str | None = "stop", done: bool = True) -> bytes:
    out = b"".join(event(piece) for piece in pieces_of(text))
    return out + (event(None, finish) if finish else b"") + (b"data: [DONE]\n\n" if done else b"")


class Reply:
    """One answer: a status with headers, then bytes, with pauses where a number of seconds stands among them."""

    def __init__(self, *body, status: int = 200, kind: str = "text/event-stream", cut: bool = False, chunked: bool = False, **headers):
        self.body, self.status, self.kind, self.cut, self.chunked, self.headers = body, status, kind, cut, chunked, headers

    @classmethod
    def plan(cls, text: str = PLAN, **how) -> Reply:
        return cls(stream_of(text), **how)

    @classmethod
    def error(cls, status: int, message: str, *, code: str = "", **headers) -> Reply:
        body = json.dumps({"error": {"message": message, "code": code}}).encode()
        return cls(body, status=status, kind="application/json", **headers)


class BadServer:
    """Gives its replies in order, the last one again and again; keeps what it was asked. `hung_up` = a client has gone."""

    def __init__(self):
        self.replies: list[Reply] = [Reply.plan()]
        self.models = ["fox-7b", "owl-3b"]
        self.asked: list[dict] = []
        self.keys: list[str] = []
        self.hung_up = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(bad):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                bad.keys.append(self.headers.get("Authorization", ""))
                body = json.dumps({"data": [{"id": name} for name in bad.models]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                bad.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                bad.keys.append(self.headers.get("Authorization", ""))
                reply = bad.replies.pop(0) if len(bad.replies) > 1 else bad.replies[0]
                self.close_connection = True
                try:
                    self._give(reply)
                except (BrokenPipeError, ConnectionResetError):
                    bad.hung_up.set()

            def _give(self, reply: Reply):
                if reply.status:
                    self.send_response(reply.status)
                    self.send_header("Content-Type", reply.kind)
                    for name, value in reply.headers.items():
                        self.send_header(name.replace("_", "-"), value)
                    if reply.chunked or reply.cut:
                        self.send_header("Transfer-Encoding", "chunked")
                    self.send_header("Connection", "close")
                    self.end_headers()
                for part in reply.body:
                    if isinstance(part, (int, float)):
                        self._pause(part)
                    elif reply.chunked or reply.cut:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                    else:
                        self.wfile.write(part)
                    self.wfile.flush()
                if reply.chunked:
                    self.wfile.write(b"0\r\n\r\n")

            def _pause(self, seconds):
                """Waits, and notices when the client closes meanwhile."""
                self.connection.settimeout(0.02)
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    try:
                        if self.connection.recv(1) == b"":
                            raise BrokenPipeError
                    except TimeoutError:
                        continue
                self.connection.settimeout(None)

        return Handler


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data)
