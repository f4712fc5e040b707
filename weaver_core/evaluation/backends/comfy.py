"""A ComfyUI workflow as a back end: the API-format JSON ("Export (API)") is queued once per prompt.

Where prompt, seed, number of images and pictures go is said by the workflow or the user:
* a node whose title is "prompt", "seed", "num_images", "image1", "image2", ... (also as "weaver:prompt") gets the value in
  the input that usually holds it,
* or a mapping names the input: {"prompt": "6.text", "seed": "3.seed"}.

A picture that a prompt does not give is taken out of the workflow with its node: the one that it was saved with is no
picture of this prompt.

What the output nodes show is collected in the order of their numbers (or as `collect` says): a story from Preview Story
with its texts and pictures in place, otherwise texts and images as they are listed.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...errors import InputError
from ...visualizers.graph.detect import is_link
from ..http import RequestFailed, Server
from ..records import Prompt
from ..run_folder import inside
from . import Answer, AnswerImage, BackendDown

INPUT_NAMES = {
    "prompt": ("prompt", "text", "value", "string", "positive"),
    "seed": ("seed", "noise_seed", "value"),
    "num_images": ("num_images", "value", "int", "number", "batch_size", "amount"),
    "image": ("image",),
}
_TITLE = re.compile(r"(?:weaver[:\s]+)?(prompt|seed|num_images|image([1-9][0-9]?))\Z", re.IGNORECASE)
_TEXT_KEYS = ("text", "string", "texts")
_DROP_S = 10.0  # how long a server may take to drop a prompt that nobody waits for any more


class ComfyBackend:
    """Queues a workflow for every prompt and collects what it shows.

    workflow    API format: {node id: {"class_type", "inputs", "_meta": {"title"}}}
    mapping     placeholder -> "node.input"; wins over titles
    collect     ids of the output nodes, in the order of the document; None = all, by number
    timeout_s   for one prompt, from when it begins to run; the queue included where the server does not tell of it
    """

    name = "comfy"

    def __init__(
        self,
        url: str,
        workflow: str | Path,
        *,
        mapping: Mapping[str, str] | None = None,
        collect: Sequence[str] | None = None,
        timeout_s: float = 3600.0,
        poll_s: float = 0.5,
    ):
        self.server = Server(url, timeout_s=min(timeout_s, 300.0))
        self.timeout_s, self.poll_s = timeout_s, poll_s
        self.workflow = read_workflow(workflow)
        self.places = find_places(self.workflow, mapping or {})
        self.collect = tuple(collect) if collect else None
        for node in self.collect or ():
            if node not in self.workflow:
                raise InputError(f"--collect names node {node}, and the workflow has none of that id")
        self._classes: dict[str, dict] = {}
        self.fingerprint = hashlib.sha256(json.dumps(self.workflow, sort_keys=True).encode()).hexdigest()[:32]

    def settings(self) -> dict:
        return {
            "workflow": self.fingerprint,
            "places": {name: f"{node}.{key}" for name, (node, key) in self.places.items()},
            "collect": list(self.collect) if self.collect else None,
        }

    def answer(self, prompt: Prompt, folder: Path, *, seed: int, work: Path) -> Answer:
        started = time.monotonic()
        try:
            graph = self._fill(prompt, folder, seed)
            reply = self.server.json("POST", "/prompt", {"prompt": graph}, again=False)
            outputs = self._wait(str(reply["prompt_id"]))
            parts = self._collect(outputs)
        except RequestFailed as failure:
            if failure.kind == "unreachable":
                raise BackendDown(f"{failure}; is ComfyUI running there?") from None
            return Answer(finish="error", error=_node_errors(failure), fingerprint=self.fingerprint)
        except _WorkflowFailed as failure:
            return Answer(finish="error", error=str(failure), fingerprint=self.fingerprint)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            return Answer(finish="error", error=f"{self.server.url} does not answer as ComfyUI does ({error!r})", fingerprint=self.fingerprint)
        return Answer(
            parts=parts,
            finish="stop" if parts else "error",
            error="" if parts else "the workflow showed neither texts nor images; add Save Image, Preview Story or a text preview",
            timing={"s": round(time.monotonic() - started, 3)},
            fingerprint=self.fingerprint,
        )

    def _fill(self, prompt: Prompt, folder: Path, seed: int) -> dict:
        """The workflow with this prompt's values; its pictures are uploaded."""
        graph = copy.deepcopy(self.workflow)

        def put(name: str, value: Any) -> None:
            if name in self.places:
                node, key = self.places[name]
                graph[node]["inputs"][key] = value

        put("prompt", prompt.text)
        put("seed", seed)
        put("num_images", prompt.want.images_max if prompt.want.explicit else 0)
        pictures = [block for block in prompt.input if block.type == "image"]
        self._take_out_pictures(graph, len(pictures))
        for number, block in enumerate(pictures, 1):
            if f"image{number}" not in self.places:
                raise _WorkflowFailed(
                    f"the prompt gives {len(pictures)} pictures, and the workflow has no place for picture {number}; title a "
                    f"Load Image node 'image{number}'"
                )
            path = inside(folder, block.path)
            file = ("image", (f"weaver-eval-{block.sha256[:16]}{path.suffix}", path.read_bytes(), "application/octet-stream"))
            reply = self.server.upload("/upload/image", {"overwrite": "true"}, [file])
            put(f"image{number}", "/".join(part for part in (reply.get("subfolder"), reply["name"]) if part))
        return graph

    def _take_out_pictures(self, graph: dict, num_pictures: int) -> None:
        """Takes the nodes of those pictures out that the prompt does not give. _WorkflowFailed where one is needed."""
        unused = {name: node for name, (node, _) in self.places.items() if name.startswith("image") and int(name[5:]) > num_pictures}
        used = {node for name, (node, _) in self.places.items() if name not in unused}
        for name, gone in unused.items():
            for node_id, node in graph.items():
                for key in [key for key, link in node["inputs"].items() if is_link(link) and link[0] == gone]:
                    if gone in used or not self._is_optional(node, key):
                        raise _WorkflowFailed(
                            f"the prompt gives {num_pictures} pictures, and the workflow cannot be without {name}: {node['class_type']} ({node_id}) "
                            f"needs it for {key!r}; link its Load Image to optional inputs only, or take another workflow for such prompts"
                        )
                    del node["inputs"][key]
            graph.pop(gone, None)

    def _is_optional(self, node: dict, key: str) -> bool:
        """Whether the server's class of this node can be without an input."""
        kind = str(node["class_type"])
        if kind not in self._classes:
            self._classes[kind] = self.server.json("GET", f"/object_info/{quote(kind, safe='')}").get(kind) or {}
        groups = self._classes[kind].get("input") or {}
        optional, name = groups.get("optional") or {}, key.split(".")[0]
        known = {**(groups.get("required") or {}), **optional}.get(name) or ()
        if "." in key and known and known[0] == "COMFY_AUTOGROW_V3":  # as many as are linked, such as images.image_1
            given = sum(other.startswith(f"{name}.") for other in node["inputs"])
            return given > known[1].get("template", {}).get("min", 1)
        return key in optional

    def _wait(self, prompt_id: str) -> dict:
        """The outputs of a prompt. One that nobody waits for any more, for whatever reason, does not stay with the server."""
        entry = None
        try:
            entry = self._finished(prompt_id)
        finally:
            if entry is None:
                self._drop(prompt_id)
        if entry is None:
            raise _WorkflowFailed(f"the workflow did not finish within {self.timeout_s:g} s and was stopped; allow more with --timeout")
        status = entry.get("status") or {}
        if status.get("status_str") == "error":
            raise _WorkflowFailed(_execution_error(status))
        return entry.get("outputs") or {}

    def _finished(self, prompt_id: str) -> dict | None:
        """What the history says of a prompt that has ended; None when it has taken too long."""
        may_be_waiting, deadline = True, time.monotonic() + self.timeout_s
        while time.monotonic() < deadline:
            entry = self.server.json("GET", f"/history/{prompt_id}").get(prompt_id)
            status = (entry or {}).get("status") or {}
            if entry and (status.get("status_str") == "error" or status.get("completed", True)):
                return entry
            if may_be_waiting:
                may_be_waiting = prompt_id in _queued(self.server, "queue_pending")
                deadline = time.monotonic() + self.timeout_s if may_be_waiting else deadline
            time.sleep(self.poll_s)
        return None

    def _drop(self, prompt_id: str) -> None:
        server = Server(self.server.url, timeout_s=_DROP_S, attempts=1)
        with contextlib.suppress(RequestFailed):  # what it was dropped for is told, not this
            server.post("/queue", {"delete": [prompt_id]})
            # Asked after that, since it may have begun to run just then. An interrupt stops whatever runs, also another user's.
            if prompt_id in _queued(server, "queue_running"):
                server.post("/interrupt", {"prompt_id": prompt_id})

    def _collect(self, outputs: dict) -> tuple[str | AnswerImage, ...]:
        nodes = self.collect or sorted(outputs, key=lambda node: [int(part) if part.isdigit() else 0 for part in node.split(":")])
        shown = [outputs[node] for node in nodes if isinstance(outputs.get(node), dict)]
        if self.collect is None and (stories := [output for output in shown if output.get("weaver_story")]):
            shown = stories[:1]  # the same pictures may be shown by Save Image as well
        saved = any(item.get("type") != "temp" for output in shown for item in output.get("images") or ())
        parts: list[str | AnswerImage] = []
        for output in shown:
            for story in output.get("weaver_story") or ():
                parts += self._story(story)
            texts = [text for key in _TEXT_KEYS for text in _as_texts(output.get(key))]
            # Previews beside saved images show the same once more.
            images = [item for item in output.get("images") or () if item.get("type") != "temp" or self.collect or not saved]
            for position in range(max(len(texts), len(images))):
                parts += texts[position : position + 1]
                parts += [self._image(item) for item in images[position : position + 1]]
        return tuple(part for part in parts if not isinstance(part, str) or part.strip())

    def _story(self, story: dict) -> list[str | AnswerImage]:
        parts: list[str | AnswerImage] = [f"# {story['title']}"] if story.get("title") else []
        for page in story["pages"]:
            parts += page["texts"]
            if page.get("picture"):
                parts.append(self._image(page["picture"], page.get("prompt") or ""))
        return parts

    def _image(self, item: dict, dense_prompt: str = "") -> AnswerImage:
        place = {key: str(item.get(key, "")) for key in ("filename", "subfolder", "type")}
        return AnswerImage(data=self.server.bytes("/view", place), dense_prompt=dense_prompt)


class _WorkflowFailed(Exception):
    """This prompt has no answer; the next may have one."""


def read_workflow(path: str | Path) -> dict[str, dict]:
    """A workflow in API format. InputError for anything else, also for the editor's own format."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a workflow: {error}") from None
    if isinstance(data, dict) and isinstance(data.get("nodes"), list):
        raise InputError(f"{path} is a workflow in the editor's format; export it in API format (File > Export (API))")
    if not isinstance(data, dict) or not data or not all(
        isinstance(node, dict) and isinstance(node.get("inputs"), dict) and "class_type" in node for node in data.values()
    ):
        raise InputError(f"{path} is no workflow in API format: expected {{node id: {{class_type, inputs}}}}")
    return data


def find_places(workflow: dict[str, dict], mapping: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Placeholder -> (node id, input). InputError when the prompt has no place, or a place is not there."""
    places: dict[str, tuple[str, str]] = {}
    for node_id, node in workflow.items():
        title = str((node.get("_meta") or {}).get("title", "")).strip()
        if found := _TITLE.match(title):
            name = found[1].lower()
            names = INPUT_NAMES["image" if found[2] else name]
            free = [key for key in names if key in node["inputs"] and not isinstance(node["inputs"][key], list)]
            if not free:
                raise InputError(f"node {node_id} is titled {title!r} but has none of the inputs {', '.join(names)}; use --set {name}=NODE.INPUT")
            if name in places and name not in mapping:
                raise InputError(f"two nodes are titled {name!r}; keep one, or use --set {name}=NODE.INPUT")
            places[name] = node_id, free[0]
    for name, place in mapping.items():
        if not re.fullmatch(r"prompt|seed|num_images|image[1-9][0-9]?", name):
            raise InputError(f"{name!r} is no placeholder; there are prompt, seed, num_images, image1, image2, ...")
        node_id, _, key = place.rpartition(".")
        if node_id not in workflow or key not in workflow[node_id]["inputs"]:
            raise InputError(f"{name}={place}: the workflow has no such node and input; give NODE.INPUT, such as 6.text")
        places[name] = node_id, key
    if "prompt" not in places:
        raise InputError("the workflow does not say where the prompt goes; title its node 'prompt', or use --set prompt=NODE.INPUT")
    return places


def _queued(server: Server, which: str) -> list:
    """The ids of the prompts that are waiting ("queue_pending") or running; [] where the server does not tell."""
    try:
        return [item[1] for item in server.json("GET", "/queue")[which]]
    except (RequestFailed, KeyError, TypeError, IndexError):
        return []


def _as_texts(value: Any) -> list[str]:
    """Texts of a node's output: a list of texts, or of their single letters (some nodes give the text itself as the list)."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return []
    return ["".join(value)] if len(value) > 1 and all(len(item) == 1 for item in value) else value


def _execution_error(status: dict) -> str:
    for message in status.get("messages") or ():
        if isinstance(message, list) and len(message) == 2 and message[0] in ("execution_error", "execution_interrupted"):
            detail = message[1] if isinstance(message[1], dict) else {}
            return f"the workflow failed in {detail.get('node_type', 'a node')}: {str(detail.get('exception_message', message[0])).strip()}"[:1000]
    return "the workflow failed, and ComfyUI does not say why; look at its log"


def _node_errors(failure: RequestFailed) -> str:
    """What ComfyUI says about a workflow that it refuses."""
    try:
        errors = json.loads(failure.body)["node_errors"]
        reasons = [f"{node.get('class_type')} ({node_id}): {error.get('message')} {error.get('details') or ''}".strip()
                   for node_id, node in errors.items() for error in node.get("errors", ())]
        return f"ComfyUI refuses the workflow: {'; '.join(reasons)}"[:1000] if reasons else str(failure)
    except (ValueError, KeyError, AttributeError, TypeError):
        return str(failure)
