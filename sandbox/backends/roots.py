"""The file system that a confined program sees: which folders of the host, and which files of our own making.

Owns the paths inside. Knows no helper program: a backend turns the view into mounts or rules.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from retinue.runs.sandboxes import SandboxRefused
from retinue.sandbox.backends.port import Place
from retinue.sandbox.profiles import Profile

WORKSPACE = "/workspace"
"""Where the workspace is, inside; also the home folder, so that what a program settles there stays."""

PROXY = "/run/retinue/proxy.sock"
"""Where the proxy's socket is, inside, for a profile that lists hosts."""

PYTHON = "/run/retinue/python"
"""Where a root of its own has the host's Python by a name that says nothing of the host and is the same on each."""

USER = 1000
"""The user and group that a program is, inside."""

ETC = {
    "passwd": f"sandbox:x:{USER}:{USER}::{WORKSPACE}:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "group": f"sandbox:x:{USER}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n",
}
"""Files of /etc that are made for a sandbox."""

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SHOWN_ETC = (
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/crypto-policies/back-ends",
)
_MADE_INSIDE = ("proc", "dev", "tmp", "run", "sys", "workspace", "etc", "lost+found", *_SYSTEM)
_PATH = ("/usr/local/bin", "/usr/bin", "/bin")


def system_links() -> Iterator[tuple[str, str]]:
    """(name, target) of top folders that are links, as /bin is to usr/bin nowadays."""
    for name in _SYSTEM:
        if os.path.islink(f"/{name}"):
            yield f"/{name}", os.readlink(f"/{name}")


def shown(place: Place, profile: Profile) -> list[str]:
    """Paths of the host that are seen read only at the same path. SandboxRefused for one that hides what is made
    inside.
    """
    system = [f"/{name}" for name in _SYSTEM if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")]
    programs = [os.path.abspath(program) for program in (Path(sys.base_prefix), *place.programs)]
    asked = checked(profile)
    rest = [] if profile.own_root else [f"/{name}" for name in sorted(os.listdir("/")) if name not in _MADE_INSIDE]
    etc = [path for path in _SHOWN_ETC if os.path.exists(path)]
    paths = dict.fromkeys([*system, *rest, *etc, *programs, *asked])
    return [path for path in paths if not any(_inside(path, other) for other in paths)]


def _inside(path: str, other: str) -> bool:
    return path.startswith(other.rstrip("/") + "/")


def checked(profile: Profile) -> list[str]:
    """The paths that a profile shows besides, as they are on this node. SandboxRefused for one that cannot be."""
    return [_checked(path) for path in profile.reads]


def _checked(path: str) -> str:
    """A path of `reads`, absolute and there; none that would cover what a sandbox is made of."""
    asked = os.path.abspath(path)
    top = asked.split("/")[1]
    if asked == "/" or (top in ("proc", "dev", "sys", "workspace") or asked in ("/etc", "/run", "/tmp")):
        raise SandboxRefused(
            f"`reads: {path}` cannot be shown in a sandbox, it would cover its own files: name a folder below it",
            code="sandbox_reads",
        )
    if not os.path.isabs(path) or not os.path.exists(asked):
        raise SandboxRefused(
            f"`reads: {path}` is no absolute path that exists on this node: make it, or correct the profile",
            code="sandbox_reads",
        )
    return asked


def interpreter() -> str | None:
    """The folder of the host's Python; None where it is one of the system's programs."""
    found = os.path.abspath(sys.base_prefix)
    return None if any(found == f"/{name}" or _inside(found, f"/{name}") for name in _SYSTEM) else found


def environment(place: Place, home: str, temporary: str, python: str | None) -> dict[str, str]:
    """Variables that every program gets; those of an exec go over them. `python` is where the interpreter's folder is
    seen, None where it is one of the system's programs."""
    folders = [folder for program in place.programs for folder in (f"{program}/bin", str(program))]
    own = [f"{python}/bin"] if python else []
    return {
        "PATH": ":".join(dict.fromkeys([*own, *folders, *_PATH])),
        "HOME": home,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TMPDIR": temporary,
        "XDG_CACHE_HOME": f"{temporary}/.cache",
    }


def covers(paths: list[str], uid: int | None) -> dict[str, str]:
    """{path: folder above it that does not let a sandbox's user through} of those paths that he does not reach, such
    as a workspace below the home folder of root. For his eyes such a folder is covered by an empty one, and the path is
    put back.
    """
    found = {} if uid is None else {path: _closed_above(path, uid) for path in paths}
    return {path: folder for path, folder in found.items() if folder}


def _closed_above(path: str, uid: int) -> str:
    """The topmost folder above a path that a user who is a stranger here cannot pass; nothing if there is none."""
    for folder in reversed(Path(path).parents):
        found = folder.stat()
        mine = found.st_uid == uid and found.st_mode & stat.S_IXUSR
        if not (mine or found.st_mode & stat.S_IXOTH):
            return str(folder)
    return ""


def inner(cwd: str, workspace: str = WORKSPACE) -> str:
    """A working folder, relative to the workspace, as the program sees it. SandboxRefused when it leads out."""
    path = os.path.normpath(os.path.join(workspace, cwd))
    if path != workspace and not _inside(path, workspace):
        raise SandboxRefused(
            f"`cwd: {cwd}` leads out of the workspace: name a folder of it, relative to it", code="sandbox_path"
        )
    return path
