"""Publishes until it is killed: a program that forks one child per line of its standard input.

A line is JSON: the store's ``catalog`` and ``blobs``, the ``seed`` of the child's contents, how
many ``batches`` to publish (0 for no end) and ``trip``, the step at which the child kills itself
(0 for never). The program answers the child's pid, one line per acknowledged version, and
``gone``. Steps are the calls through which publication touches the disk and the database.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from services.places import StorePlace
from sqlalchemy import event
from sqlalchemy.engine import Engine

from adapters_store.artefact import Artefact, read_artefact
from adapters_store.canonical import digest_of
from adapters_store.fingerprint import content_digest
from adapters_store.manifest import make_manifest
from adapters_store.tensor_file import read_header

DISK_CALLS = ((os, "fsync"), (os, "link"), (os, "replace"), (os, "unlink"), (tempfile, "mkstemp"))


class Tripwire:
    """Counts the steps of this process and kills it at one of them: before it or after it."""

    def __init__(self, trip: int) -> None:
        self.num_steps = 0
        self._trip = trip
        for module, name in DISK_CALLS:
            setattr(module, name, self._wrapped(getattr(module, name)))
        for moment in ("before_cursor_execute", "after_cursor_execute", "commit", "rollback"):
            event.listen(Engine, moment, self._on_event)

    def step(self) -> None:
        """One more step; the last one that this process ever takes if it is the chosen one."""
        self.num_steps += 1
        if self.num_steps == self._trip:
            os.kill(os.getpid(), signal.SIGKILL)

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.step()
            result = function(*args, **options)
            self.step()
            return result

        return call

    def _on_event(self, *_: Any) -> None:
        self.step()


def varied(artefact: Artefact, seed: int, number: int, **changes: Any) -> Artefact:
    """The artefact with other numbers in its last tensor, and so with other digests."""
    data = artefact.data[:-8] + struct.pack("<ff", 1.0 + seed, 1.0 + number)
    document = artefact.manifest.model_dump(mode="json") | changes
    document["data"]["digest"] = digest_of(data)
    document["content_digest"] = content_digest(data, read_header(data))
    return Artefact(make_manifest(document), data)


def batches(folders: dict[str, str], seed: int) -> Iterator[list[tuple[str, Artefact]]]:
    """Batches without end: an adapter under a shared name, a bank and two routings over it."""
    base = {kind: read_artefact(folder) for kind, folder in folders.items()}
    for number in itertools.count():
        bank = varied(base["bank"], seed, number)
        tasks = [
            varied(base["routing"], seed, 2 * number + half, bank=bank.digest) for half in (0, 1)
        ]
        yield [
            ("crash/shared", varied(base["adapter"], seed, number)),
            ("crash/bank", bank),
            *((f"crash/task-{seed % 3}", task) for task in tasks),
        ]


def publish(order: dict[str, Any], folders: dict[str, str]) -> None:
    """Publish as ordered; every acknowledged version is one line, written at once."""
    wire = Tripwire(order["trip"])
    with StorePlace(order["catalog"], order["blobs"]).open() as store:
        num_opening = wire.num_steps
        for index, items in enumerate(batches(folders, order["seed"]), start=1):
            done = store.publish_many(items, aliases=("prod",), actor="crash")
            wire.step()
            lines = [json.dumps([v.full_name, v.number, v.digest]) + "\n" for v in done]
            os.write(1, "".join(lines).encode())
            if index == order["batches"]:
                break
    os.write(1, (json.dumps({"opening": num_opening, "steps": wire.num_steps}) + "\n").encode())


def main() -> None:
    """Serve orders until standard input ends."""
    folders = json.loads(sys.argv[1])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                publish(json.loads(line), folders)
            finally:
                os._exit(0)
        os.write(1, f"{child}\n".encode())
        os.waitpid(child, 0)
        os.write(1, b"gone\n")


if __name__ == "__main__":
    main()
