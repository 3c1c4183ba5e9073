"""``hf://`` sources: the real client against a real server, and against its cache on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest
import torch
from golden_kit import GOLDEN
from safetensors.torch import save
from services.hub import HubServer, Repo

from adapters_store.errors import (
    ForbiddenError,
    InvalidArtefactError,
    NotFoundError,
    UnavailableError,
    UnsafeArtefactError,
    UsageError,
)
from adapters_store.formats.source import read_file, read_tensor_table
from adapters_store.formats.sources import open_source

OLD, NEW = "a" * 40, "b" * 40
CONFIG = b'{"peft_type": "LORA"}'
SMALL = save({"x": torch.arange(4.0)})
LARGE = save({"x": torch.arange(300_000.0), "y": torch.ones(3)})


@pytest.fixture
def hub(reached_hub: HubServer) -> HubServer:
    """A hub with one repository of two commits."""
    reached_hub.repos["acme/lora"] = Repo(
        refs={"main": NEW, "v1": OLD, "refs/pr/1": OLD},
        files={
            OLD: {"adapter_config.json": b"{}", ".gitattributes": b"x"},
            NEW: {
                "adapter_config.json": CONFIG,
                "adapter_model.safetensors": LARGE,
                "sub/adapter_config.json": CONFIG,
                "sub/adapter_model.safetensors": SMALL,
                "a/b/c/too-deep.json": b"{}",
                ".gitattributes": b"x",
            },
        },
    )
    return reached_hub


def cache_of(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models--acme--lora"


def test_a_revision_is_resolved_once_and_every_file_comes_from_its_commit(hub: HubServer) -> None:
    source = open_source("hf://acme/lora")
    assert source.revision == NEW
    assert set(source.sizes()) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "sub/adapter_config.json",
        "sub/adapter_model.safetensors",
    }
    hub.repos["acme/lora"].refs["main"] = OLD
    assert read_file(source, "adapter_config.json", 1000) == CONFIG
    assert [path for _, path, _ in hub.requests if path.startswith("api/models")] == [
        "api/models/acme/lora/revision/main"
    ]
    resolved = [path.split("/")[3] for _, path, _ in hub.requests if "/resolve/" in path]
    assert set(resolved) == {NEW}
    assert open_source("hf://acme/lora").revision == OLD


@pytest.mark.parametrize("revision", ["v1", OLD, "refs%2Fpr%2F1"])
def test_branches_tags_and_commits_are_understood(hub: HubServer, revision: str) -> None:
    source = open_source(f"hf://acme/lora@{revision}")
    assert source.revision == OLD
    assert dict(source.sizes()) == {"adapter_config.json": 2}


def test_a_subfolder_is_the_root_of_its_names(hub: HubServer) -> None:
    source = open_source("hf://acme/lora@main/sub")
    assert dict(source.sizes()) == {
        "adapter_config.json": len(CONFIG),
        "adapter_model.safetensors": len(SMALL),
    }
    table = read_tensor_table(source, "adapter_model.safetensors")
    assert [tensor.name for tensor in table] == ["x"]
    assert source.read_range("adapter_model.safetensors", table[0].begin, table[0].end) == (
        torch.arange(4.0).numpy().tobytes()
    )
    with pytest.raises(NotFoundError, match="no files there"):
        open_source("hf://acme/lora@main/nothing").sizes()


def test_a_large_header_is_read_alone_and_its_tensors_through_the_cache(
    hub: HubServer, tmp_path: Path
) -> None:
    source = open_source("hf://acme/lora")
    table = read_tensor_table(source, "adapter_model.safetensors")
    asked = [(method, span) for method, path, span in hub.requests if path.endswith("tensors")]
    assert [method for method, _ in asked] == ["GET", "GET"]
    assert asked[0][1] == "bytes=0-15"
    assert not (cache_of(tmp_path) / "snapshots").exists()
    last = table[-1]
    assert (
        source.read_range("adapter_model.safetensors", last.begin, last.end)
        == (LARGE[last.begin : last.end])
    )
    snapshot = cache_of(tmp_path) / "snapshots" / NEW / "adapter_model.safetensors"
    assert snapshot.is_symlink()
    before = len(hub.requests)
    assert source.read_range("adapter_model.safetensors", 0, 16) == LARGE[:16]
    assert len(hub.requests) == before


def test_a_server_without_ranges_gives_the_same_bytes(hub: HubServer) -> None:
    hub.knows_ranges = False
    source = open_source("hf://acme/lora")
    assert source.read_range("adapter_model.safetensors", 8, 40) == LARGE[8:40]


@pytest.mark.parametrize(
    "name", ["../up.json", "a/../../up.json", "/etc/passwd", "a\\b", "a//b", "x\ny", "a/./b"]
)
def test_names_that_lead_elsewhere_are_refused(hub: HubServer, name: str) -> None:
    hub.repos["acme/lora"].extra.append({"rfilename": name, "size": 3, "blobId": "0" * 40})
    with pytest.raises(UnsafeArtefactError, match="not a plain file name"):
        open_source("hf://acme/lora").sizes()


def test_bytes_other_than_the_hub_announced_are_refused(hub: HubServer, tmp_path: Path) -> None:
    lies = hub.repos["acme/lora"].lies
    lies["sub/adapter_config.json"] = {"blobId": "0" * 40}
    lies["sub/adapter_model.safetensors"] = {"size": 5}
    lies["adapter_model.safetensors"] = {"lfs": {"sha256": "0" * 64, "size": 9, "pointerSize": 1}}
    source = open_source("hf://acme/lora")
    for name, words in (
        ("sub/adapter_config.json", "the hub says 0000"),
        ("sub/adapter_model.safetensors", "expected 5"),
    ):
        with pytest.raises(InvalidArtefactError, match=words):
            source.read_range(name, 0, 4)
    with pytest.raises(InvalidArtefactError, match="the hub says 0000"):
        source.read_range("adapter_model.safetensors", 100, 104)


def test_a_file_without_a_size_is_refused(hub: HubServer) -> None:
    hub.repos["acme/lora"].lies["adapter_config.json"] = {"size": None}
    with pytest.raises(UnavailableError, match="no size for 'adapter_config"):
        open_source("hf://acme/lora").sizes()


def test_a_cache_whose_links_lead_out_is_refused(hub: HubServer, tmp_path: Path) -> None:
    source = open_source("hf://acme/lora")
    assert read_file(source, "adapter_config.json", 1000) == CONFIG
    secret = tmp_path / "secret.json"
    secret.write_bytes(CONFIG)
    link = cache_of(tmp_path) / "snapshots" / NEW / "adapter_config.json"
    link.unlink()
    link.symlink_to(secret)
    with pytest.raises(UnsafeArtefactError, match="leads out of the cache"):
        read_file(source, "adapter_config.json", 1000)
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(UnsafeArtefactError, match="leads out of the cache"):
        read_file(source, "adapter_config.json", 1000)


def test_offline_the_cache_answers_and_nothing_is_asked(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    online = open_source("hf://acme/lora")
    for name in online.sizes():
        online.read_range(name, 20, 21)
    # huggingface_hub itself writes a branch's name into the cache when it resolves it.
    reference = cache_of(tmp_path) / "refs" / "main"
    reference.parent.mkdir(exist_ok=True)
    reference.write_text(NEW)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    num_requests = len(hub.requests)
    for text in ("hf://acme/lora", f"hf://acme/lora@{NEW}"):
        source = open_source(text)
        assert source.revision == NEW
        assert source.sizes() == online.sizes()
        assert read_file(source, "sub/adapter_model.safetensors", 10_000) == SMALL
    for text in ("hf://acme/lora@v1", "hf://acme/other", f"hf://acme/lora@{OLD}"):
        with pytest.raises(NotFoundError, match="HF_HUB_OFFLINE"):
            open_source(text).sizes()
    assert len(hub.requests) == num_requests


def test_what_the_hub_refuses_becomes_a_typed_error(hub: HubServer) -> None:
    with pytest.raises(NotFoundError, match="acme/none does not exist"):
        open_source("hf://acme/none").sizes()
    with pytest.raises(NotFoundError, match="does not exist on the hub"):
        open_source("hf://acme/lora@nope").sizes()
    hub.repos["acme/lora"].is_gated = True
    with pytest.raises(ForbiddenError, match="gated"):
        open_source("hf://acme/lora").sizes()
    hub.status = 400
    with pytest.raises(UnavailableError, match="cannot read hf://acme/lora"):
        open_source("hf://acme/lora").sizes()
    hub.close()
    with pytest.raises(UnavailableError, match="cannot read hf://acme/lora"):
        open_source("hf://acme/lora").sizes()


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://acme", "hf:///x", "hf://acme/", "hf://../x", "hf://acme/..", "hf://a b/c",
     "hf://acme/x@", "hf://acme/x@../y", "hf://acme/x@-rf", "hf://acme/x@a%00b"],
)  # fmt: skip
def test_addresses_outside_the_grammar_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected hf://owner/repo"):
        open_source(text)


@pytest.mark.parametrize("text", ["hf://acme/x/../y", "hf://acme/x//y", "hf://acme/x/a\\b"])
def test_subfolders_that_lead_elsewhere_are_refused(text: str) -> None:
    with pytest.raises(UnsafeArtefactError):
        open_source(text)


def test_only_allowed_owners_and_repositories_are_read(hub: HubServer) -> None:
    for roots in (["hf://acme"], ["hf://acme/lora"], ["/srv", "hf://other", "hf://acme/"]):
        assert open_source("hf://acme/lora", roots).sizes()
    for roots in ([], ["hf://acm"], ["hf://acme/lor"], ["hf://other"], ["hf://"], ["/"]):
        num_requests = len(hub.requests)
        with pytest.raises(ForbiddenError, match="outside the places"):
            open_source("hf://acme/lora", roots)
        assert len(hub.requests) == num_requests


def test_the_command_imports_from_a_hub_and_records_the_commit(
    hub_server: HubServer, tmp_path: Path
) -> None:
    """In a process of its own, which finds hub and cache through the environment alone."""
    folder = GOLDEN / "peft" / "t5-lora"
    names = ("adapter_config.json", "adapter_model.safetensors")
    files = {f"best/{name}": (folder / name).read_bytes() for name in names}
    hub_server.repos["acme/lora"] = Repo({"main": NEW}, {NEW: files})
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | {
        "HF_ENDPOINT": hub_server.url,
        "HF_HOME": str(tmp_path / "home"),
        "PATCHBAY_STORE": str(tmp_path / "store"),
    }
    source, backbone = "hf://acme/lora/best", str(GOLDEN / "backbones" / "t5")
    command = [sys.executable, "-m", "patchbay", "adapters"]

    def run(*arguments: str, **changes: str) -> str:
        done = subprocess.run(
            [*command, *arguments],
            env=environment | changes,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = json.loads(run("import", source, "acme/x", "--backbone", backbone, "--json"))
    shown = json.loads(run("show", "acme/x", "--json"))
    assert shown["digest"] == made[0]["digest"]
    assert shown["manifest"]["provenance"]["imported"]["source"] == source
    assert shown["manifest"]["provenance"]["imported"]["revision"] == NEW
    num_requests = len(hub_server.requests)
    pinned = f"hf://acme/lora@{NEW}/best"
    offline = run("inspect", pinned, "--backbone", backbone, "--json", HF_HUB_OFFLINE="1")
    assert json.loads(offline)["verdict"] == "convert"
    assert len(hub_server.requests) == num_requests
