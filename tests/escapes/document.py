"""docs/escapes.md: what came of each attempt, under each confinement and as each user, as a table; and back again.

Owns the page's words. What is written in it is what the suite found: `python -m tests.escapes.run --write`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

from tests.escapes import egress, hostward, limits
from tests.escapes.inside import files, kernel, network, processes
from tests.escapes.trials import Outcome

from retinue.sandbox.backends.cgroups import find
from retinue.sandbox.backends.landlock import version

PAGE = Path(__file__).parents[2] / "docs" / "escapes.md"
COLUMNS = ("bubblewrap root", "bubblewrap user", "landlock root", "landlock user", "unconfined root", "unconfined user")
Results = Mapping[str, Mapping[str, Outcome]]
"""Outcomes by column and attempt."""

CLASSES: dict[str, tuple[str, ...]] = {
    "Files": tuple(files.ATTEMPTS),
    "Processes": tuple(processes.ATTEMPTS),
    "Kernel": tuple(kernel.ATTEMPTS),
    "Sockets and shared memory": tuple(network.ATTEMPTS),
    "Limits": tuple(limits.ATTEMPTS),
    "What the host does": tuple(hostward.ATTEMPTS),
    "The way out": tuple(egress.ATTEMPTS),
}

_HOLDS = {
    "Files": "bubblewrap: an own root, in which the host's files have no name. landlock: rules for opening and "
    "changing; where the host is root, a user of the sandbox's own besides, who owns nothing outside; the"
    " filter for what rules do not govern (attributes by path, handles).",
    "Processes": "bubblewrap: own process numbers, so that nobody outside has one. landlock: its domain (memory, "
    "traces, signals from version 6 on), and the filter for limits and priorities of others. Both start "
    "with an environment that is scrubbed, from a launcher that has none.",
    "Kernel": "The filter of system calls in both, no capabilities, no new privileges. A call that is not on the "
    "filter's list because it is newer does not exist inside.",
    "Sockets and shared memory": "bubblewrap: an own network without interfaces, and an own space for System V and "
    "queues. landlock: "
    "no socket can be made at all, and no System V or message queue.",
    "Limits": "Control groups for memory and processes where the host can make them, limits of the kernel for each "
    "process otherwise; a keeper above each program that ends all below it; and looks from time to time.",
    "What the host does": "Files are opened beneath the workspace by the kernel (openat2), regular ones only; "
    "snapshots are "
    "restored into a folder that did not exist, without special files and setuid bits; no mount is made "
    "in a workspace.",
    "The way out": "A network without interfaces, and a proxy on a socket that is the sandbox's user's alone. It takes "
    "only heads that every server reads alike, passes on one request a connection, looks names up itself "
    "and connects to the address that it has judged. What goes through a tunnel (https) it does not see: a server that "
    "answers for a listed name can be asked there for others that it serves too, so list hosts whose servers are "
    "theirs. landlock has no network of its own and takes no profile that lists hosts.",
}
"""What stops the attempts of a class."""

_GAPS: dict[tuple[str, str], str] = {
    (
        "landlock",
        "learn a file's size",
    ): "Landlock does not govern looking at names. Size, owner and times of what lies in "
    "folders that everybody may pass can be learned, no content.",
    (
        "landlock",
        "watch a folder",
    ): "Landlock does not govern inotify, and to take it away breaks programs that wait for "
    "files. That something in a folder that everybody may read has changed can be learned, no content.",
    (
        "landlock",
        "see that a process is there",
    ): "Landlock hides no process: its number and user show in /proc. Its command line, environment and memory do not.",
    (
        "landlock user",
        "change a file's mode",
    ): "Landlock does not govern modes, and the host's user owns his files. The "
    "self-test finds it, and confined profiles are refused here: open user namespaces, or run the host as root.",
    ("landlock user", "change a file's times"): "As for modes.",
    (
        "",
        "fill the workspace",
    ): "The workspace is looked at every second, and sooner when the disk fills: a program can pass "
    "the limit for that long, then it is ended. A file system of its own for workspaces is a bound that holds.",
    ("", "fill the workspace with names"): "As for its bytes.",
    ("", "fill the temporary folder"): "As for the workspace, with which it is counted.",
    (
        "user",
        "take memory",
    ): "Without control groups a tree of processes is looked at every 50 ms: it can pass the limit for "
    "that long, then it is ended. Run the host as root or in a unit with a delegated group.",
    ("user", "take memory with many processes"): "As for one process.",
    (
        "user",
        "fork without end",
    ): "Without control groups the kernel counts the user's processes, which bounds them, and the "
    "tree is looked at every 50 ms and ended.",
}
"""Why something is open or limited: (words that the column has, attempt)."""


def why_open(column: str, attempt: str) -> str | None:
    """What stands in the page of a gap; None when nobody has said why."""
    for (words, name), why in _GAPS.items():
        if name == attempt and set(words.split()) <= set(column.split()):
            return why
    return None


def features() -> str:
    """What of this machine the outcomes depend on."""
    held = " ".join(sorted(find().controls)) or "none"
    return f"landlock {version()}; control groups of root: {held}"


def render(results: Results) -> str:
    """The page."""
    count = sum(map(len, CLASSES.values()))
    parts = [_TOP.format(count=count, features=features())]
    for title, attempts in CLASSES.items():
        parts += [f"## {title}\n", fill(_HOLDS[title], 120) + "\n", _table(attempts, results), _gaps(attempts, results)]
    return "\n".join(part for part in parts if part)


def read(page: str) -> dict[str, dict[str, str]]:
    """States by column and attempt, as a page has them."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    rows = [row for row in rows if row[0] not in ("attempt", "")]
    return {
        column: {row[0]: row[1 + number] for row in rows if row[1 + number] != _NOT_MADE}
        for number, column in enumerate(COLUMNS)
    }


_NOT_MADE = "–"
_SHORT = ("bubblewrap, root", "bubblewrap, user", "landlock, root", "landlock, user", "none, root", "none, user")


def _table(attempts: tuple[str, ...], results: Results) -> str:
    lines = ["| attempt | " + " | ".join(_SHORT) + " |", "|---|" + "---|" * len(COLUMNS)]
    for attempt in attempts:
        states = [results[column][attempt].state if attempt in results[column] else _NOT_MADE for column in COLUMNS]
        lines.append(f"| {attempt} | " + " | ".join(states) + " |")
    return "\n".join(lines) + "\n"


def _gaps(attempts: tuple[str, ...], results: Results) -> str:
    lines: dict[str, str] = {}
    for column in COLUMNS[:4]:
        for attempt in attempts:
            outcome = results[column].get(attempt)
            if outcome is not None and outcome.state != "stopped":
                lines[attempt] = fill(f"- **{attempt}**: {why_open(column, attempt)}", 120, subsequent_indent="  ")
    return "\n".join(lines.values()) + "\n" if lines else ""


_TOP = """# Attempts to get out of a sandbox

Written by `python -m tests.escapes.run --write` (as root, in a checkout, with `PYTHONPATH=src:.`; two minutes). The
tests in `tests/escapes` make the {count} attempts again and hold this page to what they find. Each is a program that
runs inside, under the profile `strict` (`build` for the way out), with something real to reach outside; what came of it
is looked at from outside.

- **stopped**: it got nothing. **limited**: it got some of it for a moment, and was ended. **open**: it got it.
- **root**: the host is root, and its sandboxes have users of their own. **user**: the host is an ordinary user.
- **none**: no confinement, to show that an attempt is one. What could harm a machine is not made there (–). What is
  stopped there too is stopped by the kernel, or by the way in which every program is started.

A confinement in which something is open that a profile asks it to hold is refused before anything runs, and
`retinue doctor` says so. That is why landlock runs confined profiles for a host that is root only.

Found with: {features}.
"""
