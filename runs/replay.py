"""Replay: recorded outcomes are delivered in recorded order, and what the code asks for must be what was recorded.

Works on a run's history and the commands its function has issued. Knows neither the function's loop nor how an
effect is performed; a difference between journal and code is a ReplayMismatch that names both.
"""

from __future__ import annotations

from collections.abc import Callable

from retinue.runs.effects import children
from retinue.runs.errors import ReplayMismatch
from retinue.runs.history import History
from retinue.runs.journal import Journal, Outcome
from retinue.runs.steps import Command


async def restore_branches(run_id: str, history: History, journal: Journal) -> None:
    """Fetch what a fan-out's outcome left in the children's table, before it is replayed."""
    for delivery in history.deliveries:
        for place, outcome in enumerate(delivery):
            if outcome.effect != "children" or outcome.result != "ok":
                continue
            if outcome.facts.get("stored"):
                branches = children.heard(outcome.content, await journal.branches(run_id, outcome.key))
            else:
                branches = children.restore(outcome.content or [])
            delivery[place] = outcome.model_copy(update={"content": branches})


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
        if "!" not in key and key not in commands and key not in history.outcomes:
            raise _expected(run_id, key, commands)
    return len(deliveries)


def mismatch(run_id: str, history: History, command: Command) -> ReplayMismatch | None:
    """Why a step that the code asks for is not the one that was recorded under its key; None when it is."""
    recorded = history.intents.get(command.key) or history.outcomes.get(command.key)
    digest = getattr(recorded, "digest", command.digest)
    if recorded is None or (digest == command.digest and recorded.effect == command.effect):
        return None
    return ReplayMismatch(
        f"run {run_id}: step {command.key} was recorded as {recorded.effect} with other arguments "
        f"(digest {digest}, now {command.digest}): the code or its inputs changed since the run began; run it "
        "with the version it began with, or submit it anew",
        run_id=run_id,
    )


def hand_over(command: Command, outcome: Outcome) -> None:
    """A branch that was canceled waits no more; its outcome is delivered all the same, to nobody."""
    if not command.future.done():
        command.future.set_result(outcome)


def _expected(run_id: str, expected: str, found: dict[str, Command]) -> ReplayMismatch:
    return ReplayMismatch(
        f"run {run_id}: the journal continues with step {expected}, the code now asks for "
        f"{', '.join(found) or 'nothing'}: the code changed since the run began; "
        "run it with the version it began with, or submit it anew"
    )
