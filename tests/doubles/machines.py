"""Machines in network namespaces: each with an address, a home, a name, processes and an sshd of its own.

All of them live below one process that this one holds by a pipe: when either ends, the kernel ends every process of
every machine and takes the namespaces with it. Knows nothing of Ray; needs root, iproute2, sshd and rsync.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LAPTOP = "192.0.2.1"
"""The machine a person types on; the only one that is not reached over SSH."""
_NEEDED = ("ip", "unshare", "nsenter", "mount", "rsync", "ssh", "ssh-keygen", "bash")
_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
_UNSHARE = ("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc")
_READY = 15.0

# The laptop: a network with a bridge, a /tmp, a /home and a /run that nobody else sees. Ends when its stdin does.
_WORLD = """
set -eu
hostname laptop
{private}
ip link set lo up
ip link add machines type bridge
ip address add {laptop}/24 dev machines
ip link set machines up
{machines}
echo ready
while read -r _; do :; done
"""
_MACHINE = """
ip netns add {name}
ip link add {name} type veth peer name eth0 netns {name}
ip link set {name} master machines
ip link set {name} up
ip netns exec {name} unshare --mount --pid --uts --ipc --fork --mount-proc --kill-child \
    bash {folder}/machine.sh </dev/null >{folder}/machine.log 2>&1 &
"""
_INSIDE = """
set -eu
hostname {name}
ip link set lo up
ip address add {address}/24 dev eth0
ip link set eth0 up
{private}
mkdir -p /run/sshd
exec {sshd} -D -e -f {folder}/sshd_config
"""
# A folder of one's own over /tmp or /home hides what lies below it: the paths that are needed are bound back.
# `base` comes last, with what was mounted below it: once /tmp is another, {folder} is looked up there.
_PRIVATE = """
mkdir -p -m 1777 {folder}/tmp
mkdir -p {folder}/homes/retinue
mount --bind {folder}/home {folder}/homes/retinue
for path in {keep}; do
    case "$path" in
        /tmp/*) there={folder}/tmp${{path#/tmp}};;
        /home/*) there={folder}/homes${{path#/home}};;
        *) continue;;
    esac
    mkdir -p "$there"
    mount --rbind "$path" "$there"
done
mount --rbind {folder}/homes /home
mount --rbind {folder}/tmp /tmp
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mount --bind {folder}/passwd /etc/passwd
mount --bind {folder}/hosts /etc/hosts
"""
_SSHD_CONFIG = """
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {base}/laptop/home/.ssh/id_ed25519.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 50
"""


def missing() -> str | None:
    """Why there can be no machines here; None when there can."""
    absent = [name for name in _NEEDED if shutil.which(name) is None] + ([] if _SSHD else ["sshd"])
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: iproute2, util-linux, rsync, openssh-server)"
    if os.geteuid() != 0:
        return "namespaces need root"
    trial = "ip link set lo up && mount -t tmpfs tmpfs /run && ip netns add trial"
    tried = subprocess.run([*_UNSHARE, "bash", "-c", trial], capture_output=True, text=True, timeout=30)
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.strip()[-200:]}"


@dataclass(frozen=True, slots=True)
class Machines:
    """`base` holds a folder for each machine; `init` is the first process of the laptop, as seen from here."""

    base: Path
    init: int
    addresses: tuple[str, ...]

    @property
    def home(self) -> Path:
        """The laptop's home, as seen from here; there it is /home/retinue."""
        return self.base / "laptop" / "home"

    def home_of(self, address: str) -> Path:
        """The home of a machine, as seen from here; there it is /home/retinue too."""
        return self.base / _name(address) / "home"

    def start(self, words: Sequence[str], *, folder: str = "/home/retinue") -> subprocess.Popen[str]:
        """Start a command on the laptop; the caller waits for it."""
        enter = ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", "--uts", "--ipc", "--"]
        place = ["env", "-i", *(f"{key}={value}" for key, value in _environment().items()), "bash", "-c"]
        return subprocess.Popen(
            [*enter, *place, 'cd "$0" && exec "$@"', folder, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def interrupt(self, process: subprocess.Popen[str]) -> str:
        """Ctrl-C for a command of `start`, which is a group of processes; returns what it printed."""
        for sent in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=10)[0]
        raise AssertionError(f"{process.args!r} does not end")

    def run(self, *words: str, folder: str = "/home/retinue", timeout: float = 60) -> str:
        """Run a command on the laptop to its end and return what it printed; fails on another exit code than 0."""
        process = self.start(words, folder=folder)
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            out = self.interrupt(process)
            raise AssertionError(f"{words} did not end within {timeout:.0f} s\n{out}") from None
        assert process.returncode == 0, f"{words}: exit code {process.returncode}\n{out}"
        return out

    def ssh(self, address: str, command: str, *, timeout: float = 60) -> str:
        """Run a command on a machine, as a login would."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return self.run("ssh", *options, f"retinue@{address}", command, timeout=timeout)


@contextlib.contextmanager
def machines(base: Path, addresses: Sequence[str], keep: Sequence[Path]) -> Iterator[Machines]:
    """A laptop and machines with these addresses; `keep` names folders that they see where they are here."""
    _prepare(base, addresses, keep)
    with (base / "laptop.log").open("w") as log:
        outer = subprocess.Popen(
            [*_UNSHARE, "--kill-child", "bash", str(base / "laptop.sh")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        assert outer.stdout is not None
        said = outer.stdout.readline().strip()
        assert said == "ready", f"the machines did not start: {(base / 'laptop.log').read_text()}"
        found = Machines(base, _child(outer.pid), tuple(addresses))
        for address in addresses:
            _await_ssh(found, address)
        yield found
    finally:
        outer.kill()
        outer.communicate(timeout=30)


def _prepare(base: Path, addresses: Sequence[str], keep: Sequence[Path]) -> None:
    kept = " ".join(f"'{path}'" for path in (*keep, base))
    rows = [row for row in Path("/etc/passwd").read_text().splitlines() if not row.startswith("retinue:")]
    passwd = "\n".join(["retinue:x:0:0:retinue:/home/retinue:/bin/bash", *rows]) + "\n"
    named = {"laptop": LAPTOP} | {_name(address): address for address in addresses}
    hosts = "".join(f"{address} {name}\n" for name, address in named.items())
    places = []
    for name, address in named.items():
        folder = base / name
        shutil.copytree("/etc/skel", folder / "home", dirs_exist_ok=True)
        (folder / "passwd").write_text(passwd)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        words = {"name": name, "folder": folder, "base": base, "address": address, "sshd": _SSHD}
        words["private"] = _PRIVATE.format(folder=folder, keep=kept)
        (folder / "machine.sh").write_text(_INSIDE.format(**words))
        (folder / "sshd_config").write_text(_SSHD_CONFIG.format(**words))
        _key(folder / "host_key")
        if name != "laptop":
            places.append(_MACHINE.format(**words))
    (base / "laptop/home/.ssh").mkdir()
    _key(base / "laptop/home/.ssh/id_ed25519")
    private = _PRIVATE.format(folder=base / "laptop", keep=kept)
    world = _WORLD.format(private=private, laptop=LAPTOP, machines="\n".join(places))
    (base / "laptop.sh").write_text(world)


def environment(home: Path, source: str) -> None:
    """A Python environment at `home/project/.venv` with the packages of this one and the code in `source`.

    Stands in for `make setup`, which takes minutes and a network: `make` finds it done.
    """
    venv = home / "project/.venv"
    packages = venv / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to(os.path.realpath(sys.executable))
    interpreter = Path(os.path.realpath(sys.executable)).parent
    (venv / "pyvenv.cfg").write_text(f"home = {interpreter}\ninclude-system-site-packages = false\n")
    (packages / "here.pth").write_text("\n".join([source, *site.getsitepackages()]) + "\n")
    starts = {"ray": "ray.scripts.scripts:main", "retinue": "retinue.ingress.cli:console"}
    for name, entry in starts.items():
        module, function = entry.split(":")
        script = venv / "bin" / name
        script.write_text(
            f"#!/home/retinue/project/.venv/bin/python\nimport sys\nfrom {module} import {function}\n"
            f"sys.exit({function}())\n"
        )
        script.chmod(0o755)
    (venv / ".ready").touch()


def _environment() -> dict[str, str]:
    return {
        "HOME": "/home/retinue",
        "USER": "retinue",
        "LANG": "C.UTF-8",
        "PATH": "/home/retinue/project/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def _name(address: str) -> str:
    return "machine" + address.rpartition(".")[2]


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30)


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _await_ssh(found: Machines, address: str) -> None:
    deadline = time.monotonic() + _READY
    while True:
        try:
            found.ssh(address, "true", timeout=_READY)
            return
        except AssertionError as error:
            if time.monotonic() > deadline:
                log = (found.base / _name(address) / "machine.log").read_text()
                raise AssertionError(f"no sshd at {address}: {error}\n{log}") from None
            time.sleep(0.1)
