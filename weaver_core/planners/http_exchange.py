"""One exchange with an OpenAI-compatible server: a conversation goes out, text comes back as it is written.

Servers and models take different parameters and fail in different ways. What a server does not take is left out, as its
message names it; what may pass is tried again; the rest ends in a sentence for the user.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import WeaverError
from .event_stream import EventStream, EventStreamError
from .http_address import is_local
from .http_reader import Failed, HttpReader
from .instruction import data_uri_part

if TYPE_CHECKING:
    from . import PlannerOptions
    from .http import HttpPlanner
    from .stream_cleaning import StreamCleaner

    Messages = Callable[[Callable | None], list[dict]]
    """The conversation, made anew for every attempt with what turns a picture into a part (None = it cannot look)."""

FIRST_PAUSE_S = 1.0  # before the second attempt; doubled before each further one
MAX_PAUSE_S = 60.0  # a server that asks for a longer one is not waited for
MAX_ANSWER = 4 * 2**20  # characters; far above any plan

_IMAGES_REFUSED = re.compile(r"image|vision|multimodal|mmproj|content.{0,30}(?:must be|should be).{0,20}string", re.IGNORECASE)


class TryAgain(Exception):
    """Nothing has come yet, and another attempt may do better; `after` = seconds that the server asks for."""

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


class NoJson(Exception):
    """The server or its model does not answer in JSON."""


@dataclass(slots=True)
class Answer:
    """What is known about an answer besides its text."""

    length: int = 0
    finish: str | None = None
    refusal: str = ""
    num_thoughts: int = 0
    broken: str = ""  # why it ends in the middle


class Changed(Exception):
    """The request has been changed; it is worth another attempt at once."""


class Exchange:
    """Asks a server, as often as need be. `may_be_empty` = no text is an answer too.

    What is learned about the server on the way (that it takes no pictures, no seed, no system role) holds for later attempts.
    """

    def __init__(self, planner: HttpPlanner, options: PlannerOptions, cancel: Callable[[], bool], *, may_be_empty: bool = False):
        self.planner, self.options, self.cancel = planner, options, cancel
        self.may_be_empty = may_be_empty
        self.sees_images = planner.sees_images
        self.changes: dict[str, str | None] = {}  # parameters that the server does not take -> their other name
        self.merges_system = False

    def note(self, sentence: str) -> None:
        self.planner.notes.append(sentence)

    def attempts(self, messages: Messages, answer: Answer, schema: dict | None = None) -> Generator[str, None, None]:
        """The answer's text as it comes; what else is known about it is in `answer`. Until something has come, what fails is
        tried again; after that, `answer.broken` says why the text ends in the middle. NoJson where a schema is not taken."""
        pause, attempt = FIRST_PAUSE_S, 1
        while True:
            try:
                yield from self._once(messages, answer, schema)
                if answer.length or answer.refusal or answer.num_thoughts or self.may_be_empty or self.cancel():
                    return
                if answer.finish in ("content_filter", "length"):
                    return  # another attempt would end in the same way, and cost as much
                raise TryAgain("the answer is empty")
            except TryAgain as error:
                reason, after = str(error), error.after
            except Changed:
                continue
            if answer.length:
                answer.broken = reason
                return
            if after is not None and after > MAX_PAUSE_S:
                raise WeaverError(f"{self.planner.url}: {reason}; it asks to wait {after:.0f} s. Try again then")
            if attempt >= self.planner.attempts:
                times = "" if attempt == 1 else f" ({attempt} times)"
                raise WeaverError(f"{self.planner.url}: {reason}{times}; try again later, or look what the server says")
            if not self._wait(pause if after is None else after):
                return
            pause, attempt = min(2 * pause, MAX_PAUSE_S), attempt + 1

    def _wait(self, seconds: float) -> bool:
        """False when the user would rather not."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.cancel():
                return False
            time.sleep(min(left, 0.1))
        return not self.cancel()

    def _once(self, messages: Messages, answer: Answer, schema: dict | None) -> Iterator[str]:
        payload = self._payload(messages, schema)
        planner, events = self.planner, EventStream()
        body = json.dumps(payload, ensure_ascii=False).encode()
        url = f"{planner.url}/chat/completions"
        with HttpReader(url, body, planner.key.value, planner.timeouts, is_local(planner.url)) as reader:
            last_token = time.monotonic()
            last_id, num_events, done = "", 0, False
            while not done:
                if self.cancel():
                    return
                limit = planner.timeouts.between_tokens_s if answer.length else planner.timeouts.first_token_s
                if time.monotonic() - last_token > limit:
                    which = "another" if answer.length else "the first"
                    raise TryAgain(f"the server has not sent {which} token for {limit:g} s")
                piece = reader.next(0.05)
                if piece is None:
                    continue
                if isinstance(piece, Failed):
                    self._failed(piece, payload)
                try:
                    complete = events.feed(piece) if piece else events.close()
                except EventStreamError as error:
                    raise TryAgain(f"the server's answer cannot be read: {error}") from None
                done = not piece
                for event in complete:
                    num_events += 1
                    if event.id and event.id == last_id:
                        continue  # sent twice
                    last_id = event.id
                    if event.data.strip() == "[DONE]":
                        done = True
                        break
                    thoughts = answer.num_thoughts
                    text = self._text_of(event.data, answer)
                    if text or answer.num_thoughts > thoughts:
                        last_token = time.monotonic()
                    if text:
                        answer.length += len(text)
                        yield text
                        if self.cancel():
                            return
                    if answer.length > MAX_ANSWER:
                        raise WeaverError(f"{planner.model} has written {MAX_ANSWER:,} characters and does not end; stopped")
            if not num_events and events.stray.strip():
                yield from self._unstreamed(events.stray, answer)
            elif done and not piece and answer.length and answer.finish is None:
                raise TryAgain("the connection ended in the middle of the answer")

    def _text_of(self, data: str, answer: Answer) -> str:
        """The text in one event, or in an answer that is not streamed."""
        try:
            chunk = json.loads(data)
            if not isinstance(chunk, dict):
                raise TypeError
            if error := chunk.get("error"):
                self._server_error(error)
            choices = chunk.get("choices") or [{}]
            choice = choices[0]
            delta = choice.get("delta") or choice.get("message") or {}
            content = delta.get("content") or choice.get("text") or ""
            if isinstance(content, list):
                content = "".join(part.get("text", "") for part in content)
            answer.finish = choice.get("finish_reason") or answer.finish
            answer.refusal += delta.get("refusal") or ""
            if delta.get("reasoning_content") or delta.get("reasoning"):
                answer.num_thoughts += 1
            if not isinstance(content, str):
                raise TypeError
            return content
        except (json.JSONDecodeError, RecursionError, TypeError, AttributeError, LookupError):
            raise TryAgain(f"the server sent data that is no chat completion: {self.planner.shown(data)[:80]!r}") from None

    def _unstreamed(self, body: str, answer: Answer) -> Iterator[str]:
        """A body that is no event stream: a whole completion, or a page."""
        if re.match(r"\s*<(?:!doctype|html|\?xml|head|body)", body, re.IGNORECASE):
            raise WeaverError(f"{self.planner.url} answered with a web page, not with a completion; check the address (it usually "
                              "ends in /v1) and whether a login or proxy stands before the server")
        text = self._text_of(body, answer)
        answer.length += len(text)
        if text:
            yield text

    # ---- what is sent

    def _payload(self, messages: Messages, schema: dict | None) -> dict:
        sent = messages(data_uri_part if self.sees_images else None)
        if self.merges_system and sent[0]["role"] == "system":
            system, first, *others = sent
            content = first["content"]
            if isinstance(content, str):
                content = f"{system['content']}\n\n{content}"
            else:
                content = [{"type": "text", "text": system["content"]}, *content]
            sent = [{"role": "user", "content": content}, *others]
        payload = {
            "model": self.planner.model,
            "messages": sent,
            "stream": True,
            "max_tokens": self.options.max_tokens,
            "temperature": self.options.temperature,
            "seed": self.options.seed % 2**31,
        }
        if schema is not None:
            payload["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        for name, other in self.changes.items():
            value = payload.pop(name, None)
            if other and value is not None:
                payload[other] = value
        return payload

    # ---- what went wrong

    def _failed(self, failure: Failed, payload: dict) -> None:
        """Raises what a failed request means: another attempt, another form of the request, or an error for the user."""
        where = self.planner.url
        if failure.status is None:
            if failure.is_final:
                raise WeaverError(f"{where}: {self.planner.shown(failure.reason)}")
            raise TryAgain(self.planner.shown(failure.reason))
        said = self._said(failure.body)
        quoted = f": {self.planner.shown(said)}" if said else ""
        status = failure.status
        if 300 <= status < 400:
            raise WeaverError(f"{where} has moved to {self.planner.shown(failure.location) or 'another address'}; use that one")
        if status in (401, 403):
            had = "does not accept the key" if self.planner.key.value else "wants a key"
            raise WeaverError(f"{where} {had} ({status}); set WEAVER_API_KEY to a valid one{quoted}")
        if status in (400, 404, 415, 422, 500, 501):
            self._change(said, payload)
        if status == 404:
            raise WeaverError(f"{where} knows no model {self.planner.model!r} here (404){quoted}. {self._models_sentence()}")
        if status == 402 or "insufficient_quota" in failure.body:
            raise WeaverError(f"{where} has no credit left for this key ({status}){quoted}")
        if status in (408, 409, 425, 429) or status >= 500:
            raise TryAgain(f"the server is busy or failing ({status}){quoted}", failure.retry_after)
        raise WeaverError(f"{where} refused the request ({status}){quoted}")

    def _change(self, said: str, payload: dict) -> None:
        """Leaves out what this server or model does not take, as its message names it, and has it tried again."""
        words = said.lower()
        if "response_format" in payload and re.search(r"response_format|json_schema|schema|grammar|structured", words):
            raise NoJson("the server takes no JSON schema")
        has_pictures = any(isinstance(message["content"], list) for message in payload["messages"])
        if has_pictures and _IMAGES_REFUSED.search(said):
            self.sees_images = False
            self.note(f"{self.planner.model} cannot look at pictures; they are only named to it")
            raise Changed
        if not self.merges_system and re.search(r"system role|role.{0,20}system|roles must alternate", words):
            self.merges_system = True
            raise Changed
        for name in ("max_tokens", "temperature", "seed"):
            if name in words and name in payload:
                other = "max_completion_tokens" if name == "max_tokens" and "max_completion_tokens" in words else None
                self.changes[name] = other
                if name == "seed":
                    self.note("the server knows no seed; the same request may give another story")
                raise Changed

    def _server_error(self, error: object) -> None:
        """An error inside of the stream."""
        error = error if isinstance(error, dict) else {"message": error}
        said, code = str(error.get("message") or "an error"), str(error.get("code") or error.get("type") or "")
        if "insufficient_quota" in code:
            raise WeaverError(f"{self.planner.url} has no credit left for this key: {self.planner.shown(said)}")
        raise TryAgain(f"the server reports an error: {self.planner.shown(said)}")

    def _said(self, body: str) -> str:
        """The sentence in an error's body."""
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return "" if body.lstrip()[:1] == "<" else body
        for key in ("error", "message", "detail"):
            if isinstance(data, dict) and key in data:
                data = data[key]
        return data if isinstance(data, str) else json.dumps(data)

    def _models_sentence(self) -> str:
        try:
            names = self.planner.list_models()
        except WeaverError:
            return "Check the model's name and the address (it usually ends in /v1)"
        shown = self.planner.shown(", ".join(names[:12])) + (", ..." if len(names) > 12 else "")
        return f"It has {shown}"

    def used_up_message(self, answer: Answer, cleaner: StreamCleaner, what: str) -> str:
        """Why there is no text, where thoughts or the limit of tokens took it all; "" where neither did."""
        thought, most = answer.num_thoughts or cleaner.has_thought, self.options.max_tokens
        if answer.finish == "length":
            used = f"used all {most} tokens{' for thinking' if thought else ', perhaps for thinking that it does not show,'} and wrote no {what}"
        elif thought:
            used = f"thought and wrote no {what} within {most} tokens"
        else:
            return ""
        return f"{self.planner.model} {used}; switch its thinking off, or allow more tokens"

    def broken_message(self, answer: Answer) -> str:
        if not answer.broken:
            return ""
        return f"{self.planner.url}: {answer.broken}, after {answer.length:,} characters; try again"
