"""What a back end is: something that answers a prompt with texts and images. Implementations lie beside this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ...errors import InputError, StoryError, WeaverError
from ..records import Document, Prompt
from ..run_folder import RunFolder, document_seed, inside


class BackendDown(WeaverError):
    """What is behind a back end cannot be used at all: no other prompt would fare better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerImage:
    """One image: its file's bytes, and what is known of how it was drawn (see records.Block)."""

    data: bytes
    dense_prompt: str = ""
    seed: int | None = None
    refs: tuple[str, ...] = ()
    ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Texts (str) and images in order. finish and error as in records.Document."""

    parts: tuple[str | AnswerImage, ...] = ()
    finish: str = "stop"
    error: str = ""
    timing: dict = field(default_factory=dict)
    fingerprint: str = ""


class Backend(Protocol):
    """Answers prompts.

    `settings` is what goes into the manifest: all that decides the answers, and never a key. `answer` returns what
    came, and says in `error` what did not; it raises (BackendDown, StoryError) for what makes every other prompt fail as
    well: no such server, a full disk. `folder` is where the prompt's image paths begin, `work` a folder that is the back end's
    own until an answer without error is stored: after a crash, and when a failed answer is tried again, it finds there what
    it left.
    """

    name: str

    def settings(self) -> dict: ...

    def answer(self, prompt: Prompt, folder: Path, *, seed: int, work: Path) -> Answer: ...


def generate(
    run: RunFolder,
    backend: Backend,
    *,
    retry_failed: bool = False,
    on_progress: Callable[[Document, int, int], None] | None = None,
) -> list[Document]:
    """Answers every prompt that has no answer yet (`retry_failed`: or one that failed), in order; returns all answers.

    on_progress   called with each new document, the number of documents done, and how many there are to do
    """
    todo = []
    for prompt in run.prompts.values():
        document = run.document(prompt.id)
        if document is None or (retry_failed and document.finish == "error"):
            todo.append(prompt)
    for number, prompt in enumerate(todo, 1):
        seed = document_seed(run.manifest.seed, prompt.id)
        work = run.answer_folder(prompt.id) / "work"
        answer = backend.answer(prompt, run.folder, seed=seed, work=work)
        try:
            document = run.keep(prompt.id, answer, seed)
        except StoryError:
            raise
        except InputError as error:  # an image that is none: the system's fault, so it is part of the result
            texts = tuple(part for part in answer.parts if isinstance(part, str))
            document = run.keep(prompt.id, replace(answer, parts=texts, finish="error", error=str(error)), seed)
        if on_progress:
            on_progress(document, number, len(todo))
    return run.documents()


class ImportedDocuments:
    """Answers that lie on disk already: a JSONL file of documents, image paths relative to the file."""

    name = "imported"

    def __init__(self, path: str | Path):
        from ..records import file_sha256, read_jsonl

        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{path} is no file; give a JSONL file of documents")
        self._documents = {document.prompt_id: document for document in read_jsonl(self.path, Document)}
        self._sha256 = file_sha256(self.path)

    def settings(self) -> dict:
        return {"documents": self.path.name, "sha256": self._sha256}

    def answer(self, prompt: Prompt, folder: Path, *, seed: int, work: Path) -> Answer:
        document = self._documents.get(prompt.id)
        if document is None:
            return Answer(finish="error", error=f"{self.path.name} holds no answer to {prompt.id}")
        try:
            return read_answer(document, self.path.parent)
        except WeaverError as error:
            return Answer(finish="error", error=str(error))


def read_answer(document: Document, folder: Path) -> Answer:
    """A document with its images in memory. InputError when an image is missing or lies outside the folder."""
    parts: list[str | AnswerImage] = []
    for block in document.blocks:
        if block.type == "text":
            parts.append(block.text)
            continue
        path = inside(folder, block.path)
        if not path.is_file():
            raise InputError(f"the image {block.path} of {document.prompt_id} is missing in {folder}")
        parts.append(AnswerImage(
            data=path.read_bytes(), dense_prompt=block.dense_prompt, seed=block.seed, refs=block.refs, ms=block.ms,
        ))  # fmt: skip
    return Answer(
        parts=tuple(parts), finish=document.finish, error=document.error, timing=document.timing, fingerprint=document.fingerprint
    )
