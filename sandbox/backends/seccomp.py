"""The filter of system calls: which doors of the kernel are closed to a sandbox, as a program that the kernel runs.

Owns the lists. Knows no backend. The filter starts from what libseccomp of this machine knows: a call with a higher
number, one that came with a newer kernel, does not exist in a sandbox (ENOSYS), and programs fall back.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import Any

from retinue.runs.sandboxes import SandboxRefused

NO_FILTER = "libseccomp cannot be used ({why}): install it (apt install libseccomp2) and the package pyseccomp"

_REFUSED = """
mount umount umount2 pivot_root chroot move_mount fsopen fsconfig fsmount fspick open_tree mount_setattr
unshare setns
ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp
keyctl add_key request_key
bpf perf_event_open userfaultfd
kexec_load kexec_file_load init_module finit_module delete_module create_module query_module get_kernel_syms
swapon swapoff open_by_handle_at name_to_handle_at quotactl quotactl_fd acct reboot
sethostname setdomainname iopl ioperm syslog settimeofday clock_settime clock_adjtime adjtimex stime
lookup_dcookie nfsservctl vhangup uselib ustat sysfs _sysctl modify_ldt vm86 vm86old
move_pages migrate_pages fanotify_init fanotify_mark
open_tree_attr statmount listmount
""".split()
"""Answered with EPERM."""

_ABSENT = "clone3 io_uring_setup io_uring_enter io_uring_register".split()
"""Answered with ENOSYS, since programs then do without: the flags of clone3 cannot be seen by a filter."""

_NEW_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

_TYPED_IN = (0x5412, 0x541C)
"""ioctl TIOCSTI and TIOCLINUX: both put words into a terminal."""

_ODD_PERSONALITIES = (0x0040000, 0x0100000, 0x0200000, 0x0400000, 0x0800000)
"""ADDR_NO_RANDOMIZE, MMAP_PAGE_ZERO, ADDR_COMPAT_LAYOUT, READ_IMPLIES_EXEC, ADDR_LIMIT_32BIT."""

_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_FAMILIES = frozenset({_UNIX, _INET, _INET6, _NETLINK})
_LOW_WORD = 0xFFFFFFFF

_LOAD_NUMBER = (0x20, 0, 0, 0)
_OF_OTHERS = """
prlimit64 setpriority getpriority ioprio_set sched_setaffinity sched_setscheduler sched_setparam sched_setattr
""".split()
_OF_OTHERS_AT = {"setpriority": 1, "getpriority": 1, "ioprio_set": 1}
_OF_A_USER = {"setpriority": 2, "ioprio_set": 3}
"""PRIO_USER and IOPRIO_WHO_USER: for them 0 stands for all processes of the user, also outside."""

_SHARED = "shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semtimedop semctl mq_open mq_unlink".split()
"""System V and message queues: where there is no namespace for them they are those of the host."""

_BY_PATH = "setxattr lsetxattr removexattr lremovexattr setxattrat removexattrat".split()
"""Landlock does not govern attributes; by an open file they can be changed."""


def build(*, sockets: bool, others: bool = True) -> bytes:
    """The filter as classic BPF. Without `sockets` no socket can be made, but pairs can; without `others` a process
    changes no limits and priorities but its own, and has no shared memory and queues of System V, no message queues
    and no attributes by path. SandboxRefused when libseccomp cannot be used.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxRefused(NO_FILTER.format(why=error), code="sandbox_backend") from None
    closed = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in _known(pyseccomp, _REFUSED):
        closed.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    for name in _known(pyseccomp, _ABSENT):
        closed.add_rule(pyseccomp.ERRNO(errno.ENOSYS), name)
    _close_flags(pyseccomp, closed)
    _close_sockets(pyseccomp, closed, sockets)
    if not others:
        _close_others(pyseccomp, closed)
    with tempfile.TemporaryFile() as made:
        closed.export_bpf(made)
        made.seek(0)
        return _without_unknown(_highest(pyseccomp)) + made.read()


def _known(pyseccomp: Any, names: list[str]) -> Iterator[str]:
    """Those that this machine's architecture has and its libseccomp knows; an unknown one is above the highest."""
    return (name for name in names if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) >= 0)


def _close_flags(pyseccomp: Any, closed: Any) -> None:
    """Calls that are refused for some of their arguments. Of 64 bits the kernel reads the lower half of each."""
    refused = pyseccomp.ERRNO(errno.EPERM)
    at = 1 if os.uname().machine.startswith("s390") else 0
    for flag in _NEW_NAMESPACES:
        closed.add_rule(refused, "clone", pyseccomp.Arg(at, pyseccomp.MASKED_EQ, flag, flag))
    for request in _TYPED_IN:
        closed.add_rule(refused, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _LOW_WORD, request))
    for flag in _ODD_PERSONALITIES:
        closed.add_rule(refused, "personality", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))


def _close_sockets(pyseccomp: Any, closed: Any, sockets: bool) -> None:
    refused = pyseccomp.ERRNO(errno.EAFNOSUPPORT)
    if not sockets:
        closed.add_rule(refused, "socket")
        return
    for family in set(range(_NETLINK)) - _FAMILIES:
        closed.add_rule(refused, "socket", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _LOW_WORD, family))
    closed.add_rule(refused, "socket", pyseccomp.Arg(0, pyseccomp.GT, _NETLINK))
    netlink = pyseccomp.Arg(0, pyseccomp.EQ, _NETLINK)
    closed.add_rule(refused, "socket", netlink, pyseccomp.Arg(2, pyseccomp.NE, 0))


def _close_others(pyseccomp: Any, closed: Any) -> None:
    refused = pyseccomp.ERRNO(errno.EPERM)
    for name in _known(pyseccomp, _OF_OTHERS):
        closed.add_rule(refused, name, pyseccomp.Arg(_OF_OTHERS_AT.get(name, 0), pyseccomp.NE, 0))
    for name, which in _OF_A_USER.items():
        closed.add_rule(refused, name, pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _LOW_WORD, which))
    for name in _known(pyseccomp, _SHARED):
        closed.add_rule(pyseccomp.ERRNO(errno.ENOSYS), name)
    for name in _known(pyseccomp, _BY_PATH):
        closed.add_rule(pyseccomp.ERRNO(errno.EOPNOTSUPP), name)


def _highest(pyseccomp: Any) -> int:
    """The highest number of a call that libseccomp knows by name."""
    known = 0
    for number in range(1024):
        try:
            pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number)
        except (OSError, ValueError):
            continue
        known = number
    return known


def _without_unknown(highest: int) -> bytes:
    """Three instructions before the filter: load the number; when it is above the highest one, ENOSYS."""
    above = (0x25, 0, 1, highest)
    absent = (0x06, 0, 0, 0x00050000 | errno.ENOSYS)
    return b"".join(struct.pack("HBBI", *one) for one in (_LOAD_NUMBER, above, absent))
