"""Why runs stop, seen through the public client with runs hosted in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.projects import decides, project
from tests.doubles.worlds import calls
from tests.unit.host import desk

from retinue import Budget, Client, StopReason, connect
from retinue.runs.contracts import PendingRequest, RunRecord, Status
from retinue.runs.control import RunQuery
from retinue.runs.errors import InvalidInput, RunCanceled, RunFailed, UnknownName

pytestmark = pytest.mark.promise("A4")

_BOUND = 20.0

RULES = """
@id("all") permit (principal, action, resource);
@id("no-broken") @reason("not for bad") forbid (principal, action == Action::"request", resource)
when { context.tenant == "bad" };
@id("ask") @outcome("approval") @reason("stamps need a yes")
forbid (principal, action == Action::"capability", resource == Capability::"stamp")
when { context.tenant != "trusted" };
@id("quiet") @reason("nobody may speak") forbid (principal, action == Action::"output", resource)
when { context.tenant == "mute" };
"""


@asynccontextmanager
async def client(folder: Path, *lines: Any, **settings: Any) -> AsyncIterator[Client]:
    """A client of the desk's project, hosting runs here."""
    given = project(folder, *lines, modules=["tests.unit.host.desk"], policy=RULES, settings=settings)
    async with connect(settings=given, local=True) as made:
        yield made


async def stop_of(made: Client, target: str, input: Any, **options: Any) -> tuple[str, str, str]:
    """(status, reason, what was said) of a run that ends."""
    handle = await made.submit(target, input, **options)
    branch = await made.wait(handle.run_id, _BOUND)
    record = await made.get(handle.run_id)
    assert (record.status, record.reason) == (branch.status, branch.reason)
    return branch.status.value, branch.reason.value, branch.error.message if branch.error else ""


@pytest.fixture(autouse=True)
def fresh() -> None:
    desk.done.clear()
    desk.full = False


async def test_success(tmp_path: Path) -> None:
    async with client(tmp_path, decides(calls("look", name="book"), {"answer": "here"})) as made:
        handle = await made.submit("clerk", "where is the book?")
        assert await handle.result(_BOUND) == "here"
        assert (await made.get(handle.run_id)).reason is StopReason.success
        kinds = [event.kind async for event in handle.events()]
        assert kinds[0] == "accepted" and kinds[-1] == "finished"


async def test_blocked(tmp_path: Path) -> None:
    async with client(tmp_path) as made:
        status, reason, said = await stop_of(made, "clerk", "x", tenant="bad")
        assert (status, reason) == ("failed", "blocked") and "not for bad" in said
    async with client(tmp_path / "stop", decides({"stop": "I cannot"})) as made:
        status, reason, said = await stop_of(made, "clerk", "x")
        assert (status, reason) == ("failed", "blocked") and "I cannot" in said


async def asked(made: Client, run_id: str) -> PendingRequest:
    """The question of a run, as soon as it waits."""
    async with asyncio.timeout(_BOUND):
        while True:
            for request in await made.inbox():
                if request.run_id == run_id and (await made.get(run_id)).status is not Status.in_progress:
                    return request
            await asyncio.sleep(0.01)


@pytest.mark.promise("A7", "A9")
async def test_approval_required(tmp_path: Path) -> None:
    async with client(tmp_path, decides(calls("stamp", text="it"), {"answer": "done"})) as made:
        handle = await made.submit("clerk", "x")
        request = await asked(made, handle.run_id)
        record = await made.get(handle.run_id)
        assert (record.status, record.reason) == ("waiting_for_approval", "approval_required")
        assert desk.done == [] and "stamps need a yes" in request.prompt
        await made.approve(request.request_id, by="bob")
        assert await handle.result(_BOUND) == "done" and len(desk.done) == 1


@pytest.mark.promise("A3", "A7", "A9")
async def test_input_required(tmp_path: Path) -> None:
    async with client(tmp_path, decides({"ask_human": "Which?"}, {"answer": "thanks"})) as made:
        handle = await made.submit("clerk", "x")
        request = await asked(made, handle.run_id)
        record = await made.get(handle.run_id)
        assert (record.status, record.reason) == ("waiting_for_input", "input_required")
        await made.answer(request.request_id, "the red one")
        assert await handle.result(_BOUND) == "thanks"


async def test_a_no_is_seen_by_the_agent_and_ends_a_workflow(tmp_path: Path) -> None:
    async with client(tmp_path) as made:
        handle = await made.submit("must_stamp", "it")
        await made.deny((await asked(made, handle.run_id)).request_id, by="bob")
        with pytest.raises(RunFailed, match="denied by bob") as failed:
            await handle.result(_BOUND)
        assert failed.value.reason == "policy_denied" and desk.done == []


@pytest.mark.promise("A5")
async def test_budget_exhausted(tmp_path: Path) -> None:
    async with client(tmp_path, decides(*[calls("look", name=f"{n}") for n in range(9)])) as made:
        status, reason, said = await stop_of(made, "clerk", "x", budget=Budget(steps=2))
        assert (status, reason) == ("failed", "budget_exhausted") and "steps budget 2" in said


@pytest.mark.promise("A5")
async def test_a_child_spends_of_what_its_parent_has(tmp_path: Path) -> None:
    async with client(tmp_path, decides(*[calls("look", name=f"{n}") for n in range(9)])) as made:
        handle = await made.submit("hires", "x", budget=Budget(tokens=4_700, depth=1))
        with pytest.raises(RunFailed) as failed:
            await handle.result(_BOUND)
        [child] = await made.runs(RunQuery(parent_run_id=handle.run_id))
        assert (failed.value.reason, child.reason) == ("budget_exhausted", "budget_exhausted")
        assert 0 < child.usage.tokens == (await made.get(handle.run_id)).usage.tokens <= 4_700
        status, reason, said = await stop_of(made, "hires", "x", budget=Budget(depth=0))
        assert (status, reason) == ("failed", "budget_exhausted") and "depth" in said


@pytest.mark.promise("A3")
async def test_invalid_decision(tmp_path: Path) -> None:
    bad = {"tool_calls": [{"name": "fly"}]}
    async with client(tmp_path, decides(*[bad] * 9)) as made:
        status, reason, said = await stop_of(made, "clerk", "x")
        assert (status, reason) == ("failed", "invalid_decision") and "no tool 'fly'" in said


async def test_policy_denied(tmp_path: Path) -> None:
    async with client(tmp_path) as made:
        status, reason, said = await stop_of(made, "clerk", "x", tenant="mute")
        assert (status, reason) == ("failed", "policy_denied") and "nobody may speak" in said


async def test_tool_failure(tmp_path: Path) -> None:
    async with client(tmp_path) as made:
        status, reason, said = await stop_of(made, "must_look", "broken")
        assert (status, reason) == ("failed", "tool_failure") and "the shelf is broken" in said


async def test_model_failure(tmp_path: Path) -> None:
    async with client(tmp_path, decides({"fault": {"kind": "garbage"}})) as made:
        status, reason, _ = await stop_of(made, "clerk", "x")
        assert (status, reason) == ("failed", "model_failure")


async def test_side_effect_unknown(tmp_path: Path) -> None:
    async with client(tmp_path, decides(calls("post", text="letter"), {"answer": "never"})) as made:
        status, reason, said = await stop_of(made, "clerk", "x")
        assert (status, reason) == ("failed", "side_effect_unknown") and "must not be repeated" in said
        assert desk.done == ["letter"]


@pytest.mark.promise("A9")
async def test_canceled(tmp_path: Path) -> None:
    async with client(tmp_path) as made:
        handle = await made.submit("waits", 0)
        assert await made.cancel(handle.run_id, by="bob") == 1
        with pytest.raises(RunCanceled):
            await handle.result(_BOUND)
        assert (await made.get(handle.run_id)).cancel == "bob"


@pytest.mark.promise("A5")
async def test_deadline_exceeded(tmp_path: Path) -> None:
    async with client(tmp_path) as made:
        status, reason, said = await stop_of(made, "waits", 0, budget=Budget(seconds=0.05))
        assert (status, reason) == ("failed", "deadline_exceeded") and "wall time" in said


@pytest.mark.promise("A7")
async def test_an_event_wakes_a_run(tmp_path: Path) -> None:
    async with client(tmp_path) as made:
        handle = await made.submit("waits", 0)
        await made.signal(handle.run_id, "go")
        assert await handle.result(_BOUND) == "waited"
        with pytest.raises(InvalidInput, match="has ended"):
            await made.signal(handle.run_id, "go")


@pytest.mark.promise("A11")
@pytest.mark.parametrize("fate", ["completed", "failed"])
async def test_what_follows_an_answer_cannot_change_it_and_may_be_repeated(tmp_path: Path, fate: str) -> None:
    desk.full = fate == "failed"
    async with client(tmp_path, decides({"answer": "42"})) as made:
        handle = await made.submit("teller", "x")
        assert await handle.result(_BOUND) == "42"
        answered, result = await made.get(handle.run_id), await made.wait(handle.run_id)
        filing = await ended_child(made, handle.run_id)
        assert (filing.target, filing.status.value) == ("filed", fate)
        if desk.full:
            desk.full = False
            await made.retry(filing.run_id)
            assert (await made.wait(filing.run_id, _BOUND)).ok
        assert desk.done == ["42"]
        assert (await made.get(handle.run_id), await made.wait(handle.run_id)) == (answered, result)


async def ended_child(made: Client, run_id: str) -> RunRecord:
    """The one child of a run, when it has ended."""
    async with asyncio.timeout(_BOUND):
        while True:
            for record in await made.runs(RunQuery(parent_run_id=run_id)):
                if record.status.terminal:
                    return record
            await asyncio.sleep(0.01)


@pytest.mark.promise("A2")
async def test_what_cannot_run_is_refused_before_it_is_accepted(tmp_path: Path) -> None:
    async with client(tmp_path) as made:
        with pytest.raises(UnknownName, match="did you mean clerk"):
            await made.submit("clark", "x")
        with pytest.raises(InvalidInput, match="input of waits"):
            await made.submit("waits", {"not": "a number"})
        with pytest.raises(InvalidInput, match="model"):
            await made.submit("clerk", "x", model="openia:gpt")
        first = await made.submit("waits", 0, idempotency_key="once")
        again = await made.submit("waits", 0, idempotency_key="once")
        assert first.run_id == again.run_id
