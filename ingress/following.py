"""Following a run from a terminal until it ends, asks, or takes too long.

Owns the waiting: what is shown meanwhile, whom it asks, and when only a person can go on. Bounded by what it
waits for: a run tree in which nothing is left to happen is told, never sat out.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from retinue.host.answers import read_answer, result_of
from retinue.ingress.answering import typed
from retinue.ingress.exits import ENDED, Exit
from retinue.ingress.render import answer_text, ending_text, request_text, short
from retinue.ingress.terminal import Terminal, as_line, write
from retinue.runs.batch import JOB
from retinue.runs.contracts import Branch, PendingRequest, RunRecord, Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import InvalidInput

if TYPE_CHECKING:
    from retinue.ingress.client import Client

_LOOK = 0.25
_MANY = 1_000


async def follow(
    terminal: Terminal, client: Client, run_id: str, *, stream: bool = False, timeout: float | None = None
) -> Exit:
    """Wait for a run, show its answer, give the exit code. What it asks is asked here, if somebody can answer."""
    showing = asyncio.create_task(show_events(terminal, client, run_id)) if stream else None
    try:
        async with asyncio.timeout(timeout):
            branch = await wait_for(terminal, client, run_id)
            if showing is not None and branch is not None:
                await showing
    except TimeoutError:
        return await _late(terminal, client, run_id, timeout)
    except asyncio.CancelledError:
        name = short(run_id)
        terminal.note(f"stopped watching; `retinue wait {name}` goes on with it, `retinue cancel {name}` ends it")
        raise
    finally:
        if showing is not None:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
    if branch is None:
        return await tell_asks(terminal, client, run_id)
    record = await client.get(run_id)
    took = record.finished_at - record.started_at if record.finished_at and record.started_at else None
    show_result(terminal, branch, took)
    return ENDED[branch.status]


def show_result(terminal: Terminal, branch: Branch, took_ns: int | None) -> None:
    """The answer on stdout, how it ended on stderr."""
    text = answer_text(read_answer(branch.value, branch.facts)) if branch.ok else None
    terminal.give(result_of(branch), text)
    terminal.note(ending_text(branch, took_ns))


async def show_events(terminal: Terminal, client: Client, run_id: str) -> None:
    """Streamed text and what happens, on stderr: stdout is the answer's. One JSON object a line for JSON."""
    flowing = False
    async for event in client.events(run_id):
        if terminal.as_json:
            write(as_line({"event": event}) + "\n")
        elif event.kind == "delta":
            terminal.aside(event.text)
            flowing = True
        elif event.text:
            if flowing:
                terminal.aside("\n")
            flowing = False
            terminal.note(f"· {event.text}")


async def follow_rows(terminal: Terminal, client: Client, job_id: str, timeout: float | None = None) -> Exit:
    """Wait until no row of a job is left, or only a person can bring the rest on; tell the counts, give the code."""
    record = await client.get(job_id)
    try:
        async with asyncio.timeout(timeout):
            while (await _counts(client, record))[0]:
                if await is_stuck(client, record.root_run_id):
                    return await tell_asks(terminal, client, job_id)
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        return await _late(terminal, client, job_id, timeout)
    _, ok, failed = await _counts(client, record)
    terminal.give({"run_id": job_id, "ok": ok, "failed": failed}, f"{ok:,} rows ok, {failed:,} failed")
    return Exit.failed if failed else Exit.done


async def _counts(client: Client, record: RunRecord) -> tuple[int, int, int]:
    """Rows pending, ok and failed: of a job over many files those of its shards, of any other run its children."""
    if record.target == JOB:
        state = await client.progress(record.run_id)
        return state.pending, state.ok, state.failed
    groups = await client.groups(record.run_id)
    return (
        sum(group.pending for group in groups),
        sum(group.ok for group in groups),
        sum(group.failed for group in groups),
    )


async def is_stuck(client: Client, root_run_id: str) -> bool:
    """Whether only a person can bring the tree of runs on: it asks or is held, and nothing else runs or is timed."""
    tree = RunQuery(root_run_id=root_run_id, limit=1)
    if not await open_requests(client, root_run_id) and not await is_held(client, root_run_id):
        return False
    for query in (replace(tree, status=Status.in_progress), replace(tree, status=Status.queued, held=False)):
        if await client.runs(query):
            return False
    waiting = await client.runs(replace(tree, status=Status.waiting, held=False, limit=_MANY))
    return all(record.wake_at is None for record in waiting)


async def is_held(client: Client, root_run_id: str) -> bool:
    """Whether an operator holds a run of the tree that has not ended."""
    tree = RunQuery(root_run_id=root_run_id, held=True, limit=1)
    return any(
        [await client.runs(query) for query in (replace(tree, status=Status.queued), replace(tree, waiting=True))]
    )


async def open_requests(client: Client, root_run_id: str) -> list[PendingRequest]:
    """What a tree of runs asks now."""
    return await client.inbox(root_run_id)


async def wait_for(terminal: Terminal, client: Client, run_id: str) -> Branch | None:
    """The result; None when only a person can go on and nobody is here to be asked."""
    root = (await client.get(run_id)).root_run_id
    asked: set[str] = set()
    while True:
        with suppress(TimeoutError):
            return await client.wait(run_id, _LOOK)
        if not terminal.talks:
            if await is_stuck(client, root):
                return None
            continue
        for request in await open_requests(client, root):
            if request.request_id not in asked and await _ask(terminal, client, request):
                asked.add(request.request_id)


async def _ask(terminal: Terminal, client: Client, request: PendingRequest) -> bool:
    """Ask whoever is at the keyboard; False when what they said was refused, so that they are asked again."""
    terminal.note(request_text(request))
    approval = request.kind == "approval"
    said = (await _read_line("approve? [y/n] " if approval else "answer: ")).strip()
    if not said:
        terminal.note("left open; it stays in `retinue inbox`")
        return True
    try:
        if request.asked and said.lower() == "decline":
            await client.decline(request.request_id)
        elif not approval:
            await client.answer(request.request_id, typed(request, said))
        elif said.lower() in {"y", "yes"}:
            await client.approve(request.request_id)
        else:
            await client.deny(request.request_id)
    except InvalidInput as error:
        terminal.note(str(error))
        return False
    return True


async def _read_line(prompt: str) -> str:
    """A line from the keyboard, in a thread that cannot keep the process alive; empty at its end."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def settle(text: str) -> None:
        if not line.done():
            line.set_result(text)

    def read() -> None:
        text = sys.stdin.readline()
        _tell(loop, lambda: settle(text))

    print(prompt, end="", file=sys.stderr, flush=True)
    threading.Thread(target=read, name="keyboard", daemon=True).start()
    return await line


def _tell(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
    """Schedule on a loop that may be gone: then nobody waits for the line any more."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(act)


async def tell_asks(terminal: Terminal, client: Client, run_id: str) -> Exit:
    """Tell what the tree of a run asks, and how to answer."""
    root = (await client.get(run_id)).root_run_id
    requests = await open_requests(client, root)
    held = await is_held(client, root)
    status = (await client.get(run_id)).status
    terminal.give({"run_id": run_id, "status": status, "held": held, "requests": requests})
    for request in requests:
        terminal.note(request_text(request))
    if held:
        terminal.note(f"it is held: `retinue resume {short(root)}` lets it go on")
    terminal.note(f"then `retinue wait {short(run_id)}` carries it on and shows its answer")
    return Exit.asks


async def _late(terminal: Terminal, client: Client, run_id: str, timeout: float | None) -> Exit:
    record = await client.get(run_id)
    terminal.give({"run_id": run_id, "status": record.status, "timeout": timeout})
    terminal.note(f"still {record.status.value} after {timeout:g} s: `retinue wait {short(run_id)}` waits on")
    return Exit.timeout
