"""Results that were above their tool's cap, kept as a whole in a run's journal: which there are, and one of them.

Reads the store; knows no terminal.
"""

from __future__ import annotations

from retinue.runs.capabilities import FULL_OUTPUT
from retinue.runs.contracts import Frozen, Json
from retinue.runs.errors import InvalidInput
from retinue.runs.journal import Record
from retinue.store.store import Store


class FullOutput(Frozen):
    """Where the whole of a result is: its step, the position in the journal, bytes of JSON and their SHA-256."""

    key: str
    name: str
    position: int
    size: int
    sha256: str


def full_output(position: int, entry: Record) -> FullOutput:
    """What a record of the topic says."""
    return FullOutput(position=position, **{name: entry.facts[name] for name in ("key", "name", "size", "sha256")})


async def read_full_output(store: Store, run_id: str, key: str) -> tuple[FullOutput, Json]:
    """The newest whole result of a step. InvalidInput when none was kept, naming the steps that have one."""
    record = await store.get(run_id)
    found: dict[str, tuple[FullOutput, Json]] = {}
    async for frame in store.read(record.run_id):
        for position, entry in enumerate(frame.entries, start=frame.position):
            if isinstance(entry, Record) and entry.topic == FULL_OUTPUT:
                one = full_output(position, entry)
                found[one.key] = one, entry.content
    if key not in found:
        has = f"those of {', '.join(found)} were" if found else "none was: no result of this run was above its cap"
        raise InvalidInput(f"run {record.run_id}: no whole result of a step {key!r} was kept; {has}")
    one, content = found[key]
    opened = await store.fetch(record.tenant_id, content)
    if opened is None:
        raise InvalidInput(f"run {record.run_id}: the whole result of {key!r} was erased with its tenant's key")
    return one, opened["value"]
