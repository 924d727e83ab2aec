"""Effects that only wait: for time, for a person, for an event. They hold nothing while they do."""

from __future__ import annotations

from retinue.runs.contracts import StopReason
from retinue.runs.effects import asking
from retinue.runs.effects.run import Run
from retinue.runs.journal import Intent
from retinue.runs.steps import Command, Done, Wait


async def sleep(run: Run, command: Command) -> Done | Wait:
    """Wait until a moment."""
    _intend(run, command)
    until = int(command.arguments["until"])
    return Done() if run.services.now_ns() >= until else Wait(StopReason.timer, at=until)


async def ask(run: Run, command: Command) -> Done | Wait:
    """Wait for a person: an input has a value, an approval is True or False."""
    answer = run.news.answers.get(command.key)
    kind = command.effect
    if answer is not None:
        value = answer.value if kind == "input" else answer.status == "approved"
        return Done(value=value, facts={"by": answer.by, "status": answer.status, "request_id": answer.request_id})
    facts = dict(command.arguments.get("facts", {}))
    await asking.put(run, command, command.key, (kind, str(command.arguments["prompt"]), facts))
    reason = StopReason.input_required if kind == "input" else StopReason.approval_required
    return Wait(reason, request=command.key)


async def take_event(run: Run, command: Command) -> Done | Wait:
    """Take the oldest event of that name that no earlier step has taken."""
    _intend(run, command)
    taken = run.history.events.get(command.name, 0)
    for event in run.news.events:
        if event.name == command.name and event.number > taken:
            run.history.events[command.name] = event.number
            return Done(value=event.value, facts={"event": event.number})
    return Wait(StopReason.event, event=command.name)


def _intend(run: Run, command: Command) -> None:
    if command.key not in run.history.intents:
        run.note(
            Intent(
                at=run.services.now_ns(),
                content=command.arguments,
                key=command.key,
                effect=command.effect,
                name=command.name,
                digest=command.digest,
            )
        )
