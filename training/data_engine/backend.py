"""The model that writes: a server or a local planner behind one cache, one budget and one rule for failures.

Both kinds are planners of weaver_core (`planners.SeeingPlanner`), so plans are asked for in the very conversation that the
trained model will hold. Replies are kept by the content of what was asked: nothing is paid for twice, and a build that is
killed goes on with the answers it had.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.data_engine.record import digest
from training.data_engine.weights import weights_of
from weaver_core.errors import InputError, WeaverError
from weaver_core.evaluation.judge.cache import ReplyCache
from weaver_core.evaluation.judge.client import Reply
from weaver_core.evaluation.judge.prices import Price, read_price, text_tokens
from weaver_core.pictures import image_key
from weaver_core.planner_arguments import silence_libraries
from weaver_core.planners import PlannerOptions
from weaver_core.planners.instruction import VERSION
from weaver_core.request import Request

KINDS = ("none", "server", "local", "picturebook")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """Who writes and looks. A key for a server is read from WEAVER_API_KEY or OPENAI_API_KEY, never from a recipe."""

    kind: str = "none"  # "server" (any OpenAI-compatible URL), "local" (a chat model), "picturebook" (the shipped pair: plans only)
    url: str = ""  # of the server, such as http://localhost:11434/v1
    model: str = ""  # the server's name of it, or a folder, .gguf file or hub name
    quantization: str = ""  # "nf4" loads a local model in 4 bits
    device: str = "auto"
    temperature: float = 0.9
    max_tokens: int = 4096  # of one answer
    workers: int = 8  # questions that a server is asked at once
    attempts: int = 4  # a question is tried so often
    max_requests: int = 0  # budget of the whole build, over all sittings; 0 = no limit
    max_usd: float = 0.0  # the same in money, by estimated tokens; needs `prices`
    prices: str = ""  # JSON: {"model": {"input_per_million": 2.5, "output_per_million": 10.0}}
    stop_after_failures: int = 5  # failures one after another end the build: the next question would fail too

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if self.kind in ("server", "local") and not self.model:
            raise ValueError(f"model is missing; a {self.kind} back end needs the name of its model")
        if self.kind == "server" and not self.url:
            raise ValueError("url is missing; give the server's address, such as http://localhost:11434/v1")
        if self.max_usd and not self.prices:
            raise ValueError("max_usd needs prices, a JSON file; prices change, so none are built in")
        for name in ("workers", "attempts", "max_tokens", "stop_after_failures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def weights(self) -> str:
        """A hash of the weights that write, where they lie on this disk; "" where only the model's name is known."""
        if self.kind == "picturebook":
            from weaver_core.model.checkpoint import default_folder

            return weights_of((Path(self.model) if self.model else default_folder()) / "planner")
        return weights_of(self.model) if self.kind == "local" else ""


class StopBuild(WeaverError):
    """The build cannot go on now (budget, back end); everything finished is kept, and the same command goes on."""


class Failed(Exception):
    """This question got no answer this time; the record is not to blame."""


class Ledger:
    """What was asked and what it cost, over all sittings and processes. Tokens are estimates."""

    def __init__(self, path: Path, config: BackendConfig, price: Price | None):
        self.config, self.price = config, price or Price()
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, timeout=60, isolation_level=None)
        self._db.execute("CREATE TABLE IF NOT EXISTS asked (id INTEGER PRIMARY KEY, tokens_in INTEGER, tokens_out INTEGER, usd REAL)")

    def open_question(self, tokens_in: int) -> int:
        """Books a question before it is asked, so that no two can share the budget's last. StopBuild when there is none left."""
        with self._lock, self._transaction():
            spent = self.totals()
            if 0 < self.config.max_requests <= spent["requests"]:
                raise StopBuild(f"the budget of {self.config.max_requests:,} requests is used up; everything finished is kept. Raise "
                                "backend.max_requests and start again to go on")
            if 0 < self.config.max_usd <= spent["usd"]:
                raise StopBuild(f"about {spent['usd']:.2f} USD are spent, of {self.config.max_usd:.2f}; everything finished is kept. Raise "
                                "backend.max_usd and start again to go on")
            row = self._db.execute("INSERT INTO asked (tokens_in, tokens_out, usd) VALUES (?, 0, ?)", (tokens_in, self._usd(tokens_in, 0)))
            return row.lastrowid

    def close_question(self, row: int, tokens_in: int, tokens_out: int) -> None:
        with self._lock:
            self._db.execute("UPDATE asked SET tokens_out = ?, usd = ? WHERE id = ?", (tokens_out, self._usd(tokens_in, tokens_out), row))

    def totals(self) -> dict:
        requests, tokens_in, tokens_out, usd = self._db.execute(
            "SELECT COUNT(*), TOTAL(tokens_in), TOTAL(tokens_out), TOTAL(usd) FROM asked").fetchone()
        return {"requests": requests, "tokens_in": int(tokens_in), "tokens_out": int(tokens_out), "usd": usd}

    @contextlib.contextmanager
    def _transaction(self):
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _usd(self, tokens_in: int, tokens_out: int) -> float:
        return self.price.of_usage({"prompt_tokens": tokens_in, "completion_tokens": tokens_out})


class Writer:
    """Asks the model. Usable from several threads (a local model answers one at a time)."""

    def __init__(self, config: BackendConfig, folder: Path):
        self.config = config
        if config.kind == "none":
            raise InputError("this recipe asks a model; give [backend] with kind = \"server\" or \"local\"")
        price = read_price(config.prices, config.model) if config.prices else None
        self.cache, self.ledger = ReplyCache(folder / "replies.sqlite"), Ledger(folder / "asked.sqlite", config, price)
        self._turn = contextlib.nullcontext() if config.kind == "server" else threading.Lock()
        self._local = threading.local()
        self._shared = None
        self._weights = config.weights
        self._failures = 0

    def plan(self, request: Request, *, num_images: int | None, seed: int) -> str:
        """The plan for a request, as markup. Failed, StopBuild."""
        key = ["plan", VERSION, request.prompt, request.language, request.style, num_images,
               [(picture.name, picture.key) for picture in request.images]]

        def ask(planner, options):
            return "".join(planner.write(request, (), options=options, cancel=lambda: False))

        tokens = text_tokens(request.prompt) + 1500  # the instruction with its examples (about)
        return self._asked(key, ask, tokens, len(request.images), num_images, seed)

    def answer(self, question: str, images: Sequence[Image.Image] = (), *, seed: int) -> str:
        """The answer to a question about some pictures, or none. Failed, StopBuild."""
        if self.config.kind == "picturebook":
            raise InputError('the picture-book planner only writes plans; take a back end of kind "server" or "local" for this recipe')

        def ask(planner, options):
            return planner.answer(question, images, options=options, cancel=lambda: False)

        return self._asked(["answer", question, [image_key(image) for image in images]], ask, text_tokens(question), len(images), None, seed)

    def _asked(self, what: list, ask: Callable, tokens_in: int, num_pictures: int, num_images: int | None, seed: int) -> str:
        config = self.config
        weights = (self._weights,) if self._weights else ()
        key = digest(config.kind, config.model, config.quantization, config.temperature, config.max_tokens, seed, what, *weights)
        if (known := self.cache.reply(key)) is not None:
            return known.text
        options = PlannerOptions(max_tokens=config.max_tokens, temperature=config.temperature, seed=seed, num_images=num_images)
        with self._turn:
            tokens_in += num_pictures * self.ledger.price.image_tokens
            row = self.ledger.open_question(tokens_in)
            try:
                text = ask(self._planner(), options)
            except InputError as error:
                raise StopBuild(str(error)) from None  # a setting or a model that cannot do this at all
            except WeaverError as error:
                self._failures += 1
                if self._failures >= config.stop_after_failures:
                    raise StopBuild(f"{self._failures} questions in a row failed; the last one: {error}") from None
                raise Failed(str(error)) from None
        self._failures = 0
        tokens_out = text_tokens(text)
        self.cache.keep_reply(key, Reply(text=text, usage={"prompt_tokens": tokens_in, "completion_tokens": tokens_out}))
        self.ledger.close_question(row, tokens_in, tokens_out)
        return text

    def _planner(self):
        """One client for a thread: it keeps notes about its last answer. A local model is loaded once."""
        config = self.config
        if config.kind == "server":
            if not hasattr(self._local, "planner"):
                from weaver_core.planners.http import HttpPlanner

                self._local.planner = HttpPlanner(config.url, config.model, attempts=config.attempts)
            return self._local.planner
        if self._shared is None:
            silence_libraries()
            self._shared = _picturebook(config) if config.kind == "picturebook" else _chat_model(config)
        return self._shared


def _chat_model(config: BackendConfig):
    from weaver_core.planners.transformers_planner import TransformersPlanner

    return TransformersPlanner(config.model, device=None if config.device == "auto" else config.device,
                               quantization=config.quantization or None)


def _picturebook(config: BackendConfig):
    from weaver_core.model.checkpoint import WeaverModel
    from weaver_core.planners.native import NativePlanner

    return NativePlanner(WeaverModel.from_pretrained(config.model or None, device=None if config.device == "auto" else config.device))
