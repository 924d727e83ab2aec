"""What mends a node that holds a sandbox badly or not at all: gaps that no attempt shows, and the words of refusals.

Knows no backend and makes no attempt; it looks at settings of the kernel.
"""

from __future__ import annotations

from pathlib import Path

from retinue.sandbox.backends.cgroups import REMEDY
from retinue.sandbox.backends.keeper import NO_USER
from retinue.sandbox.backends.port import Finding
from retinue.sandbox.backends.watching import DISK_SECONDS, TREE_SECONDS

MEMORY_GAP = Finding(
    "limited",
    f"looked at every {TREE_SECONDS * 1000:.0f} ms and ended when it is passed; what is in /tmp comes besides",
    REMEDY,
)
PROCESSES_GAP = Finding(
    "limited",
    "they are counted with the other processes of the host's user",
    f"{REMEDY}, or as root with a user of its own for each sandbox (`sandbox: uids:`)",
)
DISK_GAP = Finding(
    "limited",
    f"the workspace is looked at every {DISK_SECONDS:.0f} s, and sooner when the disk fills: an exec can pass its "
    f"limit for that long",
    "keep workspaces on a file system of their own",
)


def remedy(said: str) -> str:
    """What mends that a sandbox could not be made, from what the kernel and the helper said and from its settings."""
    if NO_USER in said:
        return "name users in `sandbox: uids:` that this machine or container has (see /proc/self/uid_map)"
    for setting, closed, words in _SETTINGS:
        if _setting(setting) == closed:
            return words
    if "mount proc" in said:
        return "this container hides parts of /proc: unmask it (docker: --security-opt systempaths=unconfined)"
    return "see `bwrap --unshare-user --ro-bind / / true` of the user that the host runs as"


_SETTINGS = (
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "open user namespaces: sysctl kernel.unprivileged_userns_clone=1",
    ),
    ("user/max_user_namespaces", "0", "open user namespaces: sysctl user.max_user_namespaces=15000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "let bwrap have user namespaces: an AppArmor profile for it with `userns,`, or "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""
