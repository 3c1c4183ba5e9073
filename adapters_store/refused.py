"""What the operating system refused, as typed errors that say what, where and why."""

from __future__ import annotations

import errno

from adapters_store.errors import (
    ForbiddenError,
    NotFoundError,
    PatchbayError,
    UnavailableError,
    UsageError,
)

_MISPLACED = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP})


def as_typed(error: OSError, what: str) -> PatchbayError:
    """The typed form of ``error``; ``what`` begins the message and names the place.

    No permission is ForbiddenError, nothing there NotFoundError, a path through or onto the wrong
    kind of file UsageError; a full disk and the rest are UnavailableError.
    """
    message = f"{what}: {error.strerror or error}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ForbiddenError(message, hint="Give this user the permission, or use another place.")
    if error.errno == errno.ENOENT:
        return NotFoundError(message, hint="Check the path.")
    if error.errno in _MISPLACED:
        return UsageError(message, hint="Check the path: something of another kind is there.")
    return UnavailableError(message, hint="Check that the disk is mounted and has space left.")
