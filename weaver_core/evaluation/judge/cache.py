"""Replies of judges, kept by the content of what was asked: the same question is never paid for twice.

SQLite, so that a killed program leaves a whole file. Images are told by the hash of the bytes that are sent; which bytes
those are for a file is remembered too, so that a repeated run opens no image.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

from ...errors import InputError
from .client import Reply

SCHEMA = 1


class ReplyCache:
    """Usable from several threads. `path` None = in memory."""

    def __init__(self, path: Path | None = None):
        self.path = path
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, timeout=60)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
            self._db.execute("CREATE TABLE IF NOT EXISTS images (source TEXT PRIMARY KEY, sent TEXT NOT NULL)")
            self._db.commit()
        except sqlite3.Error as error:
            raise InputError(f"{path} cannot be used as a cache ({error}); delete it, it is only a cache") from None

    def reply(self, key: str) -> Reply | None:
        found = self._get("SELECT reply FROM replies WHERE key = ?", key)
        try:
            return Reply(**json.loads(found)) if found is not None else None
        except (ValueError, TypeError):
            return None  # damaged: asked again

    def keep_reply(self, key: str, reply: Reply) -> None:
        value = {name: getattr(reply, name) for name in Reply.__dataclass_fields__}
        self._put("INSERT OR REPLACE INTO replies VALUES (?, ?)", key, json.dumps(value, ensure_ascii=False))

    def sent_image(self, source: str) -> str | None:
        """The hash of what is sent for an image file; `source` = its hash and the image profile."""
        return self._get("SELECT sent FROM images WHERE source = ?", source)

    def keep_sent_image(self, source: str, sent: str) -> None:
        self._put("INSERT OR REPLACE INTO images VALUES (?, ?)", source, sent)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _get(self, query: str, key: str) -> str | None:
        with self._lock:
            try:
                row = self._db.execute(query, (key,)).fetchone()
            except sqlite3.Error as error:
                raise InputError(f"{self.path} cannot be used as a cache ({error}); delete it, it is only a cache") from None
        return row[0] if row else None

    def _put(self, query: str, key: str, value: str) -> None:
        with self._lock:
            try:
                self._db.execute(query, (key, value))
                self._db.commit()
            except sqlite3.Error as error:
                raise InputError(f"{self.path} cannot be written ({error}); free some space, or delete it") from None
