"""OpenING (arXiv 2411.18499): its rows become prompts, its output folders documents, and ours are written in its layout.

The user's copy looks like this (the folder's second word is spelled both ways in the wild):

    OpenING-benchmark/test_data.jsonl      one row a line: ids, names, conversations
    OpenING-benchmark/images/<subtask>/    pictures, distributed apart from the rows
    gen_outputs/<MODEL>_output/<uid>.json  the row with its output replaced; pictures <uid>-o-<k>.jpg beside it

What is odd there, and what becomes of it here:
* A row's id is two digits of its topic, two of its subtask, three of its number. Names are misspelt and one topic has two:
  ids decide, `ALIASES` has the names right.
* `<BEGIN>` and `<image>` are marks, not words: they are taken out of what a system is asked, and kept in `ref` for export
  and for the judge, which is shown the row as it is.
* The rows hold the length of the reference answer. Some generators were told it (`STEP_HINTS`), some were not; runs that
  differ in this cannot be compared, so it is a setting of the run.
* An output file may end in .json or .jsonl (one object either way), lack `total_uid`, and name pictures with or without a
  folder: the file name tells the id, the last part of a path the picture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...durable import write_whole
from ...errors import InputError
from ..records import Block, Document, InputBlock, Prompt, Want
from .files import by_prompt, image_block, input_image, need, picture_path, read_json, read_lines, safe_name, write_picture

FOLDERS = ("OpenING-benchmark", "OpenING-Benchmark")
SUBSETS = ("all", "multi")
MAX_STEPS = 10
"""The longest reference answer of the test set: without a hint, no number of images up to this is wrong."""

ALIASES = {
    "Story Writting": "Story Writing",
    "Visual Traffic Forcasting": "Visual Traffic Forecasting",
    "Dynamic biography generation": "Multimodal Report Generation",  # the second name of topic 2
}
STEP_HINTS = {
    "none": "",
    "can_be": "The answer may have {n} steps, each of one text and one image. ",
    "must_exact": "The answer must have exactly {n} steps, each of one text and one image. ",
}
"""What the system is told about the reference answer's length, in our words."""

_MARKS = re.compile(r"<BEGIN>|<image>")
_IDS = ("meta_task_id", "subtask_id", "data_id")


@dataclass(frozen=True, slots=True)
class Step:
    """One text with at most one image: what the layout knows. `image` is a block of the document."""

    text: str
    image: Block | None


# ---- in: prompts


def find_root(folder: str | Path) -> Path:
    """The folder with test_data.jsonl: the given one, or the benchmark's inside it. InputError when there is none."""
    folder = Path(folder)
    for place in (folder, *(folder / name for name in FOLDERS)):
        if (place / "test_data.jsonl").is_file():
            return place
    raise InputError(f"{folder} holds no test_data.jsonl, nor does {FOLDERS[0]} in it; give the folder of your copy of OpenING")


def read_prompts(
    root: str | Path, *, subset: str = "all", step_hint: str = "none", skip_missing: bool = False
) -> tuple[list[Prompt], list[str]]:
    """The prompts of a copy of OpenING, image paths relative to `find_root(root)`, and notes for the user.

    subset        "all", or "multi": rows whose reference answer has two images or more (1,053 of 2,160)
    step_hint     a key of STEP_HINTS; becomes a text of its own before the row's first one
    skip_missing  leave out rows whose input pictures are not there, and say how many; otherwise they are an InputError
    """
    if subset not in SUBSETS:
        raise InputError(f"there is no subset {subset!r}; use one of {', '.join(SUBSETS)}")
    if step_hint not in STEP_HINTS:
        raise InputError(f"there is no step hint {step_hint!r}; use one of {', '.join(STEP_HINTS)}")
    root = find_root(root)
    prompts: list[Prompt] = []
    missing: list[str] = []
    seen: dict[str, str] = {}
    for where, row in read_lines(root / "test_data.jsonl"):
        uid = row_uid(row, where)
        if uid in seen:
            raise InputError(f"{where}: the id {uid} stands at {seen[uid]} already")
        seen[uid] = where
        asked, reference = row_steps(row, where)
        num_images = sum(step["image"] is not None for step in reference)
        if subset == "multi" and num_images < 2:
            continue
        paths = [picture_path(root, step["image"], where) for step in asked if step["image"] is not None]
        if skip_missing and not all(path.exists() for path in paths):
            missing.append(uid)
            continue
        blocks = _input_blocks(root, asked, where)
        if hint := STEP_HINTS[step_hint].format(n=len(reference)).strip():
            blocks.insert(0, InputBlock(type="text", text=hint))
        prompts.append(Prompt(
            id=uid,
            v=1,
            category=_name(row["meta_task_name"]),
            lang="en",
            input=tuple(blocks),
            want=_want(step_hint, num_images),
            ref={"benchmark": "opening", "subtask": _name(row["subtask_name"]), "steps": len(reference), "row": row},
            source="OpenING (arXiv 2411.18499), the user's copy",
            license="none stated; not for redistribution",
        ))  # fmt: skip
    notes = []
    if missing:
        total = len(prompts) + len(missing)
        notes.append(f"{len(missing)} of {total} prompts are left out: their pictures are not in {root / 'images'}")
    return prompts, notes


def row_uid(row: dict, where: str, *, file_name: str = "") -> str:
    """The id of a row: its `total_uid`, or the file's name where that is missing; it must agree with the row's own ids."""
    uid = row.get("total_uid", file_name)
    if not isinstance(uid, str) or not re.fullmatch(r"[0-9]{7}", uid):
        raise InputError(f"{where}: expected an id of seven digits, got {uid!r}"[:200])
    try:
        numbers = [int(row[key]) for key in _IDS]
    except KeyError as error:
        raise InputError(f"{where}: the key {error} is missing") from None
    except (TypeError, ValueError):
        raise InputError(f"{where}: {', '.join(_IDS)} must be numbers") from None
    if uid != "{:02d}{:02d}{:03d}".format(*numbers):
        raise InputError(f"{where}: the id {uid} disagrees with topic {numbers[0]}, subtask {numbers[1]}, number {numbers[2]}")
    return uid


def row_steps(row: dict, where: str) -> tuple[list[dict], list[dict]]:
    """The steps of a row's input and output as {"text": str, "image": str | None}. InputError when it has another form."""
    turns = need(row, "conversations", list, where)
    if len(turns) != 2 or not all(isinstance(turn, dict) for turn in turns):
        raise InputError(f"{where}: conversations: expected two objects, input and output")
    return _steps(need(turns[0], "input", list, where), f"{where}: input"), _steps(
        need(turns[1], "output", list, where), f"{where}: output"
    )


def _steps(items: list, where: str) -> list[dict]:
    steps = []
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise InputError(f"{where}[{number}]: expected a JSON object, got {type(item).__name__}")
        text, image = item.get("text") or "", item.get("image") or None  # null, "" and no key at all mean the same
        if not isinstance(text, str) or not (image is None or isinstance(image, str)):
            raise InputError(f"{where}[{number}]: text must be a text, and image a text or null")
        steps.append({"text": text, "image": image})
    return steps


def _input_blocks(root: Path, steps: list[dict], where: str) -> list[InputBlock]:
    """The steps as blocks: the image stands where its mark is, after the text without one."""
    blocks: list[InputBlock] = []
    for step in steps:
        before, mark, after = step["text"].partition("<image>")
        blocks += _text(before)
        if step["image"] is not None:
            blocks.append(input_image(root, step["image"], where))
        blocks += _text(after)
    return blocks


def _text(text: str) -> list[InputBlock]:
    plain = " ".join(part for part in (part.strip() for part in _MARKS.split(text)) if part)
    return [InputBlock(type="text", text=plain)] if plain else []


def _want(step_hint: str, num_images: int) -> Want:
    if step_hint == "must_exact":
        return Want(images_min=num_images, images_max=num_images, explicit=True)
    # "can be" is how the generators that had it were told, and they stopped at this number.
    return Want(images_min=1, images_max=num_images if step_hint == "can_be" else MAX_STEPS, explicit=False)


def _name(name: Any) -> str:
    return ALIASES.get(name, name) if isinstance(name, str) else ""


# ---- in: outputs


def read_outputs(folder: str | Path, prompts: Iterable[Prompt], *, system: str = "") -> tuple[list[Document], list[str]]:
    """The documents in a `<MODEL>_output` folder, image paths relative to it, and notes for the user.

    A prompt without an output gives no document: it stays visible as missing. A picture that is named and not there is left
    out of the document, whose `error` says so. InputError for files that have another form.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one such as gen_outputs/<MODEL>_output")
    system = system or re.sub(r"_output\Z", "", folder.resolve().name)
    documents: list[Document] = []
    notes: list[str] = []
    missing = 0
    for prompt in prompts:
        path = next((path for path in (folder / f"{prompt.id}.json", folder / f"{prompt.id}.jsonl") if path.is_file()), None)
        if path is None:
            missing += 1
            continue
        documents.append(_document(folder, path, prompt.id, system))
        if path.suffix == ".json" and path.with_suffix(".jsonl").exists():
            notes.append(f"{path.name} and {prompt.id}.jsonl are both there; the first is used")
    if missing:
        notes.append(f"{missing} prompts have no output in {folder}; they count as missing, not as absent")
    return documents, notes


def _document(folder: Path, path: Path, uid: str, system: str) -> Document:
    where = str(path)
    row = read_json(path)
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected one JSON object, got {type(row).__name__}")
    if row_uid(row, where, file_name=path.stem) != uid:
        raise InputError(f"{where}: holds the row {row['total_uid']}, not {uid}")
    steps = row_steps(row, where)[1]
    return _answer(uid, system, folder, [step | {"image": _beside(step["image"], where)} for step in steps], where)


def read_reference(root: str | Path, prompts: Iterable[Prompt]) -> list[Document]:
    """The reference answers as documents of the system "Human", image paths relative to `find_root(root)`."""
    root = find_root(root)
    return [
        _answer(prompt.id, "Human", root, row_steps(prompt.ref["row"], prompt.id)[1], f"the reference of {prompt.id}")
        for prompt in prompts
    ]


def _answer(uid: str, system: str, folder: Path, steps: list[dict], where: str) -> Document:
    blocks: list[Block] = []
    lost: list[str] = []
    for step in steps:
        text = step["text"].replace("<image>", "").strip()
        if text:
            blocks.append(Block(type="text", text=text))
        if step["image"] is None:
            continue
        if picture_path(folder, step["image"], where).exists():
            blocks.append(image_block(folder, step["image"], where))
        else:
            lost.append(step["image"])
    error = f"pictures are named and not there: {', '.join(lost)}" if lost else "" if blocks else "the output is empty"
    return Document(
        prompt_id=uid, system=system, seed=0, blocks=tuple(blocks), finish="error" if error else "stop", error=error
    )


def _beside(path: str | None, where: str) -> str | None:
    """The picture's name: pictures lie beside their file, whatever folder is written before the name."""
    if path is None:
        return None
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or not pure.name:
        raise InputError(f"{where}: the picture's path {path[:120]!r} leads out of the output folder")
    return pure.name


# ---- out


def steps_of(document: Document) -> list[Step]:
    """The document as steps: a text begins one, an image belongs to the text right before it or begins one of its own."""
    steps: list[Step] = []
    for block in document.blocks:
        if block.type == "text":
            steps.append(Step(block.text, None))
        elif steps and steps[-1].image is None:
            steps[-1] = Step(steps[-1].text, block)
        else:
            steps.append(Step("", block))
    return steps


def export_outputs(
    prompts: Mapping[str, Prompt] | Sequence[Prompt],
    documents: Iterable[Document],
    folder: Path,
    out: str | Path,
    *,
    model: str = "",
) -> tuple[Path, list[str]]:
    """Writes documents in OpenING's layout into out/gen_outputs/<MODEL>_output; returns that folder and notes.

    folder   where the documents' image paths begin
    model    the name in the folder's name; the system's otherwise
    Pictures are written as JPEG (quality 95, our choice; a JPEG as it is), `<uid>-o-<k>.jpg` for step k from 0.
    """
    answers = by_prompt(documents)
    prompts = list(prompts.values() if isinstance(prompts, Mapping) else prompts)
    if not answers:
        raise InputError("there are no documents to export; generate some first")
    model = safe_name(model or next(iter(answers.values())).system, "the model's name")
    target = Path(out) / "gen_outputs" / f"{model}_output"
    target.mkdir(parents=True, exist_ok=True)
    for prompt in prompts:
        if prompt.id not in answers:
            continue
        row = prompt.ref.get("row")
        if prompt.ref.get("benchmark") != "opening" or not isinstance(row, dict):
            raise InputError(f"prompt {prompt.id} does not come from OpenING; only prompts imported from there have its layout")
        uid = row_uid(row, f"prompt {prompt.id}")
        output = []
        for number, step in enumerate(steps_of(answers[prompt.id])):
            name = f"{uid}-o-{number}.jpg" if step.image is not None else None
            if step.image is not None:
                write_picture(folder, step.image, target / name, f"document {uid}")
            output.append({"text": step.text, "image": name})
        copy = {**row, "total_uid": uid, "conversations": [row["conversations"][0], {"output": output}]}
        write_whole(target / f"{uid}.json", (json.dumps(copy, ensure_ascii=False, indent=4) + "\n").encode())
    missing = [prompt.id for prompt in prompts if prompt.id not in answers]
    notes = [f"{len(missing)} of {len(prompts)} prompts have no document and no file: {', '.join(missing[:5])}"
             + (" ..." if len(missing) > 5 else "")] if missing else []  # fmt: skip
    return target, notes
