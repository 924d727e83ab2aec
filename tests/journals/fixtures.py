"""Reads recorded runs and puts them into a store: the double's or the embedded one's own tables.

Written against today's stores: it follows them, the recordings do not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
from pydantic_core import to_json
from tests.doubles.memory_rows import Kept, Stored
from tests.doubles.memory_store import MemoryStore
from tests.doubles.shapes import AnyStore

from retinue.runs.arrivals import Group
from retinue.runs.contracts import PendingRequest, RunRequest, Status, StopReason, Usage
from retinue.runs.journal import ENTRIES
from retinue.store.sqlite import SqliteStore

FOLDER = Path(__file__).parent
VERSIONS = sorted(path for path in FOLDER.glob("v*") if path.is_dir())
Row = dict[str, Any]


@dataclass
class Recording:
    """The lines of one file: `head` says what wrote it and how the runs end, `rows` are by table."""

    head: Row
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def table(self, name: str) -> list[Row]:
        """The rows of a table; none when the version did not know it."""
        return self.rows.get(name, [])

    def reopen(self) -> None:
        """As if the owner of the first run had died just before it wrote its end."""
        top = self.table("runs")[0]
        final = next(f for f in self.table("frame") if f["run_id"] == top["run_id"] and f["position"] == top["final"])
        assert final["facts"][-1]["kind"] == "finished"
        final["facts"], final["contents"] = final["facts"][:-1], final["contents"][:-1]
        top.update(position=top["position"] - 1, status="queued", reason=None, final=None, final_seq=None)
        top.update(finished_at=None, steps=0, hops=0, input_tokens=0, output_tokens=0, micros=0)
        self._drop_after(final)
        for request in self.table("requests"):
            assert request["status"] != "withdrawn", "the end withdrew what was asked: recorded questions have answers"

    def _drop_after(self, final: Row) -> None:
        """The end brought runs that follow it: they are not there yet."""
        frames = self.table("frame")
        late = {frame["run_id"] for frame in frames if frame["position"] == 1 and frame["seq"] > final["seq"]}
        groups = {run["grp"] for run in self.table("runs") if run["run_id"] in late}
        self.rows["runs"] = [run for run in self.table("runs") if run["run_id"] not in late]
        self.rows["groups"] = [group for group in self.table("groups") if group["num"] not in groups]
        self.rows["frame"] = [f for f in frames if f["run_id"] not in late and (f["facts"] or f is not final)]


def recording(path: Path) -> Recording:
    """A file, read anew."""
    head, *lines = (json.loads(line) for line in path.read_text().splitlines())
    found = Recording(head)
    for line in lines:
        for name, row in line.items():
            found.rows.setdefault(name, []).append(row)
    return found


async def load(store: AnyStore, recorded: Recording) -> None:
    """Put a recording into an empty store."""
    if isinstance(store, MemoryStore):
        _into_memory(store, recorded)
    else:
        await _into_sqlite(store, recorded)


def _usage(row: Row) -> Usage:
    return Usage(**{name: row[name] for name in Usage.model_fields})


def _into_memory(store: MemoryStore, recorded: Recording) -> None:
    kept: dict[int, Kept] = {}
    keys = {group["num"]: group["key"] for group in recorded.table("groups")}
    frames: dict[str, list[Stored]] = {}
    for row in sorted(recorded.table("frame"), key=lambda row: row["seq"]):
        facts, contents = json.dumps(row["facts"]).encode(), json.dumps(row["contents"]).encode()
        frames.setdefault(row["run_id"], []).append(Stored(row["seq"], row["position"], row["epoch"], facts, contents))
    for row in recorded.table("runs"):
        run = kept[row["num"]] = _kept(row, frames[row["run_id"]], kept.get(row["parent"]), keys.get(row["grp"]))
        store._runs[row["run_id"]] = run
    for run in kept.values():
        store._log += [(run, stored) for stored in run.frames]
    store._log.sort(key=lambda pair: pair[1].seq)
    for _ in range(recorded.table("frame")[-1]["seq"]):
        next(store._seqs)
    for _ in range(1_000):
        next(store._numbers)
    for group in recorded.table("groups"):
        kept[group["run"]].groups[group["key"]] = _group(group)
    for request in recorded.table("requests"):
        asked = _request(request, kept[request["run"]])
        kept[request["run"]].asked[asked.key] = asked
        if asked.status != "open":
            kept[request["run"]].answers[asked.key] = to_json(request["answer"])
    for event in recorded.table("events"):
        kept[event["run"]].events.append((event["num"], event["name"], event["at"], to_json(event["sealed"])))


def _kept(row: Row, frames: list[Stored], parent: Kept | None, group: str | None) -> Kept:
    request = RunRequest.model_validate(json.loads(frames[0].facts)[0]["request"])
    run = Kept(row["num"], request, row["created_at"], parent, group)
    run.reserved = Usage(input_tokens=row["reserved_tokens"], micros=row["reserved_micros"])
    run.status = Status(row["status"])
    run.reason = None if row["reason"] is None else StopReason(row["reason"])
    for name in ("epoch", "position", "news", "seen", "wake_at", "cancel", "started_at", "finished_at"):
        setattr(run, name, row[name])
    run.held = bool(row.get("held", 0))
    run.checkpoint_at = row["checkpoint_at"] or 2
    run.usage = _usage(row)
    run.frames = frames
    return run


def _group(row: Row) -> Group:
    names = ("key", "total", "pending", "ok", "failed", "rejected", "low", "need")
    return Group(
        **{name: row[name] for name in names},
        cursor=json.loads(row["cursor"]),
        exhausted=bool(row["exhausted"]),
        reserved=Usage(input_tokens=row["reserved_tokens"], micros=row["reserved_micros"]),
        used=_usage(row),
    )


def _request(row: Row, run: Kept) -> PendingRequest:
    known = {name: row[name] for name in row.keys() & PendingRequest.model_fields.keys()}
    places = {"run_id": run.request.run_id, "root_run_id": run.request.root_run_id, "tenant_id": run.request.tenant_id}
    return PendingRequest(**known | places | {"prompt": row["sealed"], "facts": json.loads(row["facts"])})


async def _into_sqlite(store: SqliteStore, recorded: Recording) -> None:
    codec = store._codec
    tenants = {run["num"]: run["tenant_id"] for run in recorded.table("runs")}
    by_id = {run["run_id"]: run["num"] for run in recorded.table("runs")}

    def insert(connection: apsw.Connection) -> None:
        for name in ("runs", "groups", "requests", "events", "dead_letters"):
            for row in recorded.table(name):
                _insert(connection, name, _sealed(codec, name, row, tenants))
        for row in recorded.table("frame"):
            num = by_id[row["run_id"]]
            pairs = zip(ENTRIES.validate_python(row["facts"]), row["contents"], strict=True)
            entries = [entry.model_copy(update={"content": content}) for entry, content in pairs]
            frame = codec.encode(tenants[num], f"{row['run_id']}:{row['position']}", entries)
            assert frame.blobs == []
            for address, sealed in frame.shared:
                connection.execute("INSERT OR IGNORE INTO contents VALUES (?, ?, ?)", (address, tenants[num], sealed))
            stored = {"seq": row["seq"], "run": num, "position": row["position"], "epoch": row["epoch"]}
            written = {"schema": recorded.head["entries"], "facts": frame.facts, "sealed": frame.sealed}
            _insert(connection, "journal", stored | written)

    await store._writer.submit(insert)


def _sealed(codec: Any, name: str, row: Row, tenants: dict[int, str]) -> Row:
    """The row as it is stored: what was said is sealed again, owners are gone."""
    if name == "runs":
        return row | {"host": None}
    if name == "groups":
        return row
    tenant = tenants[row["run"]]
    if name == "requests":
        answer = None if row["answer"] is None else codec.seal(tenant, row["answer"], row["request_id"])
        return row | {"sealed": codec.seal(tenant, row["sealed"], row["request_id"]), "answer": answer}
    bound = f"event:{row['run']}" if name == "events" else f"{row['source']}:{row['line']}"
    return row | {"sealed": codec.seal(tenant, row["sealed"], bound)}


def _insert(connection: apsw.Connection, table: str, row: Row) -> None:
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
