"""A story: a plan plus its renderings; in memory, or in a story folder that survives a crash at any moment.

    my-story/
      request.json   what was asked, and how it is drawn
      plan.json      the plan; written when it is finished
      story.jsonl    the journal: markup as it is written, images as they are drawn
      images/        <segment id>-<hash>.png
      references/    the user's pictures

An image is written to a temporary name, synced, renamed, and journaled after that; so a journaled image is there, and
after a crash the story goes on at the first image that is not. A folder may come from a stranger: every path in it is
checked to lie inside, every file is bounded and compared with its hash before it is used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic

from PIL import Image

from .durable import Journal, JournalCopy, sync_folder, write_error, write_whole
from .errors import InputError, StoryError
from .pictures import encode_png, read_picture
from .plan import Plan
from .references import POLICIES
from .rendering import Rendering, Stale, rendering_from_json, rendering_to_json, stale_images
from .request import RenderSettings, Request
from .segments import SEGMENT_ID
from .story_files import (
    MODES,
    json_bytes,
    read_inside,
    read_json,
    read_plan,
    request_from_json,
    request_to_json,
    settings_from_json,
)

JOURNAL_VERSION = 1
_TEXT_BATCH = 400  # characters of markup, or ...
_TEXT_BATCH_S = 1.0  # ... seconds between two journal entries: a sync per token would slow the planner down


class Story:
    """A story in memory. `StoryFolder` is the same on disk.

    mode, settings, policy   how it is woven, drawn, and which references images get
    plan        None while it is being written
    renderings  the current image of each segment that has one
    failures    segment id -> why its last attempt failed
    """

    def __init__(
        self,
        request: Request | None = None,
        *,
        mode: str = "plan-first",
        settings: RenderSettings | None = None,
        policy: str = "auto",
    ):
        if mode not in MODES:
            raise InputError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
        if policy not in POLICIES:
            raise InputError(f"reference policy is {policy!r}; it must be one of {', '.join(POLICIES)}")
        self._request = request
        self.mode = mode
        self.settings = settings or RenderSettings()
        self.policy = policy
        self.plan: Plan | None = None
        self.renderings: dict[str, Rendering] = {}
        self.failures: dict[str, str] = {}
        self.rounds: list[str] = []  # closed loop: what was written up to each image
        self._unfinished: list[str] = []
        self._by_key: dict[str, Rendering] = {}
        self._images: dict[str, Image.Image] = {}

    @property
    def request(self) -> Request | None:
        return self._request

    # ---- the text

    @property
    def markup(self) -> str:
        """Everything written so far."""
        return "".join(self.rounds) + "".join(self._unfinished)

    def begin_writing(self) -> None:
        """Forgets text that was begun and not finished; finished rounds stay."""
        self._unfinished = []

    def add_text(self, piece: str) -> None:
        self._unfinished.append(piece)

    def end_round(self) -> None:
        """The text so far ends with an image that is to be drawn before more is written."""
        self.rounds.append("".join(self._unfinished))
        self._unfinished = []

    def set_plan(self, plan: Plan) -> None:
        """The finished (or an edited) plan. Renderings stay; those whose key no longer fits are drawn again."""
        self.plan = plan

    # ---- the images

    def image(self, segment_id: str) -> Image.Image:
        """The current image of a segment, RGB. StoryError when there is none or its file is damaged."""
        return self._images[self._current(segment_id).key]

    def path(self, segment_id: str) -> Path | None:
        """Where the current image of a segment is; None in memory."""
        return None

    def find(self, key: str) -> Rendering | None:
        """An earlier rendering under this key, of whichever segment."""
        return self._by_key.get(key)

    def keep(self, rendering: Rendering, image: Image.Image, *, texts: Mapping[str, str] | None = None) -> Rendering:
        """Stores a drawn image and makes it the current one of its segment. `texts` go into the PNG file."""
        self._images[rendering.key] = image
        self._accept(rendering)
        return rendering

    def reuse(self, rendering: Rendering, segment_id: str) -> Rendering:
        """Makes an earlier rendering the current one of a segment."""
        rendering = replace(rendering, segment_id=segment_id)
        self._accept(rendering)
        return rendering

    def note_failure(self, segment_id: str, message: str) -> None:
        self.failures[segment_id] = message

    def finish(self) -> None:
        """Everything that could be drawn is."""

    def close(self) -> None:
        """Gives up files and locks."""

    def missing(self) -> tuple[str, ...]:
        """The ids of images that the plan has and the story has not."""
        return tuple(s.id for s in self.plan.images if s.id not in self.renderings) if self.plan else ()

    def stale(self) -> tuple[Stale, ...]:
        """The images that were drawn from earlier versions of others, in the order of the plan."""
        if self.plan is None:
            return ()
        return stale_images({s.id: self.renderings[s.id] for s in self.plan.images if s.id in self.renderings})

    def _current(self, segment_id: str) -> Rendering:
        if segment_id not in self.renderings:
            raise StoryError(f"the story has no image for {segment_id!r} yet")
        return self.renderings[segment_id]

    def _accept(self, rendering: Rendering) -> None:
        self._by_key[rendering.key] = rendering
        self.renderings[rendering.segment_id] = rendering
        self.failures.pop(rendering.segment_id, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class StoryFolder(Story):
    """A story on disk. Use `create` or `open`; one program at a time may hold it; `close` it (or use `with`).

    made_with   the model's name or folder, for messages
    warnings    what was found damaged on opening (it is left out, and drawn again)
    """

    def __init__(self, path: Path, journal: Journal | JournalCopy, request: Request | None, *, made_with: str, **how):
        super().__init__(request, **how)
        self.folder = path
        self.made_with = made_with
        self.finished = False
        self.warnings: list[str] = []
        self._journal = journal
        self._pending_text: list[str] = []
        self._last_text = 0.0
        self._request_data: dict | None = None

    # ---- making and opening

    @classmethod
    def create(
        cls,
        path: str | Path,
        request: Request,
        *,
        mode: str = "plan-first",
        settings: RenderSettings | None = None,
        policy: str = "auto",
        made_with: str = "",
    ) -> StoryFolder:
        """A new story folder. StoryError when the folder holds a story (or files of the same names) already."""
        path = Path(path)
        request, _ = request.validated()
        how = {"mode": mode, "settings": settings or RenderSettings(), "policy": policy}
        Story(**how)  # checks them before anything is written
        try:
            path.mkdir(parents=True, exist_ok=True)
            _check_free(path)
            for name in ("images", "references"):
                (path / name).mkdir(exist_ok=True)
            files = {}
            for picture in request.images:
                files[picture.name] = f"references/{picture.name}-{picture.key[:12]}.png"
                write_whole(path / files[picture.name], encode_png(picture.image))
        except OSError as error:
            raise write_error(error, path, 0) from None
        data = request_to_json(request, files, made_with=made_with, **how)
        # The journal comes last: a folder with a journal has everything that it needs.
        write_whole(path / "request.json", json_bytes(data))
        folder = cls(path, Journal(path / "story.jsonl", create=True), request, made_with=made_with, **how)
        try:
            sync_folder(path)
            folder._journal.append({"type": "story", "version": JOURNAL_VERSION})
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = False) -> StoryFolder:
        """The story in this folder; `read_only` to look at one that another program is writing.

        StoryError when there is none, or it cannot be trusted.
        """
        path = Path(path)
        if not path.is_dir():
            raise StoryError(f"{path} is no folder; give the folder that 'weaver story' printed")
        if not (path / "story.jsonl").is_file():
            raise StoryError(f"{path} holds no story (there is no story.jsonl in it)")
        data = read_json(path, "request.json")
        how = settings_from_json(data)
        file = path / "story.jsonl"
        journal = JournalCopy(file) if read_only else Journal(file, create=False)
        try:
            folder = cls(path, journal, None, **how)
            folder._request_data = data
            folder._replay(journal.records)
            if journal.num_damaged:
                folder.warnings.append(f"story.jsonl has {journal.num_damaged} damaged lines; they are passed over")
            if (path / "plan.json").exists():
                folder.plan = read_plan(path)
        except BaseException:
            journal.close()
            raise
        return folder

    @property
    def request(self) -> Request:
        """What was asked, with the user's pictures. StoryError when one of those is missing or was exchanged."""
        if self._request is None:
            self._request = request_from_json(self.folder, self._request_data)
        return self._request

    def close(self) -> None:
        try:
            if self._pending_text:
                self._flush_text()
        finally:
            self._journal.close()

    # ---- the text

    def begin_writing(self) -> None:
        self._pending_text = []
        if self._unfinished:
            self._journal.append({"type": "rewrite"})
        super().begin_writing()

    def add_text(self, piece: str) -> None:
        super().add_text(piece)
        self._pending_text.append(piece)
        enough = sum(map(len, self._pending_text)) >= _TEXT_BATCH
        if enough or "</imagine>" in piece or monotonic() - self._last_text >= _TEXT_BATCH_S:
            self._flush_text()

    def end_round(self) -> None:
        self._flush_text()
        self._journal.append({"type": "round"})
        super().end_round()

    def set_plan(self, plan: Plan) -> None:
        if plan == self.plan:
            return
        self._check_writable()
        if self._pending_text:
            self._flush_text()
        write_whole(self.folder / "plan.json", plan.dumps().encode())
        self._journal.append({"type": "plan"})
        super().set_plan(plan)

    def _flush_text(self) -> None:
        text, self._pending_text = "".join(self._pending_text), []
        self._last_text = monotonic()
        if text:
            self._journal.append({"type": "text", "text": text})

    # ---- the images

    def image(self, segment_id: str) -> Image.Image:
        rendering = self._current(segment_id)
        image, _ = read_picture(self._checked_bytes(rendering), rendering.file)
        return image

    def path(self, segment_id: str) -> Path | None:
        return self.folder / self._current(segment_id).file

    def keep(self, rendering: Rendering, image: Image.Image, *, texts: Mapping[str, str] | None = None) -> Rendering:
        self._check_writable()
        data = encode_png(image, texts)
        # Another drawing for the same key gets a file of its own: the journal vouches for the content of the earlier one.
        earlier = self.renderings.get(rendering.segment_id)
        is_second = earlier is not None and earlier.key == rendering.key and earlier.image_key != rendering.image_key
        file = f"images/{rendering.segment_id}-{(rendering.image_key if is_second else rendering.key)[:12]}.png"
        rendering = replace(rendering, file=file, file_hash=hashlib.sha256(data).hexdigest())
        write_whole(self.folder / file, data)
        self._journal.append(rendering_to_json(rendering))
        self._accept(rendering)
        return rendering

    def reuse(self, rendering: Rendering, segment_id: str) -> Rendering:
        rendering = replace(rendering, segment_id=segment_id)
        if self.renderings.get(segment_id) != rendering:
            self._journal.append(rendering_to_json(rendering))
            self._accept(rendering)
        return rendering

    def note_failure(self, segment_id: str, message: str) -> None:
        super().note_failure(segment_id, message)
        self._journal.append({"type": "failed", "segment": segment_id, "message": message[:2000]})

    def finish(self) -> None:
        if not self.finished:
            self._journal.append({"type": "finished"})
            self.finished = True

    def _check_writable(self) -> None:
        if isinstance(self._journal, JournalCopy):
            raise StoryError(f"{self.folder} was opened for looking only; open it for writing to change it")

    # ---- reading what is there

    def _replay(self, records: list[dict]) -> None:
        if records and records[0].get("type") == "story":
            version = records[0].get("version")
            if version != JOURNAL_VERSION:
                raise StoryError(
                    f"{self.folder} was written by version {str(version)[:20]} of the story format; this program reads "
                    f"{JOURNAL_VERSION}. Update it"
                )
        for record in records:
            try:
                self._replay_one(record)
            except (ValueError, StoryError) as error:
                self.warnings.append(f"story.jsonl: {error}; passed over")

    def _replay_one(self, record: dict) -> None:
        kind = record.get("type")
        if kind == "text":
            if not isinstance(record.get("text"), str):
                raise ValueError("a text entry without text")
            self._unfinished.append(record["text"])
        elif kind == "round":
            Story.end_round(self)
        elif kind == "rewrite":
            self._unfinished = []
        elif kind == "image":
            self.finished = False
            rendering = rendering_from_json(record)
            self._checked_bytes(rendering)
            self._accept(rendering)
        elif kind == "failed":
            segment_id, message = record.get("segment"), record.get("message")
            if isinstance(segment_id, str) and SEGMENT_ID.match(segment_id) and isinstance(message, str):
                self.failures[segment_id] = message[:2000]
                self.finished = False
        elif kind == "plan":
            self.finished = False
        elif kind == "finished":
            self.finished = True
        elif kind != "story":
            raise ValueError(f"an entry of unknown type {str(kind)[:40]!r}")

    def _checked_bytes(self, rendering: Rendering) -> bytes:
        data = read_inside(self.folder, rendering.file)
        if hashlib.sha256(data).hexdigest() != rendering.file_hash:
            raise StoryError(f"{rendering.file} is not the image that was drawn (its content has changed)")
        return data


def slug(text: str) -> str:
    """A folder name for a story: small plain letters and dashes, 1 to 48 of them, valid on every system."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48].strip("-") or "story"
    return f"story-{name}" if re.fullmatch(r"con|prn|aux|nul|(com|lpt)[0-9]", name) else name


def fresh_folder(parent: str | Path, name: str) -> Path:
    """`parent/name`, or with a number behind when that is there already."""
    path, number = Path(parent) / name, 2
    while path.exists():
        path = Path(parent) / f"{name}-{number}"
        number += 1
    return path


def _check_free(path: Path) -> None:
    """StoryError unless a story can be begun here; what a crash before the first journal entry left is no obstacle."""
    if (path / "story.jsonl").exists():
        raise StoryError(f"{path} holds a story already; go on with it by 'weaver resume', or choose another folder")
    taken = [name for name in ("story.jsonl", "plan.json") if (path / name).is_symlink() or (path / name).exists()]
    for name in ("images", "references"):
        if (path / name).is_symlink() or ((path / name).exists() and not (path / name).is_dir()):
            taken.append(name)
    if (path / "images").is_dir() and any((path / "images").iterdir()):
        taken.append("images")
    request = path / "request.json"
    if request.is_symlink() or (request.exists() and b'"weaver-request"' not in request.read_bytes()[:200]):
        taken.append("request.json")
    if taken:
        raise StoryError(f"{path} holds {', '.join(taken)} of something else; choose another folder")
