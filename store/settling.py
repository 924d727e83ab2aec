"""What an end or an arrival settles: the record, the group and its budget, the wake of whoever waits.

Operations of one transaction, shared by owners and by everyone else. Knows no threads and no event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from retinue.runs.contracts import Status, StopReason, Usage
from retinue.runs.history import History
from retinue.runs.journal import ENTRIES, SCHEMA, AnyEntry, Finished
from retinue.runs.ownership import Finish
from retinue.store import accounts
from retinue.store.engine import Connection
from retinue.store.frames import Encoded, FrameCodec, bound_to
from retinue.store.rows import many, one
from retinue.store.sandboxes import close_sandboxes
from retinue.store.sessions import close_all
from retinue.store.statements import sql


@dataclass(frozen=True, slots=True)
class End:
    """Where and when a run ends: its last position, and position and number of the frame that says so."""

    position: int
    final: int
    final_seq: int
    at: int


FrameRow = tuple[int, str, tuple[int, int], Encoded]
"""A frame with its place: the run's number and tenant, (position, epoch)."""


def write_frame(connection: Connection, num: int, tenant_id: str, place: tuple[int, int], frame: Encoded) -> int:
    """Insert a frame at (position, epoch) with the shared contents it refers to; returns its number."""
    _write_shared(connection, tenant_id, frame)
    values = (num, *place, SCHEMA, frame.facts, frame.sealed)
    return int(one(connection, f"{sql('insert_frame')} RETURNING seq", values)[0])


def write_frames(connection: Connection, rows: Sequence[FrameRow]) -> None:
    """Insert many frames, in this order."""
    for _, tenant_id, _, frame in rows:
        _write_shared(connection, tenant_id, frame)
    values = ((num, *place, SCHEMA, frame.facts, frame.sealed) for num, _, place, frame in rows)
    connection.executemany(sql("insert_frame"), values)


def _write_shared(connection: Connection, tenant_id: str, frame: Encoded) -> None:
    if frame.shared:
        connection.executemany(
            sql("insert_content"), [(address, tenant_id, sealed) for address, sealed in frame.shared]
        )


def finish(connection: Connection, num: int, end: Finish, where: End) -> None:
    """End a run: its record, its parent's group and budget, the wake of its parent, its open requests."""
    usage = end.usage
    spent = {
        "steps": usage.steps,
        "hops": usage.hops,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "micros": usage.micros,
    }
    place = {"position": where.position, "final": where.final, "final_seq": where.final_seq, "at": where.at}
    values = {"num": num, "status": end.status, "reason": end.reason, **place, **spent}
    group, tokens, share, asks, *standing = one(connection, sql("finish"), values)
    if asks:
        connection.execute("UPDATE requests SET status = 'withdrawn' WHERE run = ? AND status = 'open'", (num,))
    held, used = one(connection, sql("held_below"), (num,))
    spent["micros"] += unheard(connection, num, end, used)
    closing = accounts.closing(num, (share, spent["micros"], held), tuple(standing))
    accounts.close(connection, [closing])
    if group is None:
        return
    ok = int(end.status is Status.completed)
    settled = {"num": group, "ok": ok, "reserved_tokens": tokens, "reserved_micros": closing.released, **spent}
    parent, pending, low, need, done, exhausted, ended = one(connection, sql("settle_group"), settled)
    settle_late(connection, parent, bool(ended), [closing])
    if stirs(pending, low, need, done, exhausted):
        wake(connection, parent)


def unheard(connection: Connection, num: int, end: Finish, used: int) -> int:
    """What children have spent (micro-dollars) that the owner had not heard of when it ended the run."""
    late = 0 if end.below is None else max(used - end.below, 0)
    if late:
        connection.execute("UPDATE runs SET micros = micros + ? WHERE num = ?", (late, num)).fetchall()
    return late


def settle_late(connection: Connection, parent: int, over: bool, ended: Iterable[accounts.Closing]) -> None:
    """Children of a group ended: where their parent is `over` before them, or does not answer for them, those above
    have to know.
    """
    for run in ended:
        if over:
            released = run.released if run.account is None else 0
            accounts.carry(connection, parent, accounts.Moved(released, run.micros, run.fresh))
        elif run.fresh:
            accounts.carry(connection, parent, accounts.Moved(0, 0, run.fresh))


def stirs(pending: int, low: int, need: int | None, done: int, exhausted: int) -> bool:
    """Whether a group is such that its parent has to know: few are pending, or it is decided."""
    decided = need is not None and (done >= need or (bool(exhausted) and done + pending < need))
    return pending <= low or decided


def wake(connection: Connection, num: int) -> bool:
    """Count news for a run that has not ended and queue it if it waits. False when it has ended."""
    return connection.execute(sql("wake"), (num,)).fetchone() is not None


Standing = tuple[int, str, str, int, int, str]
"""A run as it stands: number, id, tenant, epoch, position, status."""


def cancel_all(connection: Connection, codec: FrameCodec, query: str, top: str | int, cause: tuple[str, int]) -> int:
    """Cancel what a query finds under `top`; `cause` is who and when (Unix ns). Returns how many runs."""
    return sum(_cancel(connection, codec, rows, cause) for rows in standing(connection, query, top))


def standing(connection: Connection, query: str, top: str | int) -> Iterator[list[Standing]]:
    """The runs that a query finds under `top`, children first; then those that came there meanwhile.

    Who has been found is to be written to before the next are asked for: then its owner can add no more.
    """
    found: set[int] = set()
    while rows := [row for row in many(connection, query, (top,)) if row[0] not in found]:
        found.update(row[0] for row in rows)
        yield rows


def _cancel(connection: Connection, codec: FrameCodec, rows: list[Standing], cause: tuple[str, int]) -> int:
    """Mark runs; those that nobody owns end here, in this order."""
    by, at = cause
    for num, *_ in sorted(rows):
        connection.execute("UPDATE runs SET cancel = coalesce(cancel, ?) WHERE num = ?", (by, num))
    for num, run_id, tenant_id, epoch, position, status in rows:
        if status == Status.in_progress:
            wake(connection, num)
        else:
            entry = Finished(at=at, status=Status.canceled, reason=StopReason.canceled, facts={"by": by})
            end_unowned(connection, codec, (num, run_id, tenant_id, epoch, position), entry)
    return len(rows)


def end_unowned(
    connection: Connection, codec: FrameCodec, run: tuple[int, str, str, int, int], entry: Finished
) -> None:
    """End a run (number, id, tenant, epoch, position) that nobody drives, under a new epoch; its usage is found."""
    num, run_id, tenant_id, epoch, position = run
    usage = _spent(connection, num)
    closed = (*close_all(connection, num, entry.at, "the run ended"), *close_sandboxes(connection, num, entry.at))
    entries: tuple[AnyEntry, ...] = (*closed, entry.model_copy(update={"usage": usage}))
    frame = codec.encode(tenant_id, bound_to(run_id, position + 1), entries)
    connection.execute("UPDATE runs SET epoch = epoch + 1 WHERE num = ?", (num,))
    seq = write_frame(connection, num, tenant_id, (position + 1, epoch + 1), frame)
    end = End(position + len(entries), position + 1, seq, entry.at)
    finish(connection, num, Finish(entry.status, entry.reason, usage), end)


def _spent(connection: Connection, num: int) -> Usage:
    """What a run has spent by its journal, with what is held for paid calls that nobody saw end, and its children."""
    history = History()
    for (facts,) in many(connection, sql("facts_since_checkpoint"), (num,)):
        for entry in ENTRIES.validate_json(facts):
            history.add(entry)
    below = [
        Usage(steps=steps, hops=hops, input_tokens=read, output_tokens=written, micros=micros)
        for steps, hops, read, written, micros in many(connection, sql("usage_of_groups"), (num,))
    ]
    return sum([*history.lost(), *below], history.spent)
