"""Backups of a data folder, and their restoring. Run as a process of its own: only SQLite opens SQLite's files.

Copying a store's file from inside a process that has it open would drop that process's locks, so `back_up` starts
another one. The journal is copied first, as of one moment; blobs after it, so that all it names are there. A
restored folder is a new incarnation, and what had not ended in it is held until a person lets it go on: the world
outside may have gone further than the backup knows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from retinue.runs.errors import InvalidInput, StoreError
from retinue.store.opening import connect
from retinue.store.rows import one

FILE = "store.db"
NOTE = "backup.json"
_BESIDE = ("keys", "blobs")
_NOTES = "jobs"
_BOUND = 3_600.0
_DRAFTS = shutil.ignore_patterns("*.*")
"""Blobs that are being written: their names change while they are copied."""
Beside = Callable[[Path], dict[str, Any]]
"""Copies what the store does not know of into the folder of a backup, after the journal; what it did, as facts."""


def _nothing(draft: Path) -> dict[str, Any]:
    return {}


def back_up(folder: Path, target: Path, *, keys: bool = True, beside: Beside = _nothing) -> dict[str, Any]:
    """Copy a data folder into `target`, which must not exist; returns counts of runs, entries and blobs, and what was
    copied `beside`.

    Safe while processes write. Without `keys` the sealed contents stay closed. Raises InvalidInput, StoreError.
    """
    refuse_no_store(folder)
    with drafted(target, folder, keys) as (draft, counts):
        counts |= snapshot(folder, draft)
        for name in _BESIDE if keys else _BESIDE[1:]:
            if (folder / name).is_dir():
                shutil.copytree(folder / name, draft / name, ignore=_DRAFTS if name == "blobs" else None)
        counts["blobs"] = sum(path.is_file() for path in (draft / "blobs").rglob("*"))
        counts |= beside(draft)
    return counts


@contextmanager
def drafted(target: Path, folder: Path, keys: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder to be filled, and facts of what is in it: the backup `target`, which must not exist, when the block has
    ended well, else nothing. `keys` is noted in it; the notes of jobs in the data folder are there already: older than
    the journal, so that all they name is in it.

    InvalidInput, StoreError when it cannot be written.
    """
    if target.exists():
        raise InvalidInput(f"backup {target} exists: name a folder that does not")
    draft = target.with_name(f"{target.name}.unfinished")
    counts: dict[str, Any] = {}
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        copy_notes(folder, draft)
        yield draft, counts
        (draft / NOTE).write_text(json.dumps(counts | {"keys": keys}) + "\n", encoding="utf-8")
        draft.rename(target)
    except OSError as error:
        raise StoreError(f"backup {target} cannot be written: {error.strerror}; free space or name another") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def copy_notes(folder: Path, other: Path) -> None:
    """Copy the notes of jobs of one data folder into another."""
    for note in (folder / _NOTES).glob("*.json"):
        (other / _NOTES).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(note, other / _NOTES / note.name)


def facts_of(backup: Path) -> dict[str, Any]:
    """What a backup says of itself. InvalidInput for a folder that is none."""
    try:
        facts: dict[str, Any] = json.loads((backup / NOTE).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInput(f"{backup} is no backup: it has no {NOTE}") from None
    except ValueError:
        raise InvalidInput(f"{backup} is no whole backup: its {NOTE} cannot be read") from None
    return facts


def refuse_no_store(folder: Path) -> None:
    """InvalidInput for a data folder without a store."""
    if not (folder / FILE).is_file():
        raise InvalidInput(f"data folder {folder} has no store: nothing is to be backed up")


def refuse_store(folder: Path) -> None:
    """InvalidInput for a data folder that has a store: nothing is overwritten."""
    if (folder / FILE).exists():
        raise InvalidInput(f"data folder {folder} has a store: restore into one that has none")


def snapshot(folder: Path, draft: Path) -> dict[str, int]:
    """Copy the journal of a data folder, live or not, into the folder `draft`; returns counts of runs and frames.

    StoreError, which names the data folder.
    """
    command = [sys.executable, "-m", "retinue.store.backup", str(folder), str(draft)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BOUND, check=False)
    except subprocess.TimeoutExpired:
        raise StoreError(f"the store in {folder} was not copied within {_BOUND:,.0f} s: is its disk well?") from None
    if done.returncode:
        said = (done.stderr.strip() or f"the process that copies it ended with {done.returncode}").splitlines()[-1]
        raise StoreError(f"the store in {folder} cannot be copied: {said}")
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def restore(backup: Path, folder: Path, beside: Callable[[], None] = lambda: None) -> int:
    """Make a data folder of a backup; returns how many runs are held in it. InvalidInput when it exists.

    `beside` brings back what the store does not know of, at the end: the store is there when that is.
    """
    facts_of(backup)
    refuse_store(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _BESIDE:
        if (backup / name).is_dir():
            shutil.copytree(backup / name, folder / name, dirs_exist_ok=True)
    copy_notes(backup, folder)
    draft = folder / f"{FILE}.unfinished"
    shutil.copyfile(backup / FILE, draft)
    held = _renew(draft)
    beside()
    draft.rename(folder / FILE)
    return held


def _renew(path: Path) -> int:
    """Another incarnation, no hosts, and everything that had not ended held in its queue or where it waits."""
    connection = connect(path)
    try:
        with connection:
            connection.execute("UPDATE meta SET value = lower(hex(randomblob(16))) WHERE name = 'incarnation'")
            connection.execute("UPDATE hosts SET state = 'gone'")
            connection.execute("UPDATE runs SET status = 'queued', host = NULL WHERE status = 'in_progress'")
            query = "UPDATE runs SET held = 1 WHERE status NOT IN ('completed', 'failed', 'canceled') RETURNING num"
            held = len(connection.execute(query).fetchall())
        connection.execute("PRAGMA journal_mode = DELETE")
        return held
    finally:
        connection.close()


def _copy(folder: Path, target: Path) -> dict[str, int]:
    connection = connect(folder / FILE)
    try:
        connection.execute("VACUUM INTO ?", (str(target / FILE),))
    finally:
        connection.close()
    copy = apsw.Connection(str(target / FILE), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found = one(copy, "PRAGMA integrity_check")[0]
        if found != "ok":
            raise StoreError(f"the copy of {folder} is damaged: {found}")
        runs, entries = one(copy, "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM journal)")
        return {"runs": runs, "frames": entries}
    finally:
        copy.close()


if __name__ == "__main__":
    print(json.dumps(_copy(Path(sys.argv[1]), Path(sys.argv[2]))))
