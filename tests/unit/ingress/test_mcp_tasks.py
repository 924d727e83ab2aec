"""Runs as tasks, and questions of runs shown by the client to its user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

import mcp
import mcp_types as types
import pytest
import pytest_asyncio
from mcp.client.extension import advertise
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ElicitResult, InputRequiredResult
from tests.unit.ingress.face import BOT, REVIEWER, Office, ask, open_office, user

from retinue.ingress.mcp.tasks import TASKS
from retinue.runs.contracts import Json

pytestmark = pytest.mark.asyncio(loop_scope="module")
ORDER = {"id": "o-1", "amount": 2}
KEY = "k" * 40
ACCEPT = ElicitResult(action="accept", content={"answer": "Bo"})


class TaskAsked(types.RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


class TaskRequest(types.Request[TaskAsked, str]):
    name_param: ClassVar[str | None] = "taskId"
    params: TaskAsked


class Task(types.Result):
    result_type: Literal["complete", "task"] = "complete"
    model_config = {**types.Result.model_config, "extra": "allow"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    async with open_office(tmp_path_factory.mktemp("office")) as made:
        yield made


def taker(office: Office, **options: Any) -> mcp.Client:
    """An agent that takes tasks."""
    return office.agent("2026-07-28", extensions=[advertise(TASKS)], **options)


async def begin(agent: mcp.Client, target: str, given: Json = None) -> dict[str, Any]:
    """The task that a submitted run is."""
    asked = types.CallToolRequest(
        params=types.CallToolRequestParams(name="submit_run", arguments={"target": target, "input": given})
    )
    told = (await agent.session.send_request(asked, Task)).model_dump(by_alias=True)
    assert told["resultType"] == "task"
    return told


async def task(agent: mcp.Client, method: str, task_id: str, **more: Any) -> dict[str, Any]:
    """What the server says to a request about a task."""
    asked = TaskRequest(method=method, params=TaskAsked(task_id=task_id, **more))
    return (await agent.session.send_request(asked, Task)).model_dump(by_alias=True)


async def until(agent: mcp.Client, task_id: str, *status: str) -> dict[str, Any]:
    """The task when it stands so."""
    while (told := await task(agent, "tasks/get", task_id))["status"] not in status:
        assert told["status"] == "working", told
    return told


@pytest.mark.promise("H4")
async def test_a_run_is_a_task_whose_result_is_the_run_s(office: Office) -> None:
    async with taker(office) as agent:
        begun = await begin(agent, "plain", "why?")
        assert (begun["status"], begun["ttlMs"]) == ("working", None)
        assert begun["pollIntervalMs"] > 0
        ended = await until(agent, begun["taskId"], "completed")
        assert ended["resultType"] == "complete"
        assert ended["result"]["structuredContent"]["output"] == "42"
        assert not ended["result"].get("isError")
        assert (await office.client.get(begun["taskId"])).status == "completed"


async def test_a_run_that_failed_is_a_task_that_completed_with_an_error(office: Office) -> None:
    async with taker(office) as agent:
        ended = await until(agent, (await begin(agent, "lose"))["taskId"], "completed", "failed")
        assert ended["status"] == "completed"
        assert ended["result"]["isError"]
        assert ended["result"]["structuredContent"]["stop_reason"] == "tool_failure"


@pytest.mark.promise("H4")
async def test_what_a_task_needs_is_asked_and_told_through_it(office: Office) -> None:
    async with taker(office, elicitation_callback=user()) as agent:
        begun = await begin(agent, "deliver", ORDER)
        asked = await until(agent, begun["taskId"], "input_required")
        [(key, form)] = asked["inputRequests"].items()
        assert form["method"] == "elicitation/create"
        assert form["params"]["message"] == "Who packs it?"
        assert form["params"]["requestedSchema"]["required"] == ["answer"]
        for nothing in ({}, {"other": {"action": "accept"}}, {key: {"action": "cancel"}}, {key: {"action": "decline"}}):
            await task(agent, "tasks/update", begun["taskId"], input_responses=nothing)
            assert (await task(agent, "tasks/get", begun["taskId"]))["status"] == "input_required"
        with pytest.raises(MCPError, match="has no field 'answer'"):
            await task(agent, "tasks/update", begun["taskId"], input_responses={key: {"action": "accept"}})
        reply = {key: {"action": "accept", "content": {"answer": "Bo"}}}
        told = await task(agent, "tasks/update", begun["taskId"], input_responses=reply)
        assert told["resultType"] == "complete"
        ended = await until(agent, begun["taskId"], "completed")
        assert ended["result"]["structuredContent"]["output"] == "delivered o-1"
        await task(agent, "tasks/update", begun["taskId"], input_responses=reply)


async def test_a_client_without_forms_is_told_what_the_task_waits_for(office: Office) -> None:
    async with taker(office) as agent:
        begun = await begin(agent, "ship", ORDER)
        while "Who packs it?" not in (told := await task(agent, "tasks/get", begun["taskId"]))["statusMessage"]:
            assert told["status"] == "working"
        assert told["pollIntervalMs"] == 5_000


@pytest.mark.promise("F3")
async def test_an_approval_is_a_form_for_who_may_decide_and_for_nobody_else(office: Office) -> None:
    async with taker(office, rights=REVIEWER, elicitation_callback=user()) as reviewer:
        own = await begin(reviewer, "dispatch", ORDER)
        while not (found := await office.client.inbox(own["taskId"])):
            assert (await task(reviewer, "tasks/get", own["taskId"]))["status"] == "working"
        [asked] = found
        assert "needs a person" in (await task(reviewer, "tasks/get", own["taskId"]))["statusMessage"]
        yes = {asked.request_id: {"action": "accept", "content": {"approved": True}}}
        await task(reviewer, "tasks/update", own["taskId"], input_responses=yes)
        assert [one.request_id for one in await office.client.inbox(own["taskId"])] == [asked.request_id]


async def test_a_task_is_canceled(office: Office) -> None:
    async with taker(office) as agent:
        begun = await begin(agent, "await_truck")
        assert (await task(agent, "tasks/cancel", begun["taskId"]))["resultType"] == "complete"
        assert (await until(agent, begun["taskId"], "cancelled"))["statusMessage"] == "canceled by mcp:ana"


async def test_a_task_is_for_who_asked_for_it_and_for_clients_that_take_tasks(office: Office) -> None:
    async with taker(office) as agent:
        begun = await begin(agent, "ship", ORDER)
        for bad in ("nothing", begun["taskId"][-12:]):
            with pytest.raises(MCPError, match="there is no") as caught:
                await task(agent, "tasks/get", bad)
            assert caught.value.code == types.INVALID_PARAMS
    for rights in (replace(BOT, principal="mcp:bob", others=True), replace(BOT, tenant="other")):
        async with taker(office, rights=rights) as other:
            for method in ("tasks/get", "tasks/cancel"):
                with pytest.raises(MCPError, match="there is no"):
                    await task(other, method, begun["taskId"])
    async with office.agent("2026-07-28") as plain:
        with pytest.raises(MCPError) as caught:
            await task(plain, "tasks/get", begun["taskId"])
        assert caught.value.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY
        assert (await ask(plain, "submit_run", target="plain", input="why?"))["status"] == "queued"
    async with office.agent("legacy") as old:
        with pytest.raises(MCPError) as caught:
            await task(old, "tasks/get", begun["taskId"])
        assert caught.value.code == types.METHOD_NOT_FOUND


# -- a question in a wait ------------------------------------------------------------------------------------


async def test_a_wait_asks_the_client_s_user(office: Office) -> None:
    said = user(ACCEPT)
    async with office.agent("2026-07-28", elicitation_callback=said) as agent:
        begun = await ask(agent, "submit_run", target="deliver", input=ORDER)
        ended = await ask(agent, "wait_run", run_id=begun["run_id"], timeout=20)
        assert ended["output"] == "delivered o-1"
    [asked] = said.asked
    assert asked.message == "Who packs it?"


async def test_an_old_client_is_told_and_not_asked(office: Office) -> None:
    said = user(ACCEPT)
    async with office.agent("legacy", elicitation_callback=said) as agent:
        begun = await ask(agent, "submit_run", target="ship", input=ORDER)
        told = await ask(agent, "wait_run", run_id=begun["run_id"], timeout=20)
        assert ([one["prompt"] for one in told["requests"]], said.asked) == (["Who packs it?"], [])


@pytest.mark.parametrize(("keys", "goes_on"), [((KEY,), True), ((), False)], ids=["shared", "own"])
async def test_a_question_of_one_replica_is_answered_at_another(
    office: Office, keys: tuple[str, ...], goes_on: bool
) -> None:
    options: dict[str, Any] = {"mode": "2026-07-28", "elicitation_callback": user()}
    async with (
        mcp.Client(office.server(keys=keys), **options) as one,
        mcp.Client(office.server(keys=("n" * 40, *keys) if keys else ()), **options) as other,
    ):
        begun = await ask(one, "submit_run", target="ship", input=ORDER)
        waits = {"run_id": begun["run_id"], "timeout": 20}
        asked = await one.session.call_tool("wait_run", waits, allow_input_required=True)
        assert isinstance(asked, InputRequiredResult) and asked.input_requests and asked.request_state
        assert begun["run_id"] not in asked.request_state
        again = {"input_responses": dict.fromkeys(asked.input_requests, ACCEPT), "request_state": asked.request_state}
        if not goes_on:
            with pytest.raises(MCPError, match="Invalid or expired requestState"):
                await other.session.call_tool("wait_run", waits, **again)
            return
        ended = await other.session.call_tool("wait_run", waits, **again)
        assert isinstance(ended, CallToolResult) and ended.structured_content
        assert ended.structured_content["output"] == {"shipped": "o-1", "by": "Bo"}


async def test_replies_of_one_wait_are_none_of_another(office: Office) -> None:
    async with office.agent("2026-07-28", elicitation_callback=user()) as agent:
        one, two = [await ask(agent, "submit_run", target="ship", input=ORDER) for _ in range(2)]
        first, _ = [
            await agent.session.call_tool(
                "wait_run", {"run_id": run["run_id"], "timeout": 20}, allow_input_required=True
            )
            for run in (one, two)
        ]
        assert isinstance(first, InputRequiredResult) and first.input_requests
        again = {"input_responses": dict.fromkeys(first.input_requests, ACCEPT), "request_state": first.request_state}
        with pytest.raises(MCPError, match="requestState"):
            await agent.session.call_tool("wait_run", {"run_id": two["run_id"], "timeout": 20}, **again)
        assert [len(await office.client.inbox(run["run_id"])) for run in (one, two)] == [1, 1]
