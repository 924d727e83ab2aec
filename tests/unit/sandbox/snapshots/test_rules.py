"""What a snapshot leaves out, and what it refuses: known secrets, and more than a quota allows."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from tests.doubles.sealed import kept_keys

from retinue.runs.errors import InvalidInput
from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.folders import opened
from retinue.sandbox.snapshots.objects import LocalObjects
from retinue.sandbox.snapshots.rules import Quota, Rules
from retinue.sandbox.snapshots.store import Snapshots
from retinue.sandbox.snapshots.trees import CHUNK

TENANT = "acme"
SECRET = b"sk-live-0123456789abcdef"
pytestmark = pytest.mark.promise("E3")


@pytest.mark.parametrize(
    ("pattern", "omitted"),
    [
        ("*.pyc", {"a.pyc", "src/b.pyc", "src/deep/c.pyc"}),
        ("/*.pyc", {"a.pyc"}),
        ("src/*.pyc", {"src/b.pyc"}),
        ("src/**/*.pyc", {"src/b.pyc", "src/deep/c.pyc"}),
        ("**/*.pyc", {"a.pyc", "src/b.pyc", "src/deep/c.pyc"}),
        ("deep", {"src/deep"}),
        ("deep/", {"src/deep"}),
        ("*.pyc/", set()),
        ("src/", {"src"}),
        ("src", {"src"}),
        ("?.pyc", {"a.pyc", "src/b.pyc", "src/deep/c.pyc"}),
        ("[ab].pyc", {"a.pyc", "src/b.pyc"}),
        ("[!ab].pyc", {"src/deep/c.pyc"}),
        ("a?pyc", {"a.pyc"}),
        ("rc", set()),
        ("a.p", set()),
        (".*", {".hidden"}),
    ],
)
def test_patterns_leave_out_what_they_say(pattern: str, omitted: set[str]) -> None:
    rules = Rules(omit=(pattern,))
    paths = {"a.pyc": 0, "src": 1, "src/b.pyc": 0, "src/deep": 1, "src/deep/c.pyc": 0, ".hidden": 0, "apyc": 0}
    found = {path for path, is_folder in paths.items() if rules.omits(path, bool(is_folder))}
    assert found == omitted


async def test_what_is_left_out_is_said_with_its_reason(snapshots: Snapshots, tree: Path, tmp_path: Path) -> None:
    (tree / "node_modules" / "inner").mkdir(parents=True)
    (tree / "core").write_bytes(b"dump")
    os.mkfifo(tree / "pipe")
    with opened(tree / "src") as src, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{src}/sock")
        taken = await snapshots.take(tree, TENANT, Rules(omit=("*.o", "node_modules/", "core")))
    assert taken.omitted == (
        "core (omit core)",
        "node_modules (omit node_modules/)",
        "pipe (fifo)",
        "src/sock (socket)",
    )
    restored = await snapshots.restore(taken.snapshot_id, TENANT, tmp_path / "back")
    assert restored.omitted == taken.omitted
    assert sorted(os.listdir(tmp_path / "back")) == ["README", "src"]


def test_a_pattern_that_is_none_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"'\[z-a\]'"):
        Rules(omit=("[z-a]",)).omits("x", False)


@pytest.mark.parametrize("at", [0, 5_000, CHUNK - 24, CHUNK - 10, CHUNK - 1, CHUNK, 2 * CHUNK - 12])
async def test_a_secret_anywhere_in_a_file_is_refused(
    at: int, snapshots: Snapshots, objects: LocalObjects, tree: Path
) -> None:
    data = bytearray(os.urandom(1024)) * 1024 * 9
    data[at : at + len(SECRET)] = SECRET
    (tree / "src" / "dump.bin").write_bytes(data)
    rules = Rules(secrets=(b"unrelated-secret", SECRET))
    with pytest.raises(SandboxRefused) as caught:
        await snapshots.take(tree, TENANT, rules)
    assert caught.value.code == "secret_in_snapshot"
    assert "'src/dump.bin'" in str(caught.value)
    assert SECRET.decode() not in str(caught.value)
    assert kept_keys(objects, TENANT) == []
    (tree / "src" / "dump.bin").unlink()
    await snapshots.take(tree, TENANT, rules)


async def test_a_secret_in_a_name_a_link_or_an_attribute_is_refused(snapshots: Snapshots, tree: Path) -> None:
    text = SECRET.decode()
    (tree / "src" / f"x{text}y").mkdir()
    await _refused(snapshots, tree, "'src'", text)
    (tree / "src" / f"x{text}y").rmdir()
    (tree / "link").symlink_to(f"/tmp/{text}")
    await _refused(snapshots, tree, "'.'", text)
    (tree / "link").unlink()
    for path in (tree / "README", tree / "src"):
        os.setxattr(path, "user.note", b"see " + SECRET)
        await _refused(snapshots, tree, repr(path.name), text)
        os.removexattr(path, "user.note")
    await snapshots.take(tree, TENANT, Rules(secrets=(SECRET,)))


async def _refused(snapshots: Snapshots, tree: Path, where: str, text: str) -> None:
    with pytest.raises(SandboxRefused) as caught:
        await snapshots.take(tree, TENANT, Rules(secrets=(SECRET,)))
    assert caught.value.code == "secret_in_snapshot"
    assert where in str(caught.value)
    assert text not in str(caught.value)


async def test_a_value_too_short_to_mean_anything_is_not_looked_for(snapshots: Snapshots, tree: Path) -> None:
    await snapshots.take(tree, TENANT, Rules(secrets=(b"", b"main")))


QUOTAS = {
    "bytes": (Quota(bytes=1_000), "1400|1408", "bytes"),
    "files": (Quota(files=3), "4", "files"),
    "file_bytes": (Quota(file_bytes=1_000), "'src/main.py'.*1400", "file_bytes"),
    "depth": (Quota(depth=1), "'src/.*2", "depth"),
    "store_bytes": (Quota(store_bytes=300), "the store", "store_bytes"),
}


@pytest.mark.parametrize("case", QUOTAS)
async def test_a_quota_names_its_limit_the_value_and_what_to_do(
    case: str, snapshots: Snapshots, objects: LocalObjects, tree: Path
) -> None:
    quota, words, limit = QUOTAS[case]
    with pytest.raises(SandboxRefused, match=words) as caught:
        await snapshots.take(tree, TENANT, Rules(quota=quota))
    assert caught.value.code == "quota"
    assert f"limit {limit} is {getattr(quota, limit)}" in str(caught.value)
    assert "raise the limit" in str(caught.value)
    assert kept_keys(objects, TENANT) == []


async def test_the_store_of_a_tenant_is_counted_with_what_it_holds(
    snapshots: Snapshots, objects: LocalObjects, tree: Path
) -> None:
    await snapshots.take(tree, TENANT)
    used = objects.usage(TENANT)
    assert used == sum(held.size for folder in ("objects", "trees") for held in objects.list(TENANT, folder))
    (tree / "more").write_bytes(os.urandom(5_000))
    with pytest.raises(SandboxRefused, match="store_bytes"):
        await snapshots.take(tree, TENANT, Rules(quota=Quota(store_bytes=used + 5_000)))
    await snapshots.take(tree, "globex", Rules(quota=Quota(store_bytes=used + 6_000)))
    await snapshots.take(tree, TENANT, Rules(quota=Quota(store_bytes=used + 6_000)))
    assert objects.usage(TENANT) > used + 5_000


async def test_a_file_as_large_as_no_disk_is_refused_unread(snapshots: Snapshots, tree: Path) -> None:
    with (tree / "huge").open("wb") as huge:
        huge.truncate(8 << 40)
    with pytest.raises(SandboxRefused, match="'huge'"):
        await snapshots.take(tree, TENANT, Rules(quota=Quota(file_bytes=1 << 30)))
