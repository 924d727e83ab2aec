"""The gateway: every call ends in a valid result or a typed error, within its time and its cap."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.sessions.calling import NOW, SECOND, call, caller, gateway_of

from retinue.runs.errors import PermanentError, TransientError
from retinue.runs.gate import Approval, GateDecision, GateRequest
from retinue.sessions import calls
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.native import tool


@pytest.fixture
def latch() -> Iterator[threading.Event]:
    """What hanging tools wait for; released at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


class Recorder:
    """A gate that remembers what it was asked."""

    digest = "p1"

    def __init__(self) -> None:
        self.asked: list[GateRequest] = []

    def decide(self, request: GateRequest) -> GateDecision:
        self.asked.append(request)
        return GateDecision(outcome="allow", reason="", digest=self.digest)


@tool(side_effect="write", idempotency="at_most_once", sensitivity="secret", version="7", stage="canary")
async def pay(amount: int) -> str:
    """Pay."""
    return "paid"


@pytest.mark.promise("F2")
def test_the_gate_is_asked_with_all_there_is_to_know() -> None:
    gate = Recorder()
    gateway = CapabilityGateway(Catalog([pay]), gate, clock=lambda: NOW)
    prepared = gateway.prepare("pay", {"amount": 3})
    approval = Approval(request_id="q", by="bob", at=1, digest=prepared.digest, policy_digest="p1")
    gateway.decide(prepared, caller(depth=2), approval)
    assert gate.asked == [
        GateRequest(
            stage="capability", run_id="r1", tenant="acme", principal="ana", agent="clerk", route="cli", depth=2,
            resource="pay", version="7", side_effect="write", idempotency="at_most_once", sensitivity="secret",
            rollout="canary", digest=prepared.digest, arguments={"amount": 3}, budget={"hops": 3}, approval=approval,
            now=NOW,
        )
    ]  # fmt: skip


@pytest.mark.promise("F1")
def test_a_write_is_denied_unless_a_rule_permits_it() -> None:
    gateway = gateway_of(pay)
    assert gateway.decide(gateway.prepare("pay", {"amount": 3}), caller(), None).outcome == "deny"


async def test_sync_and_async_tools_look_the_same() -> None:
    @tool(side_effect="read")
    def here() -> str:
        return threading.current_thread().name

    @tool(side_effect="read")
    async def there() -> str:
        return threading.current_thread().name

    assert (await call(here)).value.startswith("retinue-tool-")
    assert (await call(there)).value == threading.current_thread().name


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), StopIteration("end"), asyncio.CancelledError()])
async def test_what_a_tool_raises_is_a_typed_error(error: BaseException) -> None:
    @tool(side_effect="read")
    async def fails() -> None:
        raise error

    @tool(side_effect="read")
    def fails_in_thread() -> None:
        raise error

    for each in (fails, fails_in_thread):
        with pytest.raises(PermanentError) as raised:
            await call(each)
        assert raised.value.code == "raised"


async def test_an_own_typed_error_passes_as_it_is() -> None:
    own = TransientError("busy", code="rate", retry_after=3)

    @tool(side_effect="read")
    def fails() -> None:
        raise own

    with pytest.raises(TransientError) as raised:
        await call(fails)
    assert raised.value is own


async def test_a_long_error_is_cut() -> None:
    @tool(side_effect="read")
    def fails() -> None:
        raise ValueError("x" * 100_000)

    with pytest.raises(PermanentError) as raised:
        await call(fails)
    assert len(str(raised.value)) < 600


async def test_a_hanging_coroutine_is_stopped() -> None:
    ended = asyncio.Event()

    @tool(side_effect="read", timeout=0.02)
    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TransientError, match=r"did not end within 0\.02 s") as raised:
        await call(hangs)
    assert raised.value.code == "timeout"
    assert ended.is_set()


async def test_a_coroutine_that_refuses_to_end_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "GRACE", 0.02)
    let_go = asyncio.Event()

    @tool(side_effect="read", timeout=0.02)
    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(TransientError, match="abandoned"):
        await call(stubborn)
    let_go.set()


async def test_a_hanging_thread_is_abandoned_and_starves_nobody(latch: threading.Event) -> None:
    @tool(side_effect="read", timeout=0.02)
    def hangs() -> None:
        latch.wait(30)

    @tool(side_effect="read")
    def works() -> int:
        return 1

    gateway = gateway_of(hangs, works)
    stuck = gateway.prepare("hangs", {})
    for _ in range(calls.MAX_ABANDONED):
        with pytest.raises(TransientError) as raised:
            await gateway.execute(stuck, caller())
        assert raised.value.code == "timeout"
    with pytest.raises(TransientError, match="abandoned calls of it still run") as raised:
        await gateway.execute(stuck, caller())
    assert raised.value.code == "saturated"
    assert (await gateway.execute(gateway.prepare("works", {}), caller())).value == 1


async def test_a_tool_that_hung_is_called_again_once_its_threads_return(latch: threading.Event) -> None:
    returned = threading.Semaphore(0)

    @tool(side_effect="read", timeout=0.02)
    def hangs() -> str:
        late = not latch.is_set()
        latch.wait(30)
        if late:
            returned.release()
        return "back"

    gateway = gateway_of(hangs)
    for _ in range(calls.MAX_ABANDONED):
        with pytest.raises(TransientError):
            await gateway.execute(gateway.prepare("hangs", {}), caller())
    latch.set()
    for _ in range(calls.MAX_ABANDONED):
        assert await asyncio.to_thread(returned.acquire, True, 10)
    while gateway._calls._abandoned["hangs"]:
        await asyncio.to_thread(lambda: None)
    assert (await gateway.execute(gateway.prepare("hangs", {}), caller(deadline=NOW + 60 * SECOND))).value == "back"


async def test_blocking_calls_wait_for_a_thread_within_their_own_time(latch: threading.Event) -> None:
    entered = threading.Event()

    @tool(side_effect="read")
    def holds() -> str:
        entered.set()
        latch.wait(30)
        return "held"

    @tool(side_effect="read", timeout=0.02)
    def waits() -> None: ...

    gateway = gateway_of(holds, waits)
    gateway._calls = calls.Calls(max_threads=1)
    holding = asyncio.create_task(gateway.execute(gateway.prepare("holds", {}), caller()))
    assert await asyncio.to_thread(entered.wait, 10)
    with pytest.raises(TransientError, match="was not called: all threads were busy") as raised:
        await gateway.execute(gateway.prepare("waits", {}), caller())
    assert raised.value.code == "saturated"
    latch.set()
    assert (await holding).value == "held"


@pytest.mark.parametrize("blocking", [True, False])
async def test_cancellation_passes_through(blocking: bool, latch: threading.Event) -> None:
    entered, stopped = threading.Event(), asyncio.Event()

    @tool(side_effect="read")
    def hangs_in_thread() -> None:
        entered.set()
        latch.wait(30)

    @tool(side_effect="read")
    async def hangs() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    running = asyncio.create_task(call(hangs_in_thread if blocking else hangs))
    assert await asyncio.to_thread(entered.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert blocking or stopped.is_set()


@pytest.mark.rule("R9")
async def test_nothing_is_called_after_the_deadline() -> None:
    called = []

    @tool(side_effect="write", idempotency="idempotent")
    async def put() -> None:
        called.append(1)

    gateway = gateway_of(put)
    with pytest.raises(PermanentError, match="was not called: the caller's deadline passed 2 s ago") as raised:
        await gateway.execute(gateway.prepare("put", {}), caller(deadline=NOW - 2 * SECOND))
    assert (raised.value.code, called) == ("deadline", [])


@pytest.mark.rule("R9")
async def test_the_deadline_bounds_a_call_tighter_than_its_timeout() -> None:
    @tool(side_effect="read", timeout=60)
    async def hangs() -> None:
        await asyncio.Event().wait()

    gateway = gateway_of(hangs)
    with pytest.raises(TransientError, match=r"within 0\.02 s"):
        await gateway.execute(gateway.prepare("hangs", {}), caller(deadline=NOW + SECOND // 50))


@pytest.mark.promise("C4")
async def test_a_probe_tells_whether_a_call_has_happened() -> None:
    tickets: dict[str, str] = {}

    @tool(side_effect="read")
    async def find_ticket(key: str, subject: str) -> str | None:
        """Find a ticket."""
        return tickets.get(key + subject)

    @tool(side_effect="write", idempotency="reconcilable", probe=find_ticket)
    def open_ticket(subject: str, *, key: str) -> str:
        tickets[key + subject] = "T1"
        return "T1"

    gateway = gateway_of(open_ticket)
    prepared = gateway.prepare("open_ticket", {"subject": "s"})
    late = caller(deadline=NOW - SECOND)
    assert await gateway.probe(prepared, late) is None
    await gateway.execute(prepared, caller())
    found = await gateway.probe(prepared, late)
    assert found is not None and found.value == "T1"
    assert await gateway.probe(prepared, caller(key="k2")) is None


async def test_a_probe_may_ask_for_the_caller_and_fails_like_a_call() -> None:
    def probe(*, who: Any, strict: bool = True) -> str | None:
        return None

    probe.__annotations__["who"] = type(caller())

    async def broken() -> str | None:
        raise ValueError("down")

    for asked in (probe, broken):

        @tool(side_effect="write", idempotency="reconcilable", probe=asked)
        def put() -> str:
            return "x"

        gateway = gateway_of(put)
        if asked is probe:
            assert await gateway.probe(gateway.prepare("put", {}), caller()) is None
        else:
            with pytest.raises(PermanentError, match="raised ValueError: down"):
                await gateway.probe(gateway.prepare("put", {}), caller())


async def test_a_tool_without_a_probe_cannot_be_asked() -> None:
    gateway = gateway_of(pay)
    with pytest.raises(PermanentError, match="at_most_once and has no probe") as raised:
        await gateway.probe(gateway.prepare("pay", {"amount": 1}), caller())
    assert raised.value.code == "no_probe"


async def test_a_call_prepared_for_another_version_is_refused() -> None:
    @tool(side_effect="write", idempotency="at_most_once", name="pay", version="8")
    async def pay_more(amount: int) -> str:
        return "paid"

    prepared = gateway_of(pay).prepare("pay", {"amount": 1})
    with pytest.raises(PermanentError, match="has version '8' here, this call '7'") as raised:
        await gateway_of(pay_more).execute(prepared, caller())
    assert raised.value.code == "version"
