"""Three machines with a Ray node each, PostgreSQL beside them, and projects that all of them see at one path.

Owns what is started, and how a machine is killed, cut off and brought back. Knows no measurement. Runs as root.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from tests.doubles.machines import LAPTOP, Machines, environment, machines
from tests.doubles.postgres import programs_folder

ROOT = Path(__file__).parents[2]
BIN = "/home/retinue/project/.venv/bin"
ADDRESSES = ("192.0.2.10", "192.0.2.11", "192.0.2.12")
HEAD = ADDRESSES[0]
RAY = f"{HEAD}:6379"
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_health_check_initial_delay_ms": "0",
    "STORE_KEY": "a key of this measurement alone",
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
    "RETINUE_TELEMETRY__EMIT_STRUCTURED_EVENTS": "false",
}
_KEPT = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": "/home/retinue/gcs"}
# Ends Ray's GCS as a crash does, and starts it again as it was: the same words, the same environment.
_GCS = """
import os, signal, subprocess, sys, time
pid = int(subprocess.check_output(["pgrep", "-x", "gcs_server"]).split()[0])
words = open(f"/proc/{pid}/cmdline").read().split("\\0")[:-1]
pairs = [pair.partition("=") for pair in open(f"/proc/{pid}/environ").read().split("\\0") if pair]
os.kill(pid, signal.SIGKILL)
time.sleep(float(sys.argv[1]))
with open("/home/retinue/gcs.log", "ab") as log:
    again = subprocess.Popen(words, env={name: value for name, _, value in pairs}, stdin=subprocess.DEVNULL,
                             stdout=log, stderr=log, start_new_session=True)
print(pid, again.pid)
"""
T = TypeVar("T")


@dataclass(slots=True)
class Stage:
    """What was started. `environ` is that of every process on every machine; `nodes` those whose Ray was started."""

    cluster: Machines
    environ: dict[str, str]
    nodes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """A folder that every machine and this process see at one path."""
        return self.cluster.base / "shared"

    def start_node(self, address: str) -> None:
        """Start Ray on a machine; the head first."""
        place = "--head --port=6379 --include-dashboard=false" if address == HEAD else f"--address={RAY}"
        options = f"--node-ip-address={address} --num-cpus=2 --object-store-memory=100000000"
        _twice(lambda: self.on(address, f"ray start {place} {options}", timeout=120))
        if address not in self.nodes:
            self.nodes.append(address)

    def on(self, address: str, command: str, *, timeout: float = 120, folder: str = "~") -> str:
        """Run a command on a machine to its end; what it printed. AssertionError when it fails."""
        return self.cluster.ssh(address, self._line(command, folder), timeout=timeout)

    def begin(self, address: str, command: str, folder: str) -> subprocess.Popen[str]:
        """Begin a command on a machine; the caller waits for it."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return self.cluster.start(["ssh", *options, f"retinue@{address}", self._line(command, folder)])

    def laptop(self, command: str, *, folder: str = "~", timeout: float = 600) -> str:
        """Run a command on the laptop."""
        return self.cluster.run("bash", "-c", self._line(command, folder), timeout=timeout)

    def alive(self) -> int:
        """How many nodes Ray takes for alive."""
        count = "print('alive', sum(node['Alive'] for node in ray.nodes()))"
        out = self.on(HEAD, f"python -c \"import ray; ray.init(address='{RAY}', log_to_driver=False); {count}\"")
        return int(out.rpartition("alive ")[2].split()[0])

    def kill_node(self, address: str) -> None:
        """SIGKILL to the raylet of a machine and to every process it has started."""
        self.on(address, "raylet=$(pgrep -x raylet) && kill -9 $raylet $(pgrep -P $raylet)")

    def link(self, address: str, state: str) -> None:
        """Cut a machine off (`down`) or bring it back (`up`)."""
        self.cluster.run("ip", "link", "set", "machine" + address.rpartition(".")[2], state)

    def kill_gcs(self, pause: float) -> str:
        """SIGKILL to the GCS of the head; started again after a pause (s). Both process ids."""
        return self.on(HEAD, f"{BIN}/python -c {shlex.quote(_GCS)} {pause}").strip()

    def restart_postgres(self) -> None:
        """Stop PostgreSQL as a crash does, and start it again."""
        self._pg_ctl("-m", "immediate", "-t", "60", "restart")

    def start_postgres(self) -> None:
        """A server of our own on the laptop, with fsync, that the machines reach."""
        self._as_postgres("initdb", "-D", "/tmp/pg", "--auth-local=trust", "-E", "UTF8", "--locale=C")
        self.cluster.run("bash", "-c", "echo 'host all retinue 192.0.2.0/24 trust' >> /tmp/pg/pg_hba.conf")
        places = f"-c listen_addresses={LAPTOP} -c unix_socket_directories=/tmp"
        self._pg_ctl("-o", places, "start")
        self._as_postgres("psql", "--host=/tmp", "--dbname=postgres", "-c", "CREATE ROLE retinue SUPERUSER LOGIN")

    def database(self, name: str) -> str:
        """Make a database; its URL."""
        with psycopg.connect(self._reach("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER retinue")
        return f"postgresql://retinue@{LAPTOP}:5432/{name}"

    def connect(self, name: str) -> psycopg.Connection[Any]:
        """A connection to a database, past the network of the machines."""
        return psycopg.connect(self._reach(name), autocommit=True, connect_timeout=5)

    def _reach(self, name: str) -> str:
        return f"host={self.cluster.base}/laptop/tmp user=retinue dbname={name}"

    def _as_postgres(self, program: str, *words: str) -> str:
        drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return self.cluster.run(*drop, str(programs_folder() / program), *words, folder="/tmp", timeout=90)

    def _pg_ctl(self, *words: str) -> None:
        self._as_postgres("pg_ctl", "-D", "/tmp/pg", "-l", "/tmp/pg.log", "-w", *words)

    def _line(self, command: str, folder: str) -> str:
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environ.items())
        return f"export {exports} PATH={BIN}:$PATH; ulimit -n $(ulimit -Hn); cd {folder} && {command}"


@contextmanager
def stage(base: Path, environ: Mapping[str, str], *, kept: bool = False) -> Iterator[Stage]:
    """Machines and PostgreSQL, without a Ray yet; gone at the end. `kept`: Ray's GCS keeps its records on disk."""
    interpreter = [Path(sys.prefix), Path(sys.base_prefix)]
    with machines(base, ADDRESSES, [*interpreter, ROOT]) as cluster:
        for home in (cluster.home, *(cluster.home_of(address) for address in ADDRESSES)):
            environment(home, str(ROOT / "src"))
        found = Stage(cluster, {**_ENVIRONMENT, **(_KEPT if kept else {}), **environ})
        found.folder.mkdir()
        found.start_postgres()
        yield found


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """retinue.yaml of a project; JSON is YAML."""
    (folder / "retinue.yaml").write_text(json.dumps(settings, indent=1))


def within(seconds: float, found: Callable[[], T], what: str) -> T:
    """Ask until the answer is something; a server that is away is no answer. TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        answer = quietly(found)
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)


def quietly(found: Callable[[], T]) -> T | None:
    """The answer, or None where the server cannot be asked."""
    try:
        return found()
    except psycopg.OperationalError:
        return None


def batch_line(target: str, words: Sequence[str] = ()) -> str:
    """The command of a batch from questions.jsonl to answers.jsonl."""
    return f"retinue batch {target} --input questions.jsonl --output answers.jsonl --json {' '.join(words)}"


def _twice(start: Callable[[], T]) -> T:
    """Ray's start has a time limit of its own that a busy machine passes: one more try."""
    try:
        return start()
    except AssertionError:
        return start()
