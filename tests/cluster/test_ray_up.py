"""`ray up cluster.yaml`, `ray job submit`, `ray down` as docs/cluster.md tells them, on three machines with sshd.

The machines are network, process and mount namespaces (tests/doubles/machines.py): `ray stop`, which ends every Ray it
sees, sees those of its own machine. cluster.yaml is taken as it is; what stands in for a real machine is `make setup`.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.doubles.machines import LAPTOP, Machines, environment, machines, missing
from tests.doubles.postgres import NoServer, programs_folder

ROOT = Path(__file__).parents[2]
PROJECT = "/home/retinue/project"
# A worker whose head is gone waits this long (s) for it to come back; 60 where nothing is said.
PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s=5"
ROWS = 12
SETTINGS = f"""
store: postgresql://retinue:${{STORE_PASSWORD}}@{LAPTOP}:5432/retinue
store_key: ${{STORE_KEY}}
actors:
  workers: 3
"""


@pytest.fixture
def password() -> str:
    """A password that is in no file but ~/retinue.env of the machines."""
    return secrets.token_hex(16)


@pytest.fixture
def cluster(tmp_path: Path, password: str) -> Iterator[Machines]:
    """A laptop with a checkout and a token, and the machines of cluster.yaml as docs/cluster.md wants them."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    provider = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))["provider"]
    addresses = [provider["head_ip"], *provider["worker_ips"]]
    interpreter = [Path(sys.prefix), Path(sys.base_prefix)]
    with machines(tmp_path, addresses, interpreter) as found:
        shutil.copytree(ROOT, found.home / "project", ignore=_unversioned, symlinks=True)
        environment(found.home, f"{PROJECT}/src")
        for address in addresses:
            environment(found.home_of(address), f"{PROJECT}/src")
            secret = found.home_of(address) / "retinue.env"
            secret.write_text(f"STORE_PASSWORD={password}\nSTORE_KEY={password[::-1]}\n{PATIENCE}\n")
            secret.chmod(0o600)
        found.run("ray", "get-auth-token", "--generate")
        with (found.home / "project/examples/research/retinue.yaml").open("a", encoding="utf-8") as settings:
            settings.write(SETTINGS)
        with postgres(found, password):
            yield found


@contextmanager
def postgres(cluster: Machines, password: str) -> Iterator[None]:
    """A server on the laptop that the machines reach, with the role and the database of docs/cluster.md."""
    try:
        programs = programs_folder()
    except NoServer as error:
        pytest.skip(str(error))
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    cluster.run(
        *as_postgres, str(programs / "initdb"), "-D", "/tmp/pg", "--auth-local=peer", "-E", "UTF8", folder="/tmp"
    )
    cluster.run("bash", "-c", "echo 'host retinue retinue 192.0.2.0/24 scram-sha-256' >> /tmp/pg/pg_hba.conf")
    places = ["-c", f"listen_addresses={LAPTOP}", "-c", "unix_socket_directories=/tmp"]
    server = cluster.start([*as_postgres, str(programs / "postgres"), "-D", "/tmp/pg", *places], folder="/tmp")
    try:
        ready = [*as_postgres, str(programs / "pg_isready"), "--host=/tmp", "--quiet"]
        within(30, lambda: _succeeds(cluster, ready), lambda: "no PostgreSQL")
        for statement in (f"CREATE ROLE retinue LOGIN PASSWORD '{password}'", "CREATE DATABASE retinue OWNER retinue"):
            psql(cluster, statement, database="postgres")
        yield
    finally:
        cluster.interrupt(server)


def psql(cluster: Machines, statement: str, database: str = "retinue") -> str:
    """What the server's owner is answered, a row a line."""
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    options = ["--host=/tmp", f"--dbname={database}", "--tuples-only", "--no-align", "--command", statement]
    return cluster.run(*as_postgres, str(programs_folder() / "psql"), *options, folder="/tmp").strip()


def _succeeds(cluster: Machines, words: list[str]) -> bool:
    process = cluster.start(words, folder="/tmp")
    process.communicate(timeout=30)
    return process.returncode == 0


def _unversioned(folder: str, names: list[str]) -> list[str]:
    """What no checkout has: environments, caches and what a runtime leaves behind."""
    return [name for name in names if name in {".git", ".retinue", "out", "__pycache__"} or _cache(name)]


def _cache(name: str) -> bool:
    return name.startswith(".venv") or (name.startswith(".") and name.endswith("_cache"))


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.promise("K2", "H4")
def test_a_cluster_goes_up_takes_a_job_and_goes_down(cluster: Machines, password: str) -> None:
    ray_up(cluster)
    with forwarded(cluster):
        refused = submit(cluster, "true", token="0" * 64)
        assert refused.returncode != 0
        assert "401" in refused.stdout or "nauthorized" in refused.stdout or "nvalid" in refused.stdout, refused.stdout
        batch = f"retinue batch research --input questions.jsonl --output answers.jsonl --limit {ROWS}"
        done = submit(cluster, f"cd {PROJECT}/examples/research && {batch}")
        assert done.returncode == 0, done.stdout
        assert "succeeded" in done.stdout
    rows = answers(cluster)
    assert all(row["answer"] for row in rows)
    assert len({row["id"] for row in rows}) == ROWS
    assert int(psql(cluster, "SELECT count(*) FROM runs WHERE status = 'completed'")) > ROWS
    serving = psql(cluster, "SELECT DISTINCT node FROM hosts WHERE kind = 'worker'").split()
    assert len(serving) == len(cluster.addresses), "an actor on each machine"
    nobody_saw(cluster, password)
    ray_down(cluster)


def ray_up(cluster: Machines) -> None:
    """`ray up`, and the wait until all machines have joined."""
    cluster.run("ray", "up", "-y", "cluster.yaml", folder=PROJECT, timeout=120)
    wanted = len(cluster.addresses)
    within(120, lambda: alive(cluster) == wanted, lambda: exec_on_head(cluster, "ray status"))


def ray_down(cluster: Machines) -> None:
    """`ray down`, which stops the head at once; the workers end when they have missed it for a while."""
    cluster.run("ray", "down", "-y", "cluster.yaml", folder=PROJECT, timeout=120)
    head, *workers = cluster.addresses
    assert raylets(cluster, head) == ""
    for worker in workers:
        within(60, lambda worker=worker: raylets(cluster, worker) == "", lambda worker=worker: raylets(cluster, worker))


def exec_on_head(cluster: Machines, command: str) -> str:
    """`ray exec`: what the command printed on the head, among Ray's own lines."""
    return cluster.run("ray", "exec", "cluster.yaml", command, folder=PROJECT)


def alive(cluster: Machines) -> int:
    """How many nodes the head knows and sees."""
    count = "print('alive', sum(node['Alive'] for node in ray.nodes()))"
    out = exec_on_head(cluster, f"""python -c "import ray; ray.init(address='auto', log_to_driver=False); {count}" """)
    return int(out.rpartition("alive ")[2].split()[0])


def raylets(cluster: Machines, address: str) -> str:
    return cluster.ssh(address, "pgrep -a raylet || true").strip()


@contextmanager
def forwarded(cluster: Machines) -> Iterator[None]:
    """`ray dashboard`: port 8265 of the head, on the laptop."""
    forward = cluster.start(["ray", "dashboard", "cluster.yaml"], folder=PROJECT)
    try:
        within(30, lambda: _listens(cluster), lambda: "the dashboard's port is not forwarded")
        yield
    finally:
        cluster.interrupt(forward)


def _listens(cluster: Machines) -> bool:
    return "open" in cluster.run("bash", "-c", "(: > /dev/tcp/127.0.0.1/8265) 2>/dev/null && echo open; true")


def submit(cluster: Machines, command: str, *, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """`ray job submit` from the laptop, to its end."""
    given = ["env", "RAY_AUTH_MODE=token", *([f"RAY_AUTH_TOKEN={token}"] if token else [])]
    words = [*given, "ray", "job", "submit", "--address", "http://localhost:8265", "--", "bash", "-c", command]
    process = cluster.start(words, folder=PROJECT)
    try:
        out, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        out = cluster.interrupt(process)
    return subprocess.CompletedProcess(words, process.returncode, out)


def answers(cluster: Machines) -> list[dict[str, Any]]:
    """The rows that the job wrote, on the head."""
    written = cluster.home_of(cluster.addresses[0]) / "project/examples/research/answers.jsonl"
    return [json.loads(line) for line in written.read_text("utf-8").splitlines()]


def nobody_saw(cluster: Machines, password: str) -> None:
    """The password is in no log, no configuration and no command line of any machine."""
    for address in cluster.addresses:
        search = f"grep -rslF {password} /tmp/ray ~ --exclude=retinue.env; ps axww | grep -F {password} | grep -v grep"
        assert cluster.ssh(address, f"{search}; true").strip() == ""


def within(seconds: float, done: Callable[[], bool], story: Callable[[], str]) -> None:
    """Ask until it is so; fails with the story when the time is over."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {story()}")
        time.sleep(0.5)
