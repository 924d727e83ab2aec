"""Agents and workflows as tools of their own: a call is a run, its result the run's answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import mcp
import mcp_types as types
import pytest
import pytest_asyncio
from mcp.client.extension import advertise
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ElicitResult, TextContent
from tests.unit.ingress.face import BOT, MODES, Office, open_office, refused, user
from tests.unit.ingress.test_mcp_tasks import ORDER, Task, task, until

from retinue.ingress.mcp.tasks import TASKS
from retinue.runs.contracts import Json
from retinue.runs.control import RunQuery
from retinue.runs.errors import UnknownName

pytestmark = pytest.mark.asyncio(loop_scope="module")
TARGETS = ("plain", "ship", "recite", "lose", "await_truck")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    async with open_office(tmp_path_factory.mktemp("office")) as made:
        yield made


async def call(agent: mcp.Client, tool: str, **arguments: Json) -> tuple[str, dict[str, Any], bool]:
    """(words, whole result, whether it is an error) of a tool."""
    result = await agent.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult) and result.structured_content is not None
    [text] = result.content
    assert isinstance(text, TextContent)
    return text.text, result.structured_content, bool(result.is_error)


@pytest.mark.promise("H4")
@pytest.mark.parametrize("mode", MODES)
async def test_a_call_is_a_run_and_its_result_the_answer(office: Office, mode: str) -> None:
    async with office.agent(mode, targets=TARGETS) as agent:
        said, told, failed = await call(agent, "plain", input="why?")
        assert (said, failed) == ("42", False)
        request = await office.client.accepted(told["run_id"])
        assert (request.target, request.route, request.principal_id) == ("plain", "mcp", "mcp:ana")
        assert (await call(agent, "recite", input=2))[0] == "word word "
        said, told, failed = await call(agent, "lose", input=None)
        assert (said, told["stop_reason"], failed) == ("the parcel is lost", "tool_failure", True)


async def test_its_schema_is_that_of_its_input(office: Office) -> None:
    async with office.agent("legacy", targets=TARGETS) as agent:
        tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
        assert list(tools)[: len(TARGETS)] == list(TARGETS)
        assert tools["ship"].input_schema["required"] == ["id", "amount"]
        assert tools["recite"].input_schema["properties"] == {"input": {"type": "integer"}}
        assert tools["ship"].description == (
            "Ship an order when somebody packs it. A call is a durable run of the workflow 'ship'."
        )
        assert "input of ship: amount" in await refused(agent, "ship", id="o-1", amount="many")
        assert "recite takes one argument, `input` (got count)" in await refused(agent, "recite", count=3)


async def test_what_it_asks_the_client_s_user_is_asked_and_no_second_run_begins(office: Office) -> None:
    said = user(ElicitResult(action="accept", content={"answer": "Bo"}))
    before = await office.client.runs(RunQuery())
    async with office.agent("2026-07-28", targets=TARGETS, elicitation_callback=said) as agent:
        _, told, _ = await call(agent, "ship", **ORDER)
    assert told["output"] == {"shipped": "o-1", "by": "Bo"}
    assert len(await office.client.runs(RunQuery())) == len(before) + 1


async def test_what_takes_its_time_is_a_task(office: Office) -> None:
    async with office.agent("2026-07-28", targets=TARGETS, extensions=[advertise(TASKS)]) as agent:
        said, _, _ = await call(agent, "plain", input="why?")
        assert said == "42"
        params = types.CallToolRequestParams(name="await_truck", arguments={"input": None})
        begun = await agent.session.send_request(types.CallToolRequest(params=params), Task)
        assert begun.result_type == "task"
        task_id = begun.model_dump(by_alias=True)["taskId"]
        await office.client.signal(task_id, "truck", {"number": 7})
        ended = await until(agent, task_id, "completed")
        assert ended["result"]["content"][0]["text"] == "truck 7"
        assert (await task(agent, "tasks/get", task_id))["result"] == ended["result"]


async def test_a_target_that_is_no_tool_is_told(office: Office) -> None:
    with pytest.raises(UnknownName, match="did you mean plain"):
        office.server(BOT, targets=("plan",))
    async with office.agent("legacy") as agent:
        with pytest.raises(MCPError, match="there is no tool 'plain'"):
            await agent.call_tool("plain", {"input": ""})
