"""Reading what sources list: pictures into the store, videos into frames that are told apart by clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.data_engine.record import Dropped, Outcome, Record, Rejected
from training.data_engine.stages import Stage
from weaver_core.errors import InputError
from weaver_core.pictures import read_picture


class Read(Stage):
    """The first stage of every build. Topics and requests pass as they are."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        most_side: int = 1536  # pixels; larger pictures and frames are kept smaller

    def one(self, record: Record) -> Iterator[Outcome]:
        if record.fields["kind"] not in ("folder", "video"):
            yield record.without("kind")
        elif record.fields["kind"] == "folder":
            yield self._picture(record)
        else:
            yield from self._frames(record)

    def _picture(self, record: Record) -> Record:
        try:
            image, _ = read_picture(record.fields["path"], record.id)
        except InputError as error:
            raise Rejected("unreadable", str(error)) from None
        return record.without("kind", "path", "stamp", "source").with_fields(picture=self._kept(image))

    def _frames(self, record: Record) -> Iterator[Outcome]:
        """Frames at even distances. A clip ends where the colours change at once."""
        source = self.tools.recipe.sources[record.fields["source"]]
        made = record.without("kind", "path", "stamp", "source")
        before, clip, number = None, 0, 0
        try:
            for time_s, image in _decoded(record.fields["path"], source.every_s, source.most_frames):
                colours = _colours(image)
                if before is not None and np.minimum(before, colours).sum() < source.cut:
                    clip += 1
                before = colours
                yield made.child(f"{number:05}", picture=self._kept(image), time_s=round(time_s, 3), group=f"{record.id}#{clip}")
                number += 1
        except _Unreadable as error:
            yield Dropped(record=record, reason="unreadable", detail=str(error))
            return
        if not number:
            yield Dropped(record=record, reason="unreadable", detail="the video holds no frames")

    def _kept(self, image: Image.Image) -> str:
        if max(image.size) > self.settings.most_side:
            image.thumbnail((self.settings.most_side, self.settings.most_side), Image.Resampling.LANCZOS)
        return self.tools.store.put(image)


class _Unreadable(Exception):
    """A file that is no video, or broken."""


def _decoded(path: str, every_s: float, most: int) -> Iterator[tuple[float, Image.Image]]:
    """(seconds, RGB picture) of a video, `every_s` apart."""
    try:
        import av
    except ImportError:
        raise InputError('to read videos needs av: pip install "wan-weaver[data]"') from None
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise _Unreadable("the file has no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            wanted, count = 0.0, 0
            for frame in container.decode(stream):
                time_s = float(frame.time or 0.0)
                if time_s + 1e-6 < wanted:
                    continue
                yield time_s, frame.to_image().convert("RGB")
                count += 1
                if count >= most:
                    return
                wanted = time_s + every_s
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _Unreadable(f"{getattr(error, 'strerror', None) or error}") from None


def _colours(image: Image.Image) -> np.ndarray:
    """Shares (512,) of 8 x 8 x 8 colours; the overlap of two is 1 for the same colours."""
    pixels = np.asarray(image.resize((64, 64), Image.Resampling.BOX)).reshape(-1, 3) >> 5
    return np.bincount(pixels @ np.array([64, 8, 1]), minlength=512) / len(pixels)
