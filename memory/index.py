"""A full-text index over a folder of documents, cached on disk and opened by many processes at once.

An index is one SQLite file, named by the fingerprint of the files it was built from; it is written beside its
place, moved there whole, and never changed again, so readers need no locks. Knows no models and no tools.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import apsw

from retinue.memory.documents import READABLE, Document, Skipped, Source, find_sources, read_sources
from retinue.memory.passages import Passage, split_passages
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.lexical import content_words, find_words, fold, stem

FORMAT = 1
"""Part of the fingerprint: raise it when extraction, passages or schema change."""
MAX_RESULTS = 100
MAX_TERMS = 48
BUILD_WAIT_S = 120.0
"""How long to wait for another process that builds the same index before building it too."""
KEPT = 2
"""Indexes of one folder that stay in the cache."""

_SCHEMA = """
CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, title TEXT NOT NULL,
                        text TEXT NOT NULL);
CREATE TABLE passages (number INTEGER PRIMARY KEY, document INTEGER NOT NULL, start INTEGER NOT NULL,
                       stop INTEGER NOT NULL, trail TEXT NOT NULL);
CREATE TABLE skipped (source TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE common (term TEXT PRIMARY KEY);
CREATE VIRTUAL TABLE words USING fts5 (name, trail, body, tokenize = 'porter unicode61 remove_diacritics 2');
INSERT INTO words (words, rank) VALUES ('rank', 'bm25(3.0, 1.5, 1.0)');
"""
_FINISH = f"""
CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, words, row);
INSERT INTO common SELECT term FROM vocabulary WHERE doc > 0.5 * (SELECT count(*) FROM passages);
DROP TABLE temp.vocabulary;
INSERT INTO words (words) VALUES ('optimize');
PRAGMA user_version = {FORMAT};
"""
_SEARCH = """
SELECT d.id, d.title, p.start, p.stop, p.trail, w.body, -w.rank
FROM (SELECT rowid, rank, body FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?) AS w
JOIN passages AS p ON p.number = w.rowid JOIN documents AS d ON d.number = p.document
ORDER BY w.rank, w.rowid
"""


class Corpus:
    """The documents of a folder as they were when it was opened. Safe to share between threads."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.path = path
        self._local = threading.local()
        self._opened: list[apsw.Connection] = []
        self._guard = threading.Lock()
        self._common = frozenset(term for (term,) in self._connection().execute("SELECT term FROM common"))

    def search(self, query: str, k: int = 5) -> list[Passage]:
        """The k passages that match most of the query's words, best first; none when no word matches.

        Raises InvalidInput when k is not within 1 ... MAX_RESULTS.
        """
        if not 1 <= k <= MAX_RESULTS:
            raise InvalidInput(f"k is {k}; ask for 1 to {MAX_RESULTS} passages")
        expression = match_expression(query, self._common)
        if not expression:
            return []
        rows = self._connection().execute(_SEARCH, (expression, k))
        return [
            Passage(
                document_id=row[0], title=row[1], start=row[2], end=row[3],
                trail=tuple(json.loads(row[4])), text=row[5], score=row[6],
            )
            for row in rows
        ]  # fmt: skip

    def read(self, document_id: str) -> Document:
        """One whole document. Raises UnknownName with close matches when there is none of that id."""
        query = "SELECT id, title, text FROM documents WHERE id = ?"
        for row in self._connection().execute(query, (document_id,)):
            return Document(id=row[0], title=row[1], text=row[2])
        ids = [entry for entry, _ in self.titles()]
        close = difflib.get_close_matches(document_id[:200], ids, n=3, cutoff=0.4)
        hint = f"close matches: {', '.join(close)}" if close else f"search first; the first is {ids[0]!r}"
        raise UnknownName(f"there is no document {document_id[:200]!r}; {hint}")

    def titles(self) -> list[tuple[str, str]]:
        """(id, title) of every document, in the order of the folder."""
        return list(self._connection().execute("SELECT id, title FROM documents ORDER BY number"))

    def documents(self) -> Iterator[Document]:
        """Every document, in the order of the folder, read one at a time."""
        for entry, _ in self.titles():
            yield self.read(entry)

    def skipped(self) -> list[Skipped]:
        """Files and rows that gave no document, each with its reason."""
        rows = self._connection().execute("SELECT source, reason FROM skipped ORDER BY rowid")
        return [Skipped(source=source, reason=reason) for source, reason in rows]

    def close(self) -> None:
        """Close the connections of all threads; the corpus cannot be used afterwards."""
        with self._guard:
            for connection in self._opened:
                connection.close()
            self._opened.clear()

    def _connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _open_index(self.path)
            with self._guard:
                self._opened.append(connection)
            self._local.connection = connection
        return connection


def open_corpus(folder: Path, cache: Path) -> Corpus:
    """The folder's documents, indexed in the cache folder unless an index of these very files is there.

    Several processes may call this at once: one builds, the others wait for it. Raises InvalidInput when the
    folder is none, when it holds no readable document, or when the cache cannot be written.
    """
    folder = folder.resolve()
    sources = find_sources(folder)
    path = cache / f"{_digest(str(folder))[:12]}-{_fingerprint(sources)}.sqlite3"
    if path.exists():
        try:
            return Corpus(folder, path)
        except (apsw.NotADBError, apsw.CorruptError, InvalidInput):
            path.unlink(missing_ok=True)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _only_builder(path):
            if not path.exists():
                _build_index(folder, sources, path)
    except OSError as error:
        raise InvalidInput(f"index cache {str(cache)!r} cannot be written: {error.strerror or error}") from error
    _drop_old(path)
    return Corpus(folder, path)


def match_expression(query: str, common: frozenset[str] = frozenset()) -> str:
    """The FTS5 expression of a question: any of its content words, and any two that stand together.

    `common` are stems that half of all passages hold: BM25 gives them no weight, so they only cost time and
    are left out when other words remain. Empty when the query has no word at all.
    """
    words = content_words(query) or [fold(word.group()) for word in find_words(query)]
    words = words[:MAX_TERMS]
    telling = [word for word in words if stem(word) not in common] or words
    pairs = [f'"{one} {two}"' for one, two in pairwise(words)]
    return " OR ".join(dict.fromkeys([*(f'"{word}"' for word in telling), *pairs]))


def _open_index(path: Path) -> apsw.Connection:
    uri = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
    connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    connection.execute("PRAGMA mmap_size = 268435456")
    if connection.pragma("user_version") != FORMAT:
        connection.close()
        raise InvalidInput(f"index {str(path)!r} has another format; delete it and it is built again")
    return connection


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _fingerprint(sources: list[Source]) -> str:
    files = [(source.name, source.size, source.mtime_ns) for source in sources]
    return _digest(json.dumps([FORMAT, files]))[:24]


@contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    """Hold the lock of this index; give up waiting when the index appears or after BUILD_WAIT_S."""
    deadline = time.monotonic() + BUILD_WAIT_S
    with path.with_suffix(".lock").open("a") as lock:
        while not path.exists() and time.monotonic() < deadline:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
        yield


def _build_index(folder: Path, sources: list[Source], path: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".building", dir=path.parent)
    os.close(handle)
    try:
        connection = apsw.Connection(name)
        connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        with connection:
            connection.execute(_SCHEMA)
            count, reasons = _fill(connection, sources)
        connection.execute(_FINISH)
        connection.close()
        if not count:
            raise InvalidInput(_nothing_left(folder, reasons))
        with Path(name).open("rb") as built:
            os.fsync(built.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _fill(connection: apsw.Connection, sources: list[Source]) -> tuple[int, list[Skipped]]:
    number, skipped = 0, list[Skipped]()
    for item in read_sources(sources):
        if isinstance(item, Skipped):
            connection.execute("INSERT INTO skipped VALUES (?, ?)", (item.source, item.reason))
            skipped.append(item)
            continue
        number += 1
        connection.execute("INSERT INTO documents VALUES (?, ?, ?, ?)", (number, item.id, item.title, item.text))
        name = item.title if item.id in item.title else f"{item.title} {item.id}"
        for piece in split_passages(item.text):
            row = (number, piece.start, piece.end, json.dumps(piece.trail))
            connection.execute("INSERT INTO passages (document, start, stop, trail) VALUES (?, ?, ?, ?)", row)
            words = (connection.last_insert_rowid(), name, " ".join(piece.trail), item.text[piece.start : piece.end])
            connection.execute("INSERT INTO words (rowid, name, trail, body) VALUES (?, ?, ?, ?)", words)
    return number, skipped


def _nothing_left(folder: Path, skipped: list[Skipped]) -> str:
    if not skipped:
        return f"document folder {str(folder)!r} holds no documents; it needs files like {', '.join(READABLE)}"
    shown = "; ".join(f"{entry.source}: {entry.reason}" for entry in skipped[:3])
    return f"document folder {str(folder)!r} holds no readable document, {len(skipped)} skipped: {shown}"


def _drop_old(path: Path) -> None:
    """Forget older indexes of the same folder; whoever has one open keeps it until it closes."""
    siblings = [entry for entry in path.parent.glob(f"{path.name.split('-')[0]}-*.sqlite3") if entry != path]
    siblings.sort(key=_age, reverse=True)
    for entry in siblings[KEPT - 1 :]:
        entry.unlink(missing_ok=True)
        entry.with_suffix(".lock").unlink(missing_ok=True)


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
