"""Measures the costs of the model on this machine, and real figures to check it by: costs.json and recorded.json.

    python -m benchmarks.scale.measure [--only costs|recorded] [--patience SECONDS]

Starts a PostgreSQL server of its own. Costs are CPU seconds, which hardly depend on what else the machine does; rates
do, so each waits until others leave it alone, for so many seconds at most, and says how much they used.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.scale import engine, probe
from benchmarks.scale.costs import FILE, merged
from tests.doubles.postgres import PostgresServer

RECORDED = FILE.with_name("recorded.json")
CALM = 0.15
"""Share of the machine that others may use while a rate is measured."""
BATCHES = (1, 10, 100, 400)
Row = dict[str, Any]


def cost(name: str, value: float, unit: str, source: str) -> Row:
    """One line of costs.json."""
    return {"name": name, "value": float(f"{value:.3g}"), "unit": unit, "from": source}


def database_costs(url: str) -> list[Row]:
    """What the server and a bare client need, by probe.py."""
    seen = [(rows, probe.run_load(url, probe.Load(1, rows))) for rows in BATCHES for _ in range(2)]
    commit, append = probe.line([(rows, one.server_cpu) for rows, one in seen])
    client_commit, client_append = probe.line([(rows, one.client_cpu) for rows, one in seen])
    lease, lease_run = probe.line([(size, probe.lease_cpu(url, size)) for size in (1, 50, 250)])
    notify, listener = probe.line([(count, probe.notify_cpu(url, count)) for count in (1, 10, 50)])
    server_trip, client_trip = probe.trip_cpu(url)
    server_row, client_row = probe.row_cpu(url, 2_000)
    log_bytes, table_bytes = probe.bytes_per_row(url)
    source = "measure.py: PostgreSQL of this machine, "
    return [
        cost("flush", probe.fsync_seconds(Path(tempfile.gettempdir())), "s", "measure.py: 8 KiB and fdatasync, median"),
        cost("loopback", probe.round_trip(url), "s", source + "SELECT 1 over 127.0.0.1, median"),
        cost("db_commit", commit, "CPU s", source + "server's CPU of a transaction of appends, at none"),
        cost("db_append", append, "CPU s", source + "for each append more in it (guarded UPDATE and INSERT in columns)"),
        cost("db_trip", server_trip, "CPU s", source + "one more small UPDATE in a transaction"),
        cost("db_lease", lease, "CPU s", source + "UPDATE ... FOR UPDATE SKIP LOCKED of a queue, at none"),
        cost("db_lease_run", lease_run, "CPU s", source + "for each run more that it takes"),
        cost("db_host_row", server_row, "CPU s", source + "a small row read from a table of 2,000"),
        cost("db_notify", notify, "CPU s", source + "NOTIFY, at no listeners"),
        cost("db_listener", listener, "CPU s", source + "for each session more that listens"),
        cost("client_commit", client_commit, "CPU s", source + "client's CPU of a transaction of appends, at none"),
        cost("client_append", client_append, "CPU s", source + "for each append more in it"),
        cost("client_trip", client_trip, "CPU s", source + "client's CPU of one more small UPDATE"),
        cost("loop_host_row", client_row, "CPU s", source + "client's CPU of a small row read"),
        cost("log_bytes", log_bytes, "bytes", source + "write-ahead log of an append with 350 bytes of content"),
        cost("table_bytes", table_bytes, "bytes", source + "table and indexes, the same"),
    ]


def engine_costs() -> list[Row]:
    """What Retinue's own processes need, by engine.py."""
    steps = engine.measure_steps(None, 1_000, 20)
    source = "measure.py: inline host on SQLite, "
    return [
        cost("loop_step", steps.loop, "CPU s", source + "1,000 runs, CPU of a step without the writer's thread"),
        cost("waiting_bytes", engine.parked_bytes(), "bytes", source + "2,000 runs that wait for an event"),
        cost("projector_frame", engine.projector_cpu(), "CPU s", "measure.py: projector, 500 runs of 20 steps"),
    ]


def real_rates(url: Callable[[], str], patience: float) -> list[Row]:
    """Bare writers on the server, one to four, with and without one row that all of them write."""
    address = url()
    probe.prepare(address)
    rows = []
    for settles in (False, True):
        for writers in (1, 2, 4):
            for batch in (1, 10, 100):
                seen = _calm(lambda load: probe.run_load(address, load), probe.Load(writers, batch, settles), patience)
                given = {"writers": writers, "rows": batch, "settles": settles}
                rows.append(recorded("raw_commits", given, seen.commits, seen.others))
                print(rows[-1], flush=True)
    return rows


def recorded(kind: str, given: Row, value: float, others: float) -> Row:
    """One real figure: a rate (1/s) or a time (s)."""
    unit = "s" if kind == "batch_seconds" else "1/s"
    return {"kind": kind, **given, "value": float(f"{value:.4g}"), "unit": unit, "others": round(others, 2)}


def _calm(measure: Callable[[probe.Load], probe.Seen], load: probe.Load, patience: float) -> probe.Seen:
    """The calmest of the tries that patience leaves, the first calm one if there is any."""
    until, best = time.monotonic() + patience, None
    while best is None or (best.others > CALM and time.monotonic() < until):
        _wait_for_calm(until)
        seen = measure(load)
        best = seen if best is None or seen.others < best.others else best
    return best


def _wait_for_calm(until: float) -> None:
    while time.monotonic() < until:
        busy, started = probe.busy_seconds(), time.monotonic()
        time.sleep(0.5)
        if (probe.busy_seconds() - busy) / (time.monotonic() - started) / (os.cpu_count() or 1) < CALM:
            return


def write(path: Path, rows: list[Row]) -> None:
    """A list of flat rows, one a line."""
    path.write_text("[\n" + ",\n".join(f" {json.dumps(row)}" for row in rows) + "\n]\n", "utf-8")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["costs", "recorded"])
    parser.add_argument("--patience", type=float, default=10.0, help="seconds to wait for calm before each rate")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    with PostgresServer() as server:
        if options.only != "recorded":
            url = server.fresh()
            probe.prepare(url)
            known = json.loads(FILE.read_text("utf-8")) if FILE.exists() else []
            write(FILE, merged(known, [*database_costs(url), *engine_costs()]))
        if options.only != "costs":
            write(RECORDED, real_rates(server.fresh, options.patience))


if __name__ == "__main__":
    main()
