"""A VLM behind an OpenAI-compatible server as a judge, and the stage that judges a whole run.

split   one dimension a call, with only the evidence that it needs (default)
joint   all dimensions in one call: a fifth of the price, but scores run together (halo): in released OpenING scores seven
        criteria of one call correlate 0.83 on average
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import InputError, WeaverError
from ..http import RequestFailed
from ..records import DIMENSIONS, Document, Judge, JudgeRecord, Prompt
from ..run_folder import RunFolder, answer_hash
from . import cache as cache_file
from . import rubric
from .cache import ReplyCache
from .client import ChatClient, JudgeError, Reply
from .evidence import PROFILES, Message, pair_message, score_message
from .parsing import Parsed, is_refusal, parse_choice, parse_scores
from .prices import Price

__all__ = [
    "FAILED", "BudgetSpent", "Estimate", "JudgeError", "Preference", "VlmJudge", "estimate_run", "judge_run", "open_questions", "spent_usd",
]  # fmt: skip

MODES = ("split", "joint")
FAILED = ("refused", "parse_error", "timeout", "error")
"""Statuses of a judge's failure, tried again by `retry_failed`. `na` and `missing_output` are none."""

MAX_STREAK = 8  # documents in a row without any answer of the judge: it is down, and the rest would fail as well
_POLICY_WORDS = ("content_policy", "content policy", "content_filter", "content filter", "safety system", "moderation")


class BudgetSpent(WeaverError):
    """The next call could cost more than is left of --max-usd. What was judged is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Which of two answers is better in one order of showing: "A" (shown first), "B", "tie"; None when the judge failed."""

    choice: str | None
    status: str
    rationale: str = ""
    raw: str = ""
    usage: dict = field(default_factory=dict)
    usd: float | None = None
    ms: float | None = None
    key: str = ""


class VlmJudge:
    """Scores documents by a chat model that sees images. See `records.Judge`.

    profile       how images are sent (evidence.PROFILES)
    cache         None = every question is asked
    price         what tokens cost; None = costs are not known
    max_usd       stop (BudgetSpent) before a call could exceed it; `spent_usd` was spent before
    ask_again     do not take cached replies that could not be used
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        mode: str = "split",
        profile: str = "long768",
        cache: ReplyCache | None = None,
        price: Price | None = None,
        max_usd: float | None = None,
        spent_usd: float = 0.0,
        ask_again: bool = False,
    ):
        for what, value, known in (("mode", mode, MODES), ("image profile", profile, PROFILES)):
            if value not in known:
                raise InputError(f"{what} is {value!r}; it must be one of {', '.join(known)}")
        if max_usd is not None and price is None:
            raise InputError(f"a limit in USD needs the price of {client.model}; give a file with --prices")
        self.client, self.mode, self.profile, self.cache = client, mode, profile, cache
        self.price, self.max_usd, self.spent_usd, self.ask_again = price, max_usd, spent_usd, ask_again
        temperature = "default" if client.temperature is None else f"{client.temperature:g}"
        self.name = f"{client.model} {mode} t={temperature} {profile} {rubric.ID}@{rubric.SHA256[:8]}"
        self._lock = threading.Lock()

    def settings(self) -> dict:
        """What the manifest says about this judge."""
        return {
            "model": self.client.model,
            "url": self.client.server.url,
            "mode": self.mode,
            "temperature": self.client.temperature,
            "max_tokens": self.client.max_tokens,
            "images": self.profile,
            "rubric": {"id": rubric.ID, "sha256": rubric.SHA256},
        }

    def score(
        self, prompt: Prompt, document: Document, folder: Path, *, dims: Sequence[str] = DIMENSIONS, rep: int = 0
    ) -> list[JudgeRecord]:
        """One record per dimension. Raises JudgeError and BudgetSpent only."""
        unknown = [dim for dim in dims if dim not in DIMENSIONS]
        if unknown:
            raise InputError(f"unknown dimension {unknown[0]!r}; known are {', '.join(DIMENSIONS)}")
        make = _Maker(self.name, prompt, document, rep)
        if not document.blocks:
            return [make(dim, "missing_output", rationale=document.error or "the answer is empty") for dim in dims]
        groups = self._groups(document, dims)
        records = {record.dim: record for group in groups for record in self._score_group(make, prompt, document, folder, group, rep)}
        for dim in dims:
            if dim not in records:
                records[dim] = make(dim, "na", rationale="fewer than two images; there is nothing to compare")
        return [records[dim] for dim in dims]

    def prefer(
        self, prompt: Prompt, first: Document, second: Document, folder: Path, *, folders: tuple[Path, Path] | None = None, rep: int = 0
    ) -> Preference:
        """Which of two answers is better, shown in this order. Ask in both orders: judges favour a place.

        folder    where image paths of the prompt begin; of the documents too, unless `folders` gives theirs
        """
        try:
            message = pair_message(prompt, first, second, (folder, *(folders or (folder, folder))))
            key = self._key(message, rep)
            reply, is_paid = self._ask(key, message, lambda reply: parse_choice(reply.text)[0] is not None)
        except RequestFailed as failure:
            status, reason = _status_of(failure)
            return Preference(choice=None, status=status, rationale=reason, raw=failure.body)
        except InputError as error:
            return Preference(choice=None, status="error", rationale=str(error))
        choice, rationale = parse_choice(reply.text)
        status = "ok" if choice else "refused" if reply.refused or is_refusal(reply.text) else "parse_error"
        return Preference(
            choice=None if reply.refused else choice, status="refused" if reply.refused else status, rationale=rationale, raw=reply.text,
            usage=reply.usage, usd=self._usd(reply) if is_paid else 0.0, ms=reply.ms, key=key,
        )  # fmt: skip

    def questions(self, prompt: Prompt, document: Document, folder: Path, dims: Sequence[str]) -> list[Message]:
        """What `score` would ask."""
        groups = self._groups(document, dims) if document.blocks else []
        return [score_message(prompt, document, folder, group) for group in groups]

    def _groups(self, document: Document, dims: Sequence[str]) -> list[list[str]]:
        """The dimensions of each call; those that do not apply are in none."""
        askable = [dim for dim in dims if dim != "IC" or len(document.images) >= 2]
        return [[dim] for dim in askable] if self.mode == "split" else [askable] if askable else []

    def _score_group(self, make: _Maker, prompt: Prompt, document: Document, folder: Path, dims: list[str], rep: int) -> list[JudgeRecord]:
        try:
            message = score_message(prompt, document, folder, dims)
            key = self._key(message, rep)
            make.request, make.images = key, len(message.images)
            reply, _ = self._ask(key, message, lambda reply: _usable(reply, dims))
        except RequestFailed as failure:
            status, reason = _status_of(failure)
            return [make(dim, status, rationale=reason, raw=failure.body) for dim in dims]
        except (JudgeError, BudgetSpent):
            raise
        except WeaverError as error:
            return [make(dim, "error", rationale=str(error)) for dim in dims]
        parsed = parse_scores(reply.text, dims)
        refused = reply.refused or (all(item.score is None for item in parsed.values()) and is_refusal(reply.text))
        records = []
        for number, dim in enumerate(dims):
            item = Parsed(None, problem="the judge declined") if refused else parsed[dim]
            problem = item.problem + (" (the answer was cut at --max-tokens)" if item.problem and reply.finish == "length" else "")
            records.append(make(
                dim, "refused" if refused else "ok" if item.score is not None else "parse_error", score=item.score,
                rationale=item.rationale or problem, raw=reply.text,
                # A call's cost and time stand once, with its first dimension, so that sums are right.
                usage=reply.usage | {"strict": int(item.strict)} if number == 0 else {"strict": int(item.strict)},
                usd=self._usd(reply) if number == 0 else None, ms=reply.ms if number == 0 else None,
            ))  # fmt: skip
        return records

    def _key(self, message: Message, rep: int) -> str:
        parts = [
            cache_file.SCHEMA, rubric.SHA256, self.client.model, self.client.temperature, self.client.max_tokens,
            message.content_hash(self.profile, self.cache), rep,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _ask(self, key: str, message: Message, usable: Callable[[Reply], bool]) -> tuple[Reply, bool]:
        """The reply, and whether it was paid for now: one out of the cache was before."""
        known = self.cache.reply(key) if self.cache else None
        if known is not None and (not self.ask_again or usable(known)):
            return known, False
        expected = self.price.of_message(message, self.client.max_tokens)[2] if self.price else 0.0
        with self._lock:
            if self.max_usd is not None and self.spent_usd + expected > self.max_usd:
                raise BudgetSpent(
                    f"{self.spent_usd:.4f} USD are spent, and the next call could cost {expected:.4f}: more than --max-usd "
                    f"{self.max_usd:g}. Everything judged is kept; go on with a higher limit"
                )
            self.spent_usd += expected
        paid = 0.0
        try:
            reply = self.client.complete(message.to_chat(self.profile), message.schema)
            paid = self._usd(reply) or 0.0
        finally:
            with self._lock:
                self.spent_usd += paid - expected
        if self.cache:
            self.cache.keep_reply(key, reply)
        return reply, True

    def _usd(self, reply: Reply) -> float | None:
        return self.price.of_usage(reply.usage) if self.price else None


class _Maker:
    """Makes the records of one document and repetition."""

    def __init__(self, judge: str, prompt: Prompt, document: Document | None, rep: int, system: str = ""):
        self.judge, self.prompt_id, self.rep = judge, prompt.id, rep
        self.system = document.system if document else system
        self.bound = answer_hash(document)
        self.request, self.images = "", 0

    def __call__(self, dim: str, status: str, *, score: float | None = None, **more) -> JudgeRecord:
        request = self.request if status not in ("na", "missing_output") else ""
        request = request or hashlib.sha256(f"{self.judge}/{self.prompt_id}/{dim}/{self.rep}".encode()).hexdigest()
        return JudgeRecord(
            key=f"{self.bound}-{request}", prompt_id=self.prompt_id, system=self.system, rep=self.rep, dim=dim, score=score,
            status=status, judge=self.judge, rubric={"id": rubric.ID, "sha256": rubric.SHA256},
            images_sent=self.images if request == self.request else 0, **more,
        )  # fmt: skip


def _usable(reply: Reply, dims: Sequence[str]) -> bool:
    return not reply.refused and all(item.score is not None for item in parse_scores(reply.text, dims).values())


def _status_of(failure: RequestFailed) -> tuple[str, str]:
    if failure.kind == "timeout":
        return "timeout", str(failure)
    if failure.status in (400, 451) and any(word in failure.body.lower() for word in _POLICY_WORDS):
        return "refused", str(failure)
    return "error", str(failure)


# ---- a whole run


def judge_run(
    run: RunFolder,
    judge: Judge,
    *,
    dims: Sequence[str] = DIMENSIONS,
    reps: int = 1,
    retry_failed: bool = False,
    workers: int = 1,
    only: Iterable[str] | None = None,
    on_progress: Callable[[list[JudgeRecord], int, int], None] | None = None,
) -> list[JudgeRecord]:
    """Scores every answer that this judge has not scored yet (`retry_failed`: or failed to); returns all that count.

    A prompt without an answer gets the status missing_output. Scores are written as they come, so a killed stage goes
    on. `on_progress` gets the new records, how many documents are done, and how many there are to do.
    Raises JudgeError when the judge cannot be used, BudgetSpent.
    """
    if reps < 1:
        raise InputError(f"{reps} repetitions; at least 1 is needed")
    todo = open_questions(run, judge.name, dims=dims, reps=reps, retry_failed=retry_failed, only=only)
    if todo:
        if hasattr(judge, "settings"):
            run.note_judge(judge.name, judge.settings())
        journal = run.journal("judge.jsonl")
        streak = done = 0
        try:
            for records in _in_parallel(run, judge, todo, workers):
                for record in records:
                    journal.append(record.to_json())
                done += 1
                failed = bool(records) and all(record.status in ("error", "timeout") for record in records)
                streak = streak + 1 if failed else 0
                if on_progress:
                    on_progress(records, done, len(todo))
                if streak >= MAX_STREAK and done < len(todo):
                    raise JudgeError(
                        f"the judge failed on {streak} answers in a row, the last time because: {records[-1].rationale}. "
                        "What was judged is kept; go on with --retry failed when it works again"
                    )
        finally:
            journal.close()
    return run.judge_records(judge.name)


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A document (None: there is no answer) and the dimensions that it has no score of yet."""

    prompt: Prompt
    document: Document | None
    dims: tuple[str, ...]
    rep: int


def open_questions(
    run: RunFolder, judge: str, *, dims: Sequence[str], reps: int, retry_failed: bool = False, only: Iterable[str] | None = None
) -> list[OpenQuestion]:
    """What this judge has not scored yet, in the order of the prompts."""
    done = {
        (record.prompt_id, record.dim, record.rep)
        for record in run.judge_records(judge)
        if not (retry_failed and record.status in FAILED)
    }
    wanted = None if only is None else set(only)
    found = []
    for prompt in run.prompts.values():
        if wanted is not None and prompt.id not in wanted:
            continue
        open_dims = [tuple(dim for dim in dims if (prompt.id, dim, rep) not in done) for rep in range(reps)]
        if any(open_dims):
            document = run.document(prompt.id)
            found += [OpenQuestion(prompt, document, left, rep) for rep, left in enumerate(open_dims) if left]
    return found


def _answer(run: RunFolder, judge: Judge, item: OpenQuestion) -> list[JudgeRecord]:
    if item.document is None:
        make = _Maker(judge.name, item.prompt, None, item.rep, run.system)
        return [make(dim, "missing_output", rationale="there is no answer") for dim in item.dims]
    if not item.document.blocks:
        make = _Maker(judge.name, item.prompt, item.document, item.rep)
        return [make(dim, "missing_output", rationale=item.document.error or "the answer is empty") for dim in item.dims]
    records = judge.score(item.prompt, item.document, run.folder, dims=item.dims, rep=item.rep)
    bound = answer_hash(item.document)
    # Another judge's keys are its own; bound to the answer, its scores stop counting when the answer is replaced.
    return [
        record if record.key.startswith(f"{bound}-") else
        replace(record, key=f"{bound}-{hashlib.sha256(record.key.encode()).hexdigest()}")
        for record in records
    ]  # fmt: skip


def _in_parallel(run: RunFolder, judge: Judge, todo: Sequence[OpenQuestion], workers: int) -> Iterable[list[JudgeRecord]]:
    """The records of each document as they come. What other workers have finished when one raises still comes."""
    if workers <= 1:
        yield from (_answer(run, judge, item) for item in todo)
        return
    pool = ThreadPoolExecutor(workers)
    futures: list[Future] = [pool.submit(_answer, run, judge, item) for item in todo]
    try:
        stopped: BaseException | None = None
        for future in as_completed(futures):
            if future.cancelled():
                continue
            if future.exception() is None:
                yield future.result()
            elif stopped is None:
                stopped = future.exception()
                for other in futures:
                    other.cancel()
        if stopped is not None:
            raise stopped
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What judging would take, at most; replies in the cache cost nothing. usd is None without a price."""

    documents: int
    calls: int
    images: int
    tokens_in: int
    tokens_out: int
    usd: float | None


def estimate_run(
    run: RunFolder, judge: VlmJudge, *, dims: Sequence[str] = DIMENSIONS, reps: int = 1, retry_failed: bool = False,
    only: Iterable[str] | None = None,
) -> Estimate:  # fmt: skip
    """What `judge_run` would ask, without asking."""
    price = judge.price or Price()
    todo = open_questions(run, judge.name, dims=dims, reps=reps, retry_failed=retry_failed, only=only)
    messages = [
        message for item in todo if item.document is not None
        for message in judge.questions(item.prompt, item.document, run.folder, item.dims)
    ]  # fmt: skip
    costs = [price.of_message(message, None) for message in messages]
    return Estimate(
        documents=len({item.prompt.id for item in todo}),
        calls=len(messages),
        images=sum(len(message.images) for message in messages),
        tokens_in=sum(cost[0] for cost in costs),
        tokens_out=sum(cost[1] for cost in costs),
        usd=sum(cost[2] for cost in costs) if judge.price else None,
    )


def spent_usd(records: Iterable[JudgeRecord]) -> float:
    """What these records cost. A question that was asked again was paid for again; a reply that the cache gave once more was not."""
    # What is asked has one key, whatever answer the record is bound to; a reply out of the cache has the words and time of the paid one.
    paid = {(record.key.rpartition("-")[2], record.raw, record.ms): record.usd for record in records if record.usd}
    return sum(paid.values())
