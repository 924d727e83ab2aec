"""Calls whose approver changed their arguments: what is made, what is put on record, what the function is told.

The intent has the arguments the call was made with, and its facts both digests and who changed them; the digest of the
step stays that of what the function asked for, so that replay finds it.
"""

from __future__ import annotations

from retinue.runs.capabilities import Prepared
from retinue.runs.contracts import Json
from retinue.runs.effects import asking
from retinue.runs.effects.run import Run
from retinue.runs.journal import Intent
from retinue.runs.steps import EDITED, Command, Done


def on_record(run: Run, command: Command, call: Prepared) -> dict[str, Json]:
    """The fact of an intent that says who changed the arguments, with the digests of both calls; empty without."""
    if asking.edit(run, command) is None:
        return {}
    asked = run.services.gateway.prepare(command.name, command.arguments)
    given = asking.approval(run, command, asked)
    by = given.by if given is not None else ""
    return {EDITED: {"by": by, "asked": asked.digest, "called": call.digest}}


def as_made(run: Run, asked: Prepared, intent: Intent) -> Prepared:
    """The call that an intent speaks of."""
    if EDITED not in intent.facts or not isinstance(intent.content, dict):
        return asked
    return run.services.gateway.prepare(asked.capability.name, intent.content)


def told(run: Run, command: Command, done: Done) -> Done:
    """How the call ended, with the arguments it was made with where they are not those that were asked for."""
    intent = run.history.intents.get(command.key)
    changed = intent.facts.get(EDITED) if intent is not None else None
    if intent is None or changed is None:
        return done
    done.value = {"called": intent.content, "value": done.value}
    done.facts = done.facts | {EDITED: changed}
    return done
