"""Effects that only wait: for time, for a person, for an event. They hold nothing while they do."""

from __future__ import annotations

from retinue.runs.contracts import ErrorInfo, Json, StopReason
from retinue.runs.effects import asking
from retinue.runs.effects.run import Run
from retinue.runs.steps import Command, Done, Wait, intent_of


async def sleep(run: Run, command: Command) -> Done | Wait:
    """Wait until a moment."""
    _intend(run, command)
    until = int(command.arguments["until"])
    return Done() if run.services.now_ns() >= until else Wait(StopReason.timer, at=until)


async def ask(run: Run, command: Command) -> Done | Wait:
    """Wait for a person: an input has a value, an approval is True or False; what nobody answers in time has the
    default that was given, or is an error `no_answer` (an approval: False).
    """
    if command.key not in run.history.intents:
        question = (command.effect, str(command.arguments["prompt"]), dict(command.arguments.get("facts", {})))
        return await asking.put(run, command, command.key, question, command.options.get("patience"))
    answer = await asking.answered(run, command.key)
    if isinstance(answer, Wait):
        return answer
    facts: dict[str, Json] = {"by": answer.by, "status": answer.status, "request_id": answer.request_id}
    if command.effect == "approval":
        return Done(value=answer.status == "approved", facts=facts)
    if answer.status != "expired":
        return Done(value=answer.value, facts=facts)
    if "default" in command.options:
        return Done(value=command.options["default"], facts=facts)
    error = ErrorInfo(reason="tool_failure", code="no_answer", message="nobody answered in time")
    return Done(result="error", error=error, facts=facts)


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
        run.note(intent_of(command, run.services.now_ns()))
