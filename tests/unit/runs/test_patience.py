"""People are waited for as long as was said, then somebody else is asked, then the run goes on without."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.worlds import calls
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput, PermanentError
from retinue.runs.patience import Patience
from retinue.sessions.native import tool

pytestmark = [pytest.mark.promise("B4")]


@workflow
async def with_default(ctx: Context, _: Any) -> Any:
    return await ctx.ask("which region?", timeout="2h", default="eu", to="ops", escalate=("30m", "lead"))


@workflow
async def without_default(ctx: Context, _: Any) -> str:
    try:
        return str(await ctx.ask("which region?", timeout="2h"))
    except PermanentError as error:
        return f"{error.code}: {error}"


@workflow
async def yes_or_no(ctx: Context, _: Any) -> bool:
    return await ctx.approve("ship it?", timeout="1h")


async def test_a_question_passes_on_and_then_has_its_default(make_on_each: Make) -> None:
    world = await make_on_each(with_default)
    run_id = await world.submit(with_default)
    request = await world.asked(run_id)
    assert (request.assignee, request.escalated_at) == ("ops", None)
    assert await world.wait_out()
    passed_on = await world.asked(run_id)
    assert (passed_on.request_id, passed_on.assignee) == (request.request_id, "lead")
    assert passed_on.escalated_at is not None
    await world.crash()
    assert (await world.store.get(run_id)).status is Status.waiting_for_input
    assert await world.wait_out()
    assert (await world.finish(run_id)).value == "eu"
    [closed] = await world.store.requests(open_only=False)
    assert closed.status == "expired"
    with pytest.raises(InvalidInput, match="expired already"):
        await world.store.resolve(closed.request_id, "answered", "ben", world.clock(), "us")


async def test_an_answer_in_time_counts(make_on_each: Make) -> None:
    world = await make_on_each(with_default)
    run_id = await world.submit(with_default)
    await world.asked(run_id)
    await world.wait_out()
    await world.answer(run_id, "us")
    assert (await world.finish(run_id)).value == "us"


async def test_without_a_default_silence_is_an_error(make: Make) -> None:
    world = await make(without_default)
    assert (await world.run(without_default)).value == "no_answer: nobody answered in time"


async def test_silence_is_no_yes(make: Make) -> None:
    world = await make(yes_or_no)
    assert (await world.run(yes_or_no)).value is False


async def test_a_yes_that_comes_too_late_is_none_though_nobody_has_looked_yet(make_on_each: Make) -> None:
    """No host was there when the time was over."""
    world = await make_on_each(yes_or_no)
    run_id = await world.submit(yes_or_no)
    request = await world.asked(run_id)
    world.clock.advance(3_600)
    with pytest.raises(InvalidInput, match="is expired already"):
        await world.store.resolve(request.request_id, "approved", "ben", world.clock())
    assert (await world.finish(run_id)).value is False


@pytest.mark.promise("F3")
async def test_an_approval_of_a_call_expires_by_the_configured_patience(make_on_each: Make) -> None:
    @tool(side_effect="write", idempotency="idempotent")
    async def mail(text: str, *, key: str) -> str:
        """Mails."""
        raise AssertionError("must not be called")

    keeper = agent("keeper", "Keeps.", tools=[mail])
    rule = '@id("ask") @outcome("approval") forbid (principal, action == Action::"capability", resource);'
    world = await make_on_each(keeper, policy=f'@id("all") permit (principal, action, resource);\n{rule}')
    world.use(patience=Patience(timeout=60.0))
    world.decide(calls("mail", text="x"), {"answer": "could not"})
    result = await world.run(keeper, "go")
    assert result.value == "could not"
    [refused] = [o for o in await world.outcomes(result.run_id) if o.effect == "call"]
    assert refused.error is not None and "nobody answered in time" in refused.error.message


@pytest.mark.parametrize("said", [{"timeout": 0}, {"timeout": "soon"}, {"escalate": ("0s", "lead")}])
async def test_a_time_that_is_none_is_told(make: Make, said: dict[str, Any]) -> None:
    @workflow
    async def hasty(ctx: Context, _: Any) -> Any:
        return await ctx.ask("now?", **said)

    world = await make(hasty)
    result = await world.run(hasty)
    assert result.status is Status.failed and result.error is not None
    assert "duration" in result.error.message or "must be given some time" in result.error.message
