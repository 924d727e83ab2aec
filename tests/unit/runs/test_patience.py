"""People are waited for as long as was said, then somebody else is asked, then the run goes on without."""

from __future__ import annotations

from typing import Any

import pytest
from tests.doubles.worlds import calls
from tests.unit.runs.conftest import Make

from retinue.runs.context import Context
from retinue.runs.contracts import Status
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import InvalidInput, PermanentError, TransientError
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


OWN = ("doubt", "gate", "capability", "side_effect", "repeatable", "turn", "prompt", "requester", "request_id")
OWN_OF_CALLS = ("approver", "asked")
OWN_TIMES = ("assignee", "expires_at", "escalate_at", "escalate_to", "escalated_at", "by", "status")
FREE = {"version", "digest", "policy_digest"}
"""Facts of the runtime's with its own questions that nothing reads in another's."""


@pytest.mark.parametrize("name", OWN + OWN_OF_CALLS + OWN_TIMES)
@pytest.mark.parametrize("asks", ["ask", "approve"])
async def test_a_fact_with_the_name_of_one_of_the_runtimes_is_refused(make: Make, asks: str, name: str) -> None:
    """It would be lost, or read as the runtime's: a question with a `doubt` as a write that may have happened."""

    @workflow
    async def careless(ctx: Context, _: Any) -> Any:
        method = ctx.ask if asks == "ask" else ctx.approve
        try:
            return await method("now?", **{name: "x", "colour": "red"})
        except InvalidInput as error:
            return str(error)

    world = await make(careless)
    result = await world.run(careless)
    assert f"question 'now?': the fact {name} " in result.value and f"my_{name}" in result.value
    assert await world.intents(result.run_id) == []


async def test_facts_with_names_of_their_own_stand_with_the_question(make: Make) -> None:
    @workflow
    async def careful(ctx: Context, _: Any) -> Any:
        return await ctx.ask("now?", colour="red", my_doubt="none", version="1.2")

    world = await make(careful)
    facts = (await world.asked(await world.submit(careful))).facts
    assert facts == {"colour": "red", "my_doubt": "none", "version": "1.2", "requester": "ana"}


async def test_no_fact_of_the_runtimes_own_questions_is_left_out(make: Make) -> None:
    """What stands with the approval of a call, with a doubt, and with a question that was passed on."""

    @tool(side_effect="write", idempotency="at_most_once")
    async def mail(text: str) -> str:
        """Mails, and the reply is lost."""
        raise TransientError("the reply was lost")

    @workflow
    async def act(ctx: Context, _: Any) -> Any:
        return await ctx.call(mail, text="x")

    rules = """
    @id("rest") permit (principal, action, resource) unless { action == Action::"doubt" };
    @id("ask") @outcome("approval") forbid (principal, action == Action::"capability", resource);
    """
    keeper = agent("keeper", "Keeps.", tools=[mail])
    world = await make(act, keeper, with_default, policy=rules)
    run_id = await world.submit(act)
    approval = await world.asked(run_id)
    await world.store.resolve(approval.request_id, "approved", "ben", world.clock())
    doubt = await world.asked(run_id)
    asking = await world.submit(with_default)
    await world.settle()
    assert await world.wait_out()
    passed_on = await world.asked(asking)
    found = {*approval.facts, *doubt.facts, *passed_on.facts}
    for each in (run_id, asking):
        found |= {name for intent in await world.intents(each) if intent.effect != "call" for name in intent.facts}
    assert {"doubt", "gate", "capability", "escalated_at"} | FREE <= found
    assert found <= {*OWN, *OWN_OF_CALLS, *OWN_TIMES} | FREE
