"""Folders that are no plain folders of plain files, whatever adapter lies in them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters_store.formats.source import MAX_FILES


@dataclass(frozen=True)
class Place:
    """One change of a folder in the file system, the code of the refusal, and its words.

    ``file`` is the name of the weights or of the document, or of one more file.
    """

    name: str
    change: Callable[[Path, str], None]
    code: str
    words: str
    files: tuple[str, ...] = ("weights", "document", "another")


def _linked_to(target: str) -> Callable[[Path, str], None]:
    def apply(folder: Path, file: str) -> None:
        path = folder / file
        if path.exists() and target == "itself elsewhere":
            moved = folder.parent / f"{folder.name}-{file}"
            path.rename(moved)
            path.symlink_to(moved)
            return
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return apply


def _fifo(folder: Path, file: str) -> None:
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)


def _socket(folder: Path, file: str) -> None:
    (folder / file).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    try:
        os.chdir(folder)  # a socket's path is short
        listener.bind(file)
    finally:
        os.chdir(here)
        listener.close()


def _device(folder: Path, file: str) -> None:
    (folder / file).unlink(missing_ok=True)
    try:
        os.mknod(folder / file, 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this machine lets nobody make device files")


def _sparse(num_bytes: int) -> Callable[[Path, str], None]:
    def apply(folder: Path, file: str) -> None:
        with (folder / file).open("r+b") as opened:
            opened.truncate(num_bytes)

    return apply


def _many(folder: Path, _: str) -> None:
    for i in range(MAX_FILES + 1):
        (folder / f"{i}.txt").touch()


def _linked_folder(folder: Path, _: str) -> None:
    (folder / "sub").symlink_to("/etc")


LINK, FILE = "is a link", "is not a plain file"
GIB = 1 << 30
PLACES = [
    Place("a link to the file", _linked_to("itself elsewhere"), "unsafe", LINK),
    Place("a link to a system file", _linked_to("/etc/passwd"), "unsafe", LINK),
    Place("a link to memory", _linked_to("/proc/self/mem"), "unsafe", LINK),
    Place("a link to zeros", _linked_to("/dev/zero"), "unsafe", LINK),
    Place("a link to nothing", _linked_to("nowhere"), "unsafe", LINK),
    Place("a link up", _linked_to("../../../../etc/hostname"), "unsafe", LINK),
    Place("a link to a folder", _linked_folder, "unsafe", LINK, ("another",)),
    Place("a pipe", _fifo, "unsafe", FILE),
    Place("a socket", _socket, "unsafe", FILE),
    Place("a device", _device, "unsafe", FILE),
    Place(
        "weights of three gibibytes", _sparse(3 * GIB), "too_large", "the limit is", ("weights",)
    ),
    Place("a document of 1 GiB", _sparse(GIB), "too_large", "the limit is", ("document",)),
    Place("a thousand files", _many, "too_large", f"more than {MAX_FILES} files", ("another",)),
]
