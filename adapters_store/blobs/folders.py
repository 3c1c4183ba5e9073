"""Durable folders and locks between processes: what a blob folder and a cache folder share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapters_store.errors import ForbiddenError, UnavailableError


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents so that they survive a crash."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, is_shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file, made if it is absent, against other threads and processes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_name(path: Path) -> Iterator[None]:
    """Hold a lock that exists only while somebody holds or awaits it: a file made for the time."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_named(descriptor, path):
            break
        # The holder before us removed the file that we waited for.
        os.close(descriptor)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def typed_errors(folder: Path) -> Iterator[None]:
    """Raise ForbiddenError or UnavailableError for what the operating system refuses."""
    try:
        yield
    except PermissionError as error:
        raise ForbiddenError(
            f"the folder {folder} may not be used: {error.strerror}: {error.filename}",
            hint="Give this user read and write permission on the folder.",
        ) from error
    except OSError as error:
        raise UnavailableError(
            f"the folder {folder} cannot be used: {error.strerror}: {error.filename}",
            hint="Check that the disk is mounted and has space left.",
        ) from error
