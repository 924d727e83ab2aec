"""Figures to files: the best of several runs, rows merged into results.json, and the text of RESULTS.md.

Pure functions over figures; starts nothing and reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

WORKS = {
    "steps_1_run": "1 run, 2,000 sequential durable steps",
    "steps_1000_runs": "1,000 concurrent runs of 20 steps",
    "fanout_1000": "1,000 durable children of one parent",
    "fanout_10000": "10,000 durable children of one parent",
    "bytes_per_step": "store per step (100 bytes of result)",
}
ENGINES = {
    "retinue": "Retinue, SQLite",
    "retinue_postgres": "Retinue, PostgreSQL",
    "langgraph": "LangGraph, SQLite",
    "dbos_sqlite": "DBOS, SQLite",
    "dbos_postgres": "DBOS, PostgreSQL",
    "temporal": "Temporal",
    "temporal_memory": "Temporal's test server, in memory",
}
DURABLE_PEERS = ("langgraph", "dbos_sqlite", "dbos_postgres", "temporal")
PAYLOAD_BYTES = 100.0


@dataclass(frozen=True)
class Figure:
    """One measured figure: rates (1/s) are better when larger, seconds (s) and bytes (B) when smaller."""

    name: str
    value: float
    unit: str
    how: str

    def times_as_good_as(self, other: Figure) -> float:
        """How many times as fast (or as small) this one is."""
        return self.value / other.value if self.unit == "1/s" else other.value / self.value


Figures = dict[str, Figure]


@dataclass(frozen=True)
class Goal:
    """`work` of Retinue (`engine` of its stores) is to be `factor` times as good as the best figure of `against`."""

    text: str
    work: str
    factor: float
    against: tuple[str, ...]
    engine: str = "retinue"


def rivals(work: str, *engines: str) -> tuple[str, ...]:
    """Names of the figures of some engines for one work."""
    return tuple(f"{engine}_{work}" for engine in engines)


SERVERS = ("dbos_sqlite", "dbos_postgres", "temporal", "temporal_memory")
GOALS = (
    Goal("1,000 runs: 20 × the best durable peer", "steps_1000_runs", 20, rivals("steps_1000_runs", *DURABLE_PEERS)),
    Goal("1,000 children: 50 × DBOS and Temporal", "fanout_1000", 50, rivals("fanout_1000", *SERVERS)),
    Goal("10,000 children: 50 × DBOS and Temporal", "fanout_10000", 50, rivals("fanout_10000", *SERVERS)),
    Goal("1,000 children: 3 × plain Ray calls", "fanout_1000", 3, ("floor_plain_ray_1000",)),
    Goal("10,000 children: 3 × plain Ray calls", "fanout_10000", 3, ("floor_plain_ray_10000",)),
    Goal("1 run: 3 × LangGraph on SQLite", "steps_1_run", 3, ("langgraph_steps_1_run",)),
    Goal("1 run: 0.6 × raw one-row commits", "steps_1_run", 0.6, ("floor_raw_one_row_commits",)),
    Goal(
        "PostgreSQL, 1,000 runs: 10 × DBOS on the same server",
        "steps_1000_runs",
        10,
        ("dbos_postgres_steps_1000_runs",),
        engine="retinue_postgres",
    ),
    Goal("store per step at most 1.5 × the payload", "bytes_per_step", 1 / 1.5, ("payload_bytes",)),
)


def best_of(figures: Iterable[Figure]) -> Figures:
    """The best figure of each name, whichever run and way it is from."""
    best: Figures = {}
    for figure in figures:
        if figure.name not in best or figure.times_as_good_as(best[figure.name]) > 1:
            best[figure.name] = figure
    return best


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """`old` with rows of the same name replaced, in their places, and the other new ones behind them."""
    by_name = {row["name"]: row for row in new}
    known = {row["name"] for row in old}
    return [by_name.get(row["name"], row) for row in old] + [row for row in new if row["name"] not in known]


def rows_of(best: Figures) -> list[Row]:
    """The figures as rows of results.json; a peer's ratio is how many times as good Retinue is."""
    return [row_of(figure, best.get(f"retinue_{work_of(name)}")) for name, figure in best.items()]


def row_of(figure: Figure, ours: Figure | None) -> Row:
    """One row; Retinue's own has no ratio here, as `make bench` sets it against its floors."""
    compared = ours is not None and ours is not figure
    return {
        "name": figure.name,
        "value": round(figure.value, 4 if figure.unit == "s" else 1),
        "unit": figure.unit,
        "against": ours.name if ours is not None and compared else None,
        "ratio": round(ours.times_as_good_as(figure), 3) if ours is not None and compared else None,
        "how": figure.how,
    }


def work_of(name: str) -> str | None:
    """`dbos_sqlite_steps_1_run` -> `steps_1_run`; None for what is not one of the works."""
    return next((work for work in WORKS if name.endswith(f"_{work}")), None)


def results_table(best: Figures) -> str:
    """Works as rows, engines as columns, and how many times as good Retinue is as the best durable peer."""
    head = ["work", *ENGINES.values(), "Retinue against the best durable peer"]
    lines = [line(head), line(["---"] * len(head))]
    for work, text in WORKS.items():
        cells = [shown(best.get(f"{engine}_{work}")) for engine in ENGINES]
        lines.append(line([text, *cells, against_best_peer(best, work)]))
    return "\n".join(lines)


def against_best_peer(best: Figures, work: str) -> str:
    """`4.2 × LangGraph, SQLite`, or a dash where one side was not measured."""
    ours = best.get(f"retinue_{work}")
    peers = [(engine, best[f"{engine}_{work}"]) for engine in DURABLE_PEERS if f"{engine}_{work}" in best]
    if ours is None or not peers:
        return "-"
    ratio, engine = min((ours.times_as_good_as(figure), engine) for engine, figure in peers)
    return f"{ratio:.2f} × {ENGINES[engine]}"


def goals_table(best: Figures) -> str:
    """Each goal with what was reached and, where it is missed, what is lacking."""
    known = best | {"payload_bytes": Figure("payload_bytes", PAYLOAD_BYTES, "B", "the result of a step")}
    lines = [line(["goal", "needed", "measured", "verdict"]), line(["---"] * 4)]
    for goal in GOALS:
        lines.append(line([goal.text, f"{goal.factor:.2f} ×", *verdict(goal, known)]))
    return "\n".join(lines)


def verdict(goal: Goal, figures: Figures) -> tuple[str, str]:
    """(measured ratio, reached or missed by which factor)."""
    ours = figures.get(f"{goal.engine}_{goal.work}")
    others = [figures[name] for name in goal.against if name in figures]
    if ours is None or not others:
        return "-", "not measured"
    ratio, name = min((ours.times_as_good_as(other), other.name) for other in others)
    measured = f"{ratio:.2f} × {name}"
    return measured, "reached" if ratio >= goal.factor else f"missed: {goal.factor / ratio:.1f} times more is needed"


def ways_table(best: Figures) -> str:
    """Each best figure with the way of using its engine that gave it, floors included."""
    lines = [line(["figure", "value", "how"]), line(["---"] * 3)]
    return "\n".join(lines + [line([figure.name, shown(figure), figure.how]) for figure in best.values()])


def shown(figure: Figure | None) -> str:
    """The value with as many digits as it deserves, and its unit; a dash for none."""
    if figure is None:
        return "-"
    digits = 2 if figure.unit == "s" else 0
    unit = "/s" if figure.unit == "1/s" else f" {figure.unit}"
    return f"{figure.value:,.{digits}f}{unit}"


def line(cells: list[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
