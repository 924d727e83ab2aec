"""What a disk says when it fails, as the store's callers know it. Knows no database."""

from __future__ import annotations

import errno

from retinue.runs.errors import StoreBroken, StoreError, StoreFull

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EROFS", "ENXIO", "ENODEV", "EUCLEAN", "ESTALE", "EREMOTEIO", "ENOTCONN"),
        *("EACCES", "EPERM", "EBUSY", "ETXTBSY", "EAGAIN", "EINTR", "ETIMEDOUT", "EDEADLK", "ENOLCK"),
        *("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED"),
    )
    if hasattr(errno, name)
)
"""What is over when a disk, or who has it, was seen to: its faults, its permissions, its network, too much at once."""


def is_full(error: BaseException) -> bool:
    """Whether a file could not be written for want of room."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def full(remedy: str = "free space and resume") -> StoreFull:
    """There is no room for what was to be written."""
    return StoreFull(f"the disk of the store is full: nothing was written; {remedy}")


def failed(error: BaseException) -> StoreError:
    """The disk does not do what it was asked; StoreBroken when that is no fault of a disk."""
    if isinstance(error, OSError) and error.errno not in _PASSING:
        return StoreBroken(
            f"the store is broken: {type(error).__name__}: {error}; that is no fault of its disk, and trying again "
            "does not help: put back what is missing, such as by installing Retinue anew, and resume"
        )
    return StoreError(f"the disk of the store failed: {error}; nothing was acknowledged; repair it and resume")
