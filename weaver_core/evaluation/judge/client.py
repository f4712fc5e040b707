"""A chat model behind an OpenAI-compatible server.

The form of the answer is asked for as strictly as the server can: a JSON schema, else JSON, else in words only. A server
that refuses a form (status 400 naming it) is not asked for it again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...errors import WeaverError
from ..http import RequestFailed, Server

KEY_VARIABLES = ("WEAVER_JUDGE_API_KEY", "OPENAI_API_KEY")
_FORMS = ("json_schema", "json_object", "none")
_FORM_WORDS = ("response_format", "json_schema", "json_object", "json mode", "structured output", "guided")
_HOPELESS = {
    401: "it does not accept the key; set {key_variables}",
    402: "there is no credit left",
    403: "the key may not use this model",
    404: "there is no such address or model; check the URL and the model's name",
}


class JudgeError(WeaverError):
    """The judge cannot be used at all; no other document would fare better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model said. `text` is its answer (the arguments, when it called a tool instead)."""

    text: str
    refused: bool = False
    finish: str = ""
    usage: dict = field(default_factory=dict)
    ms: float = 0.0


class ChatClient:
    """One model of one server.

    temperature   None = leave it to the server (some models accept none)
    max_tokens    of the answer, thinking included
    key           None = from the environment (`key_variables`), "" = none
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        temperature: float | None = 0.0,
        max_tokens: int = 2048,
        timeout_s: float = 180.0,
        attempts: int = 5,
        backoff_s: float = 1.0,
        key: str | None = None,
        key_variables: tuple[str, ...] = KEY_VARIABLES,
    ):
        self.server = Server(
            chat_root(url), key=key, key_variables=key_variables, timeout_s=timeout_s, attempts=attempts, backoff_s=backoff_s
        )
        self.model, self.temperature, self.max_tokens = model, temperature, max_tokens
        self.key_hint = key_variables[0] if key is None else "WEAVER_API_KEY and WEAVER_API_URL"  # good for any server
        self._form = 0
        self._limit_name = "max_tokens"

    def complete(self, messages: list[dict], schema: dict | None = None) -> Reply:
        """The model's reply. RequestFailed when there is none this time, JudgeError when there never will be."""
        started = time.monotonic()
        while True:
            form = _FORMS[self._form] if schema else "none"
            try:
                value = self.server.json("POST", "/chat/completions", self._body(messages, schema, form))
                break
            except RequestFailed as failure:
                if failure.status in _HOPELESS:
                    raise JudgeError(f"{failure}; {_HOPELESS[failure.status].format(key_variables=self.key_hint)}") from None
                if failure.status not in (400, 422) or not self._adapt(failure.body.lower(), form):
                    raise
        return self._read(value, round((time.monotonic() - started) * 1000, 1))

    def _adapt(self, complaint: str, form: str) -> bool:
        """Asks for less where the server says that it cannot; whether that is worth another request."""
        if self._limit_name == "max_tokens" and "max_completion_tokens" in complaint:
            self._limit_name = "max_completion_tokens"
            return True
        if "temperature" in complaint and self.temperature is not None:
            raise JudgeError(
                f"{self.model} does not accept temperature {self.temperature:g}; go on with --temperature none (the judge's name "
                "will say so)"
            )
        if form != "none" and any(word in complaint for word in _FORM_WORDS):
            self._form = _FORMS.index(form) + 1
            return True
        return False

    def _body(self, messages: list[dict], schema: dict | None, form: str) -> dict:
        body: dict[str, Any] = {"model": self.model, "messages": messages, self._limit_name: self.max_tokens}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if form == "json_schema":
            body["response_format"] = {
                "type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": schema},
            }  # fmt: skip
        elif form == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def _read(self, value: Any, ms: float) -> Reply:
        try:
            choice = value["choices"][0]
            message = choice["message"]
            text = _text(message.get("content")) or _tool_arguments(message)
            refusal = message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise RequestFailed(
                f"{self.server.url} answered without choices[0].message; is it an OpenAI-compatible server?", kind="reply",
                body=str(value)[:4000],
            ) from None  # fmt: skip
        finish = str(choice.get("finish_reason") or "")
        usage = value.get("usage")
        return Reply(
            text=text or (refusal if isinstance(refusal, str) else ""),
            refused=bool(refusal and not text) or finish == "content_filter",
            finish=finish,
            usage={name: count for name, count in (usage if isinstance(usage, dict) else {}).items() if isinstance(count, int)},
            ms=ms,
        )


def chat_root(url: str) -> str:
    """The address in front of /chat/completions; /v1 is added where there is no path."""
    url = url.strip().rstrip("/").removesuffix("/chat/completions")
    return url if urlsplit(url if "://" in url else f"http://{url}").path.strip("/") else f"{url}/v1"


def _text(content: Any) -> str:
    if isinstance(content, list):  # some servers answer in parts
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content.strip() if isinstance(content, str) else ""


def _tool_arguments(message: dict) -> str:
    calls = message.get("tool_calls") or ([{"function": message["function_call"]}] if message.get("function_call") else [])
    arguments = calls[0]["function"].get("arguments") if calls else ""
    return arguments if isinstance(arguments, str) else str(arguments)
