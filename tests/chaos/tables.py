"""The trace tables that lived through it all, and the same made again from the journal: rows and digest of each.

Opens a store that no other process writes any more.
"""

from __future__ import annotations

from pathlib import Path

from retinue.host.composition import open_store
from retinue.host.projecting import catch_up
from retinue.host.settings import Settings
from retinue.traces.redaction import Redactor
from retinue.traces.room import Traces

Digest = tuple[int, str]


async def compare(settings: Settings, again: Path) -> dict[str, tuple[Digest, Digest]]:
    """Table to (as kept, as made again in the folder `again`)."""
    store = open_store(settings)
    try:
        found = []
        for folder in (settings.data_folder / "traces", again):
            async with Traces(folder, store, Redactor([])) as traces:
                await catch_up(traces)
                found.append(await _digests(traces))
        kept, made = found
        return {table: (kept.get(table, (0, "")), made.get(table, (0, ""))) for table in kept | made}
    finally:
        await store.close()


async def _digests(traces: Traces) -> dict[str, Digest]:
    """Of every table but the ledger of the projection itself, which tells of its batches."""
    names = (await traces.query("SELECT table_name FROM duckdb_tables() WHERE NOT internal")).to_pylist()
    found = {}
    for name in sorted(row["table_name"] for row in names):
        if name != "ingest":
            sql = f"SELECT count(*) AS rows, sum(hash(t::VARCHAR)::HUGEINT)::VARCHAR AS digest FROM {name} t"
            [row] = (await traces.query(sql, timeout=300)).to_pylist()
            found[name] = (int(row["rows"]), str(row["digest"]))
    return found
