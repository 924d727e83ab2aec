"""How a run begins and ends: who it is for, which moves there are, its version, and what follows it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests.doubles.shapes import new_run
from tests.doubles.worlds import ended
from tests.unit.runs.conftest import Make

from retinue.runs import machine
from retinue.runs.context import Context
from retinue.runs.contracts import Budget, RunRequest, Status, StopReason
from retinue.runs.control import RunQuery
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import ConfigError, InvalidInput, RunError, UnknownName
from retinue.runs.machine import STATUS_OF, TRANSITIONS, WAITING, IllegalTransition, check, sources


@pytest.mark.promise("A2")
@pytest.mark.parametrize("field", ["tenant_id", "principal_id", "trace_id", "run_id"])
def test_a_run_without_who_and_where_is_refused(field: str) -> None:
    known = new_run("top").request.model_dump()
    with pytest.raises(ValidationError, match=f"{field}[\\s\\S]*must not be empty"):
        RunRequest(**known | {field: ""})
    del known[field]
    with pytest.raises(ValidationError, match=field):
        RunRequest(**known)


@pytest.mark.promise("A2")
async def test_a_run_and_its_children_carry_who_they_are_for(make_on_each: Make) -> None:
    world = await make_on_each(parent, child)
    given = {"tenant_id": "globex", "principal_id": "zoe", "route": "api", "session_id": "s1", "job_id": "j1"}
    result = await world.run(parent, **given, agent_instance_id="i1", idempotency_key="once")
    [below] = await world.store.list_runs(RunQuery(parent_run_id=result.run_id))
    first = (await world.entries(below.run_id))[0]
    assert first.kind == "accepted"
    request = first.request
    assert {name: getattr(request, name) for name in given} == given
    assert (request.parent_run_id, request.root_run_id) == (result.run_id, result.run_id)
    assert (request.trace_id, request.target, request.target_version) == ("7" * 32, "child", "c1")
    assert request.parent_span_id is not None and request.idempotency_key is None
    assert request.budget.depth is not None


@workflow(version="c1")
async def child(ctx: Context, _: Any) -> str:
    return "child"


@workflow
async def parent(ctx: Context, _: Any) -> str:
    return str(await ctx.run(child, None))


@pytest.mark.promise("A8")
def test_the_table_knows_every_status_and_every_reason() -> None:
    assert set(TRANSITIONS) == set(Status) and len(Status) == 8
    assert set(STATUS_OF) == set(StopReason)
    after = {status: TRANSITIONS[status] for status in Status if status.terminal}
    assert after == {Status.completed: set(), Status.canceled: set(), Status.failed: {Status.queued}}
    assert {status for status in Status if status.terminal} == {Status.completed, Status.failed, Status.canceled}


@pytest.mark.promise("A8")
def test_only_an_owner_ends_a_run_and_whatever_waits_is_queued_again() -> None:
    assert sources(Status.completed) == sources(Status.failed) == {Status.in_progress}
    assert sources(Status.in_progress) == {Status.queued}
    assert sources(Status.queued) == WAITING | {Status.in_progress, Status.failed}
    assert sources(Status.canceled) == WAITING | {Status.in_progress, Status.queued}
    for status in WAITING:
        assert sources(status) == {Status.in_progress}


@pytest.mark.promise("A8")
@pytest.mark.parametrize("found", list(Status))
@pytest.mark.parametrize("wanted", list(Status))
def test_a_forbidden_move_names_both_states(found: Status, wanted: Status) -> None:
    if wanted in TRANSITIONS[found]:
        check("run-1", found, wanted)
        return
    with pytest.raises(IllegalTransition) as refused:
        check("run-1", found, wanted)
    assert f"run run-1 is {found} and cannot become {wanted}" in str(refused.value)
    assert (refused.value.found, refused.value.wanted) == (found, wanted)


@pytest.mark.promise("A8")
def test_every_failure_says_what_helps() -> None:
    failures = {reason for reason, status in STATUS_OF.items() if status is Status.failed}
    assert failures == set(machine.REMEDY)


heard: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    heard.clear()


@workflow
async def remember(ctx: Context, done: dict[str, Any]) -> str:
    heard.append(done)
    if done["input"] == "break":
        raise RunError("the follow-up broke")
    return "remembered"


answerer = agent("answerer", "Answer.", follow_ups=[remember])


@pytest.mark.promise("A11")
@pytest.mark.parametrize("question", ["fine", "break"])
async def test_what_follows_an_answer_runs_for_itself_and_cannot_touch_it(make_on_each: Make, question: str) -> None:
    world = await make_on_each(answerer)
    world.decide({"answer": "42"})
    result = await world.run(answerer, question, input_id="row 7")
    before = await world.store.get(result.run_id)
    await world.settle()
    [follow_up] = await world.store.list_runs(RunQuery(parent_run_id=result.run_id))
    assert heard == [{"input": question, "output": "42", "run_id": result.run_id, "input_id": "row 7"}]
    assert follow_up.status == ("completed" if question == "fine" else "failed")
    assert await world.store.get(result.run_id) == before and before.status is Status.completed
    assert (await world.store.result(result.run_id)) == result


@pytest.mark.promise("A11")
async def test_nothing_follows_a_run_without_an_answer_or_where_it_is_switched_off(make: Make) -> None:
    world = await make(answerer)
    world.decide({"fault": {"kind": "permanent"}})
    assert (await world.run(answerer, "x")).status == "failed"
    world.use(follow_ups=False)
    world.decide({"answer": "42"})
    assert (await world.run(answerer, "x")).value == "42"
    await world.settle()
    assert heard == []


@workflow(version="1")
async def versioned(ctx: Context, _: Any) -> str:
    await ctx.sleep(60)
    return "first"


@pytest.mark.promise("C7")
async def test_a_run_of_another_explicit_version_stops_with_both_names(make_on_each: Make) -> None:
    @workflow(name="versioned", version="2")
    async def newer(ctx: Context, _: Any) -> str:
        await ctx.sleep(60)
        return "second"

    world = await make_on_each(versioned)
    run_id = await world.submit(versioned)
    await world.settle()
    world.redefine(newer)
    result = await world.finish(run_id)
    assert result.reason is StopReason.replay_mismatch and result.error is not None
    assert "began with version 1 of versioned, the project has 2" in result.error.message
    assert "retinue fork RUN" in result.error.message
    assert (await world.run(newer)).value == "second"


@pytest.mark.promise("C7")
async def test_a_run_whose_definition_is_gone_says_so(make: Make) -> None:
    world = await make(versioned)
    run_id = await world.submit(versioned)
    await world.settle()
    world.redefine(child)
    result = await world.finish(run_id)
    assert result.status == "failed" and result.error is not None
    assert "no agent or workflow 'versioned'" in result.error.message


@pytest.mark.promise("C7")
async def test_an_entry_of_a_newer_schema_is_refused(make: Make) -> None:
    from retinue.runs.journal import SCHEMA  # noqa: PLC0415
    from retinue.store.blobs import FolderBlobs  # noqa: PLC0415
    from retinue.store.frames import FrameCodec  # noqa: PLC0415
    from retinue.store.sealing import KeyFolder, Vault  # noqa: PLC0415

    world = await make(child)
    vault = Vault(KeyFolder(world.folder / "keys"))
    codec = FrameCodec(vault, FolderBlobs(world.folder / "blobs", vault))
    with pytest.raises(Exception, match=f"entry schema {SCHEMA + 1} of run:1 is newer"):
        codec.decode("acme", "run:1", (SCHEMA + 1, b"[]", None), lambda _: None)


@workflow
async def refuses_input(ctx: Context, count: int) -> int:
    return count


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [({"x": 1}, "internal_error", "input of refuses_input"), (object, "internal_error", "input of refuses_input")],
)
async def test_an_input_of_the_wrong_type_ends_the_run_and_says_why(
    make: Make, value: Any, reason: str, said: str
) -> None:
    world = await make(refuses_input)
    result = await world.run(refuses_input, "not a number" if value is object else value)
    assert ended(result) == ("failed", reason) and result.error is not None and said in result.error.message


@workflow
async def no_json(ctx: Context, _: Any) -> Any:
    return {"thing": object()}


async def test_an_output_that_is_not_json_is_rejected(make: Make) -> None:
    result = await (await make(no_json)).run(no_json)
    assert result.reason is StopReason.output_rejected and result.error is not None
    assert "returned what is not JSON" in result.error.message


@pytest.mark.promise("F1")
async def test_the_pre_check_comes_before_anything_else(make_on_each: Make) -> None:
    policy = '@id("none") permit (principal, action, resource) unless { action == Action::"request" };'
    world = await make_on_each(answerer, policy=policy)
    world.decide({"answer": "42"})
    result = await world.run(answerer, "x")
    assert ended(result) == ("failed", "blocked")
    assert [entry.kind for entry in await world.entries(result.run_id)] == [
        "accepted",
        "leased",
        "record",
        "record",
        "finished",
    ]


def test_definitions_refuse_what_cannot_work() -> None:
    with pytest.raises(InvalidInput, match="unknown option 'modle'"):
        agent("x", "y", modle="z")
    with pytest.raises(InvalidInput, match="is no tool"):
        agent("x", "y", tools=[print])
    with pytest.raises(InvalidInput, match="must be an `async def`"):
        workflow(lambda ctx, x: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidInput, match=r"takes \(ctx, input\)"):
        workflow(_no_input)


async def _no_input(ctx: Context) -> None: ...


async def test_two_definitions_of_one_name_and_unknown_names_are_refused(make: Make) -> None:
    @workflow(name="child", version="c2")
    async def other(ctx: Context, _: Any) -> None: ...

    with pytest.raises(ConfigError, match="two definitions are named 'child'"):
        await make(child, other)
    world = await make(child)
    with pytest.raises(UnknownName, match="did you mean child"):
        world.registry.get("chidl")


@pytest.mark.promise("A5")
def test_money_is_never_binary() -> None:
    assert Budget(usd=0.1).micros == 100_000  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Budget(usd="0.0000001")  # type: ignore[arg-type]
