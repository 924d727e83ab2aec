"""Python packages of a workspace: what a list of requirements may say, and how pip is called in the sandbox.

Pure. Wheels only: nothing of a package runs when it is installed. Each is known by its hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from retinue.runs.sandboxes import Exec, ExecResult
from retinue.sandbox.manifests.manifest import Packages

STAGE = ".pip"
"""Where what pip is given stands, in the folder that it installs into while it does."""

REQUIREMENTS = f"{STAGE}/requirements.txt"
WHEELS = f"{STAGE}/wheels"

PIP = """
import glob, os, runpy, sys, sysconfig
try:
    import pip
except ImportError:
    import ensurepip
    folders = [sysconfig.get_config_var("WHEEL_PKG_DIR") or "/usr/share/python-wheels"]
    folders.append(os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"))
    wheels = [wheel for folder in folders for wheel in sorted(glob.glob(os.path.join(folder, "pip-*.whl")))]
    sys.path[:0] = wheels[-1:]
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
"""Runs pip, or where a system has none, the one that its venv module makes new environments with."""

INSTALL_SECONDS = 900.0
LARGEST = 4 * 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HASH = re.compile(r"--hash[= ]sha(256|384|512):[0-9a-f]{64,128}\b")
_LAST = 600


def check_requirements(text: str, packages: Packages) -> None:
    """ValueError names the line that pip must not be given: an option, an address, a file, or one without a hash."""
    for number, line in _lines(text):
        if not _NAME.match(line) or "://" in line or re.search(r"\s@\s|\S@\s*(file|git|http)", line):
            raise ValueError(
                f"line {number} is no requirement but an option, an address or a file: {line[:80]!r}; write "
                "name==version --hash=sha256:..., as `pip-compile --generate-hashes` does"
            )
        if packages.hashes and not _HASH.search(line):
            raise ValueError(
                f"line {number} has no hash: {line[:80]!r}; add --hash=sha256:..., or say `hashes: false` to take what "
                "comes by this name"
            )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, requirement), comments left out and lines put together."""
    begun, whole = 0, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        plain = re.sub(r"(^|\s)#.*", "", line).strip()
        begun = begun if whole else number
        whole = f"{whole} {plain.removesuffix(chr(92)).strip()}".strip()
        if plain.endswith("\\"):
            continue
        if whole:
            yield begun, whole
        whole = ""


def command_of(packages: Packages) -> tuple[str, ...]:
    """The call of pip, in the workspace's folder. It reads no configuration and asks nothing."""
    words = ["python3", "-c", PIP, "--isolated", "--disable-pip-version-check", "--no-input", "install"]
    words += ["--no-cache-dir", "--no-compile", "--only-binary=:all:", "--no-warn-script-location", "--quiet"]
    words += ["--target", packages.into, "--requirement", f"{packages.into}/{REQUIREMENTS}"]
    words += ["--require-hashes"] if packages.hashes else []
    words += ["--no-index", "--find-links", f"{packages.into}/{WHEELS}"] if packages.wheels is not None else []
    return tuple(words)


def order_of(packages: Packages) -> Exec:
    """The call as an exec."""
    return Exec(argv=command_of(packages), timeout=INSTALL_SECONDS)


def complaint(result: ExecResult) -> str:
    """What pip said last, or how it ended."""
    ended = f"exit code {result.exit_code}" if result.signal is None else f"signal {result.signal}"
    limits = f", by the limit of {', '.join(result.limits)}" if result.limits else ""
    said = " ".join((result.stderr or result.stdout).split())[-_LAST:]
    return f"{ended}{limits}: {said or 'pip said nothing'}"
