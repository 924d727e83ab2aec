"""What agents elsewhere can do with runs through MCP, in both eras of the protocol, and what they cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from mcp.shared.exceptions import MCPError
from tests.unit.ingress.face import BOT, MODES, REVIEWER, Office, ask, open_office, refused

from retinue.ingress.mcp.rights import Rights
from retinue.ingress.mcp.telling import MOST
from retinue.runs.contracts import Budget
from retinue.runs.control import RunQuery

pytestmark = pytest.mark.asyncio(loop_scope="module")
ORDER = {"id": "o-1", "amount": 2}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    async with open_office(tmp_path_factory.mktemp("office")) as made:
        yield made


@pytest.mark.promise("A9")
@pytest.mark.promise("H4")
@pytest.mark.parametrize("mode", MODES)
async def test_a_run_is_begun_watched_answered_and_its_result_taken(office: Office, mode: str) -> None:
    async with office.agent(mode) as agent:
        begun = await ask(agent, "submit_run", target="ship", input=ORDER)
        asked = await ask(agent, "wait_run", run_id=begun["run_id"], timeout=20)
        [question] = asked["requests"]
        assert (question["prompt"], question["for_you"]) == ("Who packs it?", True)
        assert question["facts"] == {"parcel": "o-1"}
        await ask(agent, "answer", request_id=question["request_id"], value="Bo")
        ended = await ask(agent, "wait_run", run_id=begun["run_id"], timeout=20)
        assert (ended["status"], ended["output"]) == ("completed", {"shipped": "o-1", "by": "Bo"})
        assert (await ask(agent, "get_run", run_id=begun["run_id"]))["output"] == ended["output"]
        listed = await ask(agent, "list_runs", status="completed", limit=1)
        assert [run["run_id"] for run in listed["runs"]] == [begun["run_id"]]


@pytest.mark.promise("H4")
async def test_what_arrives_by_mcp_is_the_request_that_the_client_makes(office: Office) -> None:
    limits = {"usd": "0.50", "steps": 5}
    async with office.agent("legacy") as agent:
        begun = await ask(
            agent, "submit_run", target="ship", input=ORDER, priority=3, session_id="s", budget=limits, deadline="10m"
        )
    here = await office.client.submit(
        "ship",
        ORDER,
        principal="mcp:ana",
        priority=3,
        session_id="s",
        budget=Budget.model_validate(limits),
        deadline=600,
    )
    mine, theirs = [await office.client.accepted(run_id) for run_id in (here.run_id, begun["run_id"])]
    own = {"run_id", "trace_id", "span_id", "root_run_id", "effect_scope", "deadline", "route"}
    assert theirs.model_dump(exclude=own) == mine.model_dump(exclude=own)
    assert (mine.route, theirs.route) == ("api", "mcp")
    assert mine.deadline is not None and theirs.deadline is not None
    assert abs(mine.deadline - theirs.deadline) < 60e9


async def test_a_second_run_with_a_key_is_the_first_one(office: Office) -> None:
    async with office.agent("2026-07-28") as agent:
        one = await ask(agent, "submit_run", target="plain", input="why?", idempotency_key="k")
        two = await ask(agent, "submit_run", target="plain", input="why?", idempotency_key="k")
        meta = {"retinue/idempotencyKey": "k"}
        three = await agent.call_tool("submit_run", {"target": "plain", "input": "why?"}, meta=meta)
        assert three.structured_content is not None
        assert one["run_id"] == two["run_id"] == three.structured_content["run_id"]


async def test_an_event_and_a_cancel_reach_what_the_principal_asked_for(office: Office) -> None:
    async with office.agent("2026-07-28") as agent:
        one, two = [await ask(agent, "submit_run", target="await_truck") for _ in range(2)]
        await ask(agent, "signal_run", run_id=one["run_id"], name="truck", value={"number": 7})
        assert (await ask(agent, "wait_run", run_id=one["run_id"]))["output"] == "truck 7"
        assert (await ask(agent, "cancel_run", run_id=two["run_id"]))["canceled"] == 1
        ended = await ask(agent, "wait_run", run_id=two["run_id"])
        assert (ended["status"], ended["canceled_by"]) == ("canceled", "mcp:ana")


async def test_a_failed_run_is_told_with_its_reason(office: Office) -> None:
    async with office.agent("legacy") as agent:
        begun = await ask(agent, "submit_run", target="lose")
        ended = await ask(agent, "wait_run", run_id=begun["run_id"])
        assert (ended["status"], ended["stop_reason"]) == ("failed", "tool_failure")
        assert ended["error"]["code"] == "lost"


async def test_a_wait_ends_in_time_and_early_only_for_what_can_be_answered_here(office: Office) -> None:
    async with office.agent("legacy") as agent:
        begun = await ask(agent, "submit_run", target="dispatch", input=ORDER)
        asked = await ask(agent, "wait_run", run_id=begun["run_id"], timeout=4)
        [question] = asked["requests"]
        assert not question["for_you"]
        assert "a person decides this" in question["why_not"]


async def test_a_question_far_below_is_surfaced_with_its_root(office: Office) -> None:
    async with office.agent("2026-07-28") as agent:
        begun = await ask(agent, "submit_run", target="deliver", input=ORDER)
        asked = await ask(agent, "wait_run", run_id=begun["run_id"], timeout=20)
        [question] = asked["requests"]
        assert question["root_run_id"] == begun["run_id"] != question["run_id"]
        assert (await ask(agent, "list_requests", run_id=question["run_id"]))["requests"] == [question]
        await ask(agent, "answer", request_id=question["request_id"], value="Bo")
        assert (await ask(agent, "wait_run", run_id=begun["run_id"]))["output"] == "delivered o-1"


@pytest.mark.promise("F3")
async def test_an_agent_decides_nothing_and_another_never_what_it_asked_for_itself(office: Office) -> None:
    async with office.agent("2026-07-28") as agent, office.agent("2026-07-28", REVIEWER) as reviewer:
        assert "approve_run" not in [tool.name for tool in (await agent.list_tools()).tools]
        with pytest.raises(MCPError, match="there is no tool 'approve_run'"):
            await agent.call_tool("approve_run", {"request_id": "x"})
        theirs = await ask(agent, "submit_run", target="dispatch", input=ORDER)
        own = await ask(reviewer, "submit_run", target="dispatch", input=ORDER)
        [mine] = (await ask(reviewer, "wait_run", run_id=own["run_id"], timeout=4))["requests"]
        said = await refused(reviewer, "approve_run", request_id=mine["request_id"])
        assert "'mcp:rita' asked for it and cannot decide it" in said
        assert (await office.client.awaited(own["run_id"]))[0].kind == "approval"
        asked = await ask(reviewer, "wait_run", run_id=theirs["run_id"], timeout=20)
        [question] = asked["requests"]
        assert (await ask(reviewer, "approve_run", request_id=question["request_id"]))["status"] == "approved"
        assert (await ask(agent, "wait_run", run_id=theirs["run_id"]))["output"] == "sent o-1"


async def test_a_refusal_reaches_the_run_with_its_why(office: Office) -> None:
    begun = await office.client.submit("dispatch", ORDER)
    async with office.agent("legacy", REVIEWER) as reviewer:
        asked = await ask(reviewer, "wait_run", run_id=begun.run_id, timeout=20)
        [question] = asked["requests"]
        assert "use approve_run or deny_run" in await refused(
            reviewer, "answer", request_id=question["request_id"], value="yes"
        )
        await ask(reviewer, "deny_run", request_id=question["request_id"], why="too far")
        ended = await ask(reviewer, "wait_run", run_id=begun.run_id)
        assert ended["status"] == "failed"
        assert "denied by mcp:rita" in ended["error"]["message"]
        assert "no open request" in await refused(reviewer, "deny_run", request_id=question["request_id"])


async def test_what_others_asked_for_is_seen_and_left_alone(office: Office) -> None:
    begun = await office.client.submit("ship", ORDER)
    async with office.agent("2026-07-28") as agent:
        asked = await ask(agent, "wait_run", run_id=begun.run_id, timeout=4)
        [question] = asked["requests"]
        assert "--others" in question["why_not"]
        assert "--others" in await refused(agent, "answer", request_id=question["request_id"], value="Bo")
        assert "asked for by 'ana'" in await refused(agent, "cancel_run", run_id=begun.run_id)
        assert "may signal only" in await refused(agent, "signal_run", run_id=begun.run_id, name="truck")
    async with office.agent("2026-07-28", replace(BOT, others=True)) as agent:
        await ask(agent, "answer", request_id=question["request_id"], value="Bo")
        assert (await ask(agent, "wait_run", run_id=begun.run_id))["status"] == "completed"


async def test_another_tenant_has_no_runs_requests_or_tasks_for_these_eyes(office: Office) -> None:
    begun = await office.client.submit("ship", ORDER)
    stranger = Rights(principal="mcp:ana", tenant="other", others=True, approvals=True, traces=False)
    async with office.agent("2026-07-28", stranger) as agent:
        said = await refused(agent, "get_run", run_id=begun.run_id)
        assert said == (await refused(agent, "get_run", run_id="nothing")).replace("nothing", begun.run_id)
        assert "no run" in await refused(agent, "cancel_run", run_id=begun.run_id)
        assert (await ask(agent, "list_runs", children=True))["runs"] == []
        assert (await ask(agent, "list_requests"))["requests"] == []
        assert "query_traces" not in [tool.name for tool in (await agent.list_tools()).tools]
        own = await ask(agent, "submit_run", target="plain", input="why?")
        assert (await office.client.get(own["run_id"])).tenant_id == "other"


@pytest.mark.promise("G1")
async def test_the_traces_answer_one_bounded_question_and_change_nothing(office: Office) -> None:
    async with office.agent("legacy") as agent:
        for _ in range(3):
            begun = await ask(agent, "submit_run", target="plain", input="why?")
            await ask(agent, "wait_run", run_id=begun["run_id"])
        sql = "SELECT agent, route FROM runs ORDER BY created_at DESC LIMIT 3"
        told = await ask(agent, "query_traces", sql=sql)
        assert told["rows"] == [{"agent": "plain", "route": "mcp"}] * 3
        assert (told["columns"], told["truncated"]) == (["agent", "route"], False)
        cut = await ask(agent, "query_traces", sql=sql, rows=2)
        assert (len(cut["rows"]), cut["truncated"]) == (2, True)
        wide = await ask(agent, "query_traces", sql=f"SELECT repeat('x', {MOST // 4}) FROM range(50)")
        assert 1 <= len(wide["rows"]) <= 4 and wide["truncated"]
        assert "read only" in await refused(agent, "query_traces", sql="DELETE FROM runs")
        assert "longer than" in await refused(agent, "query_traces", sql=f"SELECT repeat('x', {MOST + 1})")
        slow = "SELECT count(*) FROM range(1000000) a, range(1000000) b"
        assert "stopped after 0.2 seconds" in await refused(agent, "query_traces", sql=slow, timeout=0.2)


async def test_an_output_that_is_too_long_is_cut_and_says_so(office: Office) -> None:
    async with office.agent("legacy") as agent:
        begun = await ask(agent, "submit_run", target="recite", input=100_000)
        ended = await ask(agent, "wait_run", run_id=begun["run_id"])
        assert len(ended["output"]) == MOST
        assert "500,002 characters" in ended["output_cut"]


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        (
            "submit_run",
            {"target": "plan", "input": ""},
            "there is no agent or workflow 'plan': there are: await_truck,",
        ),
        ("submit_run", {"target": "retinue.job", "input": {}}, "there is no agent or workflow 'retinue.job'"),
        ("submit_run", {"input": ""}, "submit_run: target: Field required; its arguments are target, input,"),
        ("submit_run", {"target": "ship", "input": {"id": 1}}, "input of ship: id: "),
        ("submit_run", {"target": "plain", "principal": "root"}, "submit_run: principal: Extra inputs"),
        ("submit_run", {"target": "plain", "input": "", "budget": {"usd": -1}}, "submit_run: budget.usd: "),
        ("submit_run", {"target": "plain", "input": "", "deadline": "soon"}, "'soon'"),
        ("wait_run", {"run_id": "x", "timeout": 1e9}, "wait_run: timeout: Input should be less than or equal to 300"),
        ("get_run", {"run_id": "x"}, "there is no run 'x'"),
        ("list_runs", {"limit": 10_000}, "list_runs: limit: "),
        ("answer", {"request_id": "x", "value": 1}, "there is no open request 'x'"),
        ("query_traces", {"sql": "SELEKT"}, "not SQL that DuckDB understands"),
    ],
)
async def test_bad_arguments_are_told_in_plain_words(
    office: Office, tool: str, arguments: dict[str, object], said: str
) -> None:
    before = await office.client.runs(RunQuery())
    async with office.agent("legacy") as agent:
        assert said in await refused(agent, tool, **arguments)
    assert await office.client.runs(RunQuery()) == before


async def test_targets_are_told_with_what_they_take_and_without_what_agents_are_told(office: Office) -> None:
    async with office.agent("2026-07-28") as agent:
        told = {one["name"]: one for one in (await ask(agent, "list_targets"))["targets"]}
    assert told["ship"]["about"] == "Ship an order when somebody packs it."
    assert told["ship"]["input_schema"]["required"] == ["id", "amount"]
    assert told["plain"] == {
        "name": "plain",
        "kind": "agent",
        "about": "an agent with the tools send",
        "input_schema": None,
        "output_schema": None,
    }


async def test_a_tool_s_definition_stays_the_same_for_the_same_rights(office: Office) -> None:
    async with office.agent("legacy") as one, office.agent("2026-07-28") as other:
        first, second = [(await agent.list_tools()).tools for agent in (one, other)]
    assert [tool.model_dump() for tool in first] == [tool.model_dump() for tool in second]
    assert all(tool.description and tool.input_schema["additionalProperties"] is False for tool in first)
