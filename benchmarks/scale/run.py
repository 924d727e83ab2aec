"""Runs the simulation over the sizes of a cluster and prints its tables; `--write` puts them into docs/scale.md.

    python -m benchmarks.scale.run [--write] [--quick]

Deterministic: the same costs.json gives the same tables. `--quick` leaves out 1,000 nodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.scale.costs import Costs, load
from benchmarks.scale.scenarios import Load, in_cluster, under_load
from benchmarks.scale.shapes import Shape, Work

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
SIZES = (1, 3, 10, 100, 1_000)
STEPS, LATENCY, PARKS = 4, 0.5, 0.1
CONNECTIONS = 6
"""Of one process at most: its pen, its hints, four readers."""
HOUR = 3_600
BUSY = 0.9
"""Share of its time in use from which on something counts as used up."""

Change = dict[str, float | int | bool]
HINTS: Change = {"tells_all": False, "tick": 0.1, "look": 0.1}
LATE: Change = {"late": True, "settle_trips": 1}
FREE: Change = HINTS | LATE | {"locks": False}
AS_IT_IS = "as it is"
CHANGES: dict[str, Change] = {
    AS_IT_IS: {},
    "hints only when runs were queued, ten a second": HINTS,
    "parents locked last, settled in one round trip": LATE,
    "ends counted by the parent: no lock": {"locks": False, "settle_trips": 1},
    "a disk ten times as fast": {"flush": 0.0001},
    "a server of 64 cores": {"db_cores": 64},
    "fewer hints, no lock": FREE,
    "fewer hints, no lock, one host judges": FREE | {"judges": False},
    "fewer hints, no lock, one host judges, 64 cores": FREE | {"judges": False, "db_cores": 64},
}
SINGLE = 1_000
"""Nodes from which on only these are asked, as each takes most of a minute."""
LARGE = (AS_IT_IS, "fewer hints, no lock, one host judges, 64 cores")


def busy_cluster(nodes: int) -> Work:
    """A job on every node; each row is an agent of a few paid turns; one in ten waits for a person."""
    return Work(STEPS, LATENCY, commits=2, groups=nodes, parks=PARKS)


def one_fan_out() -> Work:
    """The same rows, all children of one parent."""
    return Work(STEPS, LATENCY, commits=2, groups=1)


def simulated(costs: Costs, task: tuple[Shape, Work]) -> Load:
    """One simulation; big ones for a shorter time."""
    shape, work = task
    warm, seconds = (2.0, 2.0) if shape.nodes < 100 else (1.0, 1.0) if shape.nodes < SINGLE else (0.5, 0.5)
    return under_load(costs, shape, work, warm, seconds)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table as Markdown has it."""
    titles = list(header)
    lines = [titles, ["---"] * len(titles), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sizes_table(costs: Costs, loads: list[Load], fans: list[Load]) -> str:
    """What a cluster of each size does."""
    header = (
        "nodes, processes",
        "in progress",
        "runs/s",
        "steps/s (of what models allow)",
        "waiting for a person for an hour",
        "journal MB/s",
        "database CPU",
        "log busy",
        "lock wait, one fan-out (its runs/s)",
        "projector falls behind",
    )
    rows = [
        (
            f"{load.nodes:,}, {load.processes:,}",
            f"{load.held:,}",
            f"{load.runs:,.0f}",
            f"{load.steps:,.0f} ({load.steps / load.offered:.0%})",
            f"{load.parks * HOUR:,.0f} ({load.parks * HOUR * costs.waiting_bytes / 1e9:,.1f} GB)",
            f"{load.commits * costs.table_bytes / 1e6:,.1f}",
            f"{load.db_cpu:.0%}",
            f"{load.log:.0%}",
            f"{fan.row_wait * 1e3:,.1f} ms ({fan.runs:,.0f})",
            "no" if load.behind < 0.05 else f"{load.behind:.2f} s a second",
        )
        for load, fan in zip(loads, fans, strict=True)
    ]
    return table(header, rows)


def limits_table(costs: Costs, loads: list[Load]) -> str:
    """What is used up at each size, and what is known without a simulation: connections, Ray's part."""
    header = ("nodes", "used up", "connections", "Ray: all actors there after", "supervisor's calls")
    rows = [
        (
            f"{load.nodes:,}",
            ", ".join(used_up(load)) or "nothing: models are waited for",
            f"{load.processes * CONNECTIONS:,}",
            f"{start_seconds(costs, load):,.0f} s",
            f"{load.processes * costs.ping:.0%} of a core",
        )
        for load in loads
    ]
    return table(header, rows)


def used_up(load: Load) -> list[str]:
    """What has no time left. A busy log is none of it: the busier, the more commits share a flush."""
    shares = {
        "database CPU": load.db_cpu,
        "rows of parents": load.row_share,
        "a host's Python": load.hosts,
        "the projector": load.projector,
    }
    return [f"{name} ({share:.0%})" for name, share in shares.items() if share >= BUSY]


def start_seconds(costs: Costs, load: Load) -> float:
    """Until every process of the cluster exists: each node makes its own, the head counts them all."""
    each = load.processes / load.nodes
    return max(each * costs.actor_cpu / in_cluster(costs, 1).node_cores, load.processes / costs.head_actors)


def changes_table(found: dict[int, dict[str, Load]]) -> str:
    """What single changes of the design give at the sizes that saturate."""
    header = ["change", *(f"{nodes:,} nodes: steps/s, database CPU, lock wait" for nodes in found)]
    rows = [[name, *(_change(loads, name) for loads in found.values())] for name in CHANGES]
    return table(header, rows)


def _change(loads: dict[str, Load], name: str) -> str:
    if name not in loads:
        return "-"
    load = loads[name]
    times = load.steps / loads[AS_IT_IS].steps
    return f"{load.steps:,.0f} ({times:.1f} ×), {load.db_cpu:.0%}, {load.row_wait * 1e3:,.0f} ms"


def changes_at(nodes: int) -> dict[str, Change]:
    """The changes that are asked about at this size."""
    return CHANGES if nodes < SINGLE else {name: CHANGES[name] for name in LARGE}


def written(page: str, name: str, text: str) -> str:
    """The page with a table between its two marks. ValueError when they are not there."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if begin not in page or end not in page:
        raise ValueError(f"{PAGE.name} has no place for the table {name!r}: put {begin} and {end} into it")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Simulate, print, perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    parser.add_argument("--quick", action="store_true", help="without 1,000 nodes")
    options = parser.parse_args()
    costs = load()
    sizes = [size for size in SIZES if size < SINGLE or not options.quick]
    with ProcessPoolExecutor() as pool:
        simulate = partial(simulated, costs)
        plain = pool.map(simulate, [(in_cluster(costs, size), busy_cluster(size)) for size in sizes])
        fans = pool.map(simulate, [(in_cluster(costs, size), one_fan_out()) for size in sizes])
        changed = {
            size: pool.map(
                simulate,
                [
                    (replace(in_cluster(costs, size), **change), busy_cluster(size))
                    for change in changes_at(size).values()
                ],
            )
            for size in sizes
            if size >= 100
        }
        loads = list(plain)
        tables = {
            "sizes": sizes_table(costs, loads, list(fans)),
            "limits": limits_table(costs, loads),
            "changes": changes_table(
                {size: dict(zip(changes_at(size), done, strict=True)) for size, done in changed.items()}
            ),
        }
    for text in tables.values():
        print(text, end="\n\n")
    if options.write:
        page = PAGE.read_text("utf-8")
        for name, text in tables.items():
            page = written(page, name, text)
        PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
