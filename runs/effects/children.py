"""Children: one intent and one outcome for the parent, a row for each child, created in windows.

The children's table is the join state; the parent waits for it holding nothing, and what it has not created
yet is found again by the cursor that is committed with each window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from retinue.runs.arrivals import Group
from retinue.runs.batch import JOB
from retinue.runs.budgets import reservation
from retinue.runs.contracts import Branch, Budget, Json, RunRequest, StopReason
from retinue.runs.definitions import Definition
from retinue.runs.effects import rolling
from retinue.runs.effects.run import Run
from retinue.runs.errors import BudgetExhausted
from retinue.runs.identity import child_id, effect_key
from retinue.runs.joins import Join, canceler
from retinue.runs.journal import Intent, Record
from retinue.runs.ownership import Appended, NewRun, Spawn
from retinue.runs.sources import Item, Page, Source
from retinue.runs.steps import Command, Done, Wait, intent_of
from retinue.runs.tracing import span_id_of


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a fan-out is to do: the command's options, read once. `definitions` is one for all items, or one each."""

    definitions: tuple[Definition, ...]
    items: list[Json] | Source
    join: Join
    window: int
    budget: Budget | None
    count: bool
    relayed: bool
    enough: Callable[[list[Branch]], bool] | None


async def perform(run: Run, command: Command) -> Done | Wait:
    """Create what is missing of the children, then wait for enough of them, then collect."""
    await run.services.rollouts.look()
    plan = _plan(run, command)
    group = run.news.groups.get(command.key, Group(command.key))
    if command.key not in run.history.intents:
        _check_limits(run, plan)
    starved = await _fill(run, command, plan, group)
    group = run.news.groups.get(command.key, group)
    if starved is not None and group.pending == 0 and not group.decided:
        raise starved
    deadline = _deadline(run, command, plan)
    if group.decided or (deadline is not None and run.services.now_ns() >= deadline):
        return await _collect(run, command, plan, group)
    if await _satisfied(run, command, plan, group):
        return await _collect(run, command, plan, group)
    if starved is not None or plan.enough is not None:
        await _await_next(run, command, plan, group)
    return Wait(StopReason.child, at=deadline, group=command.key)


async def _fill(run: Run, command: Command, plan: _Plan, group: Group) -> BudgetExhausted | None:
    """Create children until the window is full or the input ends; returns why it could not, if so."""
    starved = None
    written: Awaitable[Appended] | None = None
    while not group.exhausted and group.pending < plan.window and not _enough(plan, group):
        room = min(plan.window - group.pending, run.services.defaults.spawn_chunk)
        page = await _page(run, plan, group.cursor, room)
        try:
            children = _children(run, command, plan, (group.total, page.items))
        except BudgetExhausted as error:
            starved = error
            break
        spawn = Spawn(
            key=command.key,
            children=children,
            rejected=page.rejected,
            low=_low(plan, page.exhausted),
            need=plan.join.need,
            cursor=page.cursor,
            exhausted=page.exhausted,
        )
        intents = () if command.key in run.history.intents else (_intent(run, command, plan),)
        before, written = written, run.write(*intents, *_letters(run, page), spawn=spawn)
        group = _grown(group, spawn)
        run.take_group(group)
        await asyncio.sleep(0)  # a host that makes many is not to be taken for dead, or deaf to signals
        if before is not None:
            await before
    if written is not None:
        await written
    if written is not None or starved is not None or command.key not in run.news.groups:
        run.take(await run.services.journal.look(run.request.run_id))
    return starved


async def _satisfied(run: Run, command: Command, plan: _Plan, group: Group) -> bool:
    """True when the parent's own rule has heard enough of the children that ended."""
    if plan.enough is None or group.pending == group.total:
        return False
    branches = await run.services.journal.branches(run.request.run_id, command.key)
    try:
        return plan.enough(branches)
    except Exception:  # the rule is the user's: its error is the step's, and nobody will wait for the rest
        await _cancel_rest(run, command, group)
        raise


async def _await_next(run: Run, command: Command, plan: _Plan, group: Group) -> None:
    """Be woken by the next child that ends: it gives back of its share, or decides the join."""
    low = group.pending - 1
    if group.low == low:
        return
    spawn = Spawn(command.key, low=low, need=plan.join.need, cursor=group.cursor, exhausted=False)
    await run.write(spawn=spawn)
    run.take(await run.services.journal.look(run.request.run_id))


def _letters(run: Run, page: Page) -> list[Record]:
    """The journal's word on inputs that could not become a run."""
    return [
        Record(
            at=letter.at,
            content={"input": letter.content},
            topic="dead_letter",
            by="runtime",
            facts={
                "source": letter.source,
                "line": letter.line,
                "reason": letter.reason,
                "message": letter.message,
                "run_id": None,
            },
        )
        for letter in page.rejected
    ]


def _enough(plan: _Plan, group: Group) -> bool:
    return plan.join.need is not None and group.ok >= plan.join.need


def _low(plan: _Plan, exhausted: bool) -> int:
    """How few may be left before the parent is woken: to collect, or to refill a quarter of the window."""
    return 0 if exhausted else max(plan.window - max(plan.window // 4, 1), 0)


def _grown(group: Group, spawn: Spawn) -> Group:
    created = len(spawn.children)
    return Group(
        key=group.key,
        total=group.total + created,
        pending=group.pending + created,
        ok=group.ok,
        failed=group.failed,
        rejected=group.rejected + len(spawn.rejected),
        low=spawn.low,
        need=spawn.need,
        cursor=spawn.cursor,
        exhausted=spawn.exhausted,
        reserved=sum((child.reserved for child in spawn.children), group.reserved),
        used=group.used,
    )


async def _page(run: Run, plan: _Plan, cursor: Json, room: int) -> Page:
    if isinstance(plan.items, Source):
        return await asyncio.to_thread(run.services.sources.read, plan.items, cursor, room)
    start = int(cursor or 0)
    items = tuple(Item(value, run.request.input_id) for value in plan.items[start : start + room])
    end = start + len(items)
    return Page(items, (), end, end >= len(plan.items))


def _children(run: Run, command: Command, plan: _Plan, place: tuple[int, tuple[Item, ...]]) -> tuple[NewRun, ...]:
    first, items = place
    if not items:
        return ()
    shares = _shares(plan, first, len(items))
    templates = [_template(run, command, plan, definition, shares) for definition in plan.definitions]
    held = [reservation(template.budget) for template in templates]
    now = run.services.now_ns()
    made = []
    for index, item in enumerate(items, start=first):
        which = index % len(templates)
        request = _child(templates[which], run, command.key, (index, item))
        made.append(NewRun(request, item.value, now, held[which]))
    return tuple(made)


def _shares(plan: _Plan, first: int, count: int) -> int:
    """How many the rest of the budget is for: the page, the window of a source, or all shards that are left."""
    if isinstance(plan.items, Source):
        return max(count, plan.window)
    return len(plan.items) - first if plan.definitions[0].name == JOB else count


def _template(run: Run, command: Command, plan: _Plan, definition: Definition, shares: int) -> RunRequest:
    parent = run.request
    definition = rolling.version_for(run, definition)
    own = plan.budget or definition.budget
    if definition.name != JOB:  # a job has only the limits that were said
        own = own.within(run.services.defaults.budget)
    budget = run.ledger.children(shares, own)
    return parent.model_copy(
        update={
            "parent_span_id": span_id_of(parent.run_id, command.key),
            "kind": definition.kind,
            "target": definition.name,
            "target_version": definition.version,
            "parent_run_id": parent.run_id,
            "job_id": parent.job_id or (parent.run_id if plan.count or parent.target == JOB else None),
            "idempotency_key": None,
            "pool": run.services.registry.pool_of(definition.name) or "workers",
            "queue": definition.queue or parent.queue,
            "depth": parent.depth + 1,
            "budget": budget,
            "group_key": command.key,
            "relayed": plan.relayed,
            "shadow": rolling.is_shadow(run.services.rollouts.table, definition, parent.shadow),
        }
    )


def _child(template: RunRequest, run: Run, key: str, place: tuple[int, Item]) -> RunRequest:
    index, item = place
    run_id = child_id(run.request.run_id, key, index)
    return template.model_copy(
        update={
            "run_id": run_id,
            "span_id": run_id[:16],
            "input_id": item.input_id,
            "effect_scope": effect_key(run.request.effect_scope, f"{key}:{index}"),
            "group_index": index,
        }
    )


async def _collect(run: Run, command: Command, plan: _Plan, group: Group) -> Done:
    """The outcome of the group; few branches are kept in it, many stay in the children's table.

    An earlier owner may have canceled the rest and died before the outcome: what it canceled it had not heard.
    """
    ended = [] if plan.count else await run.services.journal.branches(run.request.run_id, command.key)
    branches = [branch for branch in ended if branch.facts.get("by") != canceler(run.request.run_id)]
    ok = sum(branch.ok for branch in branches)
    facts: dict[str, Json] = {
        "total": group.total,
        "ok": group.ok if plan.count else ok,
        "failed": group.failed if plan.count else len(branches) - ok,
        "rejected": group.rejected,
    }
    if group.pending:
        await _cancel_rest(run, command, group)
    if plan.count:
        return Done(facts=facts)
    if len(branches) > run.services.defaults.inline_branches:
        indexes = [branch.index for branch in branches] if group.pending or ended != branches else None
        return Done(value=indexes, facts=facts | {"stored": True}, live=branches)
    return Done(value=[branch.model_dump(mode="json") for branch in branches], facts=facts, live=branches)


async def _cancel_rest(run: Run, command: Command, group: Group) -> None:
    await run.write(spawn=Spawn(command.key, cursor=group.cursor, cancel_rest=True, at=run.services.now_ns()))


def heard(content: Json, branches: list[Branch]) -> list[Branch]:
    """Of the ended children those that the outcome was made of: a join that was cut short heard not all."""
    if content is None:
        return branches
    indexes = set(content)
    return [branch for branch in branches if branch.index in indexes]


def restore(content: Json) -> list[Branch]:
    """The branches in a replayed outcome."""
    return [Branch.model_validate(branch) for branch in content]


def _plan(run: Run, command: Command) -> _Plan:
    options = command.options
    return _Plan(
        definitions=options.get("definitions") or (options["definition"],),
        items=options["items"],
        join=options["join"],
        window=options.get("window") or run.services.defaults.budget.width or 100_000,
        budget=options.get("budget"),
        count=bool(options.get("count")),
        relayed=bool(options.get("relayed")),
        enough=options.get("enough"),
    )


def _check_limits(run: Run, plan: _Plan) -> None:
    budget = run.ledger.budget
    if budget.depth is not None and budget.depth <= 0:
        raise BudgetExhausted(
            f"run {run.request.run_id}: no children allowed at depth {run.request.depth}; raise budget.depth",
            run_id=run.request.run_id,
        )
    width = len(plan.items) if not isinstance(plan.items, Source) else 0
    if budget.width is not None and width > budget.width:
        raise BudgetExhausted(
            f"run {run.request.run_id}: {width} children at once, {budget.width} allowed; raise budget.width",
            run_id=run.request.run_id,
        )


def _intent(run: Run, command: Command, plan: _Plan) -> Intent:
    facts: dict[str, Json] = {
        "target_version": ",".join(definition.version for definition in plan.definitions),
        "join": plan.join.model_dump(mode="json"),
        "window": plan.window,
    }
    return intent_of(command, run.services.now_ns(), facts)


def _deadline(run: Run, command: Command, plan: _Plan) -> int | None:
    if plan.join.deadline is None:
        return None
    return run.history.intents[command.key].at + int(plan.join.deadline * 1e9)
