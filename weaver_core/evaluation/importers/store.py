"""Imported prompts and documents as a run, so that they are judged, measured, compared and reported like any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..records import Document, Prompt
from ..run_folder import Manifest, RunFolder
from .files import by_prompt


def store_run(
    out: str | Path,
    prompts: Sequence[Prompt],
    documents: Sequence[Document],
    *,
    system: str,
    dataset: str,
    prompt_folder: Path,
    document_folder: Path,
    step_hint: str = "none",
    command: str = "",
) -> RunFolder:
    """A new run in `out` with the prompts and the documents, pictures copied. Prompts without a document stay unanswered.

    dataset                         its name, such as "opening/multi"
    prompt_folder, document_folder  where the image paths of prompts and documents begin
    """
    from ..backends import read_answer

    answers = by_prompt(documents)
    manifest = Manifest(
        system=system, backend={"name": "imported"}, dataset={"name": dataset}, step_hint=step_hint, command=command
    )
    run = RunFolder.create(out, prompts, manifest, source=prompt_folder)
    for prompt_id, document in answers.items():
        run.keep(prompt_id, read_answer(document, document_folder), document.seed)
    return run
