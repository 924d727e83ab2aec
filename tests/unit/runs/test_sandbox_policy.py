"""The gate over sandboxes: the stages `sandbox` and `egress`, approvals, the shipped rules, what the journal keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.doubles.sandboxes import BUILDER, CODER
from tests.doubles.worlds import ALLOW_ALL, World, calls
from tests.unit.runs.conftest import Make
from tests.unit.runs.sandboxing import boxed, crash, hold, moves, ran, shell

from retinue.policy.invariants import Invariants
from retinue.policy.load import make_gate
from retinue.policy.rules import DEFAULTS
from retinue.runs.asked import questions
from retinue.runs.context import Context
from retinue.runs.definitions import agent, workflow
from retinue.runs.errors import PermanentError, PolicyDenied
from retinue.runs.journal import Record
from retinue.sessions.catalog import Catalog
from retinue.sessions.gateway import CapabilityGateway
from retinue.sessions.sandboxed import sandbox_tools

pytestmark = [pytest.mark.promise("F1", "E1")]

coder = agent("coder", "Write programs.", sandbox="coder")
SHIPPED = DEFAULTS.read_text()
NO_RM = (
    ALLOW_ALL + '@id("rm") @reason("nothing is removed") forbid (principal, action == Action::"sandbox", resource)'
    ' when { context.arguments.texts.hasTag("command") && context.arguments.texts.getTag("command") like "rm *" };'
)
ASK = (
    ALLOW_ALL + '@id("ask") @outcome("approval") @reason("programs need a yes")'
    ' forbid (principal, action == Action::"sandbox", resource == Sandbox::"coder")'
    ' when { context.facts.texts.hasTag("op") && context.facts.texts.getTag("op") == "exec" };'
)

NO_WRITES = (
    ALLOW_ALL + '@id("writes") @reason("nothing is written") forbid (principal, action == Action::"sandbox", resource)'
    ' when { context.facts.texts.hasTag("op") && context.facts.texts.getTag("op") == "write" };'
)
HOSTS = """
@id("build") permit (principal, action == Action::"sandbox", resource == Sandbox::"builder");
@id("hosts") permit (principal, action == Action::"egress", resource == Sandbox::"builder")
when { context.facts.texts.hasTag("host") && context.facts.texts.getTag("host") == "pypi.example" };
"""


@workflow
async def tries(ctx: Context, manifest: str) -> Any:
    try:
        box = await ctx.sandbox(manifest)
        return (await box.shell("echo hello")).stdout
    except PolicyDenied as error:
        return str(error)


@pytest.mark.parametrize(
    ("manifest", "allowed"),
    [
        (CODER, True),
        (BUILDER, False),
        (CODER.model_copy(update={"network": "host"}), False),
        (CODER.model_copy(update={"confined": False}), False),
    ],
)
async def test_the_shipped_rules_permit_what_is_confined_and_reaches_nothing(
    manifest: Any, allowed: bool, make: Make, tmp_path: Path
) -> None:
    world, nodes = await boxed(make, tmp_path, tries, policy=SHIPPED)
    nodes.manifests = {manifest.name: manifest}
    result = await world.run(tries, manifest.name)
    assert result.value == (
        "hello\n" if allowed else f"no rule permits sandbox '{manifest.name}'; add a permit rule for it"
    )
    assert bool(nodes.done) is allowed


async def test_a_denied_command_is_not_run_and_the_model_is_told(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, coder, policy=NO_RM)
    world.decide(shell("rm -rf ."), shell("echo kept"), {"answer": "done"})
    result = await world.run(coder, "clean")
    assert result.value == "done" and ran(nodes) == ["sh -c echo kept"]
    entries = await world.entries(result.run_id)
    seen = [one.content["data"] for one in entries if isinstance(one, Record) and one.topic == "observation"]
    assert seen[0] == {"refused": "nothing is removed (rule rm)", "code": "denied"}


@pytest.mark.parametrize("answer", ["approved", "denied"])
async def test_a_command_waits_for_a_yes_and_the_sandbox_with_it(
    answer: str, make_on_each: Make, tmp_path: Path
) -> None:
    world, nodes = await boxed(make_on_each, tmp_path, tries, policy=ASK)
    run_id = await world.submit(tries, "coder")
    request = await world.asked(run_id)
    assert request.kind == "approval" and "echo hello" in request.prompt and ran(nodes) == []
    await crash(world, nodes, "b")
    await world.store.resolve(request.request_id, answer, "ben", world.clock(), None)
    result = await world.finish(run_id)
    assert result.value == ("hello\n" if answer == "approved" else "sandbox.exec: denied by ben")
    assert bool(ran(nodes)) is (answer == "approved")


async def test_a_yes_with_other_arguments_is_what_is_run(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, tries, policy=ASK)
    run_id = await world.submit(tries, "coder")
    request = await world.asked(run_id)
    change = {"arguments": {"argv": ["sh", "-c", "echo gentle"]}}
    await world.store.resolve(request.request_id, "approved", "ben", world.clock(), change)
    assert (await world.finish(run_id)).value == "gentle\n"
    assert ran(nodes) == ["sh -c echo gentle"]


@workflow
async def twice(ctx: Context, manifest: str) -> Any:
    box = await ctx.sandbox(manifest)
    await box.write("log", "1")
    try:
        await box.shell("echo 2")
        return "done"
    except PermanentError as error:
        return [error.code, str(error)]


async def test_what_is_denied_by_now_is_not_made_again_to_bring_a_workspace_back(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, twice)
    run_id = await world.submit(twice, "coder")
    await hold(world, nodes, "before exec")
    await crash(world, nodes, "b")
    rules(world, NO_WRITES)
    code, said = (await world.finish(run_id)).value
    assert code == "sandbox_lost" and "sandbox.write: nothing is written (rule writes)" in said
    assert ran(nodes) == [] and (await moves(world, run_id))[-2:] == ["lost", "closed"]


@workflow
async def reaches(ctx: Context, hosts: list[str]) -> Any:
    box = await ctx.sandbox("builder")
    return [(await box.exec("reach", host, "443")).stdout for host in hosts]


async def test_each_host_is_asked_for_and_put_on_record(make: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make, tmp_path, reaches, policy=SHIPPED + HOSTS)
    result = await world.run(reaches, ["pypi.example", "evil.example"])
    assert result.value == ["yes yes", "no no"]
    entries = await world.entries(result.run_id)
    asked = [one.facts for one in entries if isinstance(one, Record) and one.facts.get("stage") == "egress"]
    assert [(one["resource"], one["decision"]["outcome"]) for one in asked] == [
        ("builder", "allow"),
        ("builder", "deny"),
    ]
    assert asked[0]["asked"]["facts"]["host"] == "pypi.example" and asked[0]["key"].endswith("sandbox.exec#0")


async def test_hosts_past_the_limit_are_refused_on_record_once_a_call(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinue.runs.effects.reaching._HOSTS", 0)
    world, _ = await boxed(make, tmp_path, reaches, policy=SHIPPED + HOSTS)
    result = await world.run(reaches, ["pypi.example", "pypi.example"])
    assert result.value == ["no no", "no no"]
    told = [one.facts for one in await world.entries(result.run_id) if isinstance(one, Record)]
    assert [one["key"] for one in told if one.get("name") == "too_many_hosts"] == [
        f"0/sandbox.exec#{number}" for number in range(2)
    ]


async def test_a_shadow_runs_nothing_that_could_reach_out(make: Make, tmp_path: Path) -> None:
    world, nodes = await boxed(make, tmp_path, tries)
    assert (await world.run(tries, "coder", shadow=True)).value == "hello\n", "nobody sees what is done in there"
    said = (await world.run(tries, "builder", shadow=True)).value
    assert "is in shadow" in said and len(ran(nodes)) == 1


async def test_every_question_can_be_asked_again_from_the_journal(make_on_each: Make, tmp_path: Path) -> None:
    world, _ = await boxed(make_on_each, tmp_path, coder, tries, reaches, policy=ASK)
    world.decide(calls("list_files"), {"answer": "done"})
    runs = [await world.submit(tries, "coder"), await world.submit(reaches, ["pypi.example"])]
    await world.settle()
    for request in await world.store.requests():
        await world.store.resolve(request.request_id, "approved", "ben", world.clock(), None)
    runs.append((await world.run(coder, "list")).run_id)
    checked = set()
    for run_id in runs:
        await world.finish(run_id)
        for question in questions(await frames(world, run_id)):
            if question.request.stage not in ("sandbox", "egress"):
                continue
            checked.add((question.request.stage, question.request.resource, question.said["outcome"]))
            given = question.approval and question.approval.model_copy(update={"digest": question.request.digest})
            decision = world.services.gate.decide(question.request.model_copy(update={"approval": given}))
            assert question.lacks == () and decision.outcome == question.said["outcome"]
    assert ("egress", "builder", "allow") in checked and ("sandbox", "coder", "approval_required") in checked


async def frames(world: World, run_id: str) -> list[Any]:
    """The journal of a run as the store has it."""
    return [frame async for frame in world.store.read(run_id)]


def rules(world: World, text: str) -> None:
    """The project has other rules from now on."""
    gate = make_gate({"rules.cedar": text}, Invariants())
    gateway = CapabilityGateway(Catalog(sandbox_tools(agents=True)), gate, clock=world.clock)
    world.use(gate=gate, gateway=gateway)
