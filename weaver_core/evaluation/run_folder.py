"""A run on disk: one system's answers to one set of prompts, with their scores.

    my-run/
      manifest.json                what was run, with which settings, seeds and versions (never a key)
      prompts.jsonl                the prompts, frozen; inputs/ holds their images
      gen/<prompt>/document.json   one answer; its images lie beside it
      judge.jsonl, metrics.jsonl   scores; files that only grow
      cache.sqlite                 replies of judges by content (judge/cache.py)

A document is written after its images and at once, a score is one line; so a run that is killed at any moment goes on
at the first thing that is not there, and ends as if nothing had happened. A folder may come from a stranger: every path
in it is checked to lie inside.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import platform
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..durable import Journal, JournalCopy, write_error, write_whole
from ..errors import InputError
from ..pictures import encode_png, read_picture
from .records import Block, Document, JudgeRecord, MetricRecord, Prompt, _Record, content_hash, file_sha256, read_jsonl

if TYPE_CHECKING:
    from .backends import Answer

_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}\Z")
_IMAGE_FILE = re.compile(r"[0-9]+-[0-9a-f]{12}\.(png|jpg|webp)\Z")
_BOUND_KEY = re.compile(r"([0-9a-f]{16})-[0-9a-f]{64}\Z")
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}
_PACKAGES = ("wan-weaver", "torch", "transformers", "diffusers", "numpy", "pillow", "scipy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(_Record):
    """What was run.

    backend    {"name": .., its settings}
    dataset    {"name": .., "sha256": of the file or set it came from, "prompts": hash of the prompts used}
    seed       the base seed; every document's and image's own seed is a hash of it (`document_seed`)
    step_hint  what the prompts told about the wanted number of steps: "none", or an importer's name for it
    judges     judge name -> its settings; added when it has judged
    """

    system: str
    backend: dict
    dataset: dict
    seed: int = 0
    settings: dict = field(default_factory=dict)
    step_hint: str = "none"
    versions: dict = field(default_factory=dict)
    judges: dict = field(default_factory=dict)
    created: str = ""
    command: str = ""


class RunFolder:
    """A run. Use `create`, `open` or `create_or_open`.

    folder     where it is
    manifest   what was run
    prompts    prompt id -> Prompt, in the order of the set; image paths are relative to `folder`
    """

    def __init__(self, folder: Path, manifest: Manifest, prompts: Sequence[Prompt]):
        self.folder = folder
        self.manifest = manifest
        self.prompts: dict[str, Prompt] = {prompt.id: prompt for prompt in prompts}

    # ---- making and opening

    @classmethod
    def create(cls, folder: str | Path, prompts: Sequence[Prompt], manifest: Manifest, *, source: Path) -> RunFolder:
        """A new run. `source` is the folder that the prompts' image paths are relative to; the images are copied.

        InputError when the folder holds a run already, a prompt's id occurs twice, or an image is missing or another
        one than its hash says.
        """
        folder = Path(folder)
        if (folder / "manifest.json").exists():
            raise InputError(f"{folder} holds a run already; choose another folder, or go on with it")
        if not prompts:
            raise InputError("there are no prompts to run; check --limit, --ids and --category")
        seen: set[str] = set()
        for prompt in prompts:
            if prompt.id in seen:
                raise InputError(f"the prompt id {prompt.id!r} occurs twice; ids must be unique")
            seen.add(prompt.id)
        try:
            (folder / "gen").mkdir(parents=True, exist_ok=True)
            frozen = [_freeze(prompt, Path(source), folder) for prompt in prompts]
            lines = [json.dumps(prompt.to_json(), ensure_ascii=False) + "\n" for prompt in frozen]
        except OSError as error:
            raise write_error(error, folder, 0) from None
        write_whole(folder / "prompts.jsonl", "".join(lines).encode())
        dataset = manifest.dataset | {"prompts": prompts_hash(frozen), "num_prompts": len(frozen)}
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        run = cls(folder, replace(manifest, dataset=dataset, versions=versions(), created=now), frozen)
        run._write_manifest()  # last: a folder with a manifest has everything that it needs
        return run

    @classmethod
    def open(cls, folder: str | Path) -> RunFolder:
        """The run in this folder. InputError when there is none, or its files are damaged."""
        folder = Path(folder)
        try:
            data = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{folder} holds no run (there is no manifest.json in it); make one with 'weaver eval generate'") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / 'manifest.json'} cannot be read: {error}") from None
        return cls(folder, Manifest.from_json(data, str(folder / "manifest.json")), read_jsonl(folder / "prompts.jsonl", Prompt))

    @classmethod
    def create_or_open(cls, folder: str | Path, prompts: Sequence[Prompt], manifest: Manifest, *, source: Path) -> RunFolder:
        """The run in this folder, made when it is not there. InputError when it is there and is another run."""
        if not (Path(folder) / "manifest.json").exists():
            return cls.create(folder, prompts, manifest, source=source)
        run = cls.open(folder)
        wanted = prompts_hash([_with_hashes(prompt, Path(source)) for prompt in prompts])
        if run.manifest.dataset.get("prompts") != wanted:
            raise InputError(f"{folder} holds a run over other prompts; choose another folder with --out")
        run.check_same(manifest)
        return run

    def check_same(self, manifest: Manifest) -> None:
        """InputError when this run was made in another way than `manifest` says."""
        for name in ("system", "backend", "seed", "settings", "step_hint"):
            old, new = getattr(self.manifest, name), getattr(manifest, name)
            if old != new:
                raise InputError(
                    f"{self.folder} holds a run with {name} {json.dumps(old, sort_keys=True)}, now it is "
                    f"{json.dumps(new, sort_keys=True)}; choose another folder with --out, or give the same options again"
                    + (f": {self.manifest.command}" if self.manifest.command else "")
                )

    @property
    def system(self) -> str:
        return self.manifest.system

    @property
    def cache_path(self) -> Path:
        return self.folder / "cache.sqlite"

    def note_judge(self, name: str, settings: dict) -> None:
        """Writes a judge's settings into the manifest."""
        if self.manifest.judges.get(name) != settings:
            self.manifest = replace(self.manifest, judges=self.manifest.judges | {name: settings})
            self._write_manifest()

    def _write_manifest(self) -> None:
        text = json.dumps(self.manifest.to_json(), ensure_ascii=False, indent=1) + "\n"
        write_whole(self.folder / "manifest.json", text.encode())

    # ---- answers

    def answer_folder(self, prompt_id: str) -> Path:
        """Where a prompt's answer lies. Ids that are no safe file name are spelled by their hash."""
        if _SAFE_NAME.match(prompt_id):
            return self.folder / "gen" / prompt_id
        plain = re.sub(r"[^a-z0-9_-]+", "-", prompt_id.lower()).strip("-_")[:40] or "prompt"
        return self.folder / "gen" / f"{plain}-{hashlib.sha256(prompt_id.encode()).hexdigest()[:12]}"

    def document(self, prompt_id: str) -> Document | None:
        """The answer to a prompt, None where there is none yet."""
        path = self.answer_folder(prompt_id) / "document.json"
        try:
            return Document.from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} cannot be read: {error}") from None

    def documents(self) -> list[Document]:
        """All answers that are there, in the order of the prompts."""
        return [document for prompt_id in self.prompts if (document := self.document(prompt_id)) is not None]

    def image_path(self, block: Block) -> Path:
        """The file of an image block. InputError when its path leads out of the run folder."""
        return inside(self.folder, block.path)

    def keep(self, prompt_id: str, answer: Answer, seed: int) -> Document:
        """Stores an answer: first its images, then the document."""
        place = self.answer_folder(prompt_id)
        blocks: list[Block] = []
        try:
            place.mkdir(parents=True, exist_ok=True)
            for part in answer.parts:
                if isinstance(part, str):
                    blocks.append(Block(type="text", text=part))
                    continue
                data, suffix, (width, height) = _as_file(part.data, f"image {len(blocks)} of {prompt_id}")
                sha256 = hashlib.sha256(data).hexdigest()
                path = place / f"{len(blocks)}-{sha256[:12]}{suffix}"
                write_whole(path, data)
                blocks.append(Block(
                    type="image", path=path.relative_to(self.folder).as_posix(), sha256=sha256, dense_prompt=part.dense_prompt,
                    width=width, height=height, seed=part.seed, refs=tuple(part.refs), ms=part.ms,
                ))  # fmt: skip
        except OSError as error:
            raise write_error(error, place, 0) from None
        document = Document(
            prompt_id=prompt_id, system=self.system, seed=seed, blocks=tuple(blocks), finish=answer.finish, error=answer.error,
            timing=answer.timing, fingerprint=answer.fingerprint,
        )  # fmt: skip
        text = json.dumps(document.to_json(), ensure_ascii=False, indent=1) + "\n"
        write_whole(place / "document.json", text.encode())
        if answer.finish != "error":  # one that failed may be tried again, and goes on from what is there
            shutil.rmtree(place / "work", ignore_errors=True)
        for old in place.iterdir():  # images of an answer that this one replaces
            if _IMAGE_FILE.match(old.name) and old.relative_to(self.folder).as_posix() not in {block.path for block in blocks}:
                old.unlink()
        return document

    # ---- scores

    def journal(self, name: str) -> Journal:
        """judge.jsonl or metrics.jsonl, open for adding; one program at a time may hold it. Close it."""
        path = self.folder / name
        return Journal(path, create=not path.exists())

    def all_judge_records(self) -> list[JudgeRecord]:
        """Every line of judge.jsonl, in order."""
        return self._read("judge.jsonl", JudgeRecord)

    def judge_records(self, judge: str | None = None) -> list[JudgeRecord]:
        """What counts: of one judge (None: the latest), the last record of each prompt, dimension and repetition.

        A score of an answer that has been replaced since does not count.
        """
        records = self.all_judge_records()
        if judge is None and records:
            judge = records[-1].judge
        hashes: dict[str, str] = {}
        last: dict[tuple, JudgeRecord] = {}
        for record in records:
            if record.judge != judge:
                continue
            bound = _BOUND_KEY.match(record.key)
            if bound:
                if record.prompt_id not in hashes:
                    hashes[record.prompt_id] = answer_hash(self.document(record.prompt_id))
                if bound[1] != hashes[record.prompt_id]:
                    continue
            last[record.prompt_id, record.dim, record.rep] = record
        return list(last.values())

    def metric_records(self) -> list[MetricRecord]:
        """The last record of each prompt and metric."""
        return list({(record.prompt_id, record.metric): record for record in self._read("metrics.jsonl", MetricRecord)}.values())

    def _read(self, name: str, cls) -> list:
        path = self.folder / name
        return [cls.from_json(value, str(path)) for value in JournalCopy(path).records] if path.exists() else []


# ---- hashes and seeds


def document_seed(base: int, prompt_id: str) -> int:
    """The seed of a document; below 2**53, so that it passes through JSON and JavaScript unchanged (our choice)."""
    return int.from_bytes(hashlib.sha256(f"{base}/{prompt_id}".encode()).digest()[:8], "big") >> 11


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    """What "the same prompts" means: their content, with images told by their hash and not by where they lie."""
    return content_hash(
        replace(prompt, input=tuple(replace(block, path="") if block.sha256 else block for block in prompt.input))
        for prompt in prompts
    )


def answer_hash(document: Document | None) -> str:
    """16 hex digits of what an answer says and shows; not of how long it took or where its images lie."""
    if document is None:
        return "0" * 16
    parts = [[block.type, block.text, block.sha256, block.dense_prompt] for block in document.blocks]
    text = json.dumps([document.prompt_id, parts, document.finish], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def inside(folder: Path, path: str) -> Path:
    """`folder / path`; InputError when that leads out of the folder."""
    found = folder / path
    if not path or Path(path).is_absolute() or not found.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"the path {path[:120]!r} leads out of {folder}")
    return found


def versions() -> dict[str, str]:
    """Python and the packages that decide what comes out."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def _as_file(data: bytes, name: str) -> tuple[bytes, str, tuple[int, int]]:
    """An image as it is kept: PNG, JPEG and WebP unchanged, others as PNG; with the file's suffix and (width, height)."""
    from PIL import Image

    image, _ = read_picture(data, name)
    suffix = next((end for start, end in _SUFFIXES.items() if data.startswith(start)), None)
    if suffix is None:
        return encode_png(image), ".png", image.size
    with Image.open(io.BytesIO(data)) as kept:
        return data, suffix, kept.size


def _freeze(prompt: Prompt, source: Path, folder: Path) -> Prompt:
    """The prompt with its images copied into the run folder."""
    blocks = []
    for block in _with_hashes(prompt, source).input:
        if block.type == "image":
            path = inside(source, block.path)
            name = f"inputs/{block.sha256[:16]}{path.suffix.lower()}"
            (folder / "inputs").mkdir(exist_ok=True)
            if not (folder / name).exists():
                write_whole(folder / name, path.read_bytes())
            block = replace(block, path=name)
        blocks.append(block)
    return replace(prompt, input=tuple(blocks))


def _with_hashes(prompt: Prompt, source: Path) -> Prompt:
    blocks = []
    for block in prompt.input:
        if block.type == "image":
            path = inside(source, block.path)
            if not path.is_file():
                raise InputError(f"prompt {prompt.id}: the image {block.path} is missing in {source}")
            sha256 = file_sha256(path)
            if block.sha256 and block.sha256 != sha256:
                raise InputError(f"prompt {prompt.id}: {block.path} is another image than the one that the prompt set names")
            block = replace(block, sha256=sha256)
        blocks.append(block)
    return replace(prompt, input=tuple(blocks))
