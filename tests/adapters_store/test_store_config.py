"""``store.yaml``: its keys, its errors, and the stores that it opens."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from store_kit import bank, low_rank, routing

from adapters_store.blobs.cached import CachedBlobs
from adapters_store.blobs.local import LocalBlobs
from adapters_store.blobs.s3 import S3Blobs
from adapters_store.errors import ConflictError, CorruptStoreError, NotFoundError, UsageError
from adapters_store.limits import DEFAULT_LIMITS
from adapters_store.location import DEFAULT_CACHE_BYTES, StoreConfig, find_config
from adapters_store.store import Store
from adapters_store.store_config import KEYS, read_config, write_store_config

DOCUMENT = Path(__file__).parents[2] / "docs" / "registry" / "storage.md"


def written(folder: Path, **values: object) -> Path:
    file = folder / "store.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_an_empty_file_means_a_plain_folder(tmp_path):
    file = tmp_path / "store.yaml"
    file.write_text("")
    assert read_config(file) == StoreConfig(
        file, str(tmp_path / "catalog.sqlite"), str(tmp_path / "blobs")
    )


def test_every_key_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("BUCKET", "my-bucket")
    file = written(
        tmp_path,
        catalog="postgresql://user:${PGPASSWORD}@host/db",
        blobs="s3://${BUCKET}/store",
        s3={"endpoint_url": "http://127.0.0.1:9000", "region": "eu-west-1"},
        cache={"folder": "../cache", "max_bytes": 1000},
        limits={"max_parts": 7},
        restore_window_days=14,
    )
    config = read_config(file)
    assert config.catalog == "postgresql://user:${PGPASSWORD}@host/db"
    assert config.blobs == "s3://my-bucket/store"
    assert (config.s3_endpoint_url, config.s3_region) == ("http://127.0.0.1:9000", "eu-west-1")
    assert config.cache_folder is not None
    assert config.cache_folder.resolve() == tmp_path.parent / "cache"
    assert config.cache_bytes == 1000
    assert (config.limits.max_parts, config.limits.max_tensors) == (7, DEFAULT_LIMITS.max_tensors)
    assert config.restore_window_days == 14


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    file = written(tmp_path / "conf", catalog="../db/c.sqlite", blobs="data", cache={"folder": "c"})
    monkeypatch.chdir("/")
    config = find_config(file)
    assert Path(config.catalog).resolve() == tmp_path / "db" / "c.sqlite"
    assert config.blobs == str(tmp_path / "conf" / "data")
    assert config.cache_folder == tmp_path / "conf" / "c"
    assert config.cache_bytes == DEFAULT_CACHE_BYTES
    assert find_config(f"file://{file}") == find_config(file.parent) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"blob": "x"}, r"unknown key 'blob', did you mean 'blobs'\?"),
        ({"zzz": 1}, r"unknown key 'zzz', known: catalog, blobs, s3"),
        ({"cache": {"folder": "x", "max_byte": 1}}, r"cache: unknown key 'max_byte', did you mean"),
        (
            {"limits": {"max_part": 1}},
            r"limits: unknown key 'max_part', did you mean 'max_parts'\?",
        ),
        ({"blobs": "s3://b${NOT_SET}c/x"}, r"blobs: the environment variable NOT_SET is not set"),
        ({"blobs": 7}, r"blobs: expected text, found 7"),
        ({"blobs": ""}, r"blobs: expected text, found ''"),
        ({"blobs": "gs://x/y"}, r"blobs: a gs:// URL; expected a path or s3://"),
        ({"catalog": "mysql://x/y"}, r"catalog: a mysql:// URL; expected a path or postgresql://"),
        ({"s3": {"region": "x"}}, r"s3: settings for blobs in S3, but blobs are in .*/blobs"),
        ({"cache": {"max_bytes": 10}}, r"cache: expected the key folder"),
        ({"cache": {"folder": "c", "max_bytes": 0}}, r"cache.max_bytes: expected a whole number"),
        ({"cache": {"folder": "c", "max_bytes": "10G"}}, r"cache.max_bytes: expected .*'10G'"),
        ({"cache": "folder"}, r"cache: expected keys and values, found 'folder'"),
        ({"limits": {"max_parts": True}}, r"limits.max_parts: expected a whole number .*True"),
        ({"restore_window_days": "x"}, r"restore_window_days: expected a number, found 'x'"),
        ({"restore_window_days": -1}, r"restore_window_days: expected 0 to"),
    ],
)
def test_a_bad_value_is_named(tmp_path, monkeypatch, values, words):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(UsageError, match=words) as caught:
        read_config(written(tmp_path, **values))
    assert str(tmp_path / "store.yaml") in caught.value.message


def test_every_problem_is_reported_at_once(tmp_path):
    file = written(tmp_path, blob="x", limits={"max_parts": 0}, restore_window_days=-1)
    with pytest.raises(UsageError, match=r"'blob'.*; .*max_parts.*; .*restore_window_days"):
        read_config(file)


@pytest.mark.parametrize(
    "text", ["- a list", "just text", "{", "blobs: a\nblobs: b", "a: !!python/object:os.x {}"]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "store.yaml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "store.yaml"))):
        Store.open(tmp_path)


def test_a_yaml_file_that_is_absent_makes_no_store(tmp_path):
    for create in (True, False):
        with pytest.raises(NotFoundError, match="the file is not there"):
            Store.open(tmp_path / "absent.yaml", create=create)
    assert list(tmp_path.iterdir()) == []


def test_a_written_configuration_opens_and_is_never_overwritten(tmp_path, t5):
    folder = tmp_path / "new" / "store"
    file = write_store_config(folder, blobs="data", settings={"restore_window_days": 3})
    assert read_config(file).blobs == str(folder / "data")
    assert write_store_config(folder, blobs="data", settings={"restore_window_days": 3}) == file
    with pytest.raises(ConflictError, match="says something else"):
        write_store_config(folder, blobs="elsewhere")
    with Store.open(folder) as store:
        store.add_backbone(t5)
        store.publish("acme/task", low_rank(t5))
    assert len(list(LocalBlobs(folder / "data").entries())) == 2


def test_a_configuration_that_would_not_open_is_not_written(tmp_path):
    with pytest.raises(UsageError, match="unknown key 'blob'"):
        write_store_config(tmp_path, settings={"blob": "x"})
    with pytest.raises(UsageError, match="gs://"):
        write_store_config(tmp_path, blobs="gs://x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot write"):
        write_store_config(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("change", [{"catalog": "other.sqlite"}, {"blobs": "s3://bucket/x"}])
def test_a_configuration_never_hides_a_store_that_is_there(tmp_path, t5, change):
    with Store.open(tmp_path) as store:
        store.add_backbone(t5)
        store.publish("acme/task", low_rank(t5))
    with pytest.raises(ConflictError, match="holds a store already"):
        write_store_config(tmp_path, **change)
    assert write_store_config(tmp_path, settings={"restore_window_days": 3}).is_file()


def test_limits_of_the_file_hold_and_those_given_stand_over_them(tmp_path, t5):
    from adapters_store.errors import ArtefactTooLargeError
    from adapters_store.limits import Limits

    file = written(tmp_path, limits={"max_data_bytes": 10})
    with Store.open(file) as store:
        store.add_backbone(t5)
        with pytest.raises(ArtefactTooLargeError):
            store.publish("acme/task", low_rank(t5))
    with Store.open(file, limits=Limits()) as store:
        assert store.publish("acme/task", low_rank(t5)).number == 1


def test_the_restore_window_of_the_file_stands_over_the_catalogs(tmp_path, t5):
    with Store.open(tmp_path) as store:
        store.retention.set_restore_window(1000)
        store.add_backbone(t5)
        store.publish("acme/task", low_rank(t5))
        store.delete("acme/task")
        assert len(store.collect(dry_run=True, upload_age_s=0).purged) == 0
    written(tmp_path, restore_window_days=2)
    with Store.open(tmp_path) as store:
        assert store.retention.restore_window_s() == 2 * 86400
        with pytest.raises(ConflictError, match="sets a restore window of 172800 s") as caught:
            store.retention.set_restore_window(5)
        assert "restore_window_days" in caught.value.hint
    written(tmp_path, restore_window_days=0)
    with Store.open(tmp_path) as store:
        time.sleep(0.01)
        [purged] = store.collect(dry_run=True, upload_age_s=0).purged
        assert purged.reference.startswith("acme/task")


def test_a_store_over_s3_with_a_cache(tmp_path, s3_bucket, t5):
    written(
        tmp_path,
        blobs=s3_bucket.location,
        s3={"endpoint_url": s3_bucket.server.url},
        cache={"folder": "cache", "max_bytes": 10_000_000},
    )
    shared = bank(t5)
    with Store.open(tmp_path) as store:
        assert isinstance(store._blobs, CachedBlobs)
        assert isinstance(store._blobs.origin, S3Blobs)
        store.add_backbone(t5)
        store.publish_many([("acme/bank", shared), ("acme/task", routing(t5, shared))])
        assert store.verify() == []
        digest = store.resolve("acme/task").digest
        data_digest = store.manifest(digest).data.digest
        key = store._blobs.origin.key(data_digest)
        s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=key, Body=b"altered")
        # The copy in the cache is sound and is served; verification reads what is stored.
        assert store.data(digest)
        [finding] = store.verify()
        assert (finding.digest, finding.problem) == (data_digest, "truncated")
    s3_bucket.client.delete_object(Bucket=s3_bucket.name, Key=key)
    with Store.open(tmp_path) as store:
        assert [finding.problem for finding in store.verify()] == ["missing"]
    for path in (tmp_path / "cache" / "sha256").glob("??/*"):
        path.unlink()
    with Store.open(tmp_path) as store, pytest.raises(CorruptStoreError, match="is missing"):
        store.data(digest)


def test_a_plain_folder_opens_without_yaml_or_boto3(tmp_path):
    Store.open(tmp_path).close()
    program = (
        "import sys; from adapters_store.store import Store;"
        "Store.open(sys.argv[1], create=False).list();"
        "print([n for n in ('yaml', 'boto3', 'botocore', 'psycopg', 'torch') if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_documented_keys_are_the_accepted_keys():
    table = DOCUMENT.read_text(encoding="utf-8").split("## Keys of store.yaml", 1)[1]
    documented = re.findall(r"^\| `([a-z0-9_.]+)` \|", table, flags=re.MULTILINE)
    accepted = [
        name if not inner else f"{name}.{key}"
        for name, inner in KEYS.items()
        for key in inner or ("",)
    ]
    assert documented == accepted
