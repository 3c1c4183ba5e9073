"""What is particular to blobs in a folder: layout, durability, writers that were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapters_store.blobs import local
from adapters_store.blobs.local import LocalBlobs
from adapters_store.errors import ForbiddenError, UnavailableError

PUTTER = """
import sys
from adapters_store.blobs.local import LocalBlobs

blobs = LocalBlobs(sys.argv[1])
for number in range(1_000_000):
    blobs.put_many([b"%d-%d" % (number, part) * 2000 for part in range(8)])
    print(number, flush=True)
"""


def blob_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "sha256").rglob("*") if path.is_file()]


def test_blobs_are_sharded_read_only_and_alone(tmp_path):
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"hello").removeprefix("sha256:")
    assert blob_files(tmp_path) == [tmp_path / "sha256" / digest[:2] / digest]
    assert blob_files(tmp_path)[0].stat().st_mode & 0o222 == 0


def test_files_are_synced_before_they_are_named_and_their_folders_after(tmp_path, monkeypatch):
    blobs = LocalBlobs(tmp_path)
    steps: list[tuple[str, str]] = []
    rename, sync_file, sync_folder = os.replace, local._sync_file, local.sync_folder

    def replace(source, target):
        steps.append(("name", str(Path(target).parent)))
        rename(source, target)

    def sync_one(path):
        steps.append(("sync", str(path)))
        sync_file(path)

    def sync_names(path):
        steps.append(("folder", str(path)))
        sync_folder(path)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(local, "_sync_file", sync_one)
    monkeypatch.setattr(local, "sync_folder", sync_names)
    digests = blobs.put_many([b"%d" % number for number in range(40)])
    shards = {str(blobs.path(digest).parent) for digest in digests}
    verbs = [verb for verb, _ in steps]
    assert verbs == ["folder"] + ["sync"] * 40 + ["name"] * 40 + ["folder"] * len(shards)
    assert steps[0][1] == str(tmp_path / "sha256")
    assert {path for verb, path in steps[1:] if verb == "folder"} == shards

    steps.clear()
    blobs.put(b"7")
    assert steps == [("folder", str(blobs.path(digests[7]).parent))]


def test_a_failing_disk_leaves_no_temporary_file(tmp_path, monkeypatch):
    blobs = LocalBlobs(tmp_path)

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(local, "_sync_file", full)
    with pytest.raises(UnavailableError, match="No space left"):
        blobs.put_many([b"one", b"two"])
    assert blob_files(tmp_path) == []


def test_a_killed_writer_leaves_whole_blobs_and_temporary_files_that_are_collected(tmp_path):
    for _ in range(3):
        command = [sys.executable, "-c", PUTTER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            done = [int(writer.stdout.readline()) for _ in range(5)]
            time.sleep(0.01)
            writer.send_signal(signal.SIGKILL)
            done += [int(line) for line in writer.stdout.read().split()]
    blobs = LocalBlobs(tmp_path)
    entries = list(blobs.entries())
    assert len(entries) >= 8 * (max(done) + 1)
    for entry in entries:
        assert len(blobs.get(entry.digest)) == entry.size_bytes
    temporary = [path for path in blob_files(tmp_path) if path.name.startswith(".")]
    assert blobs.uploads(3600) == 0
    for path in temporary:
        os.utime(path, (0, 0))
    assert blobs.uploads(3600, remove=False) == len(temporary)
    assert blobs.uploads(3600) == len(temporary)
    assert len(blob_files(tmp_path)) == len(entries)


def test_unfinished_uploads_are_collected_by_age(tmp_path):
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"hello")
    left = blobs.path(digest).parent / ".put-left"
    left.write_bytes(b"half of a bl")
    assert [entry.digest for entry in blobs.entries()] == [digest]
    assert blobs.uploads(3600) == 0
    os.utime(left, (time.time() - 4000, time.time() - 4000))
    assert blobs.uploads(3600, remove=False) == 1
    assert left.exists()
    assert blobs.uploads(3600) == 1
    assert not left.exists()
    assert blobs.get(digest) == b"hello"


def test_strange_files_are_no_blobs(tmp_path):
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"hello")
    (blobs.path(digest).parent / "notes.txt").write_text("x")
    (tmp_path / "sha256" / "README").write_text("x")
    assert [entry.digest for entry in blobs.entries()] == [digest]


def test_a_folder_that_cannot_be_used_is_a_typed_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnavailableError, match="cannot be used"):
        LocalBlobs(tmp_path / "file" / "blobs")
    blobs = LocalBlobs(tmp_path / "blobs")

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(local.tempfile, "mkstemp", refuse)
    with pytest.raises(ForbiddenError, match="Permission denied") as caught:
        blobs.put(b"hello")
    assert "permission on the folder" in caught.value.hint
