"""A workspace holds exactly what its manifest names, the same each time, and nothing half made stays."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from tests.unit.sandbox.manifests.projects import Project, held, nothing_runs, tar_of

from retinue.runs.errors import ConfigError, PermanentError, TransientError
from retinue.runs.sandboxes import Exec, ExecResult, SandboxRefused
from retinue.sandbox.manifests import materializing
from retinue.sandbox.manifests.loading import environment_of, secrets_of
from retinue.sandbox.manifests.materializing import materialize
from retinue.sandbox.manifests.previewing import preview
from retinue.sandbox.manifests.requirements import PIP
from retinue.sandbox.snapshots.scanning import scan

pytestmark = [pytest.mark.promise("E1")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "tree"


def whole(project: Project) -> None:
    """A manifest with one of each."""
    commit = project.repository()
    project.put("data/points.csv", "1,2\n")
    project.put("src/app/main.py", "main\n")
    project.put("src/run.sh", "#!/bin/sh\n", 0o755)
    project.put("src/app/__pycache__/main.pyc", "bytes")
    os.symlink("app/main.py", project.folder / "src/link.py")
    project.put("vendor.tar.gz", tar_of(("vendor-1.0/lib/a.py", b"a"), ("vendor-1.0/empty", None), compression="gz"))
    project.manifest(
        f"""
description: One of each
revision: 3
files:
  notes/todo.md: "do it\\n"
  points.csv: {{from: data/points.csv}}
  tool: {{text: "#!/bin/sh\\n", executable: true}}
  repo/src/main.py: ours
directories:
  out:
  src: {{from: src, exclude: ["__pycache__/"]}}
archives:
  vendor: {{from: vendor.tar.gz, strip: 1}}
checkouts:
  repo: {{from: repo, commit: {commit}}}
"""
    )


async def test_one_of_each(project: Project, into: Path) -> None:
    whole(project)
    made = await materialize(project.manifests(), "coder", into, nothing_runs)
    found = held(into)
    assert found == {
        "notes": "",
        "notes/todo.md": "do it\n",
        "points.csv": "1,2\n",
        "tool": "#!/bin/sh\n",
        "out": "",
        "src": "",
        "src/app": "",
        "src/app/main.py": "main\n",
        "src/run.sh": "#!/bin/sh\n",
        "src/link.py": "-> app/main.py",
        "vendor": "",
        "vendor/lib": "",
        "vendor/lib/a.py": "a",
        "vendor/empty": "",
        "repo": "",
        "repo/.gitattributes": found["repo/.gitattributes"],
        "repo/link": "-> src/main.py",
        "repo/module": "",
        "repo/secret.txt": "$Format:%H$\n",
        "repo/src": "",
        "repo/src/main.py": "ours",
    }
    assert (made.entries, made.bytes) == (len(found), sum(len(text) for text in found.values() if text[:2] != "->"))
    modes = [oct((into / path).stat().st_mode)[-3:] for path in ("tool", "src/run.sh", "points.csv")]
    assert modes == ["755", "755", "644"]
    assert os.listdir(into.parent) == ["tree"]


async def test_two_workspaces_of_one_manifest_are_the_same(project: Project, into: Path) -> None:
    whole(project)
    trees = []
    for name in ("tree", "other"):
        await materialize(project.manifests(), "coder", into.with_name(name), nothing_runs)
        trees.append(scan(into.with_name(name)).snapshot_id)
    assert trees[0] == trees[1]


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in [folder, *folder.rglob("*")]}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_all_of_it_belongs_to_the_user_of_the_sandbox(project: Project, into: Path) -> None:
    whole(project)
    await materialize(project.manifests(), "coder", into, nothing_runs, uid=612_346)
    assert owners(into) == {(612_346, 612_346)}


async def test_a_repository_that_is_kept_works_and_knows_nothing_of_this_machine(project: Project, into: Path) -> None:
    commit = project.repository()
    project.manifest(f"checkouts:\n  .: {{from: repo, commit: {commit}, keep_git: true}}\n")
    await materialize(project.manifests(), "coder", into, nothing_runs)
    copy = Project(into.parent / "elsewhere")
    assert copy.git(str(into), "rev-parse", "HEAD") == commit
    assert copy.git(str(into), "status", "--short", "src", "link") == ""
    assert copy.git(str(into), "remote") == "" and os.listdir(into / ".git").count("hooks") == 0
    assert str(project.folder) not in "".join(held(into / ".git").values())


@pytest.mark.parametrize(
    ("commit", "source", "code"), [("b" * 40, "repo", "checkout"), ("c" * 40, "nowhere", "checkout")]
)
async def test_a_commit_that_is_not_there_is_said(
    project: Project, into: Path, commit: str, source: str, code: str
) -> None:
    project.repository()
    project.manifest(f"checkouts:\n  x: {{from: {source}, commit: {commit}}}\n")
    with pytest.RaisesExc(PermanentError, match=f"commit {commit[:12]} cannot be had", check=lambda e: e.code == code):
        await materialize(project.manifests(), "coder", into, nothing_runs)
    assert os.listdir(into.parent) == []


async def test_a_repository_that_runs_programs_runs_none(project: Project, into: Path, tmp_path: Path) -> None:
    commit = project.repository()
    mark = tmp_path / "ran"
    for hook in ("post-checkout", "pre-auto-gc", "post-update", "reference-transaction"):
        project.put(f"repo/.git/hooks/{hook}", f"#!/bin/sh\ntouch {mark}\n", 0o755)
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "filter.evil.smudge", "core.sshCommand"):
        project.git("repo", "config", key, f"touch {mark}")
    project.manifest(f"checkouts:\n  x: {{from: repo, commit: {commit}, keep_git: true}}\n")
    await materialize(project.manifests(), "coder", into, nothing_runs)
    assert not mark.exists() and (into / "x/secret.txt").read_text() == "$Format:%H$\n"


async def test_a_server_that_does_not_answer_may_later(project: Project, into: Path) -> None:
    project.manifest(f"checkouts:\n  x: {{from: 'https://127.0.0.1:9/x.git', commit: {'b' * 40}}}\n")
    with pytest.raises(TransientError):
        await materialize(project.manifests(), "coder", into, nothing_runs)


async def test_what_changes_meanwhile_is_refused(project: Project, into: Path) -> None:
    wheel(project)
    project.put("requirements.lock", f"some==1.0 --hash=sha256:{'0' * 64}\n")
    project.put("a", "1")
    project.manifest("files: {a: {from: a}}\npackages: {requirements: requirements.lock, wheels: wheels}\n")

    async def run(order: Exec) -> ExecResult:
        project.put("a", "2")
        return ExecResult(exit_code=0)

    with pytest.RaisesExc(SandboxRefused, check=lambda error: error.code == "changed"):
        await materialize(project.manifests(), "coder", into, run)
    with pytest.RaisesExc(SandboxRefused, check=lambda error: error.code == "changed"):
        await materialize(project.manifests(), "coder", into, nothing_runs, version="m1-other")
    assert os.listdir(into.parent) == []


async def test_a_folder_that_is_not_empty_is_left_alone(project: Project, into: Path) -> None:
    project.manifest("files: {a: x}\n")
    os.makedirs(into / "theirs")
    with pytest.raises(SandboxRefused):
        await materialize(project.manifests(), "coder", into, nothing_runs)
    assert (into / "theirs").exists()


@pytest.mark.parametrize(
    ("limits", "said"),
    [("{files: 3}", "files and folders"), ("{disk: 10}", "bytes"), ("{file_bytes: 10}", "bytes")],
)
async def test_what_is_larger_than_the_limits_is_refused(project: Project, into: Path, limits: str, said: str) -> None:
    project.manifest(f"limits: {limits}\nfiles: {{a/b/c: {'x' * 11}, d: y}}\n")
    with pytest.RaisesExc(SandboxRefused, match=said, check=lambda error: error.code == "quota"):
        await materialize(project.manifests(), "coder", into, nothing_runs)
    assert os.listdir(into.parent) == []


async def test_two_parts_that_make_one_file_are_refused_but_a_file_that_is_named(project: Project, into: Path) -> None:
    project.put("one/same", "1")
    project.put("vendor.zip", b"")
    with zipfile.ZipFile(project.folder / "vendor.zip", "w") as archive:
        archive.writestr("same", "2")
    project.manifest("archives: {.: vendor.zip}\ndirectories: {out: one}\nfiles: {same: mine, out/same: mine}\n")
    await materialize(project.manifests(), "coder", into, nothing_runs)
    assert held(into) == {"out": "", "out/same": "mine", "same": "mine"}
    project.manifest("archives: {.: vendor.zip}\ndirectories: {same/deep: one}\n", "clash")
    with pytest.RaisesExc(SandboxRefused, check=lambda error: error.code == "conflict"):
        await materialize(project.manifests(), "clash", into.with_name("other"), nothing_runs)


def wheel(project: Project, name: str = "some") -> str:
    """A wheel in the folder `wheels`; its hash."""
    path = project.put(f"wheels/{name}-1.0-py3-none-any.whl", b"")
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "VALUE = 7\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_packages_are_installed_from_wheels_by_their_hashes(project: Project, into: Path) -> None:
    digest = wheel(project)
    project.put("requirements.lock", f"# pinned\nsome==1.0 \\\n    --hash=sha256:{digest}\n")
    project.manifest("packages: {requirements: requirements.lock, wheels: wheels}\nfiles: {a: x}\n")

    places = [into]

    async def run(order: Exec) -> ExecResult:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            *order.argv[1:],
            cwd=places[-1],
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
            stderr=-1,
        )
        _, said = await program.communicate()
        return ExecResult(exit_code=program.returncode, stderr=said.decode())

    made = await materialize(project.manifests(), "coder", into, run)
    found = held(into)
    assert found[".packages/some.py"] == "VALUE = 7\n" and not any(".pip" in path for path in found)
    assert made.entries == len(found)
    project.put("requirements.lock", f"some==1.0 --hash=sha256:{'0' * 64}\n")
    places.append(into.with_name("other"))
    with pytest.RaisesExc(PermanentError, match="(?i)hash", check=lambda error: error.code == "packages"):
        await materialize(project.manifests(), "coder", places[-1], run)
    assert os.listdir(into.parent) == ["tree"]


def test_pip_is_found_where_a_system_has_only_its_venv_module() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PIP, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("pip ") and ".whl" in done.stdout


async def test_without_git_a_checkout_says_so(project: Project, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = project.repository()
    project.manifest(f"checkouts: {{x: {{from: repo, commit: {commit}}}}}\n")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="needs git, which is not installed"):
        await materialize(project.manifests(), "coder", into, nothing_runs)


@pytest.mark.promise("E4")
async def test_secrets_come_with_an_exec_and_never_into_the_workspace(project: Project, into: Path) -> None:
    project.manifest("environment: {API_KEY: '${DESK_KEY}', MODE: fast, URL: 'https://x/${DESK_KEY}'}\nfiles: {a: x}\n")
    manifests = project.manifests()
    await materialize(manifests, "coder", into, nothing_runs)
    manifest, environ = manifests.loaded("coder").manifest, {"DESK_KEY": "hunter2-hunter2"}
    assert "hunter2" not in str(held(into)) + manifests.info("coder").model_dump_json() + repr(manifest)
    assert manifests.info("coder").secrets == ("DESK_KEY",)
    found = environment_of(manifest, environ, {"MODE": "slow"})
    assert found == {"API_KEY": "hunter2-hunter2", "MODE": "slow", "URL": "https://x/hunter2-hunter2"}
    assert secrets_of(manifest, environ) == {"DESK_KEY": "hunter2-hunter2"}
    with pytest.RaisesExc(PermanentError, match="DESK_KEY", check=lambda error: error.code == "not_made"):
        environment_of(manifest, {}, {})


async def test_a_preview_has_the_sizes_of_what_is_made(project: Project, into: Path) -> None:
    whole(project)
    manifests = project.manifests()
    loaded = manifests.loaded("coder")
    parts = await preview(loaded, manifests.sources)
    made = await materialize(manifests, "coder", into, nothing_runs)
    assert (sum(part.entries for part in parts), sum(part.bytes for part in parts)) == (made.entries, made.bytes)
    assert made.version == loaded.info.version
    project.manifest(f"checkouts: {{x: {{from: 'https://127.0.0.1:9/x.git', commit: {'b' * 40}}}}}\n", "far")
    [part] = await preview(manifests.loaded("far"), manifests.sources)
    assert (part.place, part.note, part.entries) == ("checkouts.x", "fetched when it is made", 0)


async def test_nothing_stays_of_a_making_that_is_canceled(project: Project, into: Path) -> None:
    wheel(project)
    project.put("requirements.lock", f"some==1.0 --hash=sha256:{'0' * 64}\n")
    project.manifest("packages: {requirements: requirements.lock, wheels: wheels}\n")
    begun = asyncio.Event()

    async def run(order: Exec) -> ExecResult:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    making = asyncio.create_task(materialize(project.manifests(), "coder", into, run))
    await begun.wait()
    assert os.listdir(into) == [".packages"]
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert os.listdir(into.parent) == []


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05])
async def test_a_copy_that_is_canceled_stops_and_leaves_nothing(project: Project, into: Path, moment: float) -> None:
    for number in range(2_000):
        project.put(f"src/{number}", "x")
    project.manifest("directories: {src: src}\n")
    manifests = project.manifests()
    manifests.loaded("coder")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(moment):
            await materialize(manifests, "coder", into, nothing_runs)
    assert os.listdir(into.parent) == []


@pytest.mark.parametrize(("others", "left"), [([], []), (["theirs"], ["tree"])], ids=["nobody's", "somebody's"])
async def test_canceled_while_its_folder_is_made_it_leaves_what_was_there(
    project: Project, into: Path, monkeypatch: pytest.MonkeyPatch, others: list[str], left: list[str]
) -> None:
    making, going, begin = threading.Event(), threading.Event(), materializing._begin

    def slowly(folder: Path) -> None:
        making.set()
        going.wait(20)
        begin(folder)

    monkeypatch.setattr(materializing, "_begin", slowly)
    project.manifest("files: {}\n")
    for name in others:
        (into / name).mkdir(parents=True)
    made = asyncio.create_task(materialize(project.manifests(), "coder", into, nothing_runs))
    assert await asyncio.to_thread(making.wait, 20)
    made.cancel()
    asyncio.get_running_loop().call_later(0.1, going.set)
    with pytest.raises(asyncio.CancelledError):
        await made
    assert (os.listdir(into.parent), sorted(os.listdir(into)) if left else []) == (left, others)


def test_what_replaces_the_folder_of_packages_leads_nowhere(project: Project, into: Path) -> None:
    outside = project.folder / "outside/.pip"
    outside.mkdir(parents=True)

    async def run(order: Exec) -> ExecResult:
        os.rename(into / ".packages", into / "old")
        os.symlink(outside.parent, into / ".packages")
        return ExecResult(exit_code=0)

    wheel(project)
    project.put("requirements.lock", f"some==1.0 --hash=sha256:{'0' * 64}\n")
    project.manifest("packages: {requirements: requirements.lock, wheels: wheels}\n")
    with pytest.RaisesExc(PermanentError, match="replaced", check=lambda error: error.code == "packages"):
        asyncio.run(materialize(project.manifests(), "coder", into, run))
    assert outside.is_dir() and os.listdir(into.parent) == []
