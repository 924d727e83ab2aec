"""Memory as effects: ask the gate, intend, write or read, settle.

A write's intent is durable before it is made, and its id is the step's idempotency key: made again after a crash it
changes nothing, so it is never in doubt. A read rides with the next commit; replay gives what was found then.
"""

from __future__ import annotations

from retinue.runs.asked import ASKED, asked_at_stage
from retinue.runs.capabilities import Capability, Prepared
from retinue.runs.contracts import ErrorInfo, Json
from retinue.runs.effects import asking
from retinue.runs.effects.run import Run
from retinue.runs.errors import PermanentError
from retinue.runs.forking import write_name
from retinue.runs.gate import Approval, GateDecision, GateRequest
from retinue.runs.identity import effect_key
from retinue.runs.journal import Record
from retinue.runs.memories import Memories, Memory, Recall, Space, problem_of
from retinue.runs.steps import Command, Done, Wait, intent_of

_SECOND = 1_000_000_000


async def remember(run: Run, command: Command) -> Done | Wait:
    """Keep a memory."""
    given = command.arguments
    problem = given.get("problem") or problem_of(given["content"], given["key"], tuple(given["tags"]))
    if problem is not None:
        raise PermanentError(f"nothing was remembered: {problem}", code="invalid_arguments")
    refused = await _permitted(run, command)
    if refused is not None:
        return refused
    memory = _memory(run, command)
    await _port(run).remember(run.request.tenant_id, memory, run.leased.epoch)
    facts: dict[str, Json] = {"memory_id": memory.memory_id, "expires_at": memory.expires_at}
    return Done(value={"memory_id": memory.memory_id}, facts=facts)


async def forget(run: Run, command: Command) -> Done | Wait:
    """Forget a memory."""
    refused = await _permitted(run, command)
    if refused is not None:
        return refused
    given, by = command.arguments, effect_key(run.request.effect_scope, command.key)
    now = run.services.now_ns()
    count = await _port(run).forget(run.request.tenant_id, _space(given), str(given["name"]), by, now)
    return Done(value={"forgotten": count}, facts={"forgotten": count})


async def recall(run: Run, command: Command) -> Done | Wait:
    """Look for memories; every space that is looked in has to be permitted."""
    given = command.arguments
    spaces = tuple(Space.model_validate(space) for space in given["spaces"])
    for space in spaces:
        asked: dict[str, Json] = {"query": given["query"], "k": given["k"]}
        decision = _decide(run, command, space, "read", asked)
        if decision.outcome != "allow":
            return _refused(f"the memory of {space} may not be read: {decision.reason}")
    if command.key not in run.history.intents:
        run.note(intent_of(command, run.services.now_ns(), {"side_effect": "read", **_asked_by(command)}))
    wanted = Recall(
        spaces=spaces,
        text=given["query"],
        tags=tuple(given["tags"]),
        k=given["k"],
        fill=given["fill"],
        at=run.services.now_ns(),
    )
    found = await _port(run).recall(run.request.tenant_id, wanted)
    facts: dict[str, Json] = {"found": [memory.memory_id for memory in found]}
    return Done(value=[memory.model_dump(mode="json") for memory in found], facts=facts, hard=False)


async def _permitted(run: Run, command: Command) -> Done | Wait | None:
    """Ask the gate about a write and put its intent on disk; what ends or parks the step when it may not be made."""
    _port(run)
    given = command.arguments
    space = _space(given)
    arguments = {name: value for name, value in given.items() if name not in ("scope", "owner")}
    call = Prepared(_CAPABILITIES[command.effect], given, command.digest)
    approval = asking.approval(run, command, call)
    decision = _decide(run, command, space, "write", arguments, approval)
    bound = approval is not None and asking.binds(run, approval, call, decision)
    if decision.outcome == "allow" and not bound and _repeats(run, command):
        reason = f"run {run.request.forked_from} has written this very memory already"
        decision = decision.model_copy(update={"outcome": "approval_required", "reason": reason})
    if decision.outcome == "approval_required":
        return await asking.for_approval(run, command, call, decision, {"side_effect": "write"})
    if decision.outcome == "deny":
        return _refused(f"the memory of {space} may not be written: {decision.reason}")
    asking.record_yes(run, command)
    command.interrupted = False
    if command.key not in run.history.intents:
        facts: dict[str, Json] = {"side_effect": "write", "scope": space.scope, "owner": space.owner}
        await run.write(intent_of(command, run.services.now_ns(), facts | _asked_by(command)))
    return None


def _decide(
    run: Run,
    command: Command,
    space: Space,
    side_effect: str,
    arguments: dict[str, Json],
    approval: Approval | None = None,
) -> GateDecision:
    """Ask the gate's stage `memory` and put the decision on record."""
    request, now = run.request, run.services.now_ns()
    asked = GateRequest(
        stage="memory",
        run_id=request.run_id,
        tenant=request.tenant_id,
        principal=request.principal_id,
        agent=request.target,
        route=request.route,
        depth=request.depth,
        resource=space.scope,
        side_effect=side_effect,
        idempotency="idempotent" if side_effect == "write" else None,
        digest=command.digest,
        arguments=arguments,
        budget=run.ledger.remaining(),
        approval=approval,
        facts={"owner": space.owner},
        now=0 if approval is None else now,
    )
    decision = run.services.gate.decide(asked)
    said: dict[str, Json] = {
        "stage": "memory",
        "resource": space.scope,
        "key": command.key,
        "decision": decision.facts,
        ASKED: asked_at_stage(asked, facts=True),
    }
    run.note(Record(at=now, topic="policy", by="runtime", facts=said))
    return decision


def _repeats(run: Run, command: Command) -> bool:
    return write_name(command.name, command.digest) in run.request.repeats


def _memory(run: Run, command: Command) -> Memory:
    given, request, intent = command.arguments, run.request, run.history.intents[command.key]
    ttl = given.get("ttl")
    return Memory(
        memory_id=effect_key(request.effect_scope, command.key),
        space=_space(given),
        content=given["content"],
        key=given["key"],
        tags=tuple(given["tags"]),
        at=intent.at,
        expires_at=None if ttl is None else intent.at + int(ttl * _SECOND),
        run_id=request.run_id,
        step=command.key,
        agent=request.target,
        version=request.target_version,
        principal=request.principal_id,
    )


def _space(given: dict[str, Json]) -> Space:
    return Space(scope=given["scope"], owner=given["owner"])


def _port(run: Run) -> Memories:
    if run.services.memories is None:
        raise PermanentError("this host keeps no memories", code="no_memory")
    return run.services.memories


def _refused(message: str) -> Done:
    error = ErrorInfo(reason="policy_denied", code="denied", message=message)
    return Done(result="refused", error=error, hard=False)


def _asked_by(command: Command) -> dict[str, Json]:
    return {name: command.options[name] for name in ("call_id", "turn") if command.options.get(name) is not None}


def _capability(name: str) -> Capability:
    return Capability(
        name=name, description=name, input_schema={}, output_schema=None, side_effect="write", idempotency="idempotent"
    )


_CAPABILITIES = {name: _capability(name) for name in ("remember", "forget")}
"""What an approval of a memory write is asked and given for."""
