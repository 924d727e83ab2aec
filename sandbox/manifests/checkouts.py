"""Commits of git repositories as plain files: fetched and written out by a git that is told nothing and runs nothing.

Owns how git is begun: no configuration of the user or the machine, no hooks, no helpers, no questions, and one
protocol. The files of a commit come as a tar file, which is unpacked like any other. Knows no manifest.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from retinue.runs.errors import ConfigError, PermanentError, TransientError
from retinue.sandbox.manifests.manifest import Checkout

SECONDS = 600.0
"""How long a fetch may take."""

_GRACE = 5.0
_SAID = 16 * 1024
"""Bytes of what git says that are looked at, its last."""

_KEPT = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "GIT_SSL_CAINFO", "SSL_CERT_DIR", "SSL_CERT_FILE")
"""Variables that say how this network is left; none of them says who we are."""

_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "transfer.bundleURI": "false",
}
_FETCH = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
_ATTRIBUTES = "* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n"
"""Above all attributes that a commit brings: its files come as they are kept, and all of them."""


async def fetch(checkout: Checkout, project: Path, work: Path, most: int | None) -> tuple[Path, Path | None]:
    """The files of a commit as a tar file in the folder `work`, and the repository when it is to be kept.

    `most` bounds each file that git writes, in bytes. TransientError for a repository that does not answer or is slow,
    PermanentError for one that does not have the commit, ConfigError when git is not installed.
    """
    git = _Git(work / "repository", most, "https" if checkout.remote else "file")
    source = checkout.source if checkout.remote else os.path.join(project, checkout.source)
    kind = "sha256" if len(checkout.commit) == 64 else "sha1"
    await git.run(
        "init", "--quiet", "--bare", "--template=", f"--object-format={kind}", "--initial-branch=main", str(git.folder)
    )
    (git.folder / "info").mkdir(exist_ok=True)
    (git.folder / "info" / "attributes").write_text(_ATTRIBUTES)
    try:
        await git.run(*_FETCH, source, checkout.commit)
    except PermanentError as error:
        raise PermanentError(
            f"commit {checkout.commit[:12]} cannot be had from {checkout.source!r}: {error}", code="checkout"
        ) from None
    await git.run("cat-file", "-e", f"{checkout.commit}^{{commit}}")
    tar = work / "commit.tar"
    await git.run("archive", "--format=tar", f"--output={tar}", checkout.commit)
    if not checkout.keep_git:
        return tar, None
    await git.run("update-ref", "--no-deref", "HEAD", checkout.commit)
    await git.run("read-tree", checkout.commit)
    (git.folder / "info" / "attributes").unlink()
    (git.folder / "config").write_text(_config(kind))
    return tar, git.folder


def _config(kind: str) -> str:
    """All that a kept repository is told: no remote, nothing of this machine."""
    lines = ["[core]", "\tbare = false", "\tfilemode = true", "\tlogallrefupdates = false"]
    if kind == "sha256":
        return "\n".join([*lines, "\trepositoryformatversion = 1", "[extensions]", "\tobjectformat = sha256", ""])
    return "\n".join([*lines, "\trepositoryformatversion = 0", ""])


class _Git:
    """Runs git on one bare repository of ours."""

    def __init__(self, folder: Path, most: int | None, protocol: str) -> None:
        self.folder = folder
        self._blocks = "unlimited" if most is None else str(max(1, most // 512))
        self._protocol = protocol

    async def run(self, *words: str) -> None:
        """One command to its end; what it complains of is the message of the error."""
        program = shutil.which("git")
        if program is None:
            raise ConfigError("a checkout needs git, which is not installed here: install it, or use an archive")
        settings = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
        settings += ["-c", f"protocol.{self._protocol}.allow=always"]
        where = [] if words[0] == "init" else [f"--git-dir={self.folder}"]
        # ulimit -f counts blocks of 512 bytes in a POSIX shell.
        script = f'ulimit -f {self._blocks}; exec "$@"'
        await _finish(
            ["/bin/sh", "-c", script, "git", program, *settings, *where, *words], self._environment(), words[0]
        )

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return kept | {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder.parent),
            "LC_ALL": "C",
            "GIT_ALLOW_PROTOCOL": self._protocol,
            "GIT_ASKPASS": "/bin/false",
            "GIT_CEILING_DIRECTORIES": str(self.folder.parent),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
        }


async def _finish(words: Sequence[str], environment: dict[str, str], what: str) -> None:
    program = await asyncio.create_subprocess_exec(
        *words,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(SECONDS):
            said = await _last_words(program)
            await program.wait()
    except TimeoutError:
        raise TransientError(f"git {what} took longer than {SECONDS:.0f} s", code="checkout") from None
    finally:
        await asyncio.shield(_end(program))
    if program.returncode:
        text = " ".join(said.decode(errors="replace").split())[-500:]
        offline = "Could not resolve" in text or "Failed to connect" in text or "timed out" in text
        raise (TransientError if offline else PermanentError)(f"git {what}: {text}", code="checkout")


async def _last_words(program: asyncio.subprocess.Process) -> bytes:
    """The end of what it complains of, which may be what a server wants to be told, without end."""
    assert program.stderr is not None
    said = b""
    while part := await program.stderr.read(_SAID):
        said = (said + part)[-_SAID:]
    return said


async def _end(program: asyncio.subprocess.Process) -> None:
    """End it with all that it began."""
    if program.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await program.wait()
