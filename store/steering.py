"""What operators do to runs in the store: hold them and let them go, retry the failed. One transaction each.

Cancel is in `control`. Knows no threads and no event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from retinue.runs.batch import JOB, rows_key
from retinue.runs.contracts import MICROS, Budget, RunRequest, Status, StopReason
from retinue.runs.control import Redriven, Rows
from retinue.runs.errors import InvalidInput
from retinue.runs.history import History
from retinue.runs.journal import ENTRIES, Accepted, AnyEntry, Finished, Retried
from retinue.runs.limits import Limits
from retinue.runs.machine import IllegalTransition
from retinue.runs.retries import Raise, Retry, last_of, raised, retried, stands
from retinue.store import accounts
from retinue.store.control import find
from retinue.store.engine import Connection
from retinue.store.frames import FrameCodec, bound_to
from retinue.store.rows import many, one
from retinue.store.settling import standing, wake, write_frame
from retinue.store.statements import sql

_MOST = 5_000


def hold(connection: Connection, run_id: str, held: bool) -> int:
    """Hold a run and all below it, or let them go; returns how many were changed."""
    num, _ = find(connection, run_id)
    full_id = one(connection, "SELECT run_id FROM runs WHERE num = ?", (num,))[0]
    changed = 0
    for rows in standing(connection, sql("tree"), full_id):
        for each, *_, status in sorted(rows):
            query = "UPDATE runs SET held = ? WHERE num = ? AND held != ? RETURNING num"
            if not many(connection, query, (int(held), each, int(held))):
                continue
            changed += 1
            if status == Status.in_progress:
                wake(connection, each)
    return changed


@dataclass(frozen=True, slots=True)
class _Failed:
    """A failed run that is to go on: its row, the limits it ended with, and the entry it goes on with."""

    num: int
    run_id: str
    tenant_id: str
    epoch: int
    position: int
    before: Budget
    entry: Retried


@dataclass(frozen=True, slots=True)
class Page:
    """Some failed rows of a job, and the limits of tenants."""

    job_id: str
    rows: Rows
    limits: Limits


def retry(connection: Connection, codec: FrameCodec, run_id: str, wanted: Retry, limits: Limits) -> list[str]:
    """Queue a failed run again, and before it those below it that made it fail; returns their ids, deepest first."""
    num, _ = find(connection, run_id)
    _refuse_behind_a_parent(connection, num, run_id)
    *below, top = _collect(connection, num, wanted)
    for each in below:
        kept = accounts.lean(connection, each.num)
        _queue(connection, codec, each, kept)
    top, kept = _account_for(connection, top, wanted, limits)
    _queue(connection, codec, top, kept)
    return [each.run_id for each in (*below, top)]


def redrive(connection: Connection, codec: FrameCodec, page_of: Page, wanted: Retry) -> Redriven:
    """Queue failed rows of a job again, a page of them; one that cannot go on is named and left as it is."""
    rows = page_of.rows
    job, _ = find(connection, page_of.job_id)
    has_shards = many(connection, "SELECT 1 FROM groups WHERE run = ? AND key = ?", (job, rows_key(JOB)))
    page = many(
        connection,
        sql("failed_rows_of_shards" if has_shards else "failed_rows"),
        {"job": job, "after": rows.after, "limit": rows.limit, "reason": rows.reason},
    )
    queued: list[str] = []
    refused: list[tuple[str, str]] = []
    for _, run_id in page:
        try:
            retry(connection, codec, run_id, wanted, page_of.limits)
        except (InvalidInput, IllegalTransition) as error:
            refused.append((run_id, str(error)))
        else:
            queued.append(run_id)
    return Redriven(tuple(queued), tuple(refused), page[-1][0] if page else None)


def _refuse_behind_a_parent(connection: Connection, num: int, run_id: str) -> None:
    """A parent that goes on, or may be retried, has heard of the failure: only it can ask for the child again."""
    query = "SELECT p.run_id, p.status, p.target FROM runs r JOIN runs p ON p.num = r.parent WHERE r.num = ?"
    for parent, status, target in many(connection, query, (num,)):
        if status not in (Status.completed, Status.canceled) and target != JOB:
            remedy = "retry the parent" if status == Status.failed else "cancel the parent first, or wait for its end"
            raise InvalidInput(
                f"run {run_id} is a child of {parent}, which is {status}: its parent decides what follows its failure; "
                f"{remedy}"
            )


def _account_for(connection: Connection, top: _Failed, wanted: Retry, limits: Limits) -> tuple[_Failed, int]:
    """Have somebody answer for what the run will spend: its parent while that is open, else its tenant's account.

    Returns with it what its group holds already (micro-dollars).
    """
    if not accounts.stands_alone(connection, top.num):
        if raised(top.before, wanted.budget) != Raise():
            raise InvalidInput(
                f"run {top.run_id} has a share of the budget of its job, which goes on: retry it without more, or when "
                "the job has ended"
            )
        return top, accounts.lean(connection, top.num)
    spent, kept = one(connection, "SELECT micros, kept_micros FROM runs WHERE num = ?", (top.num,))
    limit = limits.of_tenant(top.tenant_id)
    now = (top.entry.amendment.budget or Budget()).within(top.before)
    if limit.share is not None and now.usd is None:
        now = now.model_copy(update={"usd": limit.share + Decimal(spent) / MICROS})
        amendment = top.entry.amendment.model_copy(update={"budget": now})
        top = replace(top, entry=top.entry.model_copy(update={"amendment": amendment}))
    accounts.reopen(connection, top.num, max((now.micros or 0) - spent, 0), limit, wanted.at)
    return top, int(kept)


def _collect(connection: Connection, top: int, wanted: Retry) -> list[_Failed]:
    found: list[_Failed] = []
    pending, above = [top], dict[int, str]()
    more = Raise()
    while pending:
        num = pending.pop()
        run_id, tenant_id, epoch, position, status, target = one(
            connection, "SELECT run_id, tenant_id, epoch, position, status, target FROM runs WHERE num = ?", (num,)
        )
        if status != Status.failed:
            raise _not_failed(run_id, Status(status))
        history, finished, request = _past(connection, num, run_id)
        before = history.amended(request).budget
        if num == top:
            more = raised(before, wanted.budget)
        share = more.of(before) if _shares(above.get(num), target, finished) else None
        entry = retried(history, finished, wanted if num == top else wanted.below(target, share))
        found.append(_Failed(num, run_id, tenant_id, epoch, position, before, entry))
        if len(found) > _MOST:
            raise InvalidInput(f"run {run_id}: more than {_MOST} failed runs below it: redrive its children first")
        below = _failed_below(connection, num, stands(history, entry))
        above.update(dict.fromkeys(below, target))
        pending += below
    return found[::-1]


def _shares(above: str | None, target: str, finished: Finished) -> bool:
    """Whether more for those above is more for a run: a shard of a job, or a row that wanted more than its share. The
    limits of others are their own."""
    return above == JOB and (target == JOB or finished.reason is StopReason.budget_exhausted)


def _not_failed(run_id: str, status: Status) -> Exception:
    if status.terminal:
        return IllegalTransition(run_id, status, Status.queued)
    return InvalidInput(f"run {run_id} is {status} and goes on by itself: only a failed run can be retried")


def _past(connection: Connection, num: int, run_id: str) -> tuple[History, Finished, RunRequest]:
    history = History()
    entries: list[AnyEntry] = []
    for (facts,) in many(connection, sql("facts_since_checkpoint"), (num,)):
        for entry in ENTRIES.validate_json(facts):
            history.add(entry)
            entries.append(entry)
    if not isinstance(entries[0], Accepted):
        _, facts = one(connection, sql("frame_at"), (num, 1))
        entries = [*ENTRIES.validate_json(facts), *entries]
    accepted = entries[0]
    assert isinstance(accepted, Accepted), f"run {run_id} does not begin with its acceptance"
    return history, last_of(entries, run_id), accepted.request


def _failed_below(connection: Connection, num: int, heard: frozenset[str]) -> list[int]:
    """The failed children whose group the run will hear again."""
    query = (
        "SELECT r.num, g.key FROM runs r JOIN groups g ON g.num = r.grp WHERE r.parent = ? AND r.status = 'failed'"
        " ORDER BY r.num LIMIT ?"
    )
    return [child for child, key in many(connection, query, (num, _MOST + 1)) if key not in heard]


def _queue(connection: Connection, codec: FrameCodec, run: _Failed, kept: int) -> None:
    frame = codec.encode(run.tenant_id, bound_to(run.run_id, run.position + 1), (run.entry,))
    write_frame(connection, run.num, run.tenant_id, (run.position + 1, run.epoch + 1), frame)
    share = run.entry.amendment.budget or Budget()
    group, *usage = one(
        connection, sql("queue_again"), {"num": run.num, "tokens": share.tokens, "micros": share.micros}
    )
    connection.execute(sql("reopen_requests"), (run.num,))
    if group is not None:
        names = ("reserved_tokens", "reserved_micros", "steps", "hops", "input_tokens", "output_tokens", "micros")
        values = dict(zip(names, usage, strict=True))
        values["reserved_micros"] -= kept
        connection.execute(sql("unsettle_group"), {"num": group, **values})
