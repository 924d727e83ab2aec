"""The documents of a user's folder: which files count, and what becomes of one that cannot be read.

Owns ids, titles and extracted text. A document's text is what every span in Retinue counts characters of;
for Markdown and plain text it is the file itself. Knows no index and no ranking.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retinue.memory.extraction import Extract, extract_html, extract_pdf
from retinue.runs.contracts import Frozen
from retinue.runs.errors import InvalidInput

MAX_FILE_BYTES = 256 * 1024 * 1024
"""A larger file is skipped."""

ROW_FILES = frozenset({"docs.jsonl", "documents.jsonl"})
"""Files of one document a line; other JSONL files (questions, answers) are no documents."""


class Document(Frozen):
    """One text; `id` is the path inside the folder, or the `id` of a `docs.jsonl` row."""

    id: str
    title: str
    text: str


class Skipped(Frozen):
    """A file, or a row of one (`docs.jsonl:12`), that gave no document."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file that should hold documents. `size` in bytes, `mtime_ns` in nanoseconds since 1970."""

    path: Path
    name: str
    size: int
    mtime_ns: int


class _Unreadable(Exception):
    """Why one file or row gives no document."""


def find_sources(folder: Path) -> list[Source]:
    """The files of a folder that may hold documents, by name; hidden ones and links out of it do not count.

    Raises InvalidInput when the folder is none or cannot be listed.
    """
    if not folder.is_dir():
        raise InvalidInput(f"document folder {str(folder)!r} is not a folder; name one that holds documents")
    root = folder.resolve()

    def refuse(error: OSError) -> None:
        raise InvalidInput(f"document folder {error.filename!r} cannot be listed: {error.strerror}") from error

    sources = []
    for parent, folders, files in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(parent, name)
            if _is_document(path) and path.resolve().is_relative_to(root):
                status = path.stat()
                relative = path.relative_to(root).as_posix()
                sources.append(Source(path, relative, status.st_size, status.st_mtime_ns))
    return sorted(sources, key=lambda source: source.name)


def read_sources(sources: list[Source]) -> Iterator[Document | Skipped]:
    """Every document of the files, and a `Skipped` for whatever could not be read; ids are unique."""
    seen: dict[str, str] = {}
    for source in sources:
        for item in _read_source(source):
            if isinstance(item, Document):
                if item.id in seen:
                    reason = f"document id {item.id!r} is already used by {seen[item.id]}"
                    yield Skipped(source=source.name, reason=reason)
                    continue
                seen[item.id] = source.name
            yield item


def _is_document(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.name in ROW_FILES or path.suffix.lower() in _READERS


def _read_source(source: Source) -> Iterator[Document | Skipped]:
    try:
        if source.size > MAX_FILE_BYTES:
            raise _Unreadable(f"{source.size} bytes are more than the {MAX_FILE_BYTES} that are read")
        data = source.path.read_bytes()
        if source.path.name in ROW_FILES:
            yield from _read_rows(source.name, data)
        else:
            extract = _READERS[source.path.suffix.lower()](data)
            title = extract.title or Path(source.name).stem
            yield Document(id=source.name, title=title, text=_check_text(extract.text))
    except (_Unreadable, OSError, ValueError) as error:
        yield Skipped(source=source.name, reason=str(error) or type(error).__name__)


def _read_rows(name: str, data: bytes) -> Iterator[Document | Skipped]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                yield _read_row(line)
            except (_Unreadable, ValueError, RecursionError) as error:
                yield Skipped(source=f"{name}:{number}", reason=str(error))


def _read_row(line: bytes) -> Document:
    row = json.loads(_decode(line))
    if not isinstance(row, dict):
        raise _Unreadable(f"the row is a JSON {type(row).__name__}, not an object with id, title and text")
    for field in ("id", "text"):
        if not isinstance(row.get(field), str) or not row[field]:
            raise _Unreadable(f"field {field!r} must be a text that is not empty, not {row.get(field)!r:.60}")
    title = row.get("title")
    title = title if isinstance(title, str) and title.strip() else row["id"]
    return Document(id=_check_text(row["id"]), title=_check_text(title), text=_check_text(row["text"]))


def _check_text(text: str) -> str:
    if not text.strip():
        raise _Unreadable("it holds no text")
    if "\0" in text:
        raise _Unreadable("it holds NUL characters, so it is no text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Unreadable(f"character {error.start} is half a surrogate pair") from error
    return text


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unreadable(f"not UTF-8 at byte {error.start}; convert it to UTF-8") from error


_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*\r?$", re.MULTILINE)
_FIRST_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*\r?$", re.MULTILINE)


def _read_markdown(data: bytes) -> Extract:
    text = _decode(data)
    front = _FRONT_MATTER.match(text)
    titled = _FRONT_TITLE.search(front.group(1)) if front else None
    if titled:
        return Extract(titled.group(2), text)
    heading = _FIRST_HEADING.search(text)
    return Extract(heading.group(1).replace("`", "") if heading else "", text)


def _read_text(data: bytes) -> Extract:
    return Extract("", _decode(data))


def _read_html(data: bytes) -> Extract:
    return extract_html(_decode(data))


_READERS: dict[str, Callable[[bytes], Extract]] = {
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".txt": _read_text,
    ".text": _read_text,
    ".rst": _read_text,
    ".html": _read_html,
    ".htm": _read_html,
    ".xhtml": _read_html,
    ".pdf": extract_pdf,
}

READABLE = (*sorted(_READERS), *sorted(ROW_FILES))
"""File endings and names that hold documents."""
