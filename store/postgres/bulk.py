"""Many appends in a few statements: what group commit is for a database that is a way off.

The rules are those of `owning.append`, applied to columns instead of rows: all fences first, then ends with their
groups and wakes, then parks, which look at the news that the ends have left. An append with children or a question
goes its own way, as does one that was refused, to hear why. Operations of one transaction; knows no threads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from retinue.runs.contracts import Status
from retinue.runs.errors import RetinueError
from retinue.runs.journal import SCHEMA
from retinue.runs.ownership import Appended, Finish, Park, Yield
from retinue.store.accounts import Closing, close, closing
from retinue.store.encoding import EncodedAppend
from retinue.store.engine import Job
from retinue.store.postgres.connection import PostgresConnection, Rows
from retinue.store.postgres.dialect import postgres_sql
from retinue.store.settling import settle_late, stirs, unheard
from retinue.store.statements import sql

_Ended = tuple[EncodedAppend, Finish, Any]


class Bulk:
    """The appends of a batch on their way into one transaction."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waves = list(_waves(jobs))
        self._first: Rows | None = None
        self.heard = False
        """Whether it did what somebody else may wait for: ended a run, woke one, made one, asked."""

    @property
    def plain(self) -> bool:
        """Whether it is one statement whose answer decides nothing: it may go out together with its COMMIT."""
        return len(self._waves) == 1 and all(_is_plain(job) for job in self._waves[0])

    def begin(self, connection: PostgresConnection) -> None:
        """Send the locks and the first statement; answers are looked at later, so that all goes out at once."""
        jobs = [job for wave in self._waves for job in wave]
        for job in jobs:
            job.result = job.error = None
        nums = {_of(job).append.num for job in jobs}
        ending = [_of(job).append.num for job in jobs if isinstance(_of(job).append.end, Finish)]
        if len(nums) > 1 or ending:
            connection.run(postgres_sql("lock_in_order"), {"num": _ints(sorted(nums)), "ending": _ints(ending)})
        self._first = _fence(connection, [job for job in self._waves[0] if _in_columns(job)])

    def finish(self, connection: PostgresConnection) -> None:
        """Do the rest, wave by wave; each job has its result or its error then."""
        for number, wave in enumerate(self._waves):
            columns = [job for job in wave if _in_columns(job)]
            stirred = _settle(connection, columns, self._first if number == 0 else _fence(connection, columns))
            alone = [job for job in wave if not _in_columns(job)]
            for job in alone:
                _alone(connection, job)
            self.heard = self.heard or stirred or bool(alone)


def _waves(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """In each wave a run is there once; its appends keep their order."""
    queued: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        queued[_of(job).append.num].append(job)
    for place in range(max(map(len, queued.values()))):
        yield [mine[place] for mine in queued.values() if place < len(mine)]


def _of(job: Job) -> EncodedAppend:
    assert job.append is not None
    return job.append


def _in_columns(job: Job) -> bool:
    wanted = _of(job).append
    return wanted.spawn is None and wanted.request is None and not (wanted.sessions or wanted.sandboxes)


def _is_plain(job: Job) -> bool:
    return _in_columns(job) and isinstance(_of(job).append.end, Yield | None)


def _alone(connection: PostgresConnection, job: Job) -> None:
    try:
        job.result = job.operation(connection)
    except RetinueError as error:  # refused before it wrote anything: it harms nobody else
        job.error = error


def _fence(connection: PostgresConnection, jobs: Sequence[Job]) -> Rows | None:
    if not jobs:
        return None
    shared = [row for job in jobs for row in _of(job).frame.shared]
    if shared:
        tenants = [_of(job).append.tenant_id for job in jobs for _ in _of(job).frame.shared]
        contents = [(address, tenant, sealed) for (address, sealed), tenant in zip(shared, tenants, strict=True)]
        connection.executemany(sql("insert_content"), contents)
    rows = [_row(_of(job)) for job in jobs]
    columns = list(zip(*rows, strict=True))
    values = {name: _column(name, column) for name, column in zip(_COLUMNS, columns, strict=True)}
    return connection.run(postgres_sql("append"), values | {"schema": SCHEMA})


_COLUMNS = (
    "num epoch expected position seen checkpoint status reason at steps hops input_tokens output_tokens micros facts "
    "sealed"
).split()
_TEXTS = frozenset({"status", "reason", "facts", "sealed"})


def _row(job: EncodedAppend) -> tuple[Any, ...]:
    wanted, end = job.append, job.append.end
    status = reason = at = None
    usage: tuple[int | None, ...] = (None,) * 5
    if isinstance(end, Finish):
        status, reason, at, used = end.status, end.reason, wanted.entries[-1].at, end.usage
        usage = (used.steps, used.hops, used.input_tokens, used.output_tokens, used.micros)
    elif isinstance(end, Yield):
        status = Status.queued
    return (
        wanted.num,
        wanted.epoch,
        wanted.expected,
        wanted.expected + job.frame.count,
        None if isinstance(end, Finish) else wanted.seen,
        job.checkpoint,
        status,
        reason,
        at,
        *usage,
        job.frame.facts if job.frame.count else None,
        job.frame.sealed if job.frame.count else None,
    )


def _column(name: str, values: Sequence[Any]) -> Any:
    return list(values) if name in _TEXTS else _ints(values)


def _ints(values: Iterable[int | None]) -> str:
    """A list of numbers as PostgreSQL writes one: joined in C, where a list would be packed number by number."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def _settle(connection: PostgresConnection, jobs: Sequence[Job], rows: Rows | None) -> bool:
    """Look who was let through; then ends, wakes and parks of those. True when somebody may wait for what was done."""
    found = {} if rows is None else {row[0]: row[1:] for row in rows}
    ended: list[_Ended] = []
    parking: list[Job] = []
    for job in jobs:
        encoded = _of(job)
        wanted = encoded.append
        if wanted.num not in found:
            _alone(connection, job)
            continue
        job.result = Appended(wanted.expected + encoded.frame.count)
        if isinstance(wanted.end, Finish):
            ended.append((encoded, wanted.end, found[wanted.num]))
        elif isinstance(wanted.end, Park) and encoded.parked is not None:
            parking.append(job)
    stirred = _end(connection, ended) if ended else False
    if parking:
        _park(connection, parking)
    return stirred


def _end(connection: PostgresConnection, ended: Sequence[_Ended]) -> bool:
    """Withdraw what they had asked, settle their groups once each, wake the parents that have to know."""
    nums = [encoded.append.num for encoded, _, _ in ended]
    connection.run(postgres_sql("withdraw_requests"), {"num": _ints(nums)})
    rows = [(found, end, _closing(connection, encoded.append.num, end, found)) for encoded, end, found in ended]
    close(connection, [each for _, _, each in rows])
    children = [row for row in rows if row[0][0] is not None]
    if not children:
        return True
    columns = {
        "grp": [found[0] for found, _, _ in children],
        "ok": [int(end.status is Status.completed) for _, end, _ in children],
        "reserved_tokens": [found[1] for found, _, _ in children],
        "reserved_micros": [each.released for _, _, each in children],
        "micros": [each.micros for _, _, each in children],
    } | {
        name: [getattr(end.usage, name) for _, end, _ in children]
        for name in ("steps", "hops", "input_tokens", "output_tokens")
    }
    settled = connection.run(postgres_sql("settle_groups"), {name: _ints(column) for name, column in columns.items()})
    stirred = []
    for group, parent_ended, parent, *state in settled:
        settle_late(connection, parent, parent_ended, [each for found, _, each in children if found[0] == group])
        if stirs(*state):
            stirred.append(parent)
    if stirred:
        connection.run(postgres_sql("wake_these"), {"num": _ints(stirred)})
    return bool(stirred) or len(children) < len(ended)


def _closing(connection: PostgresConnection, num: int, end: Finish, found: Any) -> Closing:
    _, _, share, *standing, below = found
    held, used = below
    spent = end.usage.micros + unheard(connection, num, end, used)
    return closing(num, (share, spent, held), tuple(standing))


_PARK_COLUMNS = "num epoch position seen status reason wake_at at facts sealed".split()


def _park(connection: PostgresConnection, jobs: Sequence[Job]) -> None:
    rows = [_park_row(_of(job)) for job in jobs]
    columns = list(zip(*rows, strict=True))
    values = {name: _column(name, column) for name, column in zip(_PARK_COLUMNS, columns, strict=True)}
    parked = {num for (num,) in connection.run(postgres_sql("park_these"), values | {"schema": SCHEMA})}
    for job in jobs:
        if _of(job).append.num in parked:
            job.result = Appended(job.result.position + 1, parked=True)


def _park_row(job: EncodedAppend) -> tuple[Any, ...]:
    wanted, park, frame = job.append, job.append.end, job.parked
    assert isinstance(park, Park) and frame is not None
    position = wanted.expected + job.frame.count + 1
    at = wanted.entries[-1].at
    return (
        wanted.num,
        wanted.epoch,
        position,
        wanted.seen,
        park.status,
        park.reason,
        park.wake_at,
        at,
        frame.facts,
        frame.sealed,
    )
