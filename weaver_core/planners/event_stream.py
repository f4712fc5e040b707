"""Server-sent events out of bytes as they come (WHATWG HTML, section 9.2), and what stands between them."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

MAX_LINE = 2 * 2**20  # characters without an end of line; no server of texts sends so many
MAX_STRAY = 64 * 1024

_LINE_END = re.compile(r"\r\n|\n|\r")


class EventStreamError(ValueError):
    """The stream is none that can be read."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    data: str
    id: str


class EventStream:
    """`feed(bytes)` and `close()` return the events that are complete. Bytes that are no UTF-8 become U+FFFD.

    `stray` holds the lines that belong to no event: an answer that is no event stream at all, such as a page.
    """

    def __init__(self):
        self.stray = ""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._buffer = ""
        self._searched = 0  # characters of the buffer in which no line ends
        self._data: list[str] = []
        self._id = ""

    def feed(self, piece: bytes) -> list[ServerEvent]:
        self._buffer += self._decoder.decode(piece)
        events: list[ServerEvent] = []
        position = 0
        for end in _LINE_END.finditer(self._buffer, self._searched):
            if end.group() == "\r" and end.end() == len(self._buffer):
                break  # the other half of \r\n may follow
            self._line(self._buffer[position:end.start()], events)
            position = end.end()
        self._buffer = self._buffer[position:]
        self._searched = max(0, len(self._buffer) - 1)
        if len(self._buffer) > MAX_LINE:
            raise EventStreamError(f"a line has more than {MAX_LINE:,} characters")
        return events

    def close(self) -> list[ServerEvent]:
        """The last events. One that the end cut off counts too: it is whole, or its JSON will not be."""
        events: list[ServerEvent] = []
        for line in _LINE_END.split(self._buffer + self._decoder.decode(b"", True)):
            self._line(line, events)
        self._buffer = ""
        self._line("", events)
        return events

    def _line(self, line: str, events: list[ServerEvent]) -> None:
        name, colon, value = line.partition(":")
        if not line:
            if self._data:
                events.append(ServerEvent("\n".join(self._data), self._id))
            self._data, self._id = [], ""
        elif name == "data":
            self._data.append(value.removeprefix(" "))
        elif name == "id" and colon:
            self._id = value.removeprefix(" ")
        elif name not in ("", "event", "retry") and len(self.stray) < MAX_STRAY:
            self.stray += line[:MAX_STRAY] + "\n"
