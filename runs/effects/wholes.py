"""Results that were too large to go on with: kept in the journal as a whole, for people and later tools.

Knows no cap: the gateway says what was cut or refused.
"""

from __future__ import annotations

from retinue.runs.capabilities import FULL_OUTPUT, Whole
from retinue.runs.effects.run import Run
from retinue.runs.journal import Record
from retinue.runs.steps import Command


def keep(run: Run, command: Command, whole: object) -> None:
    """Record what a call returned beside what the run goes on with; it is written with the call's outcome."""
    if isinstance(whole, Whole):
        facts = {"key": command.key, "name": command.name, "size": whole.size, "sha256": whole.sha256}
        content = {"value": whole.value}
        run.note(Record(at=run.services.now_ns(), topic=FULL_OUTPUT, by="runtime", facts=facts, content=content))
