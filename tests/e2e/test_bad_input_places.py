"""A policy that does not parse, a full disk, a data folder that another runtime has: told, bounded, nothing lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import BOUND, Project, environment

POLICIES: dict[str, tuple[bytes, str]] = {
    "half-a-rule": (b'// Rules.\n@id("a")\npermit (principal, action,\n', ":2: not a Cedar rule: "),
    "misspelt-field": (
        b'@id("a")\npermit (principal, action, resource)\nwhen { context.tenannt == "acme" };\n',
        "tenannt",
    ),
    "not-utf8": (b"// caf\xe9\n", ": cannot be read as UTF-8 text"),
}


@pytest.mark.promise("F2")
@pytest.mark.parametrize("bad", POLICIES)
def test_a_policy_that_does_not_parse_refuses_the_start(project: Project, bad: str) -> None:
    text, words = POLICIES[bad]
    project.write("policy/base.cedar", text)
    project.write_rows("in.jsonl", {"id": "q1"})
    said = project.run("batch", "plain", "--input", "in.jsonl", "--output", "out.jsonl", "--local", code=2)
    assert f"retinue: {project.folder / 'policy' / 'base.cedar'}:" in said.err
    assert words in said.err
    assert not (project.folder / "out.jsonl").exists()


@pytest.mark.promise("K1")
def test_a_configuration_that_is_wrong_names_file_line_key_and_remedy(project: Project) -> None:
    project.write("retinue.yaml", "modules: [agents]\nretry:\n  atempts: 2\n")
    said = project.run("run", "plain", "?", "--local", code=2)
    assert f"{project.folder / 'retinue.yaml'} line 3: there is no key 'retry.atempts'" in said.err
    assert "did you mean 'retry.attempts'" in said.err


class Disk:
    """A place of few bytes for the data folder: a file system of its own, else a limit on the size of a file."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        try:
            command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)]
            self.mounted = subprocess.run(command, capture_output=True, timeout=BOUND).returncode == 0
        except OSError:
            self.mounted = False

    @property
    def wrap(self) -> tuple[str, ...]:
        """What a command is started with to feel the limit: 3 MB."""
        return () if self.mounted else ("bash", "-c", "trap '' XFSZ; ulimit -f 3072; exec \"$@\"", "bash")

    @property
    def complaint(self) -> str:
        """What the store says of it."""
        return "is full: nothing was written; free space" if self.mounted else "failed: disk I/O error; nothing was"

    def grow(self) -> None:
        """Make room."""
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=500m", str(self.place)], check=True, timeout=BOUND)

    def close(self) -> None:
        """Give the place back."""
        if self.mounted:
            subprocess.run(["umount", str(self.place)], check=True, timeout=BOUND)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk."""
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


@pytest.mark.promise("B5")
@pytest.mark.promise("C6")
def test_a_full_disk_ends_the_batch_and_with_space_it_goes_on_to_the_end(project: Project, disk: Disk) -> None:
    project.environ["RETINUE_DATA"] = str(disk.place / "data")
    rows = [{"id": f"q{n}", "question": f"{n} " + f"word{n} " * 100_000} for n in range(60)]
    project.write_rows("in.jsonl", *rows)
    words = ("batch", "plain", "--input", "in.jsonl", "--output", "out.jsonl", "--local", "--concurrency", "4")

    full = project.run(*words, code=6, wrap=disk.wrap)
    assert f"retinue: the disk of the store {disk.complaint}" in full.err
    before = {row["id"]: row for row in project.rows("out.jsonl")}
    assert len(before) < 60

    disk.grow()
    said = project.run(*words, "--resume", code=0)
    assert "60 ok, 0 failed, 0 not readable" in said.err
    after = project.rows("out.jsonl")
    assert [row["id"] for row in after] == [row["id"] for row in rows]
    assert {row["id"]: row for row in after if row["id"] in before} == before, "a finished row ran again"
    counted = project.run("sql", "select count(*) as n from runs where agent = 'plain'", "--json", code=0)
    assert counted.json == [{"n": 60}]


@pytest.mark.parametrize("bad", ["no-folder-for-it", "a-file"])
def test_a_data_folder_that_cannot_be_made_is_named(project: Project, bad: str) -> None:
    place = project.write("taken", "x") if bad == "a-file" else Path("/proc/retinue")
    project.environ["RETINUE_DATA"] = str(place)
    said = project.run("run", "plain", "?", "--local", code=6)
    assert str(place) in said.err


HOLD = """
import sys
from pathlib import Path
from retinue.host import presence
from retinue.store.liveness import boot_id, current_owner
presence._PATIENCE = 0.3
owner = current_owner()
me = presence.RuntimeInfo("192.0.2.1:6379", "retinue", owner.pid, owner.started, boot_id(), "first-node")
held = presence.Presence(Path(sys.argv[1]))
held.claim(me)
print("held", flush=True)
sys.stdin.read()
"""


def hold(project: Project) -> subprocess.Popen[str]:
    """Start a process that takes the data folder as a supervisor does, and keeps it until it is told more."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(project.folder / ".retinue")],
        env=environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def holder(project: Project) -> Iterator[subprocess.Popen[str]]:
    """A process that has the data folder."""
    process = hold(project)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate(timeout=BOUND)


def test_a_second_runtime_on_a_data_folder_is_refused_and_the_first_is_named(
    project: Project, holder: subprocess.Popen[str]
) -> None:
    second = hold(project)
    out, err = second.communicate(timeout=BOUND)
    assert (second.returncode, out) == (1, "")
    assert f"has a runtime already (pid {holder.pid} on first-node, Ray at 192.0.2.1:6379)" in err
    assert "join it, stop it with `retinue down`, or use another data folder" in err
    assert holder.poll() is None


def test_commands_name_the_runtime_that_has_the_folder_and_clients_may_join_it(
    project: Project, holder: subprocess.Popen[str]
) -> None:
    found = project.run("doctor", "--json")
    assert f"supervisor pid {holder.pid}, Ray at 192.0.2.1:6379" in found.out
    assert project.run("run", "plain", "?", "--local", code=0).out.strip() == "yes"
