"""Folders and buckets as sources: what is listed, what is read, what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services.s3 import S3Server, use_credentials

from adapters_store.blobs.s3_client import make_client
from adapters_store.errors import (
    ArtefactTooLargeError,
    ForbiddenError,
    InvalidArtefactError,
    NotFoundError,
    UnavailableError,
    UnsafeArtefactError,
    UsageError,
)
from adapters_store.formats.source import MAX_FILES, read_file
from adapters_store.formats.sources import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "srv" / "adapters"
    (made / "sub").mkdir(parents=True)
    (made / "adapter_config.json").write_bytes(b"{}")
    (made / "sub" / "x.json").write_bytes(b"[1]")
    return made


def test_a_folder_is_named_by_its_path_or_its_url(folder: Path) -> None:
    for text in (str(folder), f"file://{folder}", f"file://localhost{folder}"):
        source = open_source(text)
        assert source.location == text
        assert source.revision == ""
        assert dict(source.sizes()) == {"adapter_config.json": 2, "sub/x.json": 3}
        assert source.read_range("sub/x.json", 1, 2) == b"1"
    with pytest.raises(NotFoundError, match="it is not a folder"):
        open_source(str(folder / "none"))
    with pytest.raises(NotFoundError, match="has no file"):
        open_source(str(folder)).read_range("../adapters/adapter_config.json", 0, 1)


@pytest.mark.parametrize(
    "text", ["file://host/srv", "file://", "file:srv://x", "ftp://a/b", "https://x/y", "a\0b",
             "file:///a%00b", "://x"],
)  # fmt: skip
def test_text_that_is_no_source_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        open_source(text)


def test_with_roots_a_folder_must_lie_below_one_after_its_links(
    folder: Path, tmp_path: Path
) -> None:
    roots = [str(folder.parent), "s3://other"]
    (folder.parent / "out").symlink_to(tmp_path)
    assert open_source(f"file://{folder}", roots).sizes()
    assert open_source(f"file://{folder}", [f"file://{folder}"]).sizes()
    for text in (f"file://{tmp_path}", f"file://{folder}/../..", f"file://{folder.parent}/out",
                 f"file://{folder.parent}-not"):  # fmt: skip
        with pytest.raises(ForbiddenError, match="outside the places"):
            open_source(text, roots)
    for none in ([], ["s3://bucket"], ["hf://owner"]):
        with pytest.raises(ForbiddenError):
            open_source(f"file://{folder}", none)
    with pytest.raises(UsageError, match="not a URL"):
        open_source(str(folder), roots)


@pytest.mark.parametrize("place", ["", "sub/"])
def test_links_and_special_files_are_refused_wherever_they_stand(folder: Path, place: str) -> None:
    path = folder / f"{place}odd.json"
    path.symlink_to(folder / "adapter_config.json")
    with pytest.raises(UnsafeArtefactError, match="is a link"):
        open_source(str(folder)).sizes()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UnsafeArtefactError, match="not a plain file"):
        open_source(str(folder)).sizes()


def test_a_file_that_becomes_a_link_or_shrinks_is_refused(folder: Path) -> None:
    source = open_source(str(folder))
    assert source.sizes()
    (folder / "sub" / "x.json").write_bytes(b"")
    with pytest.raises(InvalidArtefactError, match="changed while it was read"):
        source.read_range("sub/x.json", 0, 3)
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_config.json").symlink_to("/etc/hostname")
    with pytest.raises(InvalidArtefactError, match="cannot read"):
        source.read_range("adapter_config.json", 0, 2)


def test_a_folder_that_becomes_a_link_or_a_file_that_becomes_a_pipe_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    source = open_source(str(folder))
    assert source.sizes()
    elsewhere = tmp_path / "elsewhere"
    (folder / "sub").rename(elsewhere)
    (folder / "sub").symlink_to(elsewhere)
    with pytest.raises(InvalidArtefactError, match="cannot read"):
        source.read_range("sub/x.json", 0, 3)
    (folder / "adapter_config.json").unlink()
    os.mkfifo(folder / "adapter_config.json")
    with pytest.raises(UnsafeArtefactError, match="not a plain file"):
        source.read_range("adapter_config.json", 0, 2)


def test_the_size_of_a_file_is_checked_before_it_is_read(folder: Path) -> None:
    with pytest.raises(ArtefactTooLargeError, match="has 2 bytes; the limit is 1"):
        read_file(open_source(str(folder)), "adapter_config.json", 1)


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a server with the bucket ``adapters``."""
    use_credentials(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
    client = make_client(s3_server.url, None)
    client.create_bucket(Bucket="adapters")
    yield client
    for item in client.list_objects_v2(Bucket="adapters").get("Contents", ()):
        client.delete_object(Bucket="adapters", Key=item["Key"])


def put(s3: Any, **objects: bytes) -> None:
    for key, body in objects.items():
        s3.put_object(Bucket="adapters", Key=key, Body=body)


def test_a_prefix_of_a_bucket_is_a_source(s3: Any) -> None:
    put(s3, **{"team/one/adapter_config.json": b"{}", "team/one/sub/x.bin": b"0123456789",
               "team/one/": b"", "team/one/.hidden": b"h", "team/one/a/b/c/deep": b"d",
               "team/one-not/y": b"y"})  # fmt: skip
    for text in ("s3://adapters/team/one", "s3://adapters/team/one/"):
        source = open_source(text)
        assert source.location == text
        assert dict(source.sizes()) == {"adapter_config.json": 2, "sub/x.bin": 10}
        assert source.read_range("sub/x.bin", 3, 6) == b"345"
        assert source.read_range("sub/x.bin", 4, 4) == b""
    assert set(open_source("s3://adapters").sizes()) == {
        "team/one/adapter_config.json", "team/one-not/y"
    }  # fmt: skip


def test_an_object_that_changes_after_it_was_listed_is_refused(s3: Any) -> None:
    put(s3, **{"one/x": b"0123"})
    source = open_source("s3://adapters/one")
    assert source.sizes() == {"x": 4}
    put(s3, **{"one/x": b"abcd"})
    with pytest.raises(InvalidArtefactError, match="changed while it was read"):
        source.read_range("x", 0, 4)


def test_keys_that_lead_elsewhere_are_refused(s3: Any) -> None:
    for key in ("../up", "a//b", "a\\b", "a/./b"):
        put(s3, **{f"odd/{key}": b"x"})
        with pytest.raises(UnsafeArtefactError, match="not a plain file name"):
            open_source("s3://adapters/odd").sizes()
        s3.delete_object(Bucket="adapters", Key=f"odd/{key}")


def test_what_is_not_there_or_not_allowed_is_typed(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match="holds no objects"):
        open_source("s3://adapters/none").sizes()
    with pytest.raises(NotFoundError, match="does not exist"):
        open_source("s3://no-such-bucket/x").sizes()
    with pytest.raises(UnsafeArtefactError, match="not a plain file name"):
        open_source("s3://adapters/team/../secret")
    with pytest.raises(UsageError, match="expected s3://bucket/prefix"):
        open_source("s3://Not_A_Bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="cannot read s3://adapters/x"):
        open_source("s3://adapters/x").sizes()


def test_with_roots_a_prefix_must_lie_below_one(s3: Any) -> None:
    put(s3, **{"team/one/x": b"1"})
    for roots in (["s3://adapters"], ["s3://adapters/team/"], ["s3://adapters/team/one"]):
        assert open_source("s3://adapters/team/one", roots).sizes()
    for roots in ([], ["s3://adapter"], ["s3://adapters/tea"], ["s3://adapters/team/one/x"], ["/"]):
        with pytest.raises(ForbiddenError, match="outside the places"):
            open_source("s3://adapters/team/one", roots)


def test_a_prefix_with_too_many_objects_is_refused(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, **{f"deep/a/b/c/d/{i}": b"" for i in range(4)})
    with monkeypatch.context() as lower:
        lower.setattr("adapters_store.formats.sources.s3.MAX_LISTED", 3)
        with pytest.raises(ArtefactTooLargeError, match="lists more than 3 objects"):
            open_source("s3://adapters/deep").sizes()
    put(s3, **{f"many/{i}": b"" for i in range(MAX_FILES + 1)})
    with pytest.raises(ArtefactTooLargeError, match=f"more than {MAX_FILES} files"):
        open_source("s3://adapters/many").sizes()
