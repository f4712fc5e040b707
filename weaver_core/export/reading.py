"""The plan inside an exported file. The file may come from a stranger: it is bounded, and nothing of it is run or unpacked.

Of an archive one entry with a known name is read, up to a limit that its own headers have no say in; of a PDF one
attachment; of HTML and Markdown the block of data. What is found is checked as every plan is.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from ..errors import InputError, PlanError
from ..plan import Plan
from .markdown import COMMENT

MAX_FILE_BYTES = 1 << 30
MAX_TEXT_BYTES = 256 << 20  # HTML and Markdown are read whole
MAX_PDF_BYTES = 256 << 20
MAX_PLAN_BYTES = 16 << 20  # a plan of 32 pages has 30 KB
MAX_DIRECTORY_BYTES = 2 << 20  # an archive's list of files: 60 bytes a file, a few files a page
_END, _END_BYTES, _END_SEARCHED = b"PK\x05\x06", 22, 22 + 65_535  # the record at the end of a ZIP file
_BIG_END, _BIG_END_BYTES = b"PK\x06\x07", 20  # what stands before it when the list has no 32-bit size

_HTML = re.compile(rb'<script type="application/json" id="weaver-plan">([^<]*)</script>')
_MARKDOWN = re.compile(rb"<!-- " + COMMENT.encode() + rb"\r?\n([^<>]*)\r?\n-->")


def read_plan(path: str | Path) -> Plan:
    """The plan of a file that `export_story` has written, told by its content.

    InputError when it is missing, too large, damaged, or of another kind; PlanError when what it holds is no plan.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            _check_size(path, size, MAX_FILE_BYTES)
            start = file.read(1024)
            if start.startswith(b"PK"):
                data = _from_archive(path)
            elif b"%PDF-" in start:
                _check_size(path, size, MAX_PDF_BYTES)
                data = _from_pdf(path)
            else:
                _check_size(path, size, MAX_TEXT_BYTES)
                data = _from_text(path, start + file.read(MAX_TEXT_BYTES))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return Plan.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: its plan is not text in UTF-8; the file is damaged") from None
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from None


def _from_text(path: Path, data: bytes) -> bytes:
    found = _HTML.search(data) or _MARKDOWN.search(data)
    if not found:
        raise InputError(f"{path}: no plan in it; html, md, pdf, epub and cbz files that Weaver has exported carry one")
    _check_plan_size(path, len(found[1]))
    return found[1]


def _from_archive(path: Path) -> bytes:
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            names = ("META-INF/plan.json", "plan.json")
            entry = next((entry for name in names for entry in archive.infolist() if entry.filename == name), None)
            if entry is None:
                raise InputError(f"{path}: no plan.json inside; EPUB and CBZ files that Weaver has exported have one")
            if entry.flag_bits & 0x1:
                raise InputError(f"{path}: plan.json is encrypted; Weaver writes it open")
            _check_plan_size(path, entry.file_size)
            with archive.open(entry) as file:
                data = file.read(MAX_PLAN_BYTES + 1)  # never more, whatever the headers say
            _check_plan_size(path, len(data))
            return data
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: the archive is damaged ({error}); export it again") from None


def _check_directory(path: Path) -> None:
    """Refuses an archive whose list of files is too long, before `zipfile` makes an object of every entry."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_SEARCHED))
        tail = file.read(_END_SEARCHED)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise zipfile.BadZipFile("its end is missing")
    num_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    if num_bytes > MAX_DIRECTORY_BYTES or tail[max(0, at - _BIG_END_BYTES) :].startswith(_BIG_END):
        raise InputError(f"{path}: its list of files is longer than that of any book (at most {MAX_DIRECTORY_BYTES >> 20} MB)")


def _from_pdf(path: Path) -> bytes:
    try:
        from pypdf import PdfReader
    except ImportError:
        raise ImportError('reading a PDF needs pypdf: pip install "wan-weaver[export]"') from None
    try:
        reader = PdfReader(path)
        found = next((item for item in reader.attachment_list if item.name == "plan.json"), None)
        data = None if found is None else bytes(found.content)
    except Exception as error:  # a damaged PDF fails in any way; pypdf bounds what a stream may unpack to
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{path}: the PDF is damaged ({reason}); export it again") from None
    if data is None:
        raise InputError(f"{path}: no plan.json attached; PDF files that Weaver has exported have one")
    _check_plan_size(path, len(data))
    return data


def _check_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise InputError(f"{path}: {size >> 20} MB; at most {limit >> 20} MB are read")


def _check_plan_size(path: Path, size: int) -> None:
    if size > MAX_PLAN_BYTES:
        raise InputError(f"{path}: its plan has {size >> 20} MB; no plan has more than {MAX_PLAN_BYTES >> 20} MB")
