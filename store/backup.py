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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def back_up(folder: Path, target: Path, *, keys: bool = True) -> dict[str, int]:
    """Copy a data folder into `target`, which must not exist; returns counts of runs, entries and blobs.

    Safe while processes write. Without `keys` the sealed contents stay closed. Raises InvalidInput, StoreError.
    """
    if not (folder / FILE).is_file():
        raise InvalidInput(f"data folder {folder} has no store: nothing is to be backed up")
    with drafted(target, folder, keys) as (draft, counts):
        counts |= snapshot(folder, draft)
        for name in _BESIDE if keys else _BESIDE[1:]:
            if (folder / name).is_dir():
                shutil.copytree(folder / name, draft / name, ignore=_DRAFTS if name == "blobs" else None)
        counts["blobs"] = sum(path.is_file() for path in (draft / "blobs").rglob("*"))
    return counts


@contextmanager
def drafted(target: Path, folder: Path, keys: bool) -> Iterator[tuple[Path, dict[str, int]]]:
    """A folder to be filled, and counts of what is in it: the backup `target`, which must not exist, when the block has
    ended well, else nothing. `keys` is noted in it; the notes of jobs in the data folder are there already: older than
    the journal, so that all they name is in it.

    InvalidInput, StoreError when it cannot be written.
    """
    if target.exists():
        raise InvalidInput(f"backup {target} exists: name a folder that does not")
    draft = target.with_name(f"{target.name}.unfinished")
    counts: dict[str, int] = {}
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


def refuse_no_backup(backup: Path) -> None:
    """InvalidInput for a folder that is none that was made by a backup."""
    if not (backup / NOTE).is_file():
        raise InvalidInput(f"{backup} is no backup: it has no {NOTE}")


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


def restore(backup: Path, folder: Path) -> int:
    """Make a data folder of a backup; returns how many runs are held in it. InvalidInput when it exists."""
    refuse_no_backup(backup)
    if (folder / FILE).exists():
        raise InvalidInput(f"data folder {folder} has a store: restore into one that has none")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _BESIDE:
        if (backup / name).is_dir():
            shutil.copytree(backup / name, folder / name, dirs_exist_ok=True)
    copy_notes(backup, folder)
    draft = folder / f"{FILE}.unfinished"
    shutil.copyfile(backup / FILE, draft)
    held = _renew(draft)
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
