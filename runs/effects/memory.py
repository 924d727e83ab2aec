"""Memory as effects: ask the gate, intend, write or read, settle.

A write's intent is durable before it is made, and its id is the step's idempotency key: made again after a crash it
changes nothing, so it is never in doubt. A read rides with the next commit; replay gives what was found then.
"""

from __future__ import annotations

from dataclasses import replace

from retinue.runs.capabilities import Capability, Prepared, SideEffect
from retinue.runs.contracts import NOTHING, ErrorInfo, Json
from retinue.runs.effects import asking, doubts, gates, retrying
from retinue.runs.effects.run import Run
from retinue.runs.errors import Fenced, PermanentError, StoreError, StoreUnreachable, TransientError
from retinue.runs.forking import write_name
from retinue.runs.gate import Approval
from retinue.runs.identity import digest_of, effect_key
from retinue.runs.journal import Intent
from retinue.runs.memories import Memories, Memory, Recall, Space, problem_of
from retinue.runs.steps import EDITED, Command, Done, Wait, asked_by, intent_of

_SECOND = 1_000_000_000


async def perform(run: Run, command: Command) -> Done | Wait:
    """Remember, recall or forget; what the store cannot do now is tried again, since it changes nothing twice."""
    waiting = retrying.due(run, command)
    if waiting is not None:
        return waiting
    try:
        return await _PERFORMERS[command.effect](run, command)
    except (Fenced, StoreUnreachable):
        raise
    except StoreError as error:
        return retrying.after(run, command, TransientError(str(error), code="store"))


async def _remember(run: Run, command: Command) -> Done | Wait:
    """Keep a memory."""
    problem = _problem(command.arguments)
    if problem is not None:
        raise PermanentError(f"nothing was remembered: {problem}", code="invalid_arguments")
    given = await _permitted(run, command)
    if not isinstance(given, dict):
        return given
    memory, memories = _memory(run, command, given), _port(run)
    await memories.remember(run.request.tenant_id, memory, run.leased.epoch)
    facts: dict[str, Json] = {"memory_id": memory.memory_id, "expires_at": memory.expires_at}
    return Done(value={"memory_id": memory.memory_id}, facts=facts)


async def _forget(run: Run, command: Command) -> Done | Wait:
    """Forget a memory."""
    given = await _permitted(run, command)
    if not isinstance(given, dict):
        return given
    by, now = effect_key(run.request.effect_scope, command.key), run.services.now_ns()
    memories = _port(run)
    count = await memories.forget(run.request.tenant_id, _space(given), str(given["name"]), by, now)
    return Done(value={"forgotten": count}, facts={"forgotten": count})


async def _recall(run: Run, command: Command) -> Done | Wait:
    """Look for memories; every space that is looked in has to be permitted."""
    given = command.arguments
    spaces = tuple(Space.model_validate(space) for space in given["spaces"])
    for space in spaces:
        asked = Prepared(_RECALL, {"query": given["query"], "k": given["k"]}, command.digest)
        decision = gates.decide(run, _concern(run, command, space, asked))
        if decision.outcome != "allow":
            return _refused(f"the memory of {space} may not be read: {decision.reason}")
    if command.key not in run.history.intents:
        run.note(intent_of(command, run.services.now_ns(), {"side_effect": "read", **asked_by(command)}))
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


async def _permitted(run: Run, command: Command) -> dict[str, Json] | Done | Wait:
    """Ask the gate about a write and put its intent on disk: the arguments to make it with, as an approver may have
    changed them. Done or Wait when it may not be made, or not yet.
    """
    _port(run)
    intent = run.history.intents.get(command.key)
    if intent is not None:
        return _again(run, command, intent)
    given, call = command.arguments, _call(command, command.arguments)
    approval = asking.approval(run, command, call)
    decision, record = gates.ask(run, _concern(run, command, _space(given), call, approval))
    granted = asking.grants(run, approval, call, decision)
    if decision.outcome == "allow" and not granted and _repeats(run, command):
        reason = f"run {run.request.forked_from} has written this very memory already"
        decision = decision.model_copy(update={"outcome": "approval_required", "reason": reason})
    if decision.outcome == "allow":
        asking.record_yes(run, command)
    run.note(record)
    if decision.outcome == "approval_required":
        return await asking.for_approval(run, command, call, decision, {"stage": "memory"})
    if decision.outcome == "deny":
        return _refused(f"the memory of {_space(given)} may not be written: {decision.reason}")
    changed = _changed(run, command, call)
    if isinstance(changed, Done):
        return changed
    await run.write(_intent(run, command, call, changed))
    return changed.arguments


def _again(run: Run, command: Command, intent: Intent) -> dict[str, Json] | Done:
    """Its owner died while it wrote: once more, with the same id, if the gate still allows it."""
    asked, made = _call(command, command.arguments), _call(command, dict(intent.content))
    approval = asking.approval(run, command, asked, made if EDITED in intent.facts else None)
    decision = gates.decide(run, _concern(run, command, _space(made.arguments), made, approval))
    if decision.outcome != "allow":
        text = f"{command.name} may have happened: its owner died before the answer came; not made again: "
        return doubts.unknown(command.name, text + decision.reason, NOTHING)
    command.interrupted = False
    return made.arguments


def _changed(run: Run, command: Command, call: Prepared) -> Prepared | Done:
    """The write as its approver changed it, if so; the gate is asked about that too."""
    changes = asking.edit(run, command)
    if changes is None:
        return call
    made = _call(command, {**call.arguments, **{name: changes[name] for name in _CHANGEABLE if name in changes}})
    problem = _problem(made.arguments)
    approval = asking.approval(run, command, call, made)
    decision = gates.decide(run, _concern(run, command, _space(made.arguments), made, approval))
    if problem is None and decision.outcome == "allow":
        return made
    return _refused(f"its approver changed what is to be remembered, and that: {problem or decision.reason}")


def _intent(run: Run, command: Command, call: Prepared, made: Prepared) -> Intent:
    space = _space(made.arguments)
    facts: dict[str, Json] = {"side_effect": "write", "scope": space.scope, "owner": space.owner, **asked_by(command)}
    if made is not call:
        given = asking.approval(run, command, call)
        facts[EDITED] = {"by": given.by if given else "", "asked": call.digest, "called": made.digest}
    intent = intent_of(command, run.services.now_ns(), facts)
    return intent if made is call else intent.model_copy(update={"content": made.arguments})


def _call(command: Command, arguments: dict[str, Json]) -> Prepared:
    same = arguments == command.arguments
    return Prepared(_CAPABILITIES[command.effect], arguments, command.digest if same else digest_of(arguments))


def _problem(given: dict[str, Json]) -> str | None:
    return given.get("problem") or problem_of(given["content"], given["key"], tuple(given["tags"]))


def _concern(
    run: Run, command: Command, space: Space, call: Prepared, approval: Approval | None = None
) -> gates.Concern:
    """What the gate's stage `memory` is asked about: whose memory is concerned is a fact, not an argument."""
    arguments = {name: value for name, value in call.arguments.items() if name not in ("scope", "owner")}
    return gates.Concern(
        stage="memory",
        resource=space.scope,
        facts={"owner": space.owner},
        key=command.key,
        contract="idempotent" if call.capability.side_effect == "write" else None,
        rollout="shadow" if run.request.shadow else "full",
        call=replace(call, arguments=arguments),
        approval=approval,
    )


def _repeats(run: Run, command: Command) -> bool:
    return write_name(command.name, command.digest) in run.request.repeats


def _memory(run: Run, command: Command, given: dict[str, Json]) -> Memory:
    request, intent = run.request, run.history.intents[command.key]
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


def _capability(name: str, side_effect: SideEffect) -> Capability:
    return Capability(name=name, description=name, input_schema={}, side_effect=side_effect, idempotency="idempotent")


_PERFORMERS = {"remember": _remember, "recall": _recall, "forget": _forget}
_RECALL = _capability("recall", "read")
_CAPABILITIES = {name: _capability(name, "write") for name in ("remember", "forget")}
"""What an approval of a memory write is asked and given for."""
_CHANGEABLE = ("content", "key", "tags", "ttl", "name")
"""What an approver may change of a write; not whose memory it is."""
