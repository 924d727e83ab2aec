"""A workspace from the host's side: what is in it can be had, what is not cannot, whatever the names say."""

from __future__ import annotations

import os
import socket
from base64 import b64decode
from pathlib import Path

import pytest

from retinue.runs.errors import PermanentError
from retinue.runs.sandboxes import SandboxLost, SandboxRefused
from retinue.sandbox.beneath import Opener, kernel_walks, open_beneath, walk_beneath
from retinue.sandbox.names import bytes_of, text_of
from retinue.sandbox.workspaces import LARGEST_EDIT, LARGEST_READ, Workspace

pytestmark = [pytest.mark.promise("E4")]


@pytest.fixture(params=["kernel", "walk"])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param == "walk":
        return walk_beneath
    if not kernel_walks():
        pytest.skip("this kernel has no openat2")
    return open_beneath


@pytest.fixture
def space(tmp_path: Path, opener: Opener) -> Workspace:
    """A workspace with a secret beside it."""
    (tmp_path / "secret").write_text("of somebody else")
    (tmp_path / "tree").mkdir()
    return Workspace(tmp_path / "tree", opener=opener)


def refused(code: str) -> pytest.RaisesExc[SandboxRefused]:
    return pytest.RaisesExc(SandboxRefused, check=lambda error: error.code == code)


# -- what works ------------------------------------------------------------------------------------------


def test_what_was_written_is_read_edited_and_listed(space: Workspace) -> None:
    written = space.write("src/app/main.py", b"print('a')\n")
    assert (written.path, written.kind, written.size, written.mode) == ("src/app/main.py", "file", 11, 0o644)
    space.edit("./src/app/main.py", "'a'", "'bc'")
    content = space.read("src//app/main.py")
    assert (content.path, content.text, content.size, content.cut) == ("src/app/main.py", "print('bc')\n", 12, False)
    space.write("run.sh", b"#!/bin/sh\n", executable=True)
    listed = space.list(depth=9)
    assert [entry.path for entry in listed] == ["run.sh", "src", "src/app", "src/app/main.py"]
    assert [entry.kind for entry in listed] == ["file", "directory", "directory", "file"]
    assert [entry.path for entry in space.list("src")] == ["src/app"]
    assert listed[0].mode == 0o755 and oct(listed[1].mode) == "0o755"


def test_a_path_as_programs_in_the_sandbox_see_it(space: Workspace) -> None:
    seen = Workspace(space.folder, seen_as="/workspace")
    assert seen.write("/workspace/a/b", b"1").path == "a/b"
    assert seen.read("/workspace//a/b").text == "1" and seen.edit("/workspace/a/b", "1", "2").path == "a/b"
    assert [entry.path for entry in seen.list("/workspace")] == ["a"]
    for path in ("/workspaces/a", "/workspace/../secret", "/etc/passwd", "/workspace/..//../secret"):
        with refused("outside"):
            seen.read(path)


def test_a_replaced_file_keeps_its_mode_and_no_other_name_sees_it(space: Workspace) -> None:
    space.write("tool", b"1", executable=True)
    os.link(space.folder / "tool", space.folder / "same")
    os.chmod(space.folder / "tool", 0o4750)
    assert space.write("tool", b"22").mode == 0o750
    assert (space.folder / "same").read_bytes() == b"1"
    assert [entry.path for entry in space.list()] == ["same", "tool"]


def test_parts_of_a_file_and_the_middle_of_a_character(space: Workspace) -> None:
    space.write("text", "aé漢".encode())
    first = space.read("text", limit=4)
    assert (first.text, first.cut, first.next_offset) == ("aé", True, 3)
    rest = space.read("text", offset=3)
    assert rest.next_offset is None
    assert (rest.text, rest.cut, rest.offset, rest.size) == ("漢", False, 3, 6)
    inside = space.read("text", offset=4)
    assert inside.text is None and b64decode(inside.data or "") == "漢".encode()[1:]
    assert space.read("text", offset=99).text == "" and space.read("text", offset=99).size == 6


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a\0b", b"\x80", "é".encode()[:1]])
def test_what_is_no_text_comes_as_base64(space: Workspace, data: bytes) -> None:
    space.write("data", data)
    content = space.read("data")
    assert content.text is None and b64decode(content.data or "") == data


def test_an_edit_wants_the_exact_count(space: Workspace) -> None:
    space.write("a", b"x = 1\r\nx = 1\r\n")
    for old, count in [("x = 1", 1), ("x = 1", 3), ("y", 1)]:
        with refused("not_unique"):
            space.edit("a", old, "z", count)
    space.edit("a", "x = 1", "xx", 2)
    assert (space.folder / "a").read_bytes() == b"xx\r\nxx\r\n"
    with refused("bad_range"):
        space.edit("a", "", "z")


def test_an_edit_that_would_grow_without_bound_is_refused_at_once(space: Workspace) -> None:
    space.write("a", b"a" * 1_000_000)
    with refused("too_large"):
        space.edit("a", "a", "b" * 10_000, 1_000_000)


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\\xffb", b"a\\x5cb", b"new\nline", b"\xed\xa0\x80", "ü".encode()])
def test_every_name_has_a_text_and_can_be_had_by_it(space: Workspace, name: bytes) -> None:
    (space.folder / "d").mkdir()
    Path(os.fsdecode(bytes(space.folder / "d") + b"/" + name)).write_bytes(b"it")
    [entry] = space.list("d")
    assert bytes_of(entry.path) == b"d/" + name and text_of(b"d/" + name) == entry.path
    assert space.read(entry.path).text == "it"
    space.write(entry.path, b"new")
    assert os.listdir(os.fsencode(space.folder / "d")) == [name]
    assert entry.model_validate_json(entry.model_dump_json()) == entry


def test_links_that_stay_inside_work(space: Workspace) -> None:
    space.write("real/deep/file", b"1")
    os.symlink("real/deep", space.folder / "short")
    os.symlink("../short/../deep/new", space.folder / "real/link")
    os.symlink("deep/../../real/deep/file", space.folder / "real/around")
    assert space.read("short/file").text == "1"
    assert space.read("real/around").text == "1"
    space.write("real/link", b"2")
    assert (space.folder / "real/deep/new").read_bytes() == b"2" and (space.folder / "real/link").is_symlink()
    space.edit("short/file", "1", "3")
    assert (space.folder / "real/deep/file").read_bytes() == b"3"
    links = {entry.path: entry.target for entry in space.list(depth=2) if entry.kind == "symlink"}
    assert links == {"short": "real/deep", "real/link": "../short/../deep/new", "real/around": links["real/around"]}


def test_ten_thousand_entries_are_listed_by_the_bound(space: Workspace) -> None:
    for number in range(10_000):
        os.mknod(space.folder / f"{number:05}")
    assert [entry.path for entry in space.list(limit=3)] == ["00000", "00001", "00002"]
    assert len(space.list(limit=10_000)) == 10_000
    with refused("bad_range"):
        space.list(limit=10_001)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_is_made_belongs_to_the_user_of_the_sandbox(tmp_path: Path, opener: Opener) -> None:
    space = Workspace(tmp_path, uid=612_345, opener=opener)
    space.write("a/b/c", b"1")
    owners = {(status.st_uid, status.st_gid) for path in ("a", "a/b", "a/b/c") if (status := (tmp_path / path).stat())}
    assert owners == {(612_345, 612_345)}


# -- what does not ---------------------------------------------------------------------------------------

OUT = ["/etc/passwd", "../secret", "a/../../secret", "../tree/../secret", "a/../../tree/a", "//x", "../.."]


@pytest.mark.parametrize("path", OUT)
def test_a_path_that_leads_out_is_refused(space: Workspace, path: str) -> None:
    (space.folder / "a").mkdir()
    codes = ("outside", "is_a_directory") if path.endswith("..") else ("outside",)
    for use in (space.read, space.list, lambda path: space.write(path, b"x"), lambda path: space.edit(path, "o", "x")):
        with pytest.RaisesExc(SandboxRefused, check=lambda error: error.code in codes):
            use(path)
    assert (space.folder.parent / "secret").read_text() == "of somebody else"


@pytest.mark.parametrize("target", ["/etc", "../..", "..", "in/../..", "/proc/self/root", "/proc/self/cwd", "/dev/fd"])
def test_a_link_that_leads_out_is_refused(space: Workspace, target: str) -> None:
    (space.folder / "in").mkdir()
    os.symlink(target, space.folder / "out")
    os.symlink("out", space.folder / "second")
    for name in ("out", "second"):
        for use in (space.list, lambda path: space.read(path + "/x"), lambda path: space.write(path + "/x", b"x")):
            with refused("outside"):
                use(name)
    for path in ("out", "second"):
        with pytest.RaisesExc(SandboxRefused, check=lambda error: error.code in ("outside", "is_a_directory")):
            space.write(path, b"x")
    assert not (space.folder.parent / "x").exists() and not (space.folder.parent.parent / "x").exists()
    assert [entry.target for entry in space.list() if entry.path == "out"] == [target]


def test_magic_links_of_the_kernel_are_not_followed(tmp_path: Path, opener: Opener) -> None:
    inside = Workspace(Path(f"/proc/{os.getpid()}"), opener=opener)
    for name in ("root/etc/passwd", "cwd", "fd/0", "exe"):
        with pytest.raises((SandboxRefused, PermanentError)):
            inside.read(name)


@pytest.mark.parametrize("target", ["../secret", "/etc/hosts"])
def test_a_link_to_a_file_outside_is_neither_read_nor_written(space: Workspace, target: str) -> None:
    os.symlink(target, space.folder / "out")
    for use in (space.read, lambda path: space.write(path, b"x"), lambda path: space.edit(path, "o", "x")):
        with refused("outside"):
            use("out")
    assert (space.folder.parent / "secret").read_text() == "of somebody else"


def test_special_files_are_neither_opened_nor_waited_for(space: Workspace) -> None:
    os.mkfifo(space.folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(space.folder / "socket"))
    names = ["fifo", "socket"]
    if os.geteuid() == 0:
        os.mknod(space.folder / "zero", 0o600 | 0o020000, os.makedev(1, 5))
        names.append("zero")
    for name in names:
        for use in (space.read, lambda path: space.write(path, b"x"), lambda path: space.edit(path, "o", "x")):
            with refused("not_a_file"):
                use(name)
    assert {entry.kind for entry in space.list()} == {"other"}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", "bad_path"),
        ("a\0b", "bad_path"),
        ("\ud800", "bad_path"),
        ("x" * 256, "bad_path"),
        ("x/" * 3_000, "bad_path"),
        ("x" * 5_000_000, "bad_path"),
        ("loop", "bad_path"),
        ("nothing", "not_found"),
        ("nothing/x", "not_found"),
        ("directory", "is_a_directory"),
        (".", "is_a_directory"),
        ("file/x", "not_a_directory"),
        ("file/", "not_a_directory"),
    ],
)
def test_a_path_that_cannot_be_read_says_why(space: Workspace, path: str, code: str) -> None:
    (space.folder / "directory").mkdir()
    (space.folder / "file").touch()
    os.symlink("loop", space.folder / "loop")
    with refused(code) as caught:
        space.read(path)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("file/x", "not_a_directory"),
        ("file/x/y", "not_a_directory"),
        ("dangling/x", "not_a_directory"),
        ("directory", "is_a_directory"),
        ("new/", "is_a_directory"),
        ("new/..", "is_a_directory"),
        ("loop", "bad_path"),
        ("a/" * 2_000 + "a", "bad_path"),
        ("a/" + "x" * 256, "bad_path"),
    ],
)
def test_a_path_that_cannot_be_written_leaves_nothing_behind(space: Workspace, path: str, code: str) -> None:
    (space.folder / "directory").mkdir()
    (space.folder / "file").touch()
    os.symlink("loop", space.folder / "loop")
    os.symlink("nowhere", space.folder / "dangling")
    with refused(code):
        space.write(path, b"x")
    assert [entry.path for entry in space.list(depth=9)] == ["dangling", "directory", "file", "loop"]


def test_what_is_too_large_is_refused_and_a_part_of_it_can_be_had(space: Workspace) -> None:
    with (space.folder / "huge").open("wb") as file:
        file.truncate(2**40)
    assert space.read("huge", limit=10).size == 2**40
    assert b64decode(space.read("huge", offset=2**40 - 3).data or "") == b"\0\0\0"
    with refused("too_large"):
        space.edit("huge", "a", "b")
    with refused("too_large"):
        space.read("huge", limit=LARGEST_READ + 1)
    with refused("bad_range"):
        space.read("huge", offset=2**70)
    with refused("too_large"):
        Workspace(space.folder, largest=10).write("small", b"x" * 11)
    (space.folder / "most").write_bytes(b"a" * LARGEST_EDIT)
    with refused("not_unique"):
        space.edit("most", "b", "c")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read what it likes")
def test_what_its_mode_closes_is_denied(space: Workspace) -> None:
    space.write("a/b", b"x")
    os.chmod(space.folder / "a", 0)
    try:
        for use in (space.read, lambda path: space.write(path, b"x")):
            with refused("denied"):
                use("a/b")
    finally:
        os.chmod(space.folder / "a", 0o700)


def test_a_workspace_that_is_gone_is_lost(space: Workspace) -> None:
    space.folder.rmdir()
    with pytest.raises(SandboxLost):
        space.read("a")
    os.symlink("/etc", space.folder)
    with pytest.raises(SandboxLost):
        space.read("hosts")
