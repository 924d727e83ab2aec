"""A batch on three nodes under fire: a network cut, a node killed, the database and Ray's GCS killed and started again.

Each strike waits until the one before is mended. Afterwards the output is compared with that of an undisturbed run, and
the judge of tests/chaos reads the journal and the log of effects.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cluster import projects
from benchmarks.cluster.equality import Row, differences, report_in
from benchmarks.cluster.sight import HostSeen, Sight
from benchmarks.cluster.stage import ADDRESSES, HEAD, RAY, Stage, batch_line, quietly, within
from tests.chaos.checker import check
from tests.chaos.history import History

LOG = "effects.log"
_NAME = "fire"
_PATIENCE = 120.0
_BATCH = 1500.0
_SETTINGS: dict[str, Any] = {
    "actors": {"runs": 1, "workers": 3, "capacity": 24, "lease_seconds": projects.LEASE},
    "retry": {"attempts": 6, "base": 0.1, "cap": 2.0},
    # The note of sources is a write that the log of effects does not hold.
    "enable_background_updates": False,
}
Strike = Callable[["Fire"], dict[str, Any]]


class Fire:
    """The batch and what is known of it while it runs."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder = stage, folder
        self.sight = Sight(stage, _NAME)
        self.exits: list[int] = []
        self._begin("--force")

    def _begin(self, word: str) -> None:
        line = f"export RAY_ADDRESS={RAY}; {batch_line('watched', [word])} >> batch.out 2>> batch.err"
        self.process: subprocess.Popen[str] = self.stage.begin(HEAD, line, str(self.folder))

    def wait(self) -> dict[str, Any]:
        """Wait for the batch's end, resumed when its process ended with the work undone; what it reported."""
        deadline = time.monotonic() + _BATCH
        while True:
            self.process.communicate(timeout=max(deadline - time.monotonic(), 1))
            self.exits.append(self.process.returncode)
            said = (self.folder / "batch.out").read_text("utf-8")
            report = report_in(said) if "{" in said else {}
            if report.get("status") == "completed" or len(self.exits) > 5:
                return report
            self._begin("--resume")

    def victim(self, exclude: Sequence[str] = ()) -> list[HostSeen]:
        """The worker hosts of the machine, other than the head's, whose hosts hold most runs: as soon as some do."""

        def found() -> list[HostSeen]:
            by_node: dict[str, list[HostSeen]] = {}
            for host in self.sight.hosts("worker"):
                if host.holds and host.node not in ("machine10", *exclude):
                    by_node.setdefault(host.node, []).append(host)
            return max(by_node.values(), key=lambda hosts: sum(len(host.holds) for host in hosts), default=[])

        return within(_PATIENCE, found, "a worker that holds runs, off the head")

    def taken_over(self, lost: list[HostSeen], began: float) -> float:
        """Wait until others have what these hosts held; seconds since."""
        within(_PATIENCE, lambda: not self.sight.left_behind(lost), f"the runs of {lost[0].node} are taken over")
        return round(time.monotonic() - began, 1)

    def three_workers(self, began: float) -> float:
        """Wait until three worker hosts live; seconds since."""
        within(_PATIENCE, lambda: len(self.sight.hosts("worker")) >= 3, "three workers live")
        return round(time.monotonic() - began, 1)


def address_of(node: str) -> str:
    """The address of a machine's name."""
    return next(address for address in ADDRESSES if address.endswith("." + node.removeprefix("machine")))


def cut_off(fire: Fire) -> dict[str, Any]:
    """The link of a worker node down for longer than a lease, and up again."""
    lost = fire.victim()
    address, began = address_of(lost[0].node), time.monotonic()
    fire.stage.link(address, "down")
    took = fire.taken_over(lost, began)
    replaced = fire.three_workers(began)
    time.sleep(max(0.0, began + 3 * projects.LEASE - time.monotonic()))
    effects = len((fire.stage.folder / LOG).read_text().splitlines())
    fire.stage.link(address, "up")
    back = time.monotonic()
    within(_PATIENCE, lambda: fire.stage.on(address, "pgrep -x raylet || echo none").strip() == "none", "its Ray ends")
    ended = round(time.monotonic() - back, 1)
    fire.stage.start_node(address)
    return {
        "node": lost[0].node,
        "held": sum(len(host.holds) for host in lost),
        "cut_s": round(back - began, 1),
        "taken_over_s": took,
        "three_workers_s": replaced,
        "its_ray_ended_s_after_return": ended,
        "effects_before_return": effects,
    }


def kill_node(fire: Fire) -> dict[str, Any]:
    """SIGKILL to a raylet and its actors; Ray is started there again afterwards."""
    lost = fire.victim()
    address, began = address_of(lost[0].node), time.monotonic()
    fire.stage.kill_node(address)
    took = fire.taken_over(lost, began)
    replaced = fire.three_workers(began)
    fire.stage.start_node(address)
    held = sum(len(host.holds) for host in lost)
    return {"node": lost[0].node, "held": held, "taken_over_s": took, "three_workers_s": replaced}


def restart_postgres(fire: Fire) -> dict[str, Any]:
    """An immediate stop and a start."""
    began, before = time.monotonic(), fire.sight.written()
    fire.stage.restart_postgres()
    up = round(time.monotonic() - began, 1)
    within(_PATIENCE, lambda: fire.sight.written() > before, "entries are written again")
    written = round(time.monotonic() - began, 1)
    ended = fire.sight.ended()
    within(_PATIENCE, lambda: fire.sight.ended() > ended, "runs end again")
    return {"server_back_s": up, "entries_again_s": written, "runs_end_again_s": round(time.monotonic() - began, 1)}


def kill_gcs(fire: Fire) -> dict[str, Any]:
    """SIGKILL to the GCS of the head, which has its records on disk; away for 5 s."""
    before, began = fire.sight.ended(), time.monotonic()
    workers = {(host.number, host.pid) for host in fire.sight.hosts("worker")}
    said = fire.stage.kill_gcs(5.0)
    during = fire.sight.ended() - before
    within(_PATIENCE, lambda: fire.stage.alive() == len(ADDRESSES), "Ray knows all nodes again")
    known = round(time.monotonic() - began, 1)
    status = fire.stage.on(HEAD, f"export RAY_ADDRESS={RAY}; retinue status --json", folder=str(fire.folder))
    after = {(host.number, host.pid) for host in fire.sight.hosts("worker")}
    return {
        "pids": said,
        "runs_ended_while_away": during,
        "all_nodes_known_s": known,
        "same_workers": workers == after,
        "actors": dict(Counter(actor["state"] for actor in report_in(status)["actors"])),
    }


STRIKES: dict[str, Strike] = {
    "cut": cut_off,
    "kill": kill_node,
    "postgres": restart_postgres,
    "gcs": kill_gcs,
}


def under_fire(stage: Stage, folder: Path, wanted: Sequence[Row], strikes: Sequence[str]) -> dict[str, Any]:
    """Run the batch, strike, wait for its end, judge."""
    projects.watched(folder)
    projects.settle(folder, ["agents", "watched"], stage.database(_NAME), **_SETTINGS)
    for address in ADDRESSES:
        stage.start_node(address)
    stage.on(HEAD, f"export RAY_ADDRESS={RAY}; retinue up --json", folder=str(folder))
    fire = Fire(stage, folder)
    seen: dict[str, Any] = {}
    for name in strikes:
        enough = fire_ready(fire)
        if fire.process.poll() is not None:
            seen[name] = {"failed": "the batch had ended before"}
            continue
        print(f"{name}: after {enough} runs", flush=True)
        seen[name] = _struck(fire, name)
        print(f"{name}: {seen[name]}", flush=True)
    report = fire.wait()
    stage.on(HEAD, f"export RAY_ADDRESS={RAY}; retinue down", folder=str(folder))
    return {"strikes": seen, "exits": fire.exits, "seconds": report["seconds"], **verdict(fire, report, wanted)}


def _struck(fire: Fire, name: str) -> dict[str, Any]:
    try:
        return STRIKES[name](fire)
    except (TimeoutError, AssertionError) as error:
        return {"failed": str(error)[-600:]}


def fire_ready(fire: Fire) -> int:
    """Wait until three workers live and some more runs have ended; how many have."""
    before = quietly(fire.sight.ended) or 0
    within(_PATIENCE, lambda: fire.process.poll() is not None or fire.sight.ended() > before + 100, "runs end")
    return quietly(fire.sight.ended) or 0


def verdict(fire: Fire, report: dict[str, Any], wanted: Sequence[Row]) -> dict[str, Any]:
    """What the judge says, what differs from the undisturbed output, and what the engine said of refused writes."""
    log = fire.stage.folder / LOG
    history = fire.sight.history(report["job_id"], fire.folder, log)
    ids = {row["id"] for row in projects.rows_of(fire.folder / "questions.jsonl")}
    return {
        "rows": report["written"],
        "findings": [str(finding) for finding in check(history)],
        "differences": differences(
            projects.rows_of(fire.folder / "answers.jsonl"), [row for row in wanted if row["id"] in ids]
        ),
        **counts(history),
        "refused_writes": refused(fire.stage.folder),
    }


def counts(history: History) -> dict[str, Any]:
    """How much the judge has read: runs, entries, effects, and those done again."""
    keys = Counter((effect.contract, effect.key) for effect in history.effects)
    return {
        "runs": len(history.runs),
        "entries": sum(run.position for run in history.runs.values()),
        "effects": dict(Counter(contract for contract, _ in keys.elements())),
        "done_again": dict(Counter(contract for (contract, _), count in keys.items() if count > 1)),
    }


def refused(folder: Path) -> dict[str, int]:
    """By machine, how often a host was refused a write because another owner had continued the run."""
    found: Counter[str] = Counter()
    for path in folder.glob("said-*.log"):
        said = path.read_text("utf-8", errors="replace").count("another owner continued it")
        found[path.name.split("-")[1]] += said
    return dict(found)
