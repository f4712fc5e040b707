"""An OpenAI-compatible pair as a back end: a chat model writes the plan, an images API draws it.

Chat and images are a planner and a visualizer of ours, so the loop, the choice of references and resuming are the same as
for every other pair. An image with references goes to /images/edits, one without to /images/generations. The key comes
from WEAVER_GENERATE_API_KEY; for api.openai.com and OPENAI_BASE_URL else from OPENAI_API_KEY.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import WeaverError
from ...pictures import encode_png, read_picture
from ...planners import PlannerOptions
from ...request import RenderSettings, Request
from ...visualizers import Capabilities, Shot
from ..http import RequestFailed, Server
from ..judge.client import chat_root
from ..records import Prompt
from . import Answer, BackendDown
from .library import LibraryBackend

if TYPE_CHECKING:
    from PIL.Image import Image

KEY_VARIABLES = ("WEAVER_GENERATE_API_KEY", "OPENAI_API_KEY")
SIZES = ((1024, 1024), (1536, 1024), (1024, 1536))
INSTRUCTIONS = """\
You write answers in which texts and images alternate. Wherever an image belongs, write <imagine>a complete description of \
that one image</imagine>. The description alone is given to an image generator that sees nothing else, so it names every \
time what is shown, how it looks (colours, clothes, shape), where, and in which style; things that recur are described \
with the same words. Write plain text around it, in the language of the request. Begin with "# " and a title."""


class ChatPlanner:
    """A chat model as a planner. See `planners.Planner`."""

    max_images = None

    def __init__(self, server: Server, model: str):
        self.server, self.model = server, model

    def write(self, request: Request, history: tuple, *, options: PlannerOptions, cancel: Callable[[], bool]) -> Iterator[str]:
        wish = "" if options.num_images is None else f"\n\nUse exactly {options.num_images} images."
        content: list[dict] = [{"type": "text", "text": request.prompt + (wish if not history else "")}]
        content += [_image_part(picture.image) for picture in request.images]
        messages: list[dict] = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": content}]
        if history:
            shown = [{"type": "text", "text": item} if isinstance(item, str) else _image_part(item) for item in history]
            go_on = "This is what you have written so far, with the images as they were drawn. Go on right after it; repeat nothing."
            left = "" if options.num_images is None else f" {options.num_images} images are still to come."
            messages.append({"role": "user", "content": [{"type": "text", "text": go_on + left}, *shown]})
        body = {"model": self.model, "messages": messages, "temperature": options.temperature, "max_tokens": options.max_tokens}
        try:
            reply = self.server.json("POST", "/chat/completions", body)
        except RequestFailed as failure:
            raise _down(failure) or failure from None
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise WeaverError(f"{self.server.url} answered without choices[0].message.content") from None
        if not isinstance(text, str) or not text.strip():
            raise WeaverError(f"{self.model} wrote nothing")
        yield text


class ImagesApi:
    """An images API as a visualizer. See `visualizers.Visualizer`. It takes no seed, so a drawn image is not repeatable."""

    def __init__(self, server: Server, model: str, *, max_references: int = 4, size: tuple[int, int] | None = None, more: dict | None = None):
        self.server, self.model, self.more = server, model, more or {}
        sizes = (size,) if size else SIZES
        self.capabilities = Capabilities(
            max_references=max_references, default_size=sizes[0], sizes=sizes, max_side=4096, edits=max_references > 0, steps=1
        )
        self.fingerprint = f"images-api/{model}/{json.dumps(self.more, sort_keys=True)}"
        self.down: BackendDown | None = None

    def render(self, shot: Shot, *, on_step, cancel: Callable[[], bool]) -> Image:
        fields = {"model": self.model, "prompt": shot.prompt, "n": 1, "size": f"{shot.size[0]}x{shot.size[1]}", **self.more}
        try:
            if shot.references:
                files = [("image[]" if len(shot.references) > 1 else "image", (f"{number}.png", encode_png(image), "image/png"))
                         for number, image in enumerate(shot.references)]
                reply = self.server.upload("/images/edits", {key: str(value) for key, value in fields.items()}, files)
            else:
                reply = self.server.json("POST", "/images/generations", fields)
        except RequestFailed as failure:
            self.down = _down(failure)
            raise
        image, _ = read_picture(self._bytes(reply), "the image that came")
        on_step(1, 1, None)
        return image if image.size == shot.size else image.resize(shot.size)

    def _bytes(self, reply: Any) -> bytes:
        try:
            item = reply["data"][0]
            if item.get("b64_json"):
                return base64.b64decode(item["b64_json"])
            address = item["url"]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise WeaverError(f"{self.server.url} answered without data[0].b64_json or data[0].url") from None
        return _download(address)


class OpenAIBackend(LibraryBackend):
    """A chat model and an images API. See `LibraryBackend` for the rest."""

    name = "openai"

    def __init__(
        self, url: str, chat_model: str, image_model: str, *, images_url: str | None = None, max_references: int = 4,
        size: tuple[int, int] | None = None, timeout_s: float = 300.0, attempts: int = 5, backoff_s: float = 1.0, **how,
    ):  # fmt: skip
        def server(address: str) -> Server:
            return Server(chat_root(address), key_variables=KEY_VARIABLES, timeout_s=timeout_s, attempts=attempts, backoff_s=backoff_s)

        planner = ChatPlanner(server(url), chat_model)
        # What a foreign system draws is measured as it is: no second drawing of a faulty page, which would be paid for as well.
        how["settings"] = replace(how.get("settings") or RenderSettings(), check_images=False)
        super().__init__(planner, ImagesApi(server(images_url or url), image_model, max_references=max_references, size=size),
                         model=f"{chat_model} + {image_model}", size=size, **how)

    def answer(self, prompt: Prompt, folder: Path, *, seed: int, work: Path) -> Answer:
        self.visualizer.down = None
        answer = super().answer(prompt, folder, seed=seed, work=work)
        if self.visualizer.down is not None:  # what was written and drawn stays in `work`, to go on with
            raise self.visualizer.down
        return answer


def _down(failure: RequestFailed) -> BackendDown | None:
    """The failure as one that every other request would have too; None when it is not."""
    return BackendDown(str(failure)) if failure.kind == "unreachable" or failure.status in (401, 402, 403, 404) else None


def _image_part(image: Image) -> dict:
    small = image.copy()
    small.thumbnail((768, 768))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=92)
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"}}


def _download(address: str) -> bytes:
    """A picture that the images API only points to; without the key, which is for the API alone."""
    from urllib.parse import parse_qsl, urlsplit

    parts = urlsplit(str(address))
    if parts.scheme not in ("http", "https"):
        raise WeaverError("the images API points to an image at no web address")
    return Server(f"{parts.scheme}://{parts.netloc}").bytes(parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)))
