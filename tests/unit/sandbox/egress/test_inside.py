"""Programs in a sandbox that lists hosts, as anybody writes them: they find the proxy by variables, and speak TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.escapes.trials import UID, Cell, cell, usable
from tests.unit.sandbox.egress.ways import server, yes

from retinue.runs.sandboxes import Exec, ExecResult
from retinue.sandbox.backends import roots
from retinue.sandbox.backends.port import Surroundings
from retinue.sandbox.egress import forwarding
from retinue.sandbox.egress.proxy import way_out
from retinue.sandbox.profiles import BUILD, Limits

pytestmark = [pytest.mark.promise("E4")]

READS = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"
TRUSTS = (
    "import ssl, sys, urllib.request as r; context = ssl.create_default_context(cafile='certificate.pem'); "
    "print(r.urlopen(sys.argv[1], timeout=10, context=context).read().decode(), end='')"
)
HTTP_ERROR = """
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=10)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print(error)
"""


@pytest.fixture
def at() -> Iterator[Cell]:
    if not usable("bubblewrap"):
        pytest.skip("bwrap is not installed")
    with cell("bubblewrap") as made:
        yield made


@asynccontextmanager
async def led(
    at: Cell, *hosts: str, allow: Callable[[str, int], bool] = yes, limits: Limits | None = None
) -> AsyncIterator[Callable[..., object]]:
    """Runs programs with a way to hosts, as a box does."""
    profile = BUILD.model_copy(update={"hosts": hosts, "limits": limits or Limits()})

    async def run(*argv: str) -> ExecResult:
        async with way_out(profile, allow, UID) as path:
            order = Exec(argv=forwarding.wrapped(argv, roots.PROXY), timeout=30)
            return await at.backend.exec(at.place, profile, order, Surroundings(dict(forwarding.VARIABLES), path))

    yield run


async def python(run: Callable[..., object], code: str, *words: str) -> ExecResult:
    return await run("python3", "-I", "-c", code, *words)  # type: ignore[misc,no-any-return]


async def test_a_program_reads_what_its_profile_lists(at: Cell) -> None:
    async with server() as heard, led(at, heard.place) as run:
        done = await python(run, READS, f"http://{heard.place}/x")
        assert done.stdout == "hello\n", done
        assert heard.got[0].startswith(b"GET /x HTTP/1.1\r\nhost: " + heard.place.encode())


async def test_a_program_speaks_tls_through_a_tunnel(at: Cell, tmp_path: Path) -> None:
    async with server(folder=tmp_path) as heard, led(at, heard.place) as run:
        (at.workspace / "certificate.pem").write_bytes((tmp_path / "certificate.pem").read_bytes())
        done = await python(run, TRUSTS, f"https://{heard.place}/")
        assert done.stdout == "hello\n", done
        assert heard.got[0].startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_program_is_told_why_not(at: Cell, scheme: str) -> None:
    async with server() as heard, led(at, "example.org") as run, led(at, heard.place, allow=lambda *_: False) as denied:
        not_listed = await python(run, HTTP_ERROR, f"{scheme}://{heard.place}/")
        not_allowed = await python(denied, HTTP_ERROR, f"{scheme}://{heard.place}/")
        assert "403" in not_listed.stdout and "403" in not_allowed.stdout
        if scheme == "http":
            assert "is not among the hosts of this sandbox's profile" in not_listed.stdout
            assert "the policy does not allow this run" in not_allowed.stdout
        assert heard.got == []


async def test_a_cancel_ends_what_goes_through_it(at: Cell) -> None:
    async with server(b"") as heard, led(at, heard.place) as run:
        running = asyncio.create_task(python(run, READS, f"http://{heard.place}/"))
        await asyncio.wait_for(heard.seen.wait(), 20)
        running.cancel()
        await asyncio.wait({running}, timeout=20)
        assert running.cancelled()
        await asyncio.wait_for(heard.over.wait(), 10)


async def test_a_program_that_ends_is_not_waited_for_longer(at: Cell) -> None:
    async with led(at, "example.org") as run:
        assert (await run("sh", "-c", "echo hello; exit 3")).exit_code == 3  # type: ignore[misc]
        missing = await run("no-such-program")  # type: ignore[misc]
        assert (missing.exit_code, "no-such-program: No such file" in missing.stderr) == (127, True)


async def test_many_requests_one_after_the_other_leave_the_forwarder_as_it_was(at: Cell) -> None:
    """More than it may have files open, some broken off in the middle."""
    code = """
import socket, sys, urllib.request
for number in range(60):
    s = socket.create_connection(("127.0.0.1", 3128), 5)
    s.sendall(b"GET http" if number % 2 else b"")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0") if number % 3 else None
    s.close()
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode(), end="")
"""
    async with server() as heard, led(at, heard.place, limits=Limits(open_files=48)) as run:
        done = await python(run, code, f"http://{heard.place}/")
        assert done.stdout == "hello\n", done
