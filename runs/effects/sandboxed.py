"""Calls in a sandbox: brought to the generation that the journal has, made there, told with the generation they made.

An exec that was in flight when its owner died is reported as lost and made again where it may be. A call that is cut
off spoils the workspace: the next one has it brought back. Every call goes through the gateway, the ones that bring a
workspace back too. Knows no backend.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from retinue.runs.agent_sandbox import AGENT, CHANGING, OPERATIONS
from retinue.runs.capabilities import NOT_MADE, Caller, CallResult, Prepared
from retinue.runs.contracts import ErrorInfo, Json, Usage
from retinue.runs.effects import sandbox_facts, weighing
from retinue.runs.effects.reaching import BoxLink
from retinue.runs.effects.run import Run
from retinue.runs.errors import EffectError, InvalidInput, PermanentError, TransientError
from retinue.runs.journal import Intent
from retinue.runs.live_sandboxes import Remake
from retinue.runs.sandbox_past import Operation
from retinue.runs.sandboxes import Box, Opening, SandboxLost, SandboxRefused
from retinue.runs.sessions import Pause
from retinue.runs.steps import Command, Done

_ONE_HOP = Usage(hops=1)


def must_be_on_record(call: Prepared) -> bool:
    """Whether the intent of a call has to be durable before it is made: an exec that was cut off is reported."""
    return sandbox_facts.in_sandbox(call) and OPERATIONS[call.capability.name] == "exec"


def cut_off(run: Run, command: Command, call: Prepared, intent: Intent | None) -> Done | None:
    """Report an exec that was in flight when the run's owner died. Done when it must not be made again."""
    if intent is None or not command.interrupted or not must_be_on_record(call):
        return None
    place = sandbox_facts.place_of(run, command, call)
    if place not in run.history.boxes.states:
        return None  # the sandbox was not even opened
    run.boxes.lost_exec(place, command.key, command.name, intent.at)
    if _replayable(run, command, call):
        return None
    message = (
        f"{command.name} was in flight when the owner of its run died, and is not to be repeated: its workspace is as "
        "it was before; what it did outside is not known"
    )
    error = ErrorInfo(reason="tool_failure", code="lost_exec", message=message)
    return Done(result="error", error=error, usage=_ONE_HOP, facts={"sandbox": place})


async def execute(run: Run, command: Command, call: Prepared, caller: Caller) -> tuple[CallResult, dict[str, Json]]:
    """Make a call that the gate has allowed; its result and the facts of its outcome.

    Raises as the gateway does, SandboxLost and SandboxRefused.
    """
    operation = OPERATIONS[call.capability.name]
    if operation == "open":
        return await _open(run, command, call, caller)
    place = sandbox_facts.place_of(run, command, call)
    if place is None:
        opening = Opening(manifest=str(command.options["sandbox"]), name=AGENT)
        place = await run.boxes.open(opening, command.key)
        await run.write()  # so that whoever owns the run next knows in which sandbox this call was made
    if operation == "close":
        result = await _through(run, call, caller, BoxLink(run, command.key, place, None, caller))
        return result, {"sandbox": place}
    box = await run.boxes.bring(place, remaking(run), command.key)
    caller = _in_time(run, command, call, caller)
    link = BoxLink(run, command.key, place, box, caller)
    if operation not in CHANGING:
        result = await _through(run, call, caller, link)
        return result, _told(run, command, place, operation)
    return await _change(run, command, (call, caller), link)


def _in_time(run: Run, command: Command, call: Prepared, caller: Caller) -> Caller:
    """The caller with the deadline that is on record for the call; that of one whose intent has none begins now."""
    intent = run.history.intents.get(command.key)
    if intent is None or not must_be_on_record(call):
        return replace(caller, deadline=weighing.deadline(call, run.services.now_ns()))
    return replace(caller, deadline=int(intent.facts["deadline"]))


def remaking(run: Run) -> Remake:
    """How calls of old are made again, to have a workspace as the journal says it was. What the rules deny by now is
    not made; what a person had to allow has been allowed.
    """

    async def remake(operation: Operation, box: Box) -> None:
        place = next(place for place, known in run.history.boxes.operations.items() if operation in known)
        name = run.boxes.state(place).manifest
        await run.boxes.learn(name)
        manifest = run.boxes.manifest(name)
        facts = sandbox_facts.facts_of(manifest, operation.name) | {"opens": False}
        try:
            weighed = await weighing.weigh_again(run, operation.key, (operation.name, operation.arguments), facts)
        except InvalidInput as error:
            raise PermanentError(str(error), code="sandbox_lost") from error
        if weighed.decision.outcome == "deny":
            raise PermanentError(f"{operation.name}: {weighed.decision.reason}", code="sandbox_lost")
        link = BoxLink(run, operation.key, place, box, weighed.caller, silent=True)
        await _through(run, weighed.call, weighed.caller, link)

    return remake


async def _open(run: Run, command: Command, call: Prepared, caller: Caller) -> tuple[CallResult, dict[str, Json]]:
    link = BoxLink(run, command.key, None, None, caller)
    result = await _through(run, call, caller, link)
    place = str(link.place)
    state = run.boxes.state(place)
    facts: dict[str, Json] = {"sandbox": place, "generation": state.generation}
    return result, facts | {"state": state.model_dump(mode="json", exclude_defaults=True)}


async def _change(
    run: Run, command: Command, made: tuple[Prepared, Caller], link: BoxLink
) -> tuple[CallResult, dict[str, Json]]:
    """Make a call that makes the next generation. One that does not return spoils the workspace; refused, it has not
    touched it."""
    (call, caller), place, box = made, str(link.place), link.box
    assert box is not None
    replayable, started = _replayable(run, command, call), run.services.now_ns()
    try:
        result = await _through(run, call, caller, link)
    except EffectError as error:
        if not _untouched(call, error):
            run.boxes.spoiled(place)
            if isinstance(error, TransientError) and not replayable:
                said = f"{error}; not made again, since it is not replayable"
                raise PermanentError(said, code=error.code) from error
        raise
    except BaseException:
        run.boxes.spoiled(place)
        raise
    operation = Operation(
        key=command.key,
        name=call.capability.name,
        arguments=call.arguments,
        generation=box.state.generation,
        replayable=replayable,
        micros=(run.services.now_ns() - started) // 1000,
    )
    facts: dict[str, Json] = {"sandbox": place, "generation": operation.generation, "replayable": replayable}
    if OPERATIONS[operation.name] == "adopt":
        head = run.boxes.kept(place, "adopted", f"from {call.arguments['snapshot']}", command.key)
    else:
        head = await run.boxes.changed(place, operation)
    return result, facts if head is None else facts | {"head": head}


def _untouched(call: Prepared, error: EffectError) -> bool:
    """Whether the workspace is as it was before a call that failed: it was refused, or not even begun. An adoption
    empties it first, and is refused, or finds something busy, after that.
    """
    refused = isinstance(error, SandboxRefused) or error.code == "busy"
    return error.code in NOT_MADE or (refused and OPERATIONS[call.capability.name] != "adopt")


def _told(run: Run, command: Command, place: str, operation: str) -> dict[str, Json]:
    facts: dict[str, Json] = {"sandbox": place}
    if operation == "snapshot":
        facts["head"] = run.boxes.kept(place, "snapshot", "asked for", command.key)
        facts["generation"] = run.boxes.state(place).head_generation
    return facts


async def _through(run: Run, call: Prepared, caller: Caller, link: BoxLink) -> CallResult:
    """Through the gateway; a command's own timeout is what bounds it there."""
    limited = call.capability.model_copy(update={"timeout": sandbox_facts.seconds_of(call)})
    try:
        result = await run.services.gateway.execute(replace(call, capability=limited), caller, link)
    except SandboxLost as error:  # a snapshot that was asked for: the run's own sandbox is not lost with it
        raise PermanentError(str(error), code="no_snapshot") from error
    if isinstance(result, Pause):
        raise PermanentError(f"{call.capability.name} asks instead of answering", code="asked")
    return result


def _replayable(run: Run, command: Command, call: Prepared) -> bool:
    """Whether a call may be made again: a change of files always, an exec as it says itself or its manifest does."""
    said: Any = call.arguments.get("replayable")
    if not must_be_on_record(call) or said is not None:
        return said is not False
    return sandbox_facts.manifest_of(run, command, call).replayable
