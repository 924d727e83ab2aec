"""Three nodes with PostgreSQL, measured: equality, scaling, under fire. `make three-nodes`, or:

    python -m benchmarks.cluster.run [--parts equality,scaling,fire] [--xquad FOLDER] [--rows N] [--strikes cut,...]

XQuAD's folder holds docs.jsonl ({id, title, text}) and questions.jsonl ({id, question}); without it the example's own
300 questions are taken. Needs root, iproute2, sshd and PostgreSQL. Writes a table and benchmarks/cluster/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cluster import fire, projects
from benchmarks.cluster.equality import compare, embedded
from benchmarks.cluster.scaling import Shape, measure
from benchmarks.cluster.stage import ADDRESSES, stage
from tests.doubles.machines import missing

RESULTS = Path(__file__).with_name("results.json")
PARTS = ("equality", "scaling", "fire")


def equality(base: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both batches, on three nodes and on one machine."""
    with stage(base, {}) as found:
        for address in ADDRESSES:
            found.start_node(address)
        figures = {"research": compare(found, "research", projects.research(found.folder / "research", arguments.rows))}
        if arguments.xquad:
            folder = projects.xquad(found.folder / "xquad", arguments.xquad, arguments.rows)
            figures["xquad"] = compare(found, "xquad", folder)
        return figures


def scaling(base: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One, two and three nodes."""
    shape = Shape(capacity=arguments.capacity)
    with stage(base, {}) as found:
        figures = measure(found, shape)
    return {"capacity": shape.capacity, "turns": shape.turns, "delay_s": shape.delay, "nodes": figures}


def under_fire(base: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The batch, struck; compared with one that was not."""
    log = base / "shared" / fire.LOG
    with stage(base, {"CHAOS_LOG": str(log)}, kept=True) as found:
        folder = found.folder / "fire"
        if arguments.xquad:
            projects.xquad(folder, arguments.xquad, arguments.rows)
        else:
            projects.research(folder, arguments.rows)
        embedded(found, folder, "research")
        wanted = projects.rows_of(folder / "answers.embedded.jsonl")
        shutil.rmtree(folder / ".retinue")
        return fire.under_fire(found, folder, wanted, arguments.strikes.split(","))


def table(results: Mapping[str, Any]) -> str:
    """What was found, to be read."""
    lines = []
    for name, found in results.get("equality", {}).items():
        same = "equal row for row" if not found["differences"] else f"{len(found['differences'])} DIFFERENCES"
        lines.append(
            f"{name}: {found['rows']} rows, {found['runs']} runs: {same}; embedded {found['embedded_s']:.0f} s, "
            f"three nodes {found['three_nodes_s']:.0f} s"
        )
    for found in results.get("scaling", {}).get("nodes", []):
        lines.append(
            f"{found['nodes']} nodes: {found['rows_per_s']:6.1f} rows/s, {found['of_linear']:.2f} x linear, "
            f"{found['of_ceiling']:.2f} of the ceiling; {found['cpus_busy']} CPUs busy, load {found['load'][0]}"
        )
    struck = results.get("fire")
    if struck:
        lines += [f"{name}: {seen}" for name, seen in struck["strikes"].items()]
        names = ("rows", "runs", "entries", "effects", "done_again", "refused_writes", "exits")
        lines += [f"{name}: {struck[name]}" for name in names]
        lines += [f"{name}: {len(struck[name])} {struck[name][:3]}" for name in ("findings", "differences")]
    return "\n".join(lines)


def main() -> None:
    """Measure the parts that were asked for; exit code 1 when something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--xquad", type=Path, default=os.environ.get("RETINUE_XQUAD"))
    parser.add_argument("--rows", type=int, default=None, help="only the first N of each input")
    parser.add_argument("--capacity", type=int, default=8, help="runs a worker holds (scaling)")
    parser.add_argument("--strikes", default=",".join(fire.STRIKES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    reason = missing()
    if reason is not None:
        sys.exit(f"three machines are not possible here: {reason}")
    measures = {"equality": equality, "scaling": scaling, "fire": under_fire}
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    results["machine"] = f"{os.cpu_count()} CPUs, Python {platform.python_version()}"
    for part in arguments.parts.split(","):
        with tempfile.TemporaryDirectory(prefix="nodes-") as base:
            results[part] = measures[part](Path(base), arguments)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    sys.exit(not sound(results))


def sound(results: Mapping[str, Any]) -> bool:
    """Whether nothing differs, every strike was mended, and the judge found nothing."""
    struck = results.get("fire", {"strikes": {}, "differences": []})
    if any("failed" in seen for seen in struck["strikes"].values()) or struck.get("findings"):
        return False
    return not any(found["differences"] for found in [struck, *results.get("equality", {}).values()])


if __name__ == "__main__":
    main()
