"""Making a workspace from a manifest: a fresh folder with all that it names, and the packages that a program installs.

Owns the order of the steps and that nothing half made stays. Knows no backend: programs run through what it is given.
Secrets are no part of it: they come with each exec.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from threading import Event

from retinue.runs.errors import PermanentError
from retinue.runs.sandboxes import Exec, ExecResult, SandboxRefused
from retinue.sandbox.folders import remove_tree
from retinue.sandbox.manifests.archives import unpack
from retinue.sandbox.manifests.building import Builder, settle
from retinue.sandbox.manifests.checkouts import fetch
from retinue.sandbox.manifests.loading import Loaded, Manifests
from retinue.sandbox.manifests.manifest import ArchiveSource, Checkout, DirectorySource, FileSource, Manifest, Packages
from retinue.sandbox.manifests.requirements import REQUIREMENTS, STAGE, WHEELS, complaint, order_of
from retinue.sandbox.manifests.sources import Folder, Item, Sources, parts_of
from retinue.sandbox.threads import in_thread

Run = Callable[[Exec], Awaitable[ExecResult]]
"""Runs a program in the workspace that is being made, under its profile."""


@dataclass(frozen=True, slots=True)
class Materialized:
    """A workspace as its manifest, of this version, made it. `bytes` are those of its files."""

    entries: int
    bytes: int
    version: str


Fetched = dict[str, tuple[Path, Path | None]]


async def materialize(
    manifests: Manifests, name: str, into: Path, run: Run, uid: int | None = None, version: str | None = None
) -> Materialized:
    """Make what the manifest says in the folder `into`, which is empty or not there; all of it belongs to `uid`.

    `version` is the one that was decided on: SandboxRefused (`changed`) when it is another by now, and when files that
    it takes in change meanwhile. `bad_archive`, `conflict` and `quota` refuse what is harmful, ambiguous or too large.
    PermanentError (`packages`, `checkout`) has what pip or git complained of. Whatever is raised, what was made is
    gone.
    """
    loaded = await asyncio.to_thread(manifests.refreshed, name)
    if version is not None and loaded.info.version != version:
        raise _changed(name, version, loaded.info.version)
    await _begun(into)
    work = into.with_name(f".making-{into.name}-{token_hex(4)}")
    try:
        await in_thread(lambda _: work.mkdir(0o700))
        fetched = await fetch_all(loaded, manifests.sources, work)
        await in_thread(lambda stop: _fill(loaded, manifests.sources, into, work, fetched, stop))
        made = await in_thread(lambda _: settle(into, uid))
        if loaded.manifest.packages is not None:
            made = await _install(loaded.manifest, into, run, uid)
        now = (await asyncio.to_thread(manifests.refreshed, name)).info.version
        if now != loaded.info.version:
            raise _changed(name, loaded.info.version, now)
        return Materialized(*made, now)
    except BaseException:
        await asyncio.shield(asyncio.to_thread(remove_tree, into))
        raise
    finally:
        await asyncio.shield(asyncio.to_thread(remove_tree, work))


def _changed(name: str, before: str, now: str) -> SandboxRefused:
    return SandboxRefused(
        f"sandbox manifest {name!r} was {before} when this was decided and is {now} now: begin anew", code="changed"
    )


async def _begun(into: Path) -> None:
    try:
        await in_thread(lambda _: _begin(into))
    except asyncio.CancelledError:
        with suppress(OSError):  # it is not empty: somebody else's
            await asyncio.shield(asyncio.to_thread(into.rmdir))
        raise


def _begin(into: Path) -> None:
    """An empty folder that belongs to nobody else."""
    into.mkdir(mode=0o700, exist_ok=True)
    if os.listdir(into):
        raise SandboxRefused(f"the workspace {into.name} is not empty: it is made in a fresh folder", code="conflict")
    os.chmod(into, 0o700)


async def fetch_all(loaded: Loaded, sources: Sources, work: Path, remote: bool = True) -> Fetched:
    """The commits of all checkouts, one after the other, by their place; only local ones without `remote`."""
    found: Fetched = {}
    for number, (path, checkout) in enumerate(loaded.manifest.checkouts.items()):
        if checkout.remote and not remote:
            continue
        folder = work / str(number)
        await asyncio.to_thread(folder.mkdir)
        found[path] = await fetch(checkout, sources.project, folder, loaded.profile.limits.disk)
    return found


# -- what is copied ----------------------------------------------------------------------------------------


Step = tuple[str, Callable[[Builder], None]]
"""A place of a manifest (`files.a.txt`), and what makes it."""


def _fill(loaded: Loaded, sources: Sources, into: Path, work: Path, fetched: Fetched, stop: Event) -> None:
    with Builder(into, loaded.profile.limits, stop, work) as builder:
        for _, make in steps(loaded.manifest, sources, fetched):
            make(builder)


def steps(manifest: Manifest, sources: Sources, fetched: Fetched) -> Iterator[Step]:
    """All that is copied: commits that were fetched, then archives, folders and files, so that a file may take the
    place of one that came with those; last what pip is given."""
    for path, commit in fetched.items():
        yield f"checkouts.{path}", partial(_copy_commit, manifest.checkouts[path], commit, path)
    for path, archive in manifest.archives.items():
        yield f"archives.{path}", partial(_copy_archive, sources, archive, path)
    for path, directory in manifest.directories.items():
        yield f"directories.{path}", partial(_copy_directory, sources, directory, path)
    for path, file in manifest.files.items():
        yield f"files.{path}", partial(_copy_named, sources, file, path)
    if manifest.packages is not None:
        yield "packages", partial(_stage_packages, manifest.packages, sources)


def _copy_commit(checkout: Checkout, commit: tuple[Path, Path | None], path: str, builder: Builder) -> None:
    tar, repository = commit
    builder.directory(path)
    with tar.open("rb") as file:
        unpack(file, f"{checkout.source} {checkout.commit[:12]}", builder, path)
    if repository is not None:
        copy_folder(Sources(repository), ".", (), builder, _below(path, ".git"))


def _copy_archive(sources: Sources, archive: ArchiveSource, path: str, builder: Builder) -> None:
    builder.directory(path)
    with sources.opened(archive.source) as opened, os.fdopen(os.dup(opened), "rb") as file:
        file.seek(0)
        unpack(file, archive.source, builder, path, archive.strip)


def _copy_directory(sources: Sources, directory: DirectorySource, path: str, builder: Builder) -> None:
    builder.directory(path)
    if directory.source is not None:
        copy_folder(sources, directory.source, directory.exclude, builder, path)


def _copy_named(sources: Sources, file: FileSource, path: str, builder: Builder) -> None:
    if file.source is None:
        builder.file(path, [(file.text or "").encode()], file.executable, replace=True)
    else:
        copy_file(sources, file.source, builder, path, file.executable)


def copy_file(sources: Sources, source: str, builder: Builder, path: str, executable: bool = False) -> None:
    """A file of the project, in the place of one that was made before."""
    with sources.opened(source) as file:
        run = executable or bool(os.fstat(file).st_mode & 0o100)
        builder.file(path, parts_of(file), run, replace=True)


def copy_folder(sources: Sources, source: str, exclude: tuple[str, ...], builder: Builder, path: str) -> None:
    """What a folder of the project holds."""
    with sources.folder(source, exclude) as folder:
        for item in folder.items():
            _copy(folder, item, builder, _below(path, os.fsdecode(item.path)))


def _copy(folder: Folder, item: Item, builder: Builder, path: str) -> None:
    if item.kind == "directory":
        builder.directory(path)
    elif item.kind == "symlink":
        builder.link(path, os.fsdecode(item.target))
    else:
        with folder.opened(item) as file:
            builder.file(path, parts_of(file), item.executable)


def _below(path: str, name: str) -> str:
    return name if path == "." else f"{path}/{name}"


# -- what is installed -------------------------------------------------------------------------------------


def _stage_packages(packages: Packages, sources: Sources, builder: Builder) -> None:
    """What pip needs, in the folder that it installs into: there it has no mount, and sees nothing of the project."""
    builder.directory(packages.into)
    copy_file(sources, packages.requirements, builder, f"{packages.into}/{REQUIREMENTS}")
    if packages.wheels is not None:
        copy_folder(sources, packages.wheels, (), builder, f"{packages.into}/{WHEELS}")


async def _install(manifest: Manifest, into: Path, run: Run, uid: int | None) -> tuple[int, int]:
    packages = manifest.packages
    assert packages is not None
    result = await run(order_of(packages))
    if not result.ok:
        raise PermanentError(
            f"the packages of sandbox manifest {manifest.name!r} were not installed: {complaint(result)}",
            code="packages",
        )
    return await in_thread(lambda _: _installed(into, packages.into, uid))


def _installed(into: Path, folder: str, uid: int | None) -> tuple[int, int]:
    """Remove what pip was given; nothing runs in the workspace any more, but what ran may have planted links."""
    inner = into.joinpath(*folder.split("/"))
    if not Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(into)) or inner.is_symlink():
        raise PermanentError(f"packages.into: {folder!r} was replaced by what was installed", code="packages")
    remove_tree(inner / STAGE)
    return settle(into, uid)
