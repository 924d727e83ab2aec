"""What a disk says when it fails, as the store's callers know it. Knows no database."""

from __future__ import annotations

import errno

from retinue.runs.errors import StoreError, StoreFull

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: BaseException) -> bool:
    """Whether a file could not be written for want of room."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def full(remedy: str = "free space and resume") -> StoreFull:
    """There is no room for what was to be written."""
    return StoreFull(f"the disk of the store is full: nothing was written; {remedy}")


def failed(error: BaseException) -> StoreError:
    """The disk does not do what it was asked."""
    return StoreError(f"the disk of the store failed: {error}; nothing was acknowledged; repair it and resume")
