"""What an agent still owes: obligations it declared or the runtime found, and what settled them. Pure.

An obligation survives compaction, reset and handoff word for word. Knows no loop, no message and no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from retinue.runs.contracts import Frozen, Json
from retinue.runs.identity import digest_of

MOST_OPEN = 32
"""Open obligations an agent may declare."""

MOST_SETTLED = 8
"""Settled ones that the state still holds; all of them are on record."""

LONGEST = 200
"""Characters of an obligation's text."""


class Obligation(Frozen):
    """Something owed since a turn. `call` is the hash of the call it is about, where the runtime declared it.

    `settled_by` names what settled it: an observation (`o7`) or the model's word in a turn (`turn:12`).
    """

    id: str
    text: str
    since: int
    by: Literal["model", "runtime"] = "model"
    call: str | None = None
    settled_by: str | None = None

    @property
    def open(self) -> bool:
        """True while nothing settled it."""
        return self.settled_by is None


Obligations = tuple[Obligation, ...]


def call_digest(name: str, arguments: Json) -> str:
    """What an obligation knows its call by: the same capability with the same arguments."""
    return digest_of([name, arguments])


def declare(owed: Obligations, number: int, text: str, since: int, call: str | None = None) -> Obligations:
    """The obligations with one more, `b<number>`; one that is about a call is the runtime's."""
    by: Literal["model", "runtime"] = "model" if call is None else "runtime"
    words = " ".join(text.split())
    cut = words if len(words) <= LONGEST else words[: LONGEST - 3] + "..."
    return (*owed, Obligation(id=f"b{number}", text=cut, since=since, by=by, call=call))


def settle(owed: Obligations, ids: Iterable[str], by: str) -> Obligations:
    """The obligations with these settled; of all that are settled only the newest are kept."""
    wanted = set(ids)
    marked = [item.model_copy(update={"settled_by": by}) if item.open and item.id in wanted else item for item in owed]
    settled = [item.id for item in marked if not item.open]
    gone = set(settled[:-MOST_SETTLED])
    return tuple(item for item in marked if item.id not in gone)


def open_ones(owed: Obligations) -> Obligations:
    """Those that nothing has settled."""
    return tuple(item for item in owed if item.open)


def about(owed: Obligations, call: str) -> tuple[str, ...]:
    """The ids of open obligations about this call."""
    return tuple(item.id for item in owed if item.open and item.call == call)


def refuse_plan(owed: Obligations, add: tuple[str, ...], done: tuple[str, ...]) -> str | None:
    """Why a plan cannot be taken up, in words the model can use; None when it can."""
    known = [item.id for item in open_ones(owed)]
    unknown = [name for name in done if name not in known]
    if unknown:
        return f"no open obligation {unknown[0]!r}; open are: {', '.join(known) or 'none'}"
    if len(known) - len(set(done)) + len(add) > MOST_OPEN:
        return f"more than {MOST_OPEN} open obligations; settle some or put several into one"
    return None


def render_owed(owed: Obligations, next_steps: tuple[str, ...]) -> str:
    """What the model is shown of its obligations and next steps; empty when there are none."""
    lines = [f"- {item.id} (since turn {item.since}): {item.text}" for item in open_ones(owed)]
    parts = ["\n".join(["Still owed:", *lines])] if lines else []
    if next_steps:
        parts.append("\n".join(["Next steps:", *(f"- {step}" for step in next_steps)]))
    return "\n".join(parts)
