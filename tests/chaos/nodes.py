"""Three Ray nodes on this machine, whose raylets can be killed and replaced, and all of them at once.

Owns their processes and knows no runtime. Ray is told to notice a lost node within some seconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from retinue.actors.quiet import prepare

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_health_check_initial_delay_ms": "0",
}
"""What every process that talks to these nodes needs in its environment."""
prepare()

import psutil  # noqa: E402
from ray._raylet import Config  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402 - Ray reads its environment when it is imported

_SLIM = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
_HEAD = {**_SLIM, "include_dashboard": False, "no_monitor": True}
T = TypeVar("T")


class Nodes:
    """A head and two more nodes."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start them; again, when everything was killed."""
        self._cluster = _twice(lambda: Cluster(initialize_head=True, head_node_args=_HEAD))
        self._others = [self._add(), self._add()]

    @property
    def address(self) -> str:
        """Where to reach Ray."""
        return str(self._cluster.address)

    @property
    def session(self) -> Path:
        """Where Ray keeps its logs."""
        return Path(self._cluster.head_node.get_session_dir_path())

    def raylets(self) -> list[int]:
        """Process ids of the raylets, the head's first."""
        return [_raylet(node) for node in (self._cluster.head_node, *self._others)]

    def actors(self, class_name: str) -> list[psutil.Process]:
        """The processes of the actors of a class, on any node."""
        found = []
        for raylet in self.raylets():
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(raylet).children(recursive=True)
                found += [child for child in children if _title(child).startswith(f"ray::{class_name}")]
        return found

    def lose(self, index: int) -> int:
        """SIGKILL the raylet of the first or second node beside the head, and put a new node in its place."""
        node = self._others[index]
        pid = _raylet(node)
        self._cluster.remove_node(node, allow_graceful=False)
        self._others[index] = self._add()
        return pid

    def kill(self) -> None:
        """SIGKILL every process of every node, and wait until they are gone."""
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        self._cluster.shutdown()

    def _processes(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for node in (self._cluster.head_node, *self._others):
            for infos in node.all_processes.values():
                for info in infos:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process = psutil.Process(info.process.pid)
                        found += [process, *process.children(recursive=True)]
        return found

    def offer(self, **what: Any) -> None:
        """Add a node with labels or resources of its own."""
        self._others.append(self._cluster.add_node(wait=False, **_SLIM, **what))

    def _add(self) -> Any:
        return self._cluster.add_node(wait=False, **_SLIM)


@contextmanager
def three_nodes() -> Iterator[Nodes]:
    """Nodes that do not outlive the block, and an environment for them that ends with it too."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    _set(ENVIRONMENT)
    try:
        nodes = Nodes()
        try:
            yield nodes
        finally:
            nodes.kill()
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    Config.initialize("")


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


def _twice(start: Callable[[], T]) -> T:
    """Ray's start has a time limit of its own that a busy machine passes: one more try."""
    try:
        return start()
    except Exception:  # whatever it raises, a second failure is the caller's to see
        return start()
