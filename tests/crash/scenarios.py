"""The scenarios whose points are killed: what is submitted, what the model says, what the driver does in between.

Together they must hit every point of the product. Knows neither points nor kills.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.crash.outside import OUTSIDE
from tests.doubles.projects import ALLOW_ALL, decides, project
from tests.doubles.worlds import calls, costs

from retinue.host.rows import source_of
from retinue.host.settings import Settings, load_settings
from retinue.ingress.client import Client
from retinue.runs import forms
from retinue.runs.contracts import Budget, Json, RunRecord, Status, StopReason
from retinue.runs.control import SessionQuery
from retinue.runs.errors import InvalidInput, UnknownName
from retinue.runs.sessions import SessionStatus

KEY = "the one job"
ROWS = "rows.jsonl"
POLICY = (
    ALLOW_ALL + '@id("ask") @outcome("approval") @reason("mails need a yes")'
    ' forbid (principal, action == Action::"capability", resource == Capability::"mail");'
    '@id("ask.memory") @outcome("approval") @reason("the memory of all needs a yes")'
    ' forbid (principal, action == Action::"memory", resource == Memory::"tenant")'
    ' when { context.side_effect == "write" };'
    '@id("notes") @outcome("approval") @reason("notes need a yes")'
    ' forbid (principal, action == Action::"capability", resource == Capability::"desk__note");'
)
SETTINGS = {"telemetry": {"emit_structured_events": False}}
MODULES = ["tests.crash.project", "tests.crash.workbench"]

Act = Callable[[Client, list[RunRecord]], Awaitable[bool]]
"""What the driver does when all is quiet; False when there is nothing to do but to let time pass."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A job and how it is driven: while all is quiet, and `afterwards`, when all has ended.

    `most` is what it may cost, in micro-dollars.
    """

    target: str
    input: Json = "it"
    script: Sequence[Mapping[str, Json]] = ()
    act: Act | None = None
    afterwards: Act | None = None
    stream: bool = False
    batch: bool = False
    most: int | None = None
    budget: Budget | None = None

    async def submit(self, client: Client, folder: Path) -> None:
        """Accept the job, or find it again."""
        if self.batch:
            source = source_of(folder / ROWS)
            await client.batch(self.target, source, window=4, idempotency_key=KEY, budget=self.budget)
        else:
            await client.submit(self.target, self.input, idempotency_key=KEY, stream=self.stream, budget=self.budget)

    def prepare(self, folder: Path, store: str | None = None) -> Settings:
        """The project of the scenario, made when it is not there yet."""
        if (folder / ROWS).exists():
            return load_settings(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({"id": f"r{number}", "n": number}) for number in range(6)]
        rows[3] = "this is no row"
        given = SETTINGS | {"store": store}
        settings = project(folder, *self.script, modules=MODULES, policy=POLICY, settings=given)
        (folder / "sandbox").mkdir()
        (folder / "sandbox" / "coder.yaml").write_text("profile: strict\n")
        (folder / ROWS).write_text("\n".join(rows) + "\n")
        return settings

    async def react(self, client: Client, records: list[RunRecord]) -> bool:
        """Do what the runs wait for a person to do; False when they wait for time."""
        return await (self.act or attend)(client, records)

    async def finish(self, client: Client, records: list[RunRecord]) -> bool:
        """Do what a person does when all runs have ended; False when there is nothing to do."""
        return self.afterwards is not None and await self.afterwards(client, records)


async def attend(client: Client, records: list[RunRecord]) -> bool:
    """Answer what is asked, send what is waited for."""
    requests = await client.inbox()
    for request in requests:
        if request.kind == "approval":
            await client.approve(request.request_id, by="bob")
        elif request.asked:
            form = forms.example(request.asked.get("schema"))
            await client.answer(request.request_id, form or "done", by="bob")
        else:
            await client.answer(request.request_id, "the blue one", by="bob")
    waiting = [record.run_id for record in records if record.reason is StopReason.event]
    for run_id in waiting:
        await client.signal(run_id, "go", 7)
    return bool(requests or waiting)


async def cancel(client: Client, records: list[RunRecord]) -> bool:
    """Cancel the whole tree; when it has ended, it takes no events any more."""
    root = next(record for record in records if record.parent_run_id is None)
    await client.cancel(root.run_id, by="bob")
    with suppress(InvalidInput):
        await client.signal(root.run_id, "go", 7)
    return True


async def show_out(client: Client, records: list[RunRecord]) -> bool:
    """Close the session whose call asks; what it asked is over with it."""
    found = await client.sessions(SessionQuery(status=SessionStatus.waiting_for_input))
    for session in found:
        await client.close_session(session.session_id, by="bob")
    return bool(found)


async def decide(client: Client, records: list[RunRecord]) -> bool:
    """Reject an answer that the checks are not sure of, then edit the next one."""
    requests = await client.inbox()
    for request in requests:
        said = {"edit": "It is green."} if "It is red." in request.prompt else {"reject": "no"}
        await client.answer(request.request_id, said, by="bob")
    return bool(requests)


async def leave(client: Client, records: list[RunRecord]) -> bool:
    """Nobody is there: only time passes."""
    return False


async def let_go(client: Client, records: list[RunRecord]) -> bool:
    """Let go on what is held."""
    for record in records:
        await client.resume(record.run_id)
    return True


async def crowd(client: Client, records: list[RunRecord]) -> bool:
    """Send what is waited for beside an event to nobody: one transaction, and the bad member harms only itself."""
    waiting = [record.run_id for record in records if record.reason is StopReason.event]
    for run_id in waiting:
        sent = [client.signal(to, "go", 7) for to in (run_id, "nobody", run_id)]
        first, refused, last = await asyncio.gather(*sent, return_exceptions=True)
        assert first is None and last is None and isinstance(refused, UnknownName), (first, refused, last)
    return bool(waiting)


def mend(records: list[RunRecord]) -> list[str]:
    """Mend what was broken; the runs that failed of it, those above first."""
    failed = [record for record in records if record.status is Status.failed]
    if failed and OUTSIDE.has("mended", "") is None:
        OUTSIDE.say("mended", "", "")
    return [record.run_id for record in sorted(failed, key=lambda record: record.depth)]


async def retry(client: Client, records: list[RunRecord]) -> bool:
    """Retry the run that failed."""
    failed = mend(records)
    for run_id in failed:
        await client.retry(run_id)
    return bool(failed)


async def redrive(client: Client, records: list[RunRecord]) -> bool:
    """Redrive the run that failed, and with it what failed below it."""
    failed = mend(records)
    if failed:
        await client.redrive(failed[0])
    return bool(failed)


async def redrive_rows(client: Client, records: list[RunRecord]) -> bool:
    """Redrive the job whose rows failed."""
    failed = mend(records)
    if failed:
        [job] = [record for record in records if record.parent_run_id is None]
        done = await client.redrive(job.run_id)
        assert set(done.queued) == set(failed) and not done.refused
    return bool(failed)


async def fork(client: Client, records: list[RunRecord]) -> bool:
    """Fork the one job at its last step, once."""
    roots = [record for record in records if record.parent_run_id is None]
    if len(roots) == 1:
        await client.fork(roots[0].run_id, "put")
    return len(roots) == 1


_LOOK, _PUT = calls("get", text="a"), calls("put", text="b")
_PAID = decides(costs(_LOOK, "0.01"), costs(_PUT, "0.02"), costs({"answer": "It is done."}, "0.03"))
_FREE = decides(_LOOK, _PUT, {"ask_human": "Which?"}, {"handoff": "second", "artifact": {"so": "far"}}, agent="free")
_GUEST = decides(costs({"answer": "It is said."}, "0.01"))
_THOUGHT = decides(costs({"answer": "It is blue."}, "0.01"))
_FAULT = {"kind": "transient", "retry_after": 30, "times": 1}
_UNSURE = decides(_LOOK, {"answer": "It is blue."}, {"answer": "It is red."}, agent="unsure")
_TINKERS = decides(
    calls("write_file", path="log", content="begun\n"),
    calls("shell", command="echo more >> log; cat log"),
    {"answer": "It is fixed."},
    agent="tinkerer",
)
_SECOND = decides(_PUT, {"answer": "done", "fault": _FAULT}, agent="second")

SCENARIOS: dict[str, Scenario] = {
    "errand": Scenario("errand"),
    "diary": Scenario("diary"),
    "pages": Scenario("pages", 3),
    "fan": Scenario("fan", 36),
    "race": Scenario("race", None),
    "batch": Scenario("row", batch=True, budget=Budget(tokens=8)),
    "people": Scenario("people"),
    "waits": Scenario("waits"),
    "told": Scenario("told"),
    "patient": Scenario("patient"),
    "endless": Scenario("endless", act=cancel),
    "late": Scenario("late"),
    "overdue": Scenario("overdue", act=leave),
    "agreed": Scenario("agreed", None),
    "paused": Scenario("paused", act=let_go),
    "mended": Scenario("mended", afterwards=retry),
    "redriven": Scenario("above", afterwards=redrive),
    "rows": Scenario("frail", batch=True, afterwards=redrive_rows),
    "forked": Scenario("split", 34, afterwards=fork),
    "adopted": Scenario("adopts", "it", [_GUEST], most=1_000_000),
    "crowd": Scenario("waits", act=crowd),
    "together": Scenario("together"),
    "spill": Scenario("spill"),
    "unheard": Scenario("unheard"),
    "paid": Scenario("paid", "Do it.", [_PAID], stream=True, most=1_000_000),
    "visits": Scenario("visits", "a cup", [_THOUGHT], most=1_000_000),
    "shown out": Scenario("shown_out", "a cup", act=show_out),
    "memoirs": Scenario("memoirs", "the lamp"),
    "workshop": Scenario("workshop", 2),
    "tinkerer": Scenario("tinkerer", "Fix it.", [_TINKERS]),
    "unsure": Scenario("unsure", "Is it blue?", [_UNSURE], act=decide),
    "free": Scenario("free", "Do it.", [_FREE, _SECOND]),
}
