"""What effects do about rollouts: which stage a call is at, who is refused, what stops a rollout by itself.

A run that its agent's version has put in shadow stays so, with all below it: its writes are recorded and not made.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from retinue.runs.capabilities import Capability, Prepared
from retinue.runs.contracts import Json, RunRequest
from retinue.runs.definitions import Definition
from retinue.runs.effects.run import Run
from retinue.runs.errors import UnknownName
from retinue.runs.journal import Record
from retinue.runs.rollouts import Rollout, Table, chosen, refusal
from retinue.runs.steps import Command, Done


async def staged(run: Run, call: Prepared) -> Prepared:
    """The call with the stage that its capability is at for this run."""
    table = await run.services.rollouts.look()
    if not (table.rows or run.request.shadow):
        return call
    rollout = table.of("capability", call.capability)
    stage = "shadow" if run.request.shadow and rollout.stage != "stopped" else rollout.stage
    if stage == call.capability.stage:
        return call
    return replace(call, capability=call.capability.model_copy(update={"stage": stage}))


def like(asked: Prepared, call: Prepared) -> Prepared:
    """Another call of the same capability, at the stage that the first is at."""
    return replace(call, capability=asked.capability)


def outside(run: Run, call: Prepared) -> str | None:
    """Why this run is not given the capability at all; None when it may ask the gate."""
    if call.capability.stage != "canary":
        return None
    return refusal(run.services.rollouts.table.of("capability", call.capability), who(run.request))


def facts_of(run: Run, capability: Capability) -> dict[str, Json]:
    """What rules see of a stop: of the capability, or of the version of the agent that the run began with.

    `rollout_new` says that the run began after it.
    """
    table = run.services.rollouts.table
    if not table.rows:
        return {}
    stops = [table.of("capability", capability), agent_of(run)]
    found = [rollout for rollout in stops if rollout.stage == "stopped"]
    if not found:
        return {}
    return {"rollout_stopped": True, "rollout_new": any(each.at <= run.leased.started_at for each in found)}


def agent_of(run: Run) -> Rollout:
    """Where the version stands that the run began with."""
    request = run.request
    definition = run.services.registry.get(request.target, request.target_version)
    return run.services.rollouts.table.of("agent", definition)


def at_admission(run: Run) -> dict[str, Json]:
    """What the request's pre-check sees: the stage of the version, and whether it was stopped before the run began."""
    rollout = agent_of(run)
    stage = "shadow" if run.request.shadow and rollout.stage != "stopped" else rollout.stage
    said: dict[str, Json] = {} if stage == "full" else {"rollout": stage}
    if stage == "stopped":
        said |= {"rollout_stopped": True, "rollout_new": rollout.at <= run.leased.started_at}
    return said


def version_for(run: Run, definition: Definition) -> Definition:
    """The version of a definition that a child of this run gets."""
    return pick(run.services.rollouts.table, run.services.registry.versions(definition), who(run.request))


def pick(table: Table, versions: tuple[Definition, ...], asker: tuple[str, str]) -> Definition:
    """The version that a tenant's top-level run gets."""
    if len(versions) == 1:
        return versions[0]
    return next(one for one in versions if one is chosen(table, "agent", versions, asker))


def is_shadow(table: Table, definition: Definition, above: bool) -> bool:
    """Whether a run of this version writes nothing: it is in shadow, or what started it is."""
    return above or table.of("agent", definition).stage == "shadow"


def who(request: RunRequest) -> tuple[str, str]:
    """Whose runs a canary is a share of."""
    return request.tenant_id, request.root_run_id


async def ended(run: Run, command: Command, done: Done) -> None:
    """A canary whose write may have happened, and nobody knows, goes no further."""
    if done.result != "unknown":
        return
    table = await run.services.rollouts.look()
    standing = [agent_of(run)]
    with suppress(UnknownName):  # the project may have it no more
        standing.insert(0, table.of("capability", run.services.gateway.capability(command.name)))
    for rollout in standing:
        if rollout.stage == "canary":
            await _stop(run, rollout, command)


async def _stop(run: Run, rollout: Rollout, command: Command) -> None:
    why = f"in run {run.request.run_id} nobody knows whether {command.name} happened"
    now = run.services.now_ns()
    wanted = rollout.model_copy(update={"stage": "stopped", "at": now, "by": "runtime", "reason": why})
    if await run.services.rollouts.stop(wanted):
        run.note(Record(at=now, topic="rollout", by="runtime", facts=wanted.model_dump(mode="json")))
