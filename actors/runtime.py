"""A runtime from outside: start Ray where there is none, join it where there is one, find the supervisor, stop.

A runtime is a supervisor and its children on a Ray cluster, bound to one data folder. Knows no runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from retinue.actors.quiet import prepare

prepare()

import psutil  # noqa: E402
import pyarrow as pa  # noqa: E402 - Ray reads its environment when it is imported
import ray  # noqa: E402
from ray._private import worker as ray_worker  # noqa: E402 - where a driver hears of its cluster
from ray._raylet import Config  # type: ignore[attr-defined]  # noqa: E402 - Ray's own way to a new environment

from retinue.actors.placement import supervisor_options  # noqa: E402
from retinue.actors.pools import RUNS, WORKERS  # noqa: E402
from retinue.actors.supervisor import SUPERVISOR, Keeper  # noqa: E402
from retinue.host.opening import identity_of  # noqa: E402
from retinue.host.presence import RuntimeInfo, cluster_address, find_runtime, roams, runtime_of  # noqa: E402
from retinue.host.settings import Settings  # noqa: E402
from retinue.runs import errors  # noqa: E402
from retinue.runs.errors import RetinueError, StoreBusy  # noqa: E402

T = TypeVar("T")
_LOG = logging.getLogger("retinue.actors")
_OBJECT_STORE = 100 * 1024 * 1024
_START_TIMEOUT = 60.0
_END_TIMEOUT = 10.0
_UNUSED = ["--no-monitor", "--include-log-monitor=false"]
"""Processes of a head that a runtime of one node has no use for: two starts of Python less."""
_REACH_TIMEOUT = 5.0
_CHILDREN_TIMEOUT = 20.0


class RuntimeFailed(RetinueError):
    """Ray or the supervisor could not be started or reached; the message says what to look at."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A live runtime that this process is connected to."""

    supervisor: Any
    namespace: str

    async def query(self, sql: str, timeout: float, rows: int | None = None) -> pa.Table:
        """Ask the trace tables, for at most so many rows. Raises what the TraceActor raised."""
        answer = await asyncio.to_thread(self._ask, sql, timeout, rows)
        if isinstance(answer, bytes):
            return pa.ipc.open_stream(answer).read_all()
        kind, message = answer
        raise getattr(errors, kind, RetinueError)(message)

    def _ask(self, sql: str, timeout: float, rows: int | None) -> Any:
        deadline = time.monotonic() + timeout + 15
        answer: Any
        while True:
            try:
                keeper = ray.get_actor("traces", namespace=self.namespace)
                answer = ray.get(keeper.query.remote(sql, timeout, rows), timeout=timeout + 15)
            except (ray.exceptions.RayActorError, ValueError) as error:
                answer = ("StoreBusy", f"the TraceActor is being replaced: {error}")
            if isinstance(answer, bytes) or answer[0] != "StoreBusy" or time.monotonic() > deadline:
                return answer
            time.sleep(0.2)


@asynccontextmanager
async def attached(settings: Settings, runtime: RuntimeInfo | None, *, start: bool) -> AsyncIterator[Attachment]:
    """Join the runtime, or start one that ends with the block. RuntimeFailed, StoreBusy."""
    own = runtime is None
    if own and not start:
        raise RuntimeFailed(f"no runtime serves {identity_of(settings)}: start one with `retinue up`")
    address = runtime.address if runtime else None
    if address == "":
        raise _elsewhere(settings)
    await asyncio.to_thread(_init, settings, address)
    try:
        here = await asyncio.to_thread(_exists, settings)
        if runtime is not None and not runtime.namespace and not here:
            raise _elsewhere(settings)
        own = own and not here
        attachment = await asyncio.to_thread(_supervised, settings, None)
        try:
            yield attachment
        finally:
            if own:
                await asyncio.to_thread(_stop, attachment)
    finally:
        await asyncio.to_thread(ray.shutdown)


def _refuse_elsewhere(settings: Settings) -> None:
    """RuntimeFailed when a runtime serves the store that is not to be found in Ray from here."""
    if runtime_of(settings) is not None:
        raise _elsewhere(settings)


def _elsewhere(settings: Settings) -> RuntimeFailed:
    known = cluster_address(settings)
    where = f"another Ray than {known}: name its own" if known else "a Ray cluster that is not known here: name it"
    archive = "; `retinue sql --archive` asks what is kept of the traces" if settings.traces.archive else ""
    return RuntimeFailed(
        f"the runtime of store {identity_of(settings)} lives in {where} in `cluster:` or RAY_ADDRESS. Runs do not need "
        f"it: they are submitted, followed and answered through the store{archive}"
    )


def _exists(settings: Settings) -> bool:
    """Whether the Ray we are connected to has the supervisor already; it may be on its way back from a crash."""
    try:
        ray.get_actor(SUPERVISOR, namespace=namespace_of(settings))
    except ValueError:
        return False
    return True


def namespace_of(settings: Settings) -> str:
    """The Ray namespace of a store: one runtime a store, many stores a cluster."""
    return "retinue-" + blake2b(identity_of(settings).encode(), digest_size=6).hexdigest()


def up(settings: Settings) -> dict[str, Any]:
    """Start a runtime that outlives this process, or find the one that lives; returns its status.

    RuntimeFailed when the one that lives is in a cluster that is not known here: no second one is started beside it.
    """
    address = _address(settings)
    if address is not None:
        return _connected(settings, address, lambda: _status(_supervised(settings, None)))
    _refuse_elsewhere(settings)
    address, head = _start_head(settings)
    return _connected(settings, address, lambda: _status(_supervised(settings, head)))


def status(settings: Settings) -> dict[str, Any] | None:
    """The status of the live runtime; None when there is none."""
    return _with_runtime(settings, _status)


def drain(settings: Settings, name: str) -> list[str]:
    """Drain an actor, a pool or a node of the live runtime; the names of the actors that leave. RuntimeFailed."""
    leaving = _with_runtime(settings, lambda attachment: _drain(attachment, name))
    if leaving is None:
        _refuse_elsewhere(settings)
        raise RuntimeFailed(f"no runtime serves {identity_of(settings)}: there is nothing to drain")
    return leaving


def down(settings: Settings) -> bool:
    """Stop the live runtime, and the Ray head that `up` started for it. False when there is none. RuntimeFailed."""
    runtime = find_runtime(settings.data_folder)
    stopped = _with_runtime(settings, _stop)
    if stopped is None and runtime is None:
        _refuse_elsewhere(settings)
    if runtime is not None and runtime.head_pid is not None:
        _end_head(runtime.head_pid)
    return stopped is not None


def _address(settings: Settings) -> str | None:
    """Where the project's runtime is, or would be joined; None for a Ray of its own that is not there yet."""
    runtime = find_runtime(settings.data_folder)
    return runtime.address if runtime is not None else cluster_address(settings)


def _with_runtime(settings: Settings, act: Callable[[Attachment], T]) -> T | None:
    """What `act` gives for the live runtime; None when there is none. One that roams is known by its name in Ray."""
    runtime = find_runtime(settings.data_folder)
    known = cluster_address(settings) if roams(settings) else None
    address = known if runtime is None else runtime.address
    if address is None:
        return None

    def found() -> T | None:
        here = not roams(settings) or _exists(settings)
        return act(_supervised(settings, None)) if here else None

    return _connected(settings, address, found)


def _connected(settings: Settings, address: str, act: Callable[[], T]) -> T:
    _init(settings, address)
    try:
        return act()
    finally:
        ray.shutdown()


def _authenticate(settings: Settings) -> None:
    """A Ray of our own asks for a token that only this data folder has; elsewhere the user's settings hold."""
    if "RAY_AUTH_MODE" in os.environ or cluster_address(settings) is not None:
        return
    path = settings.data_folder / "ray.token"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(secrets.token_hex(32))
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    Config.initialize("")


_said_by_ray = ray_worker.print_to_stdstream


def _say_on_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
    """What Ray has to say, of a node that died for one; it says it where a command's answer goes, however it is set."""
    _said_by_ray({**data, "is_err": True}, ignore_prefix)


def _init(settings: Settings, address: str | None) -> None:
    address = address or cluster_address(settings)
    _refuse_silence(address)
    _authenticate(settings)
    ray_worker.print_to_stdstream = _say_on_stderr
    options: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    for attempt in (1, 2):
        try:
            ray.init(
                address=address or "local",
                namespace=namespace_of(settings),
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                **options,
            )
            return
        except (ConnectionError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
            if address is not None or attempt == 2:
                where = f"Ray at {address}" if address else "a local Ray"
                raise RuntimeFailed(
                    f"{where} cannot be reached: {error}; `retinue run --local` needs no Ray"
                ) from error
            _LOG.warning("Ray did not start, trying once more: %s", error)


def _refuse_silence(address: str | None) -> None:
    """Ray itself asks a host that does not listen for minutes. `auto` and `ray://...` are Ray's to find."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_TIMEOUT).close()
    except OSError as error:
        raise RuntimeFailed(
            f"Ray at {address} cannot be reached: {error}; start it, correct `cluster:` or RAY_ADDRESS, or use --local"
        ) from None


def _supervised(settings: Settings, head_pid: int | None) -> Attachment:
    address = ray.get_runtime_context().gcs_address
    make = ray.remote(Keeper).options(
        name=SUPERVISOR,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=8,
        **supervisor_options(bound=not roams(settings)),
    )
    supervisor: Any = make.remote(settings.model_dump_json(), address, head_pid, roams(settings))
    try:
        refused = _readiness(supervisor)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise RuntimeFailed(f"the supervisor did not start: {error}") from error
    if refused is not None:
        ray.kill(supervisor)
        raise StoreBusy(refused)
    return Attachment(supervisor, namespace_of(settings))


def _readiness(supervisor: Any) -> str | None:
    """What the supervisor says of itself; asked again while Ray brings it back after a crash."""
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            refused: str | None = ray.get(supervisor.ready.remote(), timeout=_START_TIMEOUT)
        except ray.exceptions.ActorUnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return refused


def _status(attachment: Attachment) -> dict[str, Any]:
    """What the supervisor says, when each of its children has said something, or a while has passed."""
    deadline = time.monotonic() + _CHILDREN_TIMEOUT
    while True:
        said: dict[str, Any] = dict(ray.get(attachment.supervisor.status.remote(), timeout=_START_TIMEOUT))
        expected = [child for child in said["actors"] if child["pool"] in ("", RUNS, WORKERS)]
        if all("pid" in child for child in expected) or time.monotonic() > deadline:
            return said
        time.sleep(0.1)


def _drain(attachment: Attachment, name: str) -> list[str]:
    leaving: list[str] = ray.get(attachment.supervisor.drain.remote(name), timeout=_START_TIMEOUT)
    return leaving


def _stop(attachment: Attachment) -> bool:
    try:
        ray.get(attachment.supervisor.stop.remote(), timeout=120)
        attachment.supervisor.__ray_terminate__.remote()
    except ray.exceptions.RayError as error:
        _LOG.warning("the supervisor did not stop by itself: %s", error)
        ray.kill(attachment.supervisor)
    return True


def _start_head(settings: Settings) -> tuple[str, int]:
    """A Ray head in a session of its own, which survives this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _authenticate(settings)
    logs = settings.data_folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--include-dashboard=false", "--node-ip-address=127.0.0.1", f"--object-store-memory={_OBJECT_STORE}"]
    command += _UNUSED
    with (logs / "ray-head.log").open("ab") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    address = f"127.0.0.1:{port}"
    _await_head(head, port, logs / "ray-head.log")
    return address, head.pid


def _await_head(head: subprocess.Popen[bytes], port: int, log: Any) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if head.poll() is not None:
            raise RuntimeFailed(f"the Ray head ended at once: see {log}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    head.terminate()
    raise RuntimeFailed(f"the Ray head did not listen within {_START_TIMEOUT:.0f} s: see {log}")


def _end_head(pid: int) -> None:
    """End the Ray head that `up` started, and whatever of it does not end by itself."""
    with contextlib.suppress(psutil.NoSuchProcess):
        head = psutil.Process(pid)
        processes = [head, *head.children(recursive=True)]
        head.terminate()
        _, left = psutil.wait_procs(processes, timeout=_END_TIMEOUT)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
