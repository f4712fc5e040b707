"""A planner behind an OpenAI-compatible server: Ollama, LM Studio, vLLM, llama.cpp, or a hosted one.

The library is requests: it does proxies, certificates and content encodings, every ComfyUI has it, and unlike httpx it is
not in the middle of a change of its package's name. Only what it does not do is here: the stream of events, clocks for the
first and for every further token, and a stop at any moment, for which the socket is read by a thread of its own.

The key is sent to the server and goes nowhere else: what a server says is shown without it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError, WeaverError
from .http_address import Key, is_local, key_from_environment, server_address
from .http_exchange import MAX_ANSWER, Answer, Exchange, NoJson
from .http_reader import Failed, HttpReader
from .instruction import VERSION, build_messages, count_images, missing_images_message
from .json_answer import answer_schema, markup_of_answer
from .stream_cleaning import ImageGate, StreamCleaner

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..request import Request
    from . import HistoryItem, PlannerOptions

ATTEMPTS = 4
FORMS = ("markup", "json")

_SECRET = re.compile(r"\b(?:sk|key|gsk|xai|hf|pk)[-_][A-Za-z0-9_*.-]{6,}|(?i:bearer)\s+\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. A server may have to load its model before the first token."""

    connect_s: float = 10.0
    first_token_s: float = 300.0
    between_tokens_s: float = 60.0


class HttpPlanner:
    """Writes plans by asking a server. See `planners.Planner`.

    url          the server's address, such as http://localhost:11434/v1
    model        the name it knows its model by
    api_key      None = from the environment (`key_from_environment`), "" = none
    form         "markup" streams; "json" asks for JSON under a schema, which small models hold to more surely, and gives
                 the plan at the end
    sees_images  False = the model cannot look at pictures; they are named to it only
    instruction  the version of what the model is told (instruction.py)

    `notes` are sentences about the last `write` for the user.
    """

    max_images = None

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        form: str = "markup",
        sees_images: bool = True,
        timeouts: Timeouts | None = None,
        attempts: int = ATTEMPTS,
        instruction: str = VERSION,
    ):
        if form not in FORMS:
            raise InputError(f"form is {form!r}; it must be one of {', '.join(FORMS)}")
        if not model.strip():
            raise InputError("the planner's model has no name; give the one that its server lists, such as qwen3-vl:8b")
        self.url = server_address(url)
        self.model = model.strip()
        self.form = form
        self.sees_images = sees_images
        self.timeouts = timeouts or Timeouts()
        self.attempts = attempts
        self.instruction = instruction
        self.notes: list[str] = []
        self.key = Key(key_from_environment(self.url) if api_key is None else api_key)

    def __repr__(self) -> str:
        return f"HttpPlanner({self.url!r}, {self.model!r})"

    def write(
        self, request: Request, history: tuple[HistoryItem, ...], *, options: PlannerOptions, cancel: Callable[[], bool]
    ) -> Iterator[str]:
        """Pieces of markup as they come. WeaverError says what went wrong with the server and what to do."""
        self.notes.clear()
        conversation = _PlanConversation(self, request, history, options, cancel)
        if self.form == "json":
            try:
                yield conversation.as_json()
                return
            except NoJson as error:
                self.notes.append(f"{self.model}: {error}; asked for markup instead")
        yield from conversation.as_markup()

    def answer(
        self,
        question: str,
        images: Sequence[Image],
        *,
        options: PlannerOptions,
        cancel: Callable[[], bool],
        schema: dict | None = None,
    ) -> str:
        """See `planners.SeeingPlanner`. The schema is asked of the server, and given up where it takes none."""
        self.notes.clear()
        exchange = Exchange(self, options, cancel)

        def messages(picture_part) -> list[dict]:
            if not images:
                return [{"role": "user", "content": question}]
            if picture_part is None:
                raise InputError(f"{self.model} cannot look at pictures; take a model that sees, such as qwen3-vl:8b")
            return [{"role": "user", "content": [*map(picture_part, images), {"type": "text", "text": question}]}]

        while True:
            known, cleaner = Answer(), StreamCleaner()
            try:
                text = "".join(map(cleaner.feed, exchange.attempts(messages, known, schema)))
            except NoJson:
                schema = None
                continue
            if known.broken:
                raise WeaverError(exchange.broken_message(known))
            text += cleaner.close() + cleaner.refusal
            if not text and not cancel() and (reason := exchange.used_up_message(known, cleaner, "answer")):
                raise WeaverError(reason)
            return text

    def list_models(self) -> list[str]:
        """The names of the server's models, as it lists them."""
        with HttpReader(f"{self.url}/models", None, self.key.value, self.timeouts, is_local(self.url)) as reader:
            body = b""
            deadline = time.monotonic() + self.timeouts.connect_s + 10
            try:
                while (piece := reader.next(0.1)) != b"" and not isinstance(piece, Failed):
                    body += piece or b""
                    if time.monotonic() > deadline or len(body) > MAX_ANSWER:
                        break
                names = [str(item["id"]) for item in json.loads(body)["data"]]
            except (ValueError, KeyError, TypeError):
                names = []
        if not names:
            raise WeaverError(f"{self.url} does not list its models; look into the server for the model's name")
        return names

    def shown(self, text: str) -> str:
        """What a server said, for a message: short, on one line, and without anything secret."""
        text = self.key.removed_from(text)
        text = " ".join(_SECRET.sub("***", "".join(c if c.isprintable() else " " for c in text)).split())
        return text if len(text) <= 300 else text[:297] + "..."


# ---- one plan


class _PlanConversation:
    """One `write`: the answer, and where images are missing one more request."""

    def __init__(self, planner: HttpPlanner, request: Request, history, options: PlannerOptions, cancel):
        self.planner, self.request, self.history, self.options, self.cancel = planner, request, history, options, cancel
        self.may_be_empty = bool(history) and not options.num_images
        self.exchange = Exchange(planner, options, cancel, may_be_empty=self.may_be_empty)

    # ---- the two forms

    def as_markup(self) -> Iterator[str]:
        gate = ImageGate(self.options.num_images)
        written: list[str] = []
        answer = Answer()

        def through(pieces: Generator[str, None, None]) -> Iterator[str]:
            with closing(pieces):
                for piece in pieces:
                    if text := gate.feed(piece):
                        written.append(text)
                        yield text
                    if gate.cut:
                        break
            if text := gate.close():
                written.append(text)
                yield text

        yield from through(self._cleaned([], answer, continued=bool(self.history)))
        if self.cancel():
            return
        missing = self._missing(gate)
        if answer.broken and not missing and self.options.num_images is None:
            raise WeaverError(self.exchange.broken_message(answer))
        if not missing:
            if gate.cut:
                self.exchange.note(f"the planner went on after {gate.num_images} images; the rest is left out")
            elif answer.finish == "length":
                self.exchange.note(f"the planner stopped at max_tokens ({self.options.max_tokens}); the end of the story may be missing")
            elif answer.broken:
                self.exchange.note(self._broke_off())
            if gate.inside:
                yield "</imagine>"
            return
        yield "</imagine>\n" if gate.inside else "\n"
        gate.num_images += gate.inside
        gate.inside = False
        if not (missing := self._missing(gate)):
            self.exchange.note("the planner's answer ends in the middle of the last image; it is taken as it is")
            return
        self.exchange.note(f"the planner wrote {gate.num_images} of {self.options.num_images} images; it was asked for the rest")
        more = [{"role": "assistant", "content": "".join(written).strip()},
                missing_images_message(missing, count_images(self.history) + gate.num_images)]  # fmt: skip
        first_broken = self.exchange.broken_message(answer)
        try:
            yield from through(self._cleaned(more, answer := Answer(), continued=True))
        except WeaverError as error:
            if first_broken:
                raise WeaverError(first_broken) from None
            self.exchange.note(str(error))
        if answer.broken:
            self.exchange.note(self._broke_off() if not self._missing(gate) else self.exchange.broken_message(answer))
        if gate.inside:
            yield "</imagine>"

    def as_json(self) -> str:
        """The whole plan. NoJson when the answer is none."""
        answer = Answer()
        text = "".join(self._cleaned([], answer, continued=False, form="json"))
        if self.cancel():
            return ""
        if answer.broken:
            raise WeaverError(self.exchange.broken_message(answer))
        try:
            has_aspect = bool(self.request.size or self.request.wanted_aspect)
            return markup_of_answer(text, continued=bool(self.history), with_aspect=not has_aspect)
        except ValueError as error:
            raise NoJson(self.planner.shown(str(error))) from None

    def _broke_off(self) -> str:
        where = "after the last image" if self.options.num_images else "in the middle"
        return f"the answer broke off {where}; the end of the story may be missing"

    def _missing(self, gate: ImageGate) -> int:
        return 0 if self.options.num_images is None else max(0, self.options.num_images - gate.num_images)

    # ---- one answer

    def _cleaned(self, more: list[dict], answer: Answer, *, continued: bool, form: str = "markup") -> Generator[str, None, None]:
        """The answer's text without what is no plan. WeaverError when there is none."""
        cleaner = StreamCleaner(continued=continued)
        num_characters = 0
        with closing(self._answers(more, answer, form)) as pieces:
            for piece in pieces:
                if text := cleaner.feed(piece):
                    num_characters += len(text)
                    yield text
        if self.cancel():
            return
        if text := cleaner.close():
            num_characters += len(text)
            yield text
        if refusal := answer.refusal or (cleaner.refusal if self.options.num_images != 0 else ""):
            raise WeaverError(f"{self.planner.model} refused: \"{self.planner.shown(refusal)}\" Say it in other words, or take "
                              "another model")
        if cleaner.refusal:
            yield cleaner.refusal
        if answer.finish == "content_filter":
            raise WeaverError("the server's content filter stopped the answer; say it in other words, or take another server")
        if not num_characters and not self.may_be_empty and not cleaner.refusal:
            raise WeaverError(self.exchange.used_up_message(answer, cleaner, "plan")
                              or f"{self.planner.model} wrote nothing that is a plan; try another seed or another model")

    def _answers(self, more: list[dict], answer: Answer, form: str) -> Generator[str, None, None]:
        def messages(picture_part) -> list[dict]:
            return build_messages(self.request, self.history, self.options, form=form, version=self.planner.instruction,
                                  picture_part=picture_part) + more  # fmt: skip

        return self.exchange.attempts(messages, answer, answer_schema(self.options.num_images) if form == "json" else None)
