"""Prompt sets by name or file: the built-in ones, a part of them, and the hash that says which prompts they were.

    load_prompts("weaver-style", category="recipe", limit=5)
    load_prompts("my/prompts.jsonl", shard="2/4")

Built in: `weaver-style` (512 prompts of our own, prompts/README.md), `weaver-style-lite` (a balanced 48 of them) and
`picturebook` (200 requests inside the picture-book world, picturebook_split.py). A file is JSONL of `records.Prompt`, with
image paths relative to it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from .records import Prompt, read_jsonl
from .run_folder import _with_hashes, prompts_hash

BUILT_IN = ("weaver-style", "weaver-style-lite", "picturebook")
FOLDER = Path(__file__).with_name("prompts")


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts to run.

    name     built-in name, or the file's name without its ending
    prompts  in the order of the set; every image has its sha256
    folder   what the prompts' image paths are relative to
    sha256   hash of exactly these prompts and their images (run_folder.prompts_hash), not of the set they were chosen from
    """

    name: str
    prompts: tuple[Prompt, ...]
    folder: Path
    sha256: str


def load_prompts(
    name_or_path: str | Path,
    *,
    limit: int | None = None,
    ids: Iterable[str] | None = None,
    category: str | None = None,
    shard: str | None = None,
) -> PromptSet:
    """The prompts of a set that all the given choices leave over.

    ids       only these; all must be in the set
    category  only this one, such as "recipe"
    shard     "k/n": the k-th of n parts, k from 1. A prompt's part depends on its id alone, so machines agree without talking
    limit     at most so many, after everything else

    Raises   InputError for an unknown set, id or category, a wrong shard or limit, a prompt that is not valid, an image that
             is missing, leads out of the folder or is another one than its hash says, and an edited built-in set
    """
    name = str(name_or_path)
    if name == "picturebook":
        folder, prompts = _picturebook()
    elif name in BUILT_IN:
        folder, prompts = FOLDER, _weaver_style(name)
    else:
        name, folder, prompts = _from_file(Path(name_or_path))
    chosen = _choose(prompts, ids, category, shard, limit)
    return PromptSet(name, chosen, folder, prompts_hash(chosen))


def _weaver_style(name: str) -> tuple[Prompt, ...]:
    _, _, prompts = _from_file(FOLDER / "weaver_style.jsonl")
    if name == "weaver-style-lite":
        lite = set(json.loads((FOLDER / "weaver_style_lite.json").read_text(encoding="utf-8")))
        prompts = tuple(prompt for prompt in prompts if prompt.id in lite)
    frozen = {}
    for line in (FOLDER / "weaver_style.sha256").read_text(encoding="utf-8").splitlines():
        sha256, of = line.split()
        frozen[of] = sha256
    found = prompts_hash(prompts)
    if found != frozen.get(name):
        raise InputError(
            f"the built-in prompt set {name} is not the published one: its hash is {found[:12]}, expected "
            f"{str(frozen.get(name))[:12]}. Install the package again, or copy {FOLDER} elsewhere and name your own file, "
            "so that scores are not mixed up"
        )
    return prompts


@lru_cache(maxsize=1)
def _picturebook_folder() -> tempfile.TemporaryDirectory:
    """The split's reference pictures are drawn, not shipped; the folder is removed when the program ends."""
    from .picturebook_split import write

    folder = tempfile.TemporaryDirectory(prefix="weaver-picturebook-")
    write(Path(folder.name))
    return folder


def _picturebook() -> tuple[Path, tuple[Prompt, ...]]:
    from .picturebook_split import prompts

    return Path(_picturebook_folder().name), prompts()


def _from_file(path: Path) -> tuple[str, Path, tuple[Prompt, ...]]:
    if not path.is_file():
        raise InputError(f"there is no prompt set {str(path)!r}; built in are {', '.join(BUILT_IN)}, "
                         "and a file must be JSONL of prompts")
    try:
        prompts = read_jsonl(path, Prompt)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not prompts:
        raise InputError(f"{path} holds no prompts")
    seen: set[str] = set()
    for prompt in prompts:
        _check(prompt, f"{path}, prompt {prompt.id!r}")
        if prompt.id in seen:
            raise InputError(f"{path}: the prompt id {prompt.id!r} occurs twice; ids must be unique")
        seen.add(prompt.id)
    return path.stem, path.parent, tuple(_with_hashes(prompt, path.parent) for prompt in prompts)


def _check(prompt: Prompt, where: str) -> None:
    """InputError for values that no judge, metric or page could make sense of; types are checked where they would break."""
    for value, what in ((prompt.id, "id"), (prompt.category, "category"), (prompt.lang, "lang")):
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}: {what} is {value!r}; expected a text")
    if prompt.v != 1:
        raise InputError(f"{where}: v is {prompt.v!r}; this program reads version 1")
    for block in prompt.input:
        if block.type not in ("text", "image") or not (block.text if block.type == "text" else block.path):
            raise InputError(f'{where}: an input is {{"type": "text", "text": ..}} or {{"type": "image", "path": ..}}, got {block}')
    if not prompt.input:
        raise InputError(f"{where}: the input is empty; it needs a text or an image")
    low, high = prompt.want.images_min, prompt.want.images_max
    if not (isinstance(low, int) and isinstance(high, int) and 0 <= low <= high):
        raise InputError(f"{where}: wants {low!r} to {high!r} images; expected whole numbers, the first not above the second")
    for check in prompt.checks:
        if check.scope not in ("text", "images", "both") or check.need not in ("yes", "no"):
            raise InputError(f'{where}: a check\'s scope is "text", "images" or "both" and its need "yes" or "no", got {check}')


def _choose(prompts, ids, category, shard, limit) -> tuple[Prompt, ...]:
    if ids is not None:
        wanted = {ids} if isinstance(ids, str) else set(ids)
        unknown = sorted(wanted - {prompt.id for prompt in prompts})
        if unknown:
            raise InputError(f"the prompt set has no {unknown[0]!r}; its ids look like {prompts[0].id!r}")
        prompts = [prompt for prompt in prompts if prompt.id in wanted]
    if category is not None:
        known = sorted({prompt.category for prompt in prompts})
        prompts = [prompt for prompt in prompts if prompt.category == category]
        if not prompts:
            raise InputError(f"no prompt is of category {category!r}; there are {', '.join(known)}")
    if shard is not None:
        part, parts = _shard(shard)
        prompts = [prompt for prompt in prompts if _slot(prompt.id) % parts == part - 1]
    if limit is not None:
        if limit < 1:
            raise InputError(f"limit is {limit}; expected at least 1")
        prompts = prompts[:limit]
    return tuple(prompts)


def _shard(shard: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", str(shard))
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"shard is {shard!r}; expected k/n such as 1/4, with k from 1 to n")
    return int(match[1]), int(match[2])


def _slot(prompt_id: str) -> int:
    return int.from_bytes(hashlib.sha256(prompt_id.encode()).digest()[:8], "big")
