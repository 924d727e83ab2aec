"""Replay: recorded outcomes are delivered in recorded order, and what the code asks for must be what was recorded.

Works on a run's history and the commands its function has issued. Knows neither the function's loop nor how an
effect is performed; a difference between journal and code is a ReplayMismatch that names both.
"""

from __future__ import annotations

from collections.abc import Callable

from retinue.runs.contracts import Branch, Json
from retinue.runs.effects import children
from retinue.runs.errors import ReplayMismatch
from retinue.runs.history import History
from retinue.runs.journal import Intent, Outcome
from retinue.runs.ownership import Journal
from retinue.runs.piecewise import dump, load, weigh
from retinue.runs.steps import Command, Done

LARGE = 1024 * 1024
"""Bytes of a value that are copied on the event loop."""
_SAME = frozenset({type(None), bool, int, float})
"""What is the same when it is read from its JSON."""

WAYS_ON = (
    "bring back the version it began with; or `retinue retry RUN --migrate` goes on with the new code from the newest "
    "checkpoint; or `retinue fork RUN --at STEP` begins anew from there"
)
"""What helps when journal and code disagree."""


async def restore_branches(run_id: str, history: History, journal: Journal) -> None:
    """Fetch what a fan-out's outcome left in the children's table, before it is replayed."""
    for delivery in history.deliveries:
        for place, outcome in enumerate(delivery):
            if outcome.effect == "children" and outcome.result == "ok":
                branches = await _branches(run_id, outcome, journal)
                delivery[place] = outcome.model_copy(update={"content": branches})


async def _branches(run_id: str, outcome: Outcome, journal: Journal) -> list[Branch]:
    if outcome.facts.get("stored"):
        return children.heard(outcome.content, await journal.branches(run_id, outcome.key))
    return children.restore(outcome.content or [])


async def recall(run_id: str, history: History, command: Command, journal: Journal) -> Done | None:
    """How a step ended that a retry took back and that is asked for again; None when it is to be made.

    Raises ReplayMismatch when a write of that key was made with other arguments, or children were: they would go by
    the same idempotency key, and be taken for the same children.
    """
    known = history.recalled.pop(command.key, None)
    if known is None:
        return None
    if known.intent is not None and known.intent.digest != command.digest:
        if known.intent.writes or known.intent.effect == "children":
            raise _other(run_id, command.key, "write" if known.intent.effect == "call" else known.intent.effect)
        return None
    outcome = known.outcome
    live = await _branches(run_id, outcome, journal) if outcome.effect == "children" else None
    return Done(value=outcome.content, facts=outcome.facts | {"recalled": True}, live=live, hard=False)


def deliver(run_id: str, history: History, commands: dict[str, Command], run_on: Callable[[int], None]) -> int:
    """Hand every recorded delivery to the function; `run_on` lets it run as of a time (Unix ns).

    Returns the number of the last activation. Raises ReplayMismatch when the code asks for something else.
    """
    deliveries = list(history.deliveries)
    for delivery in deliveries:
        for outcome in delivery:
            command = commands.pop(outcome.key, None)
            if command is None:
                raise _expected(run_id, outcome.key, commands)
            hand_over(command, outcome)
        run_on(delivery[0].at)
    for key in history.intents:
        if "!" in key or key in history.taken_back:
            continue
        if key not in commands and key not in history.outcomes:
            raise _expected(run_id, key, commands)
    return len(deliveries)


def mismatch(run_id: str, history: History, command: Command) -> ReplayMismatch | None:
    """Why a step that the code asks for is not the one that was recorded under its key; None when it is.

    A step that a retry took back in flight may be begun anew with other arguments, unless others have heard of it.
    """
    recorded = history.intents.get(command.key) or history.outcomes.get(command.key)
    digest = getattr(recorded, "digest", command.digest)
    if recorded is None or (digest == command.digest and recorded.effect == command.effect):
        return None
    if command.key in history.taken_back and isinstance(recorded, Intent):
        return _begin_anew(run_id, history, command, recorded)
    return ReplayMismatch(
        f"run {run_id}: step {command.key} was recorded as {recorded.effect} with other arguments "
        f"(digest {digest}, now {command.digest}): the code or its inputs changed since the run began; {WAYS_ON}",
        run_id=run_id,
    )


def hand_over(command: Command, outcome: Outcome) -> None:
    """A branch that was canceled waits no more; its outcome is delivered all the same, to nobody."""
    if not command.future.done():
        command.future.set_result(outcome)


def seen(outcome: Outcome, done: Done, written: bool) -> Outcome:
    """An outcome as the function gets it. What the function does to a value must not change what is yet to be
    written, so it gets one of its own unless that is `written`."""
    if done.live is not None:
        return outcome.model_copy(update={"content": done.live})
    if written:
        return outcome
    return outcome.model_copy(update={"content": private(outcome.content)})


def private(value: Json) -> Json:
    """A copy of a value, as it would be read from the journal; what is no JSON stays itself, and is refused there."""
    if type(value) in _SAME or (type(value) is str and value.isascii()):
        return value
    try:
        return load(dump(value))
    except ValueError:
        return value


def is_large(done: Done) -> bool:
    """Whether the value is written sooner than copied."""
    return done.live is None and weigh(done.value, LARGE) > LARGE


def _expected(run_id: str, expected: str, found: dict[str, Command]) -> ReplayMismatch:
    return ReplayMismatch(
        f"run {run_id}: the journal continues with step {expected}, the code now asks for "
        f"{', '.join(found) or 'nothing'}: the code changed since the run began; {WAYS_ON}",
        run_id=run_id,
    )


def _begin_anew(run_id: str, history: History, command: Command, begun: Intent) -> ReplayMismatch | None:
    if begun.effect == "children" or begun.writes or begun.effect != command.effect:
        return _other(run_id, command.key, "the children or the write of step")
    if begun.effect == "model":  # what is held for it is settled before it is asked anew
        history.intents[command.key] = begun.model_copy(update={"digest": command.digest})
    else:
        del history.intents[command.key]
    return None


def _other(run_id: str, key: str, what: str) -> ReplayMismatch:
    return ReplayMismatch(
        f"run {run_id}: the retried run asks for other arguments of {what} {key} than those it was made with: fork it "
        "instead, which gives its writes new idempotency keys and has children of its own",
        run_id=run_id,
    )
