"""A loopback server that speaks as an OpenAI-compatible judge does, by a script; and small runs for it to judge."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from weaver_core.evaluation.backends import Answer, AnswerImage
from weaver_core.evaluation.records import InputBlock, Prompt, Want
from weaver_core.evaluation.run_folder import Manifest, RunFolder, document_seed

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


class JudgeServer:
    """`script` holds what the next requests get, then `answer(body)` decides. A step is a dict (message), a text (its
    content), or a callable that gets the handler and does as it likes."""

    def __init__(self):
        self.script: list = []
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.release = threading.Event()
        self.before = lambda number: None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(body)
                server.headers.append(dict(self.headers))
                server.before(len(server.requests))
                step = server.script.pop(0) if server.script else server.answer(body)
                if callable(step):
                    step(self)
                else:
                    self.reply(200, completion(step))

            def reply(self, status, body, headers=()):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, body):
        """A score that depends on the question alone."""
        digest = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        names = [name for name in schema.get("properties", {}) if name.isupper()]
        one = {"rationale": "as seen", "score": digest[0] % 11}
        return json.dumps({name: one | {"score": digest[i] % 11} for i, name in enumerate(names)} if names else one)

    def close(self):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


def completion(message, finish="stop"):
    message = message if isinstance(message, dict) else {"role": "assistant", "content": message}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE}


def status(code, body="", headers=()):
    return lambda handler: handler.reply(code, body if isinstance(body, (bytes, dict)) else body.encode(), headers)


def prompt(name, text="Draw a fox.", **more):
    known = {"v": 1, "category": "story", "lang": "en", "input": (InputBlock(type="text", text=text),),
             "want": Want(images_min=2, images_max=2, explicit=True)}  # fmt: skip
    return Prompt(id=name, **(known | more))


def png(colour, size=(24, 16)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def answer(number, images=2):
    parts = []
    for index in range(images):
        parts += [f"Page {index} of story {number}.", AnswerImage(data=png((number * 40 % 256, index * 90, 80)), dense_prompt=f"page {index}")]
    return Answer(parts=tuple(parts))


def make_run(folder, count=3, images=2, system="ours", **manifest):
    """A run of `count` prompts, all answered."""
    prompts = [prompt(f"p{number}", f"Tell story {number}.") for number in range(count)]
    run = RunFolder.create(folder, prompts, Manifest(system=system, backend={"name": "test"}, dataset={"name": "test"}, **manifest), source=folder)
    for number, item in enumerate(prompts):
        run.keep(item.id, answer(number, images), document_seed(0, item.id))
    return run
