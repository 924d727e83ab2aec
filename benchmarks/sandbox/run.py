"""Sandboxes beside plain tools, in one run: what an exec costs more, and snapshots, restores and forks of a tree.

    python -m benchmarks.sandbox.run [--quick] [--rounds N] [--folder FOLDER]

Snapshots are of 5,000 files with 200 MB, beside `cp -a` and `tar` with `zstd`, on ext4, and on xfs and btrfs, made for
the run below FOLDER; where this is not root, on the file system of FOLDER alone. Each time ends when all is on disk
(syncfs). Rounds go through all ways in turn; of the rounds of each the best counts. Forks are eight workspaces of one
snapshot at once, each of a user of its own where this is root, but for those that are `own`: `first` has to make the
base of a fast way, else it is there from an earlier one. Merges rows `sandbox_...` into benchmarks/results.json and
writes RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.table import merged
from benchmarks.sandbox.disks import PLAIN, disk, kind_of, sync, taken, used
from benchmarks.sandbox.work import FORKS, TENANT, Archives, Copies, Ours, change, make_tree

from retinue.host import clock
from retinue.runs.sandboxes import Exec, SandboxRefused
from retinue.sandbox.backends.choosing import AUTO, Backends
from retinue.sandbox.boxes import Kit, LocalBox
from retinue.sandbox.masking import Mask
from retinue.sandbox.profiles import STRICT
from retinue.sandbox.tiers import COPY

HERE = Path(__file__).parent
RESULTS, TABLE = HERE.parent / "results.json", HERE / "RESULTS.md"
ROUNDS, EXECS = 3, 60
FILES, SIZE, CHANGED = 5_000, 40_000, 5
WAYS = {PLAIN: ("copy", "overlayfs"), "xfs": ("reflink",), "btrfs": ("btrfs", "btrfs_own")}
"""The ways that are measured on each file system; `_own`: as for a host that is no root, all of one user."""
OWN = "_own"
Row = dict[str, Any]


@dataclass
class Figures:
    """The best value by name, and its unit."""

    best: dict[str, tuple[float, str]] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str = "s") -> None:
        """One more round of a figure: the least counts."""
        known = self.best.get(name)
        if known is None or value < known[0]:
            self.best[name] = (value, unit)
        print(f"{name:44} {value:>9.3f} {unit}", flush=True)

    def value(self, name: str) -> float | None:
        """The figure of this name."""
        found = self.best.get(name)
        return None if found is None else found[0]


async def timed(figures: Figures, name: str, folder: Path, work: Callable[[], Awaitable[Any]]) -> Any:
    """Do it and wait until it is on disk."""
    sync(folder)
    began = time.perf_counter()
    result = await work()
    sync(folder)
    figures.add(name, time.perf_counter() - began)
    return result


def threaded(work: Callable[..., Any], *arguments: Any) -> Callable[[], Awaitable[Any]]:
    """Blocking work as `timed` wants it."""
    return lambda: asyncio.to_thread(work, *arguments)


async def execs(figures: Figures, folder: Path, rounds: int) -> None:
    """Milliseconds of `true` as a plain process, and in a strict sandbox; in turn, over all rounds."""
    backends = Backends(600_199 if os.geteuid() == 0 else None)
    try:
        backend, _ = await backends.choose(AUTO, STRICT)
    except SandboxRefused as error:
        print(f"without execs: {error}", file=sys.stderr)
        backends.close()
        return
    ours = Ours(folder)
    place = ours.place("exec", 600_198)
    make_workspace(place.tree, place.uid)
    place.finish(place.state)
    environment = {"PATH": os.defpath}
    kit = Kit(STRICT, backend, ours.contents, lambda _, __: environment, clock.now_ns, Mask({}))
    box = LocalBox(place, kit)
    plain, confined = [], []
    for _ in range(EXECS * rounds):
        began = time.perf_counter()
        await (await asyncio.create_subprocess_exec("true", stdin=asyncio.subprocess.DEVNULL)).wait()
        between = time.perf_counter()
        result = await box.exec(Exec(argv=("true",)))
        assert result.exit_code == 0, result
        plain.append((between - began) * 1000)
        confined.append((time.perf_counter() - between) * 1000)
    for name, values in (("exec_plain", plain), (f"exec_{backend.name}", confined)):
        cuts = statistics.quantiles(values, n=20)
        figures.add(f"{name}_p50", statistics.median(values), "ms")
        figures.add(f"{name}_p95", cuts[-1], "ms")
    figures.add("exec_added_p50", statistics.median(confined) - statistics.median(plain), "ms")
    await box.close()
    backends.close()


def make_workspace(tree: Path, uid: int | None) -> None:
    """An empty workspace of a user."""
    tree.mkdir(mode=0o700)
    if uid is not None:
        os.chown(tree, uid, uid)


async def tools(figures: Figures, top: Path, tree: Path, size: int) -> None:
    """What plain tools need on a disk."""
    for tool in (Copies(top), Archives(top)):
        if tool.name == "tar_zstd" and shutil.which("zstd") is None:
            print("without tar_zstd: no zstd", file=sys.stderr)
            continue
        await timed(figures, f"{tool.name}_first", top, threaded(tool.take, tree, "v1"))
        await timed(figures, f"{tool.name}_no_op", top, threaded(tool.take, tree, "v2"))
        change(tree, CHANGED, size, random.Random())
        await timed(figures, f"{tool.name}_incremental", top, threaded(tool.take, tree, "v3"))
        figures.add(f"{tool.name}_increment_mb", tool.size("v3") / 1e6, "MB")
        await timed(figures, f"{tool.name}_restore", top, threaded(tool.restore, "v3", top / "back"))
        shutil.rmtree(top / "back")
        await forked_by(figures, tool, top)
        for version in ("v1", "v2", "v3"):
            tool.drop(version)


async def forked_by(figures: Figures, tool: Copies | Archives, top: Path) -> None:
    """Eight restores one after the other, as a script would do it."""

    def fork() -> None:
        for number in range(FORKS):
            tool.restore("v3", top / f"fork-{number}")

    await timed(figures, f"{tool.name}_fork8", top, threaded(fork))
    for number in range(FORKS):
        shutil.rmtree(top / f"fork-{number}")


async def snapshots(figures: Figures, top: Path, tree: Path, size: int) -> None:
    """What Retinue's snapshots need on a disk, from a fresh store."""
    ours = Ours(top / "ours", (COPY,))
    await timed(figures, "retinue_first", top, lambda: ours.take(tree))
    await timed(figures, "retinue_no_op", top, lambda: ours.take(tree))
    changed = change(tree, CHANGED, size, random.Random())
    before = used(ours.folder / "snapshots")
    grown = await timed(figures, "retinue_incremental", top, lambda: ours.take(tree))
    figures.add("retinue_increment_mb", (used(ours.folder / "snapshots") - before) / 1e6, "MB")
    figures.add("retinue_growth_per_changed_byte", grown / changed, "x")
    place = ours.place("back")
    await timed(figures, "retinue_restore", top, lambda: ours.contents.fill(place, ours.last))
    place.remove()
    shutil.rmtree(ours.folder)


async def forks(figures: Figures, kind: str, name: str, top: Path, tree: Path) -> None:
    """Eight forks by one way, and what an increment and its forks cost once a base is there."""
    way = name.removesuffix(OWN)
    ours = Ours(top / "ours", (way, COPY) if way != COPY else (COPY,))
    uid = 600_200 if os.geteuid() == 0 and way == name else None
    if way not in await asyncio.to_thread(ours.tiers.working, uid):
        print(f"without {way} on {kind}: it does not work here", file=sys.stderr)
        return
    await ours.take(tree)
    measure = used if kind == PLAIN else taken
    for work in ("first_fork8", "fork8"):
        before = measure(ours.folder)
        places, ways = await timed(figures, f"retinue_{name}_{work}", top, lambda: ours.fork(FORKS, uid))
        if work == "fork8":
            assert ways == {way}, ways
            figures.add(f"retinue_{name}_fork8_mb", max(measure(ours.folder) - before, 0) / 1e6, "MB")
            await timed(figures, f"retinue_{name}_no_op", top, partial(ours.contents.take, places[0]))
        for place in places:
            place.remove()
    ours.bases.drop(TENANT, ours.last)
    shutil.rmtree(ours.folder)


async def measure(folder: Path, rounds: int, files: int, size: int) -> tuple[Figures, list[str]]:
    """All figures, and the file systems they are of."""
    figures, kinds = Figures(), []
    await execs(figures, folder / "execs", rounds)
    for kind, ways in WAYS.items():
        with disk(kind, folder) as top:
            if top is None:
                continue
            kinds.append(kind_of(top))
            tree = top / "tree"
            tree.mkdir()
            make_tree(tree, files, size)
            for _ in range(rounds):
                if kind == PLAIN:
                    await tools(figures, top, tree, size)
                    await snapshots(figures, top, tree, size)
                for way in ways:
                    await forks(figures, kind, way, top, tree)
    return figures, kinds


def rows_of(figures: Figures) -> list[Row]:
    """As results.json has them; the ratio is to what `cp -a` needs for the same."""
    rows = []
    for name, (value, unit) in figures.best.items():
        work = name.rpartition("retinue_")[2]
        peer = next(
            (f"cp_a_{each}" for each in ("fork8", "restore", "first", "no_op", "incremental") if each in work), ""
        )
        if work.endswith("first_fork8"):
            peer = "cp_a_fork8"
        other = figures.value(peer) if unit == "s" and name.startswith("retinue") else None
        rows.append(
            {
                "name": f"sandbox_{name}",
                "value": round(value, 4),
                "unit": unit,
                "against": f"sandbox_{peer}" if other else None,
                "ratio": round(value / other, 3) if other else None,
            }
        )
    return rows


@dataclass(frozen=True)
class Goal:
    """What a figure has to be: `most`, or no more than another figure."""

    what: str
    name: str
    most: float | str


GOALS = (
    Goal("an exec adds at most 15 ms (p50)", "exec_added_p50", 15.0),
    Goal("incremental snapshot, 5 of 5,000 files: at most 0.4 s", "retinue_incremental", 0.4),
    Goal("eight forks with overlayfs: at most 0.3 s", "retinue_overlayfs_fork8", 0.3),
    Goal("eight forks with btrfs, all of one user: at most 0.3 s", "retinue_btrfs_own_fork8", 0.3),
    Goal("eight forks with btrfs, each of its own user: at most 0.3 s", "retinue_btrfs_fork8", 0.3),
    Goal("eight forks by copies: at most cp -a", "retinue_copy_fork8", "cp_a_fork8"),
    Goal("eight first forks by copies: at most cp -a", "retinue_copy_first_fork8", "cp_a_fork8"),
    Goal("an increment grows the store by at most 2 x what changed", "retinue_growth_per_changed_byte", 2.0),
)


def table(figures: Figures, about: list[str]) -> str:
    """RESULTS.md."""
    lines = [
        "# Sandboxes beside plain tools",
        "",
        "Written by `make bench-sandbox`; run.py says how it is measured.",
        "",
    ]
    lines += [*(f"- {line}" for line in about), "", "## Goals", "", "| goal | needed | measured | verdict |"]
    lines.append("| --- | --- | --- | --- |")
    for goal in GOALS:
        value = figures.value(goal.name)
        most = figures.value(goal.most) if isinstance(goal.most, str) else goal.most
        if value is not None and most is not None:
            verdict = "reached" if value <= most else f"missed: {value / most:.1f} times as much"
            lines.append(f"| {goal.what} | {most:.3g} | {value:.3g} | {verdict} |")
    lines += ["", "## Figures", "", "| figure | value | to cp -a |", "| --- | --- | --- |"]
    for row in rows_of(figures):
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(f"| {row['name'].removeprefix('sandbox_')} | {row['value']:,.3f} {row['unit']} | {ratio} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of a small tree; nothing is written")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is measured")
    parser.add_argument("--folder", type=Path, help="where to measure; default: the folder for temporary files")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="sandbox-bench-") as made:
        folder = Path(made)
        folder.chmod(0o711)
        files, rounds = (300, 1) if given.quick else (FILES, given.rounds)
        figures, kinds = asyncio.run(measure(folder, rounds, files, SIZE))
    about = [
        f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}",
        f"file systems: {', '.join(kinds)}; {files:,} files of {SIZE / 1000:.0f} kB; {rounds} rounds",
        f"load average over a minute at the start: {load:.1f}",
    ]
    text = table(figures, about)
    print(text)
    if not given.quick:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        RESULTS.write_text(json.dumps(merged(known, rows_of(figures)), indent=1, ensure_ascii=False) + "\n")
        TABLE.write_text(text)


if __name__ == "__main__":
    main()
