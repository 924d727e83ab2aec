"""What processes that are killed leave of sandboxes goes with the next sweep; what a living one has is left alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.processes import python

from retinue.runs.sandboxes import SandboxState
from retinue.sandbox import scratch
from retinue.sandbox.emptying import OVERLAYFS
from retinue.sandbox.living import Living
from retinue.sandbox.mounts import mount_overlay, mounted_below, unmount_below
from retinue.sandbox.scratch import TEMPORARY, sweep, sweep_temporary, take, taken
from retinue.sandbox.tiers import sweep_trials

pytestmark = [pytest.mark.promise("E3"), pytest.mark.promise("E4")]

UID = 4_242


def mine(uid: int) -> bool:
    return uid == os.geteuid()


def overlays() -> bool:
    """Whether overlays can be mounted here as workspaces need them."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base").mkdir()
        (folder / "place").mkdir()
        try:
            mount_overlay(folder / "base", folder / "place", folder / "place" / "tree", UID)
        except OSError:
            return False
        unmount_below(folder)
    return True


needs_overlays = pytest.mark.skipif(not overlays(), reason="no overlays with idmapped mounts can be made here")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test and its processes keep what is temporary."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "work"
    unmount_below(tmp_path)


TAKES = """
import sys
from retinue.sandbox.scratch import take
for _ in range(3):
    print("took", take().folder, flush=True)
print("done", flush=True)
sys.stdin.readline()
"""


def test_folders_of_the_dead_go_and_those_of_the_living_stay(temporary: Path) -> None:
    with python(TAKES) as one, python(TAKES) as other:
        one.wait_for("done")
        other.wait_for("done")
        with taken() as own:
            (own / "file").touch()
            assert sweep_temporary(mine) == 0 and len(list(temporary.iterdir())) == 7
            one.kill()
            assert sweep_temporary(mine) == 3
            other.kill()
            assert sweep_temporary(mine) == 3
            assert list(temporary.iterdir()) == [own] and (own / "file").exists()
    assert list(temporary.iterdir()) == []


def test_what_is_not_ours_is_left_alone(temporary: Path) -> None:
    for name in ("other-1", f"{TEMPORARY}file"):
        (temporary / name).touch()
    (temporary / "other-folder").mkdir()
    (temporary / f"{TEMPORARY}link").symlink_to(temporary / "other-folder")
    (temporary / f"{TEMPORARY}foreign").mkdir()
    before = sorted(temporary.iterdir())
    assert sweep_temporary(lambda uid: False) == 0
    (temporary / f"{TEMPORARY}foreign").rmdir()
    assert sweep_temporary(mine) == 0
    assert sorted(temporary.iterdir()) == [path for path in before if path.name != f"{TEMPORARY}foreign"]


SWEEPS = """
import os, sys, tempfile
from pathlib import Path
from retinue.sandbox.scratch import sweep_temporary
print("ready", flush=True)
while True:
    sweep_temporary(lambda uid: True)
"""


def test_a_folder_is_its_takers_though_others_sweep_all_the_time(temporary: Path) -> None:
    """Between its making and its lock a new folder looks like a dead one's: whoever loses it there takes another."""
    with python(SWEEPS) as one, python(SWEEPS) as other:
        one.wait_for("ready")
        other.wait_for("ready")
        for _ in range(6):
            mine_now = [take() for _ in range(20)]
            for each in mine_now:
                (each.folder / "file").touch()
            assert all((each.folder / "file").exists() for each in mine_now)
            for each in mine_now:
                each.remove()
    sweep_temporary(mine)
    assert list(temporary.iterdir()) == []


def test_a_folder_that_went_before_it_was_locked_is_nobodys(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, gone = scratch.try_lock, list[Path]()

    def late(lock: int, how: int) -> bool:
        if not gone:
            gone.extend(temporary.iterdir())
            gone[0].rmdir()
        return real(lock, how)

    monkeypatch.setattr(scratch, "try_lock", late)
    with taken() as folder:
        assert folder not in gone and folder.is_dir()


PROXIES = """
import asyncio, sys
from retinue.sandbox.profiles import Limits, Profile
from retinue.sandbox.egress.proxy import way_out

async def main():
    profile = Profile(name="p", network="listed", hosts=("example.org:443",))
    async with way_out(profile, lambda host, port: True, int(sys.argv[1]) if sys.argv[1] else None) as path:
        print("socket", path, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("own_user", [False, True])
def test_the_folder_of_a_killed_proxy_goes(own_user: bool, temporary: Path) -> None:
    if own_user and os.geteuid() != 0:
        pytest.skip("giving a folder to another user needs root")

    def ours(uid: int) -> bool:
        return uid in (os.geteuid(), UID)

    with python(PROXIES, str(UID) if own_user else "") as proxy:
        path = Path(proxy.wait_for("socket").split()[1])
        assert sweep_temporary(ours) == 0 and path.exists()
        proxy.kill()
        assert sweep_temporary(ours) == 1 and not path.parent.exists()


TRIES = """
import os, signal, sys
from pathlib import Path
from retinue.sandbox import tiers

def killed(*given):
    print("mounted", flush=True)
    sys.stdin.readline()

real = tiers._WAYS[sys.argv[2]]
tiers._WAYS[sys.argv[2]] = lambda base, job: (real(base, job), killed())
tiers._works(sys.argv[2], Path(sys.argv[1]), int(sys.argv[3]) if sys.argv[3] else None)
"""


@pytest.mark.parametrize("tier", ["copy", pytest.param(OVERLAYFS, marks=needs_overlays)])
def test_what_a_killed_attempt_left_goes_mounts_included(tier: str, tmp_path: Path) -> None:
    cache = tmp_path / "node" / "cache"
    with python(TRIES, cache, tier, str(UID) if tier == OVERLAYFS else "") as trying:
        trying.wait_for("mounted")
        assert bool(mounted_below(cache)) == (tier == OVERLAYFS)
        assert sweep_trials(cache) == 0, "it is being made"
        trying.kill()
    (cache / "acme").mkdir()
    assert sweep_trials(cache) == 1
    assert mounted_below(cache) == [] and [path.name for path in cache.iterdir()] == ["acme"]


OPENS = """
import sys
from pathlib import Path
from retinue.runs.sandboxes import SandboxState
from retinue.sandbox.living import Living
from retinue.sandbox.mounts import mount_overlay

folder, uid = Path(sys.argv[1]), int(sys.argv[2])
living = Living(folder / "work", "boot")
for name in sys.argv[3:]:
    state = SandboxState(sandbox_id=name, name=name, manifest="m", manifest_version="1", profile="p",
                         profile_digest="d", tier="overlayfs")
    place = living.make(state, lambda sandbox_id, place: uid)
    mount_overlay(folder / "base", place.folder, place.tree, uid)
    (place.tree / "made").write_text(name)
    place.finish(state)
print("open", flush=True)
sys.stdin.readline()
"""


@needs_overlays
def test_workspaces_of_a_killed_host_are_unmounted_and_nothing_of_them_is_lost(tmp_path: Path, work: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "below").write_text("below")
    living = Living(work, "boot")
    with python(OPENS, tmp_path, str(UID), "one", "two") as dies, python(OPENS, tmp_path, str(UID), "stays") as lives:
        dies.wait_for("open")
        lives.wait_for("open")
        assert living.rest_left() == 0 and len(mounted_below(work)) == 3
        dies.kill()
        taken_up = living.find("one")
        assert taken_up is not None and living.rest_left() == 1, "whoever has it again keeps it mounted"
        assert {place.parent.parent.name for place in mounted_below(work)} == {"one", "stays"}
        taken_up.let_go()
        again = living.find("two")
        assert again is not None
        assert ((again.tree / "made").read_text(), (again.tree / "below").read_text()) == ("two", "below")
        again.let_go()
        lives.kill()
        assert living.rest_left() == 1 and mounted_below(work) == []


def test_whoever_looks_for_a_workspace_finds_it_while_others_put_it_to_rest(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep has the lock for a moment: who takes that for another owner would begin the workspace anew."""
    state = SandboxState(
        sandbox_id="one", name="one", manifest="m", manifest_version="1", profile="p", profile_digest="d"
    )
    living = Living(work, "boot")
    place = living.make(state, lambda sandbox_id, folder: None)
    place.tree.mkdir()
    place.finish(state)
    place.let_go()
    rests = RESTS.replace("COUNT", "3000")
    with python(rests, place.folder) as other:
        other.wait_for("ready")
        for _ in range(300):
            found = living.find("one")
            assert found is not None
            found.let_go()
    assert sweep(work, TEMPORARY, mine) == 0


RESTS = """
import sys
from pathlib import Path
from retinue.sandbox.living import _rest
print("ready", flush=True)
for _ in range(COUNT):
    _rest(Path(sys.argv[1]))
"""
