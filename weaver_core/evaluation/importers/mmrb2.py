"""Multimodal RewardBench 2 (arXiv 2512.16899; CC BY-NC): pairs of answers of which experts chose one, the exam of a judge.

    interleaved.json   {"pairs": [{id, prompt_content, response_a, response_b, chosen}]}; images/, input_images/ beside it

Its build script writes `id`, `model_name`, `chosen`; its README says `pair_id`, `model`, `human_preference`: both are read,
and so is a bare list of pairs: pairs of your own may be in the same layout. Contents are lists of [kind, value] with the kinds "text" and "image".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..records import Block, Document, InputBlock, Prompt, Want
from .files import image_block, input_image, need, read_json


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A prompt, two answers to it, and which one people chose: "A" or "B". Image paths begin at the pairs' folder."""

    prompt: Prompt
    a: Document
    b: Document
    chosen: str


def read_pairs(path: str | Path) -> list[PreferencePair]:
    """All pairs of a file of the benchmark. InputError for a pair that lacks a part, or a picture."""
    path = Path(path)
    data = read_json(path)
    items = data.get("pairs") if isinstance(data, dict) else data
    if not isinstance(items, list):
        raise InputError(f'{path}: expected a list of pairs, or {{"pairs": [...]}}; give interleaved.json of a built copy of MMRB2')
    pairs = [_pair(path.parent, item, f"{path}: pairs[{number}]") for number, item in enumerate(items)]
    for name, times in Counter(pair.prompt.id for pair in pairs).items():
        if times > 1:
            raise InputError(f"{path}: the pair {name!r} occurs {times} times")
    return pairs


def _pair(folder: Path, item: Any, where: str) -> PreferencePair:
    if not isinstance(item, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(item).__name__}")
    name = _either(item, ("id", "pair_id"), where)
    if "prompt_content" not in item:
        raise InputError(f"{where}: has no prompt_content; the file holds answers only, run the benchmark's build first")
    chosen = _either(item, ("chosen", "human_preference"), where).strip().upper().removeprefix("RESPONSE_")
    if chosen not in ("A", "B"):
        raise InputError(f"{where}: the choice is A or B, got {chosen[:40]!r}")
    content = _content(need(item, "prompt_content", list, where), f"{where}: prompt_content")
    prompt = Prompt(
        id=name,
        v=1,
        category=str(item.get("prompt_source") or "mmrb2"),
        lang="en",
        input=tuple(
            input_image(folder, value, where) if kind == "image" else InputBlock(type="text", text=value)
            for kind, value in content
        ),
        want=Want(images_min=1, images_max=10, explicit=False),  # the pairs do not say
        ref={"benchmark": "mmrb2", "chosen": chosen},
        source="Multimodal RewardBench 2 (arXiv 2512.16899), the user's copy",
        license="CC-BY-NC-4.0",
    )
    a, b = (_document(folder, item, side, name, where) for side in ("response_a", "response_b"))
    return PreferencePair(prompt, a, b, chosen)


def _document(folder: Path, item: dict, side: str, name: str, where: str) -> Document:
    response = need(item, side, dict, where)
    where = f"{where}: {side}"
    blocks = tuple(
        image_block(folder, value, where) if kind == "image" else Block(type="text", text=value)
        for kind, value in _content(need(response, "response_content", list, where), where)
    )
    return Document(prompt_id=name, system=_either(response, ("model_name", "model"), where), seed=0, blocks=blocks)


def _content(items: list, where: str) -> list[tuple[str, str]]:
    for item in items:
        if not (isinstance(item, list) and len(item) == 2 and item[0] in ("text", "image") and isinstance(item[1], str)):
            raise InputError(f'{where}: expected ["text" or "image", value], got {item!r}'[:300])
    return [(kind, value) for kind, value in items]


def _either(item: dict, names: tuple[str, str], where: str) -> str:
    for name in names:
        value = item.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return str(value)
    raise InputError(f"{where}: has neither {names[0]!r} nor {names[1]!r}")
