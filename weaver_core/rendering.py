"""What one drawn image was drawn from: its key, its place in the journal, and which images are stale."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from .critic import MAX_PROMPT_LENGTH, Verdict, verdict_from_json
from .plan import check_keys
from .segments import ILLEGAL, MAX_SEED, SEGMENT_ID, kind_of

_IMAGE_FILE = re.compile(r"images/[A-Za-z0-9][A-Za-z0-9_-]{0,63}-[0-9a-f]{12}\.png\Z")
_HASH = re.compile(r"[0-9a-f]{32,64}\Z")
FAULT = re.compile(r"(blank|grid|copy of [A-Za-z0-9][A-Za-z0-9_-]{0,63})?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedReference:
    """A reference that an image was drawn with: its source (segment id or user's picture) and its pixels' hash.

    whom   what the prompt said of it (slots.py), "" = nothing
    """

    source: str
    key: str
    whom: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """An image that was drawn, and everything that it was drawn from.

    key         hash of all that decides it: an equal key need not be drawn again
    image_key   hash of its pixels
    file        path inside the story folder; "" in memory
    fault       what the image looks wrong by (picture_faults.py), "" = nothing: a mark for people, it decides nothing
    redrawn     the fault for which it was drawn a second time, "" = it was not
    drawn_seed  the seed of a later drawing, where that is the one that was kept; None = `seed`
    drawn_prompt  the dense prompt in the critic's words, where it was drawn under those; "" = `prompt`
    verdict     what the critic found in it; None = it was not asked
    wishes      how many drawings of it the critic has asked for
    """

    segment_id: str
    key: str
    image_key: str
    size: tuple[int, int]
    seed: int
    visualizer: str
    steps: int
    guidance: float
    reference_guidance: float
    prompt: str
    references: tuple[UsedReference, ...] = ()
    file: str = ""
    file_hash: str = ""
    fault: str = ""
    redrawn: str = ""
    drawn_seed: int | None = None
    drawn_prompt: str = ""
    verdict: Verdict | None = None
    wishes: int = 0

    @property
    def seed_used(self) -> int:
        """The seed of the drawing that was kept."""
        return self.seed if self.drawn_seed is None else self.drawn_seed

    @property
    def lacks_redraw(self) -> bool:
        """Whether it looks wrong, and the run was stopped before it was drawn once more."""
        return bool(self.fault) and not self.redrawn and self.drawn_seed is None and self.verdict is None

    def is_of(self, prompt: str) -> bool:
        """Whether it was drawn for this dense prompt; the looks of the cast may stand behind that (slots.py)."""
        return self.prompt == prompt or self.prompt.startswith(prompt + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """An image that was drawn from earlier versions of others.

    changed   sources it used as references that have been drawn anew since
    through   sources it used that have not, but are stale themselves
    """

    segment_id: str
    changed: tuple[str, ...]
    through: tuple[str, ...]


def rendering_key(
    *,
    prompt: str,
    references: Iterable[UsedReference],
    size: tuple[int, int],
    seed: int,
    visualizer: str,
    steps: int,
    guidance: float,
    reference_guidance: float,
) -> str:
    """32 hex digits: the hash of everything that decides an image."""
    used = [[one.key, one.whom] if one.whom else one.key for one in references]
    parts = [prompt, used, list(size), seed, visualizer, steps, float(guidance), float(reference_guidance)]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()[:32]


def stale_images(renderings: Mapping[str, Rendering]) -> tuple[Stale, ...]:
    """The renderings that used, directly or through others, an image that has been drawn anew since.

    `renderings` are the current ones by segment id, in the order of the plan.
    """
    changed = {
        segment_id: tuple(
            used.source
            for used in rendering.references
            if used.source in renderings and renderings[used.source].image_key != used.key
        )
        for segment_id, rendering in renderings.items()
    }
    stale = {segment_id for segment_id, sources in changed.items() if sources}
    while True:
        more = {
            segment_id
            for segment_id, rendering in renderings.items()
            if segment_id not in stale and any(used.source in stale for used in rendering.references)
        }
        if not more:
            break
        stale |= more
    return tuple(
        Stale(
            segment_id=segment_id,
            changed=changed[segment_id],
            through=tuple(
                used.source
                for used in rendering.references
                if used.source in stale and used.source not in changed[segment_id]
            ),
        )
        for segment_id, rendering in renderings.items()
        if segment_id in stale
    )


def is_only_stale(current: Rendering, wanted: Rendering) -> bool:
    """Whether all that has changed since an image was drawn is that its references have been drawn anew."""
    if [(used.source, used.whom) for used in current.references] != [(used.source, used.whom) for used in wanted.references]:
        return False
    same_but_keys = replace(
        wanted, key=current.key, image_key=current.image_key, references=current.references, file=current.file,
        file_hash=current.file_hash, fault=current.fault, redrawn=current.redrawn, drawn_seed=current.drawn_seed,
        drawn_prompt=current.drawn_prompt, verdict=current.verdict, wishes=current.wishes,
    )  # fmt: skip
    return same_but_keys == current


# ---- in the journal


def rendering_to_json(rendering: Rendering) -> dict:
    record = asdict(rendering)
    record["segment"] = record.pop("segment_id")
    return {"type": "image", **record}


def rendering_from_json(record: dict) -> Rendering:
    fields = {key: value for key, value in record.items() if key not in ("type", "segment")}
    fields["segment_id"] = record.get("segment")
    texts = ("segment_id", "key", "image_key", "visualizer", "prompt", "file", "file_hash")
    numbers = ("seed", "steps", "guidance", "reference_guidance")
    marks = ("fault", "redrawn", "drawn_seed", "drawn_prompt", "verdict", "wishes")  # stories of earlier versions have none
    check_keys("image", fields, required=texts + numbers + ("size", "references"), optional=marks)
    _check_marks(fields)
    for name in texts:
        if not isinstance(fields[name], str):
            raise ValueError(f"image.{name}: expected text, got {kind_of(fields[name])}")
    for name in numbers:
        if isinstance(fields[name], bool) or not isinstance(fields[name], (int, float)):
            raise ValueError(f"image.{name}: expected a number, got {kind_of(fields[name])}")
    if not SEGMENT_ID.match(fields["segment_id"]):
        raise ValueError(f"image.segment: {fields['segment_id'][:80]!r} is no segment id")
    if not _IMAGE_FILE.match(fields["file"]):
        raise ValueError(f"image.file: {fields['file'][:80]!r} is no file of the images folder")
    if not all(_HASH.match(fields[name]) for name in ("key", "image_key", "file_hash")):
        raise ValueError("image: a hash is not one")
    if not isinstance(fields["size"], list) or [kind_of(side) for side in fields["size"]] != ["number", "number"]:
        raise ValueError("image.size: expected two numbers")
    if not isinstance(fields["references"], list):
        raise ValueError(f"image.references: expected a list, got {kind_of(fields['references'])}")
    fields["size"] = tuple(fields["size"])
    fields["references"] = tuple(_used_reference(item) for item in fields["references"])
    return Rendering(**fields)


def _check_marks(fields: dict) -> None:
    for name in ("fault", "redrawn"):
        if not isinstance(fields.get(name, ""), str) or not FAULT.match(fields.get(name, "")):
            raise ValueError(f"image.{name}: {str(fields[name])[:80]!r} is no fault of a picture")
    seed = fields.get("drawn_seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED):
        raise ValueError("image.drawn_seed: expected a seed or nothing")
    prompt = fields.get("drawn_prompt", "")
    if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT_LENGTH or ILLEGAL.search(prompt):
        raise ValueError("image.drawn_prompt: expected a dense prompt")
    wishes = fields.get("wishes", 0)
    if not isinstance(wishes, int) or isinstance(wishes, bool) or wishes < 0:
        raise ValueError("image.wishes: expected a number of drawings")
    if fields.get("verdict") is not None:
        fields["verdict"] = verdict_from_json(fields["verdict"])


def _used_reference(data: object) -> UsedReference:
    check_keys("image.references", data, required=("source", "key"), optional=("whom",))
    if not all(isinstance(text, str) for text in data.values()):
        raise ValueError("image.references: expected texts")
    return UsedReference(**data)
