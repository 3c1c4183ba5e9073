"""What the operating system, the user or the store's state refuses: told, never a traceback."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest
from store_kit import low_rank

from adapters_store.artefact import write_artefact
from adapters_store.errors import (
    ForbiddenError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from adapters_store.refused import as_typed
from adapters_store.store import Store


@pytest.fixture
def store(t5, tmp_path) -> Store:
    """acme/echo in the store that the commands use."""
    with Store.open(tmp_path / "store") as opened:
        opened.add_backbone(t5)
        opened.publish("acme/echo", low_rank(t5, seed=1))
        yield opened


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, ForbiddenError),
        (errno.EROFS, ForbiddenError),
        (errno.ENOENT, NotFoundError),
        (errno.ENOTDIR, UsageError),
        (errno.EEXIST, UsageError),
        (errno.ENOSPC, UnavailableError),
        (errno.EIO, UnavailableError),
    ],
)
def test_what_the_system_refuses_is_typed_by_its_cause(number, kind):
    found = as_typed(OSError(number, os.strerror(number), "/a"), "cannot write /a")
    assert type(found) is kind
    assert found.message == f"cannot write /a: {os.strerror(number)}"


def test_a_path_through_a_file_is_told_without_a_traceback(cli, store, tmp_path):
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/below"):
        code, out, err = cli("pull", "acme/echo", tmp_path / place)
        assert (code, out) == (2, "")
        assert str(tmp_path / place) in err
        assert "hint: Check the path" in err


def test_a_full_stdout_is_told_without_a_traceback(store, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "patchbay", "adapters", "ls", "--store", tmp_path / "store"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 8
    assert done.stderr.startswith("error: cannot go on: No space left on device\nhint: ")
    assert "Traceback" not in done.stderr


def test_an_absent_artefact_folder_is_named_whole(cli, tmp_path):
    code, _, err = cli("push", tmp_path / "nowhere", "acme/x")
    assert code == 3
    assert f"no artefact at {tmp_path / 'nowhere'}: manifest.json is missing" in err
    write_folder = tmp_path / "nowhere" / "manifest.json"
    assert f"no artefact at {write_folder.parent}" in cli("push", write_folder, "acme/x")[2]


def test_a_store_that_does_not_open_is_not_configured_for_good(cli, tmp_path):
    place = tmp_path / "new"
    (tmp_path / "file").write_text("x")
    code, _, err = cli("init", "--store", place, "--catalog", tmp_path / "file" / "c.sqlite")
    assert code == 2
    assert "cannot make a store" in err
    assert not (place / "store.yaml").exists()
    absent = "postgresql://nobody@127.0.0.1:1/none"
    assert cli("init", "--store", place, "--catalog", absent)[0] == 8
    elsewhere = ("--catalog", tmp_path / "c.sqlite", "--blobs", tmp_path / "b")
    assert cli("init", "--store", place, *elsewhere)[0] == 0
    assert cli("init", "--store", place, "--catalog", tmp_path / "d.sqlite")[0] == 4


def test_a_damaged_catalog_is_told_with_the_way_back(cli, store, tmp_path):
    store.close()
    for end in ("-wal", "-shm"):
        (tmp_path / "store" / f"catalog.sqlite{end}").unlink(missing_ok=True)
    (tmp_path / "store" / "catalog.sqlite").write_bytes(b"no database at all" * 100)
    code, _, err = cli("ls")
    assert code == 5
    assert "catalog.sqlite is damaged: file is not a database" in err
    assert "hint: Put a backup" in err


def test_a_deletion_tells_its_reason_to_who_asks_for_the_version(cli, store):
    assert cli("rm", "acme/echo:1", "--yes", "--reason", "bad labels")[0] == 0
    code, _, err = cli("show", "acme/echo")
    assert code == 3
    assert "by local for the reason 'bad labels' (alias 'prod' still points there)" in err


def test_a_question_that_nobody_can_answer_names_the_flag(cli, store, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = cli("rm", "acme/echo:1")
    assert code == 2
    assert "cannot ask whether to delete acme/echo:1: stdin is no terminal" in err
    assert "hint: Give --yes" in err


def test_a_pin_without_an_owner_is_refused(cli, store):
    code, _, err = cli("pin", "acme/echo", "--owner", " ")
    assert code == 2
    assert "owner is empty" in err
    assert store.pins.list() == []


def test_show_keeps_provenance_apart_from_what_the_store_says(cli, t5, tmp_path):
    write_artefact(low_rank(t5, provenance={"versions": "made up"}), tmp_path / "art")
    assert cli("push", tmp_path / "art", "acme/x", "--backbone", t5.folder)[0] == 0
    lines = [line.split(maxsplit=1) for line in cli("show", "acme/x")[1].splitlines()]
    assert ["versions", "1"] in lines
    assert ["provenance.versions", "made up"] in lines


def test_a_move_that_changes_nothing_says_that_its_reason_is_not_kept(cli, store):
    code, out, err = cli("alias", "acme/echo", "prod", "1", "--reason", "scored well")
    assert (code, out) == (0, "acme/echo@prod\n")
    assert "was version 1 already; nothing was recorded" in err
    assert len(store.alias_history("acme/echo")) == 1
    assert "is now version 1" in cli("alias", "acme/echo", "best", "1")[2]


def test_a_lost_comparison_names_the_alias_in_full(cli, store):
    code, _, err = cli("alias", "acme/echo", "prod", "1", "--expected", "7")
    assert code == 4
    assert "acme/echo@prod points at version 1; expected version 7" in err
