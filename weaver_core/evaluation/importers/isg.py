"""ISG-Bench (arXiv 2411.17188): its rows become prompts, and documents are written as a submission to its evaluator.

    ISG-Bench.jsonl   {id, Category, Query: [{type, content}], Golden: [...], predict: {...}}; images/ beside it

What is odd there, and what becomes of it here:
* Its structure score wants the exact sequence of texts and images of the reference, and its scores per block and per image
  only exist where that passes. The sequence is kept in `ref["structure"]`, the number of images is what is wanted.
* Its evaluator reads Query and Golden from the submission, though its README shows {id, Category, output} alone: ours
  holds all five, which suits both.
* Its evaluator leaves out the last row unless told `--end` (its default is -1), and never matches the `Preliminary` ids of
  its questions about images, so that questions with a condition are always skipped. Both are the user's to know; the
  questions are kept as checks here, without their conditions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...durable import write_whole
from ...errors import InputError
from ..records import Check, Document, InputBlock, Prompt, Want
from .files import by_prompt, input_image, need, picture_path, read_lines, safe_name, write_picture

FILE = "ISG-Bench.jsonl"
_IMAGE_NAME = re.compile(r"<gen_img([0-9]+)>\Z")


def read_prompts(root: str | Path) -> list[Prompt]:
    """The prompts of the user's copy (the folder with ISG-Bench.jsonl), image paths relative to it."""
    root = Path(root)
    if not (root / FILE).is_file():
        raise InputError(f"{root} holds no {FILE}; give the folder of your copy of ISG-Bench (ISG_eval)")
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for where, row in read_lines(root / FILE):
        name = need(row, "id", str, where)
        if name in seen:
            raise InputError(f"{where}: the id {name!r} occurs twice")
        seen.add(name)
        golden = _parts(need(row, "Golden", list, where), f"{where}: Golden")
        for kind, content in golden:
            if kind == "image":
                picture_path(root, content, f"{where}: Golden")
        structure = [kind for kind, _ in golden]
        num_images = structure.count("image")
        prompts.append(Prompt(
            id=name,
            v=1,
            category=need(row, "Category", str, where),
            lang="en",
            input=tuple(
                input_image(root, content, where) if kind == "image" else InputBlock(type="text", text=content)
                for kind, content in _parts(need(row, "Query", list, where), f"{where}: Query")
            ),
            want=Want(images_min=num_images, images_max=num_images, explicit=True),
            checks=_checks(row.get("predict"), where),
            ref={"benchmark": "isg", "structure": structure, "row": row},
            source="ISG-Bench (arXiv 2411.17188), the user's copy",
            license="none stated; not for redistribution",
        ))  # fmt: skip
    return prompts


def structure_matches(prompt: Prompt, document: Document) -> bool:
    """The benchmark's structure score of one document: exactly the reference's sequence of texts and images."""
    return [block.type for block in document.blocks] == list(prompt.ref["structure"])


def export_submission(
    prompts: Mapping[str, Prompt] | Sequence[Prompt], documents: Iterable[Document], folder: Path, out: str | Path
) -> tuple[Path, list[str]]:
    """Writes out/<system>.jsonl and its pictures into out/<system>/; returns the file and notes.

    folder   where the documents' image paths begin
    out      the evaluator's folder (ISG_eval), or one whose content is put there: it looks for pictures from there
    """
    answers = by_prompt(documents)
    if not answers:
        raise InputError("there are no documents to export; generate some first")
    system = safe_name(next(iter(answers.values())).system, "the system's name")
    out = Path(out)
    (out / system).mkdir(parents=True, exist_ok=True)
    lines = []
    prompts = list(prompts.values() if isinstance(prompts, Mapping) else prompts)
    for prompt in prompts:
        if prompt.id not in answers:
            continue
        row = prompt.ref.get("row")
        if prompt.ref.get("benchmark") != "isg" or not isinstance(row, dict):
            raise InputError(f"prompt {prompt.id} does not come from ISG-Bench; only prompts imported from there have its layout")
        output = []
        for number, block in enumerate(answers[prompt.id].blocks):
            if block.type == "text":
                output.append({"type": "text", "content": block.text})
                continue
            name = f"{system}/{safe_name(prompt.id, 'the id')}_{number}.png"
            write_picture(folder, block, out / name, f"document {prompt.id}")
            output.append({"type": "image", "content": name})
        line = {"id": prompt.id, "Category": row["Category"], "Query": row["Query"], "Golden": row["Golden"], "output": output}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    path = out / f"{system}.jsonl"
    write_whole(path, "".join(lines).encode())
    notes = [f"give its evaluator --end {len(lines)}, or it leaves out the last row"]
    if len(lines) < len(prompts):
        notes.append(f"{len(prompts) - len(lines)} of {len(prompts)} prompts have no document and no line")
    return path, notes


def _parts(items: list, where: str) -> list[tuple[str, str]]:
    parts = []
    for number, item in enumerate(items):
        place = f"{where}[{number}]"
        if not isinstance(item, dict):
            raise InputError(f"{place}: expected a JSON object, got {type(item).__name__}")
        kind, content = need(item, "type", str, place), need(item, "content", str, place)
        if kind not in ("text", "image"):
            raise InputError(f"{place}: expected the type text or image, got {kind[:40]!r}")
        parts.append((kind, content))
    return parts


def _checks(predict: Any, where: str) -> tuple[Check, ...]:
    """The questions about single images as checks. They are a list, or lie under the first key of an object."""
    questions = predict.get("image_qa") if isinstance(predict, dict) else None
    if isinstance(questions, dict):
        questions = next(iter(questions.values()), None)
    if questions is None:
        return ()
    if not isinstance(questions, list):
        raise InputError(f"{where}: predict.image_qa: expected a list of questions, got {type(questions).__name__}")
    checks = []
    for item in questions:
        image = _IMAGE_NAME.match(str(item.get("image"))) if isinstance(item, dict) else None
        if image and isinstance(item.get("Question"), str):
            checks.append(Check(q=f"Image {int(image[1])}: {item['Question']}", scope="images", need="yes"))
    return tuple(checks)
