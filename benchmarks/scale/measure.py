"""Measures the costs of the model on this machine, and real figures to check it by: costs.json and recorded.json.

    python -m benchmarks.scale.measure [--only costs|recorded] [--patience SECONDS]

Starts a PostgreSQL server of its own. Costs are CPU seconds, which hardly depend on what else the machine does; rates
do, so each waits until others leave it alone, for so many seconds at most, and says how much they used.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.scale import engine, probe, store_probe
from benchmarks.scale.costs import FILE, merged
from benchmarks.scale.shapes import Shape
from tests.doubles.postgres import PostgresServer

RECORDED = FILE.with_name("recorded.json")
CALM = 0.15
"""Share of the machine that others may use while a rate is measured."""
ROWS, CAPACITY = 300, 50
"""Of the fan-out: rows a node, places a node."""
SETTLE_TRIPS, LEASE_TRIPS = Shape.settle_trips, Shape.lease_trips
Row = dict[str, Any]


def cost(name: str, value: float, unit: str, source: str) -> Row:
    """One line of costs.json."""
    return {"name": name, "value": float(f"{value:.3g}"), "unit": unit, "from": source}


def database_costs(server: PostgresServer) -> list[Row]:
    """What server and writer need, by probing the store; what a hint needs, by probing the server."""
    used = asyncio.run(store_probe.with_bench(server.fresh(), store_probe.probe_all))
    log_bytes, table_bytes, parked = asyncio.run(store_probe.with_bench(server.fresh(), store_probe.probe_bytes))
    url = server.fresh()
    notify, listener = probe.line([(count, probe.notify_cpu(url, count)) for count in (1, 10, 50)])
    [(_, look)] = used.pop("look")
    at_server = {name: probe.line([(size, one.server) for size, one in found]) for name, found in used.items()}
    at_client = {name: probe.line([(size, one.writer) for size, one in found]) for name, found in used.items()}
    (commit, append), (end, ended), (lease, leased) = (at_server[name] for name in ("append", "end", "lease"))
    trip = (end - commit) / (SETTLE_TRIPS - 1)
    client_trip = (at_client["end"][0] - at_client["append"][0]) / (SETTLE_TRIPS - 1)
    whole = probe.line([(size, one.client) for size, one in used["tend"]])
    disk = min(probe.fsync_seconds(Path(tempfile.gettempdir())) for _ in range(5))
    store = "measure.py: PostgreSQL store, analyzed, "
    return [
        cost("flush", disk, "s", "measure.py: 8 KiB and fdatasync on this machine's disk, least of five medians"),
        cost("loopback", probe.round_trip(url), "s", "measure.py: SELECT 1 over 127.0.0.1, median"),
        cost("db_commit", commit, "CPU s", store + "server's CPU of a transaction of appends, at none"),
        cost("db_append", append, "CPU s", store + "for each append more in it"),
        cost("db_trip", trip, "CPU s", store + "what ends of runs add to a transaction, by their round trips"),
        cost("db_settle", max(ended - append, 1e-7), "CPU s", store + "for each run that ends, beside its append"),
        cost(
            "db_lease", max(lease - (LEASE_TRIPS - 1) * trip, 1e-7), "CPU s", store + "a lease, without its round trips"
        ),
        cost("db_lease_run", leased, "CPU s", store + "for each run that is leased"),
        cost("db_spawn", at_server["spawn"][1], "CPU s", store + "for each child that is made"),
        cost("db_look", look.server, "CPU s", store + "a look for news that finds none"),
        cost("db_tend", at_server["tend"][0], "CPU s", store + "a round of tending, at no other hosts"),
        cost("db_host_row", max(at_server["tend"][1], 1e-7), "CPU s", store + "for each other host"),
        cost("db_notify", notify, "CPU s", "measure.py: NOTIFY, server's CPU at no listeners"),
        cost("db_listener", listener, "CPU s", "measure.py: for each session more that listens"),
        cost(
            "client_commit",
            at_client["append"][0],
            "CPU s",
            store + "writer's thread, a transaction of appends, at none",
        ),
        cost("client_append", at_client["append"][1], "CPU s", store + "for each append more in it"),
        cost("client_trip", client_trip, "CPU s", store + "what ends add to it, by their round trips"),
        cost("client_spawn", at_client["spawn"][1], "CPU s", store + "writer's thread, for each child that is made"),
        cost("client_look", look.client, "CPU s", store + "client's CPU of a look for news"),
        cost("client_tend", whole[0], "CPU s", store + "client's CPU of a round of tending, at no other hosts"),
        cost("loop_host_row", max(whole[1], 1e-7), "CPU s", store + "for each other host"),
        cost("log_bytes", log_bytes, "bytes", store + "write-ahead log of an append with 100 characters"),
        cost("table_bytes", table_bytes, "bytes", store + "tables and indexes, the same"),
        cost("waiting_bytes", parked, "bytes", store + "a run that waits: its rows, two frames and the indexes"),
    ]


def engine_costs(server: PostgresServer) -> list[Row]:
    """What Retinue's own processes need, by engine.py."""
    loop = min(engine.measure_steps(server.fresh(), 100, 50).loop for _ in range(3))
    alone = min(engine.measure_steps(server.fresh(), 1, 500).loop for _ in range(3))
    return [
        cost(
            "loop_round", max(alone - loop, 1e-7), "CPU s", "measure.py: inline host, a step of one run, less loop_step"
        ),
        cost(
            "loop_step",
            loop,
            "CPU s",
            "measure.py: inline host, 100 runs, a step without the writer's thread, least of 3",
        ),
        cost("projector_frame", engine.projector_cpu(), "CPU s", "measure.py: projector, 500 runs of 20 steps"),
    ]


def real_figures(server: PostgresServer, patience: float) -> list[Row]:
    """Steps of an inline host, half-second rows over one to three host processes, bare writers on the server."""
    rows = []
    for runs, steps in ((1, 500), (10, 200), (100, 50), (1_000, 20)):
        found = calm(lambda runs=runs, steps=steps: steps_of(server, runs, steps), patience)
        rows.append(row_of("steps_per_second", {"runs": runs, "steps": steps}, found))
    for nodes in (1, 2, 3):
        found = calm(lambda nodes=nodes: rows_of(server, nodes), patience)
        rows.append(row_of("batch_seconds", {"nodes": nodes, "rows": ROWS * nodes, "capacity": CAPACITY}, found))
    url = server.fresh()
    probe.prepare(url)
    for settles, writers, batch in itertools.product((False, True), (1, 2, 4), (1, 100)):
        load = probe.Load(writers, batch, settles)
        given = {"writers": writers, "rows": batch, "settles": settles}
        rows.append(row_of("raw_commits", given, calm(lambda load=load: raw_of(url, load), patience)))
    return rows


Found = tuple[float, float]
"""A figure, and the share of the machine that others used meanwhile."""


def steps_of(server: PostgresServer, runs: int, steps: int) -> Found:
    """Steps a second."""
    found = engine.measure_steps(server.fresh(), runs, steps)
    return found.rate, found.others


def rows_of(server: PostgresServer, nodes: int) -> Found:
    """Seconds of a fan-out; what others used is taken from before and after, as the hosts themselves use little."""
    before = busy_share()
    seconds = engine.rows_seconds(server.fresh(), nodes, ROWS * nodes, CAPACITY)
    return seconds, (before + busy_share()) / 2


def raw_of(url: str, load: probe.Load) -> Found:
    """Transactions a second."""
    seen = probe.run_load(url, load)
    return seen.commits, seen.others


def row_of(kind: str, given: Row, found: Found) -> Row:
    """One line of recorded.json: a rate (1/s) or a time (s)."""
    unit = "s" if kind == "batch_seconds" else "1/s"
    row = {"kind": kind, **given, "value": float(f"{found[0]:.4g}"), "unit": unit, "others": round(found[1], 2)}
    print(row, flush=True)
    return row


def calm(measure: Callable[[], Found], patience: float) -> Found:
    """The calmest of the tries that patience leaves, the first calm one if there is any."""
    until, best = time.monotonic() + patience, None
    while best is None or (best[1] > CALM and time.monotonic() < until):
        wait_for_calm(until)
        found = measure()
        best = found if best is None or found[1] < best[1] else best
    return best


def wait_for_calm(until: float) -> None:
    """Until others leave the machine alone for half a second, or the time is over."""
    while time.monotonic() < until and busy_share() > CALM:
        pass


def busy_share() -> float:
    """Share of the machine in use during half a second."""
    busy, started = probe.busy_seconds(), time.monotonic()
    time.sleep(0.5)
    return (probe.busy_seconds() - busy) / (time.monotonic() - started) / (os.cpu_count() or 1)


def calmest(old: list[Row], new: list[Row]) -> list[Row]:
    """Of two figures of the same thing the one that others disturbed less."""
    seen = {}
    for row in [*old, *new]:
        key = tuple((name, value) for name, value in row.items() if name not in ("value", "unit", "others"))
        if key not in seen or _disturbed(row) <= _disturbed(seen[key]):
            seen[key] = row
    return list(seen.values())


def _disturbed(row: Row) -> float:
    return 1.0 if row["others"] is None else float(row["others"])


def write(path: Path, rows: list[Row]) -> None:
    """A list of flat rows, one a line."""
    path.write_text("[\n" + ",\n".join(f" {json.dumps(row)}" for row in rows) + "\n]\n", "utf-8")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["costs", "recorded"], help="one of the two files")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds to wait for calm before each rate")
    parser.add_argument("--keep", action="store_true", help="keep real figures of an earlier run that were calmer")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    with PostgresServer() as server:
        if options.only != "recorded":
            known = json.loads(FILE.read_text("utf-8")) if FILE.exists() else []
            write(FILE, merged(known, [*database_costs(server), *engine_costs(server)]))
        if options.only != "costs":
            known = json.loads(RECORDED.read_text("utf-8")) if RECORDED.exists() and options.keep else []
            write(RECORDED, calmest(known, real_figures(server, options.patience)))


if __name__ == "__main__":
    main()
