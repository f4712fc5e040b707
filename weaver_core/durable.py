"""Files that survive a crash at any moment: whole files that appear at once, and a journal that only grows."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

from .errors import StoryError

try:
    import fcntl
except ImportError:  # Windows: two programs in one folder are not told apart there
    fcntl = None

MAX_JOURNAL = 512 * 2**20
_NO_SPACE = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def write_whole(path: Path, data: bytes) -> None:
    """Writes the file so that at every moment either the old content or all of the new is there.

    Temporary name, fsync, rename, fsync of the folder. StoryError when it cannot be; no temporary file is left then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(error, path, len(data)) from None


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    if os.name == "nt":
        return  # folders cannot be opened there; NTFS journals names by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(error: OSError, path: Path, num_bytes: int) -> StoryError:
    if error.errno in _NO_SPACE:
        return StoryError(
            f"the disk is full: {path.name} needs {max(1, num_bytes >> 10)} KB. Everything finished before is kept in "
            f"{path.parent}; free some space and start it again (a story: 'weaver resume')"
        )
    return StoryError(f"{path} cannot be written: {error.strerror or error}")


class Journal:
    """An append-only file of JSON objects, one a line.

    A line counts once its newline is on disk. Opening it for writing cuts off a torn last line; lines damaged
    otherwise are passed over and counted in `num_damaged`.
    """

    def __init__(self, path: Path, *, create: bool):
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            self._file = os.open(path, flags | (os.O_CREAT | os.O_EXCL if create else 0), 0o666)
        except OSError as error:
            raise StoryError(f"{path} cannot be opened: {error.strerror or error}") from None
        try:
            self._lock()
            self.records, self.num_damaged, end = self._read()
            size = os.fstat(self._file).st_size
            if size > end:
                os.ftruncate(self._file, end)
                os.fsync(self._file)
            self._size = end
            if create:
                sync_folder(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, record: dict) -> None:
        """Adds a record; when this returns, it is on disk. StoryError (and the journal as before) when it cannot be."""
        if self._file is None:
            raise RuntimeError("the journal is closed")
        line = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except BaseException as error:  # Ctrl-C too: half a line would spoil the next one
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            if isinstance(error, OSError):
                raise write_error(error, self.path, len(line)) from None
            raise
        self._size += len(line)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)  # also gives up the lock
            self._file = None

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoryError(
                f"{self.path.parent} is in use by another program; wait until it has finished, or use another folder"
            ) from None
        except OSError:
            pass  # some network file systems have no locks

    def _read(self) -> tuple[list[dict], int, int]:
        """The records, the number of damaged lines, and where the last complete line ends."""
        size = os.fstat(self._file).st_size
        _check_journal_size(self.path, size)
        return read_records(_read_all(self._file, size))


class JournalCopy:
    """What a journal holds now, for looking only: takes no lock, changes nothing, works on read-only disks."""

    def __init__(self, path: Path):
        self.path = path
        try:
            _check_journal_size(path, path.stat().st_size)
            self.records, self.num_damaged, _ = read_records(path.read_bytes())
        except OSError as error:
            raise StoryError(f"{path} cannot be read: {error.strerror or error}") from None

    def append(self, record: dict) -> None:
        raise StoryError(f"{self.path.parent} was opened for looking only; open it for writing to change it")

    def close(self) -> None:
        pass


def _check_journal_size(path: Path, size: int) -> None:
    if size > MAX_JOURNAL:
        raise StoryError(f"{path} has {size >> 20} MB; no story needs more than {MAX_JOURNAL >> 20} MB")


def read_records(data: bytes) -> tuple[list[dict], int, int]:
    """The records in a journal's bytes, the number of damaged lines, and where the last complete line ends."""
    end = data.rfind(b"\n") + 1
    records: list[dict] = []
    num_damaged = 0
    for line in data[:end].split(b"\n")[:-1]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            num_damaged += 1
    return records, num_damaged, end


def _read_all(descriptor: int, size: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    parts = []
    while size > 0:
        part = os.read(descriptor, min(size, 2**24))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
