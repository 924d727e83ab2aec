"""From the journal's frames to rows, and the loop that does it: nothing lost, nothing twice.

Owns the order of things: read frames, find the states of their runs, turn entries into rows, write rows and
cursor in one transaction. Knows the journal only as a `Source`.

A cursor names the store's incarnation, its newest projected frame and that frame's hash. When the store
holds something else there, the file is set aside and rebuilt from the journal's beginning. A file that
cannot be read is treated likewise; a file that another process has open is not touched.
"""

from __future__ import annotations

import logging
import shutil
from collections import defaultdict
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from retinue.runs.errors import StoreError
from retinue.runs.journal import ENTRIES, AnyEntry, Frame, Intent
from retinue.traces import lifecycle, records, steps
from retinue.traces.file import NAME, Cursor, Damaged, FileSettings, TraceFile, connect
from retinue.traces.redaction import Redactor
from retinue.traces.rows import Page, Rows
from retinue.traces.states import Loaded, Open, States, load
from retinue.traces.threads import in_thread

log = logging.getLogger(__name__)


class Source(Protocol):
    """The journal as the projection reads it."""

    async def incarnation(self) -> str:
        """Id of the store: another one after a restore from a backup."""
        ...

    async def tail(self, after_seq: int, limit: int) -> list[Frame]:
        """Frames of all runs in commit order after `after_seq`, content opened (None: its key is gone).

        At most `limit`; fewer when they are big. None at all only when there is nothing more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the tables are: newest frame, when its last entry was written (Unix ns), whether more may wait.

    `behind` says that the last projection found frames; more may have come since.
    """

    seq: int
    at_ns: int
    behind: bool


def read_entry(states: States, frame: Frame, ordinal: int, entry: AnyEntry, rows: Rows) -> None:
    """Turn one entry into rows and move its run's state on."""
    if entry.kind == "accepted":
        states.put(lifecycle.begin(entry))
    page = Page(states.get(frame.run_id, frame.tenant_id), rows, entry.at, (frame.seq, ordinal))
    _READERS[entry.kind](page, entry)
    if entry.kind == "finished":
        states.end(frame.run_id)


def read_frames(states: States, frames: list[Frame]) -> Rows:
    """The rows of frames, by table. The states of their runs must have been loaded."""
    rows: Rows = defaultdict(list)
    for frame in frames:
        for ordinal, entry in enumerate(frame.entries):
            read_entry(states, frame, ordinal, entry, rows)
    return rows


_READERS: dict[str, Any] = {
    "accepted": lifecycle.accept,
    "leased": lifecycle.lease,
    "intent": steps.begin_step,
    "outcome": steps.end_step,
    "attempt": steps.try_again,
    "record": records.record,
    "checkpoint": lifecycle.checkpoint,
    "parked": lifecycle.park,
    "finished": lifecycle.finish,
    "retried": lifecycle.retry,
}


def frame_digest(frame: Frame) -> str:
    """Hash of a frame's place and facts; content is left out, since its key may be destroyed."""
    facts = ENTRIES.dump_python(frame.entries)
    text = f"{frame.seq} {frame.run_id} {frame.position} {frame.epoch} {facts!r}"
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


class Projector:
    """Projects a source into a file in `folder`. One at a time; all DuckDB work happens in `thread`.

    Guarantee: rows and cursor are one transaction, so that a death at any moment leaves the tables as they
    were after some batch, and the next projection goes on there. Failure case: after a refused write the file
    is closed, and the next projection opens it and goes on where its ledger ends.
    """

    def __init__(
        self, source: Source, folder: Path, redactor: Redactor, settings: FileSettings, thread: Executor
    ) -> None:
        self._source = source
        self._path = folder / NAME
        self._redactor = redactor
        self._settings = settings
        self._thread = thread
        self._states = States()
        self._file: TraceFile | None = None
        self._cursor = Cursor("", 0, "")
        self._behind = False

    @property
    def file(self) -> TraceFile:
        """The open file. StoreError when it is not open."""
        if self._file is None:
            raise StoreError(f"the trace tables {self._path} are not open")
        return self._file

    @property
    def incarnation(self) -> str:
        """The store that the tables are made from; empty before `open`."""
        return self._cursor.incarnation

    async def open(self) -> None:
        """Open the file, or make it anew when it does not fit the store. Raises StoreBusy or StoreError."""
        incarnation = await self._source.incarnation()
        try:
            await self._open_file()
            found = await in_thread(self._thread, self.file.cursor)
            reason = await self._mismatch(found, incarnation)
        except Damaged as error:
            found, reason = None, str(error)
        if reason:
            log.warning("rebuilding the trace tables %s from the journal: %s", self._path, reason)
            await self.close()
            await in_thread(self._thread, set_aside, self._path)
            await self._open_file()
        self._cursor = found if found and not reason else Cursor(incarnation, 0, "")

    async def project(self, limit: int) -> int:
        """Project up to `limit` frames; returns how many. Raises StoreFull or StoreError, losing nothing."""
        if self._file is None:
            await self.open()
        frames = await self._source.tail(self._cursor.seq, limit)
        self._behind = bool(frames)
        if not frames:
            return 0
        missing = self._states.missing(frames)
        try:
            if missing:
                await self._restore(await in_thread(self._thread, load, self.file, missing))
            await in_thread(self._thread, self._write, frames)
        except BaseException:
            # Whether the batch was committed is written in the ledger, and read from there.
            await self.close()
            raise
        return len(frames)

    def lag(self) -> Lag:
        """How far the tables are."""
        return Lag(self._cursor.seq, self._cursor.at_ns, self._behind)

    async def close(self) -> None:
        """Close the file; what was projected stays."""
        self._states.clear()
        file, self._file = self._file, None
        if file is not None:
            await in_thread(self._thread, file.close)

    async def _open_file(self) -> None:
        self._file = await in_thread(self._thread, TraceFile, self._path, self._redactor, self._settings)

    async def _mismatch(self, cursor: Cursor | None, incarnation: str) -> str | None:
        """Why the file does not belong to this store; None when it does, or is new."""
        if cursor is None:
            return None
        if cursor.incarnation != incarnation:
            return f"they were made from store {cursor.incarnation}, this is {incarnation}"
        here = await self._source.tail(cursor.seq - 1, 1)
        if not here or here[0].seq != cursor.seq:
            return f"the store has no frame {cursor.seq}"
        if frame_digest(here[0]) != cursor.digest:
            return f"the store's frame {cursor.seq} is not the one that was projected"
        return None

    async def _restore(self, loaded: Loaded) -> None:
        """Put loaded states back into memory, their open intents read from the journal again."""
        for run_id, state in loaded.states.items():
            for seq, ordinal, tries in loaded.intents.get(run_id, ()):
                frames = await self._source.tail(seq - 1, 1)
                intent = frames[0].entries[ordinal] if frames and frames[0].seq == seq else None
                if isinstance(intent, Intent):
                    state.open[intent.key] = Open(intent, tries)
            self._states.put(state)

    def _write(self, frames: list[Frame]) -> None:
        rows = read_frames(self._states, frames)
        newest = frames[-1]
        at = newest.entries[-1].at if newest.entries else self._cursor.at_ns
        cursor = Cursor(self._cursor.incarnation, newest.seq, frame_digest(newest), at)
        self.file.append(rows, cursor, len(frames), sum(len(frame.entries) for frame in frames))
        self._cursor = cursor
        self._states.trim()


def remove_tables(folder: Path, settings: FileSettings) -> bool:
    """Remove the trace tables in a folder, and what was set aside of them: the next to open them makes them again from
    the journal. False when there were none; StoreBusy while a process has them.
    """
    if (folder / NAME).exists():
        with suppress(Damaged):
            connect(folder / NAME, settings).close()
    found = list(folder.glob(f"{NAME}*"))
    for each in found:
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    return bool(found)


def set_aside(path: Path) -> None:
    """Keep the file that no longer fits as `*.previous`, in place of the one set aside before."""
    for old in (path, path.with_name(f"{path.name}.wal")):
        kept = old.with_name(f"{old.name}.previous")
        kept.unlink(missing_ok=True)
        if old.exists():
            old.rename(kept)
