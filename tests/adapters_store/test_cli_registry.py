"""The verbs that keep order: tags, evaluations, lineage, pins, deletion, collection, audit."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from cli_kit import Cli
from safetensors.torch import load
from sqlalchemy import text
from store_kit import bank, contents, low_rank, routing

from adapters_store.artefact import read_artefact
from adapters_store.backbone import Backbone
from adapters_store.formats import EXPORTERS
from adapters_store.store import Store
from adapters_store.webhooks.signing import verify_signature


@pytest.fixture
def acme(store: Store, t5: Backbone) -> Store:
    """acme/x with two versions, acme/skills with a routing over it."""
    for seed in (1, 2):
        store.publish("acme/x", low_rank(t5, seed=seed))
    shared = bank(t5)
    store.publish("acme/skills", shared)
    store.publish("acme/task", routing(t5, shared))
    return store


def test_tags_are_set_removed_listed_and_found(cli: Cli, acme: Store) -> None:
    assert cli.json("tag", "acme/x", "team=search", "tier=gold") == {
        "team": "search", "tier": "gold"
    }  # fmt: skip
    assert cli("tag", "acme/x", "--remove", "tier")[1] == "team  search\n"
    assert cli.json("tag", "acme/x:1", "stage=old") == {"stage": "old"}
    assert cli.json("tag", "acme/x") == {"team": "search"}
    assert [row["name"] for row in cli.json("ls", "--tag", "team=search")] == ["x"]
    assert cli.json("ls", "--tag", "team=ads") == []
    assert cli("tag", "acme/x", "team")[0] == 2
    assert cli("tag", "acme/x", "--remove", "none")[0] == 3


def test_evaluations_are_recorded_and_speak_for_an_alias(cli: Cli, acme: Store) -> None:
    record = cli.json("evaluate", "acme/x:2", "exact_match", "0.5", "--num-examples", "40",
                      "--seed", "1", "--notes", "first")  # fmt: skip
    assert record["value"] == 0.5
    assert cli.json("evaluations", "acme/x:2") == [record]
    number = cli("evaluate", "acme/x:2", "loss", "1e-3", "--split", "train")[1].strip()
    table = cli("evaluations", "acme/x:2")[1].splitlines()
    assert table[2].split()[:4] == [number, "loss", "0.001", "train"]
    assert (
        cli("alias", "acme/x", "best", 2, "--evidence", number, "--evidence", record["id"])[0] == 0
    )
    assert cli.json("history", "acme/x", "--alias", "best")[0]["evidence"] == [
        int(number), record["id"]
    ]  # fmt: skip
    assert cli("evaluate", "acme/x", "loss", "nan")[0] == 2
    assert cli("evaluate", "acme/none", "loss", "1")[0] == 3


def test_lineage_shows_bank_and_routings(cli: Cli, acme: Store) -> None:
    found = cli.json("lineage", "acme/task")
    assert set(found) == {
        "reference", "digest", "bank", "lineage", "ancestors", "children", "is_cut"
    }  # fmt: skip
    assert found["ancestors"][0]["relation"] == "bank"
    out = cli("lineage", "acme/skills")[1]
    assert "routing" in out
    assert "acme/task:1" in out


def test_pins_are_added_listed_and_removed(cli: Cli, acme: Store) -> None:
    pin = cli.json("pin", "acme/x:1", "--owner", "release 7", "--reason", "audit")
    assert set(pin) == {"digest", "owner", "reason", "actor", "at"}
    assert cli.json("pins") == cli.json("pins", "--owner", "release 7") == [pin]
    assert cli.json("pins", "--owner", "other") == []
    assert "release 7" in cli("pins")[1]
    assert cli("unpin", pin["digest"], "--owner", "release 7")[0] == 0
    assert cli("unpin", "acme/x:1", "--owner", "release 7")[0] == 3
    assert cli("pin", "acme/x:1")[0] == 2


def test_rm_can_be_rehearsed_and_fails_as_it_would(
    cli: Cli, acme: Store, store_folder: Path
) -> None:
    state = contents(store_folder), acme.generation(), acme.audit.head()
    code, out, err = cli("rm", "acme/x", "--dry-run")
    assert (code, err) == (0, "Nothing was deleted.\n")
    assert [line.partition("@")[0] for line in out.splitlines()] == ["acme/x:2", "acme/x:1"]
    assert cli("rm", "acme/x:1", "--dry-run")[1].startswith("acme/x:1@")
    assert cli("rm", "acme/skills", "--dry-run")[0] == 4
    assert (contents(store_folder), acme.generation(), acme.audit.head()) == state
    assert cli("rm", "acme/x:1", "--yes")[0] == 0
    assert cli("rm", "acme/x:1", "--dry-run")[0] == 3


def test_gc_is_rehearsed_then_done_and_needs_a_yes(
    cli: Cli, acme: Store, store_folder: Path
) -> None:
    acme.delete("acme/x:1", reason="old")
    assert cli.json("gc", "--dry-run")["purged"] == []
    before = contents(store_folder)
    rehearsed = cli.json("gc", "--dry-run", "--restore-window-days", "0")
    assert set(rehearsed) == {
        "is_dry_run", "at", "deleted_before", "purged", "kept", "blobs", "num_uploads",
        "bytes_freed",
    }  # fmt: skip
    assert [one["reference"].partition("@")[0] for one in rehearsed["purged"]] == ["acme/x:1"]
    assert contents(store_folder) == before
    assert cli("gc", "--restore-window-days", "0")[0] == 2
    code, out, err = cli("gc", "--restore-window-days", "0", "--yes")
    assert code == 0
    assert out.startswith("purged  acme/x:1@")
    assert err.startswith("Removed 1 versions")
    assert cli("restore", "acme/x:1")[0] != 0
    assert cli("verify", "--all")[0] == 0


def test_the_audit_log_is_listed_and_proved(cli: Cli, acme: Store) -> None:
    events = cli.json("audit", "ls", "--tenant", "acme", "--type", "adapter_version.*")
    assert {event["type"] for event in events} == {"adapter_version.created"}
    assert len(cli("audit", "ls", "--limit", "2")[1].splitlines()) == 3
    assert "--after 2" in cli("audit", "ls", "--limit", "2")[2]
    assert cli("audit", "ls", "--type", "nope")[0] == 2
    code, head, err = cli("audit", "verify")
    assert code == 0
    assert "events hold" in err
    acme.set_alias("acme/x", "late", 1)
    assert cli("audit", "verify", "--expect", head.strip())[0] == 0
    number = head.partition(":")[0]
    report = cli.json("audit", "verify", "--expect", f"{number}:{'0' * 64}", code=5)
    assert report["is_sound"] is False
    assert cli("audit", "verify", "--expect", "7")[0] == 2
    assert cli.json("audit", "verify")["is_sound"] is True


def test_an_altered_log_exits_with_5(cli: Cli, acme: Store) -> None:
    with acme._database.write() as connection:
        names = connection.execute(
            text("select name from sqlite_master where type = 'trigger'")
        ).scalars()
        for name in list(names):
            connection.execute(text(f"drop trigger {name}"))
        connection.execute(text("update events set actor = 'mallory' where sequence = 3"))
    code, _, err = cli("audit", "verify")
    assert code == 5
    assert "event 3 was altered" in err


class Receiver(BaseHTTPRequestHandler):
    seen: list[tuple[dict[str, str], bytes]]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append(({key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    handler = type("Own", (Receiver,), {"seen": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", handler
    server.shutdown()
    server.server_close()


def test_webhooks_are_added_delivered_given_up_and_removed(
    cli: Cli, acme: Store, receiver: tuple[str, type[Receiver]]
) -> None:
    url, handler = receiver
    assert cli("webhooks", "add", url)[0] == 7
    made = cli.json("webhooks", "add", url, "--allow-private", "--event", "alias.*")
    (listed,) = cli.json("webhooks", "ls")
    assert "secret" not in listed
    assert listed["events"] == ["alias.*"]
    assert made["secret"] not in cli("webhooks", "ls")[1]
    acme.set_alias("acme/x", "canary", 1)
    assert cli.json("webhooks", "deliver") == {
        "num_delivered": 1, "num_failed": 0, "num_dead": 0
    }  # fmt: skip
    ((headers, body),) = handler.seen
    assert json.loads(body)["type"] == "alias.set"
    stamp = next(value for key, value in headers.items() if key.endswith("timestamp"))
    signature = next(value for key, value in headers.items() if key.endswith("signature"))
    assert verify_signature(made["secret"], stamp, body, signature)
    assert cli.json("webhooks", "dead") == []
    assert cli("webhooks", "redeliver", made["id"])[1] == "0\n"
    assert cli("webhooks", "redeliver", made["id"], "--event", 1)[0] == 3
    assert cli("webhooks", "rm", made["id"])[0] == 2
    assert cli("webhooks", "rm", made["id"], "--yes")[0] == 0
    assert cli.json("webhooks", "ls") == []
    assert cli("webhooks", "rm", made["id"], "--yes")[0] == 3


def test_following_delivers_as_events_come_until_it_is_told_to_end(
    cli: Cli, acme: Store, store_folder: Path, receiver: tuple[str, type[Receiver]]
) -> None:
    url, handler = receiver
    cli("webhooks", "add", url, "--allow-private", "--event", "alias.*")
    assert cli("webhooks", "deliver", "--follow", "--json")[0] == 2
    verbs = ["adapters", "--store", str(store_folder), "webhooks", "deliver", "--follow"]
    process = subprocess.Popen([sys.executable, "-m", "patchbay", *verbs], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert b"Ctrl-C" in process.stderr.readline()
        for number in (1, 2):
            acme.set_alias("acme/x", "canary", number)
            give_up_at = time.monotonic() + 60
            while len(handler.seen) < number:
                assert time.monotonic() < give_up_at, "nothing was delivered"
                time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()


def test_init_writes_the_file_and_the_store_opens_by_it(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("init", "--blobs", tmp_path / "elsewhere", "--restore-window-days", "7")
    file = tmp_path / "store" / "store.yaml"
    assert (code, out) == (0, f"{file}\n")
    assert yaml.safe_load(file.read_text()) == {
        "blobs": str(tmp_path / "elsewhere"),
        "restore_window_days": 7.0,
    }
    assert cli("ls")[0] == 0
    with Store.open(tmp_path / "store") as store:
        assert store.retention.restore_window_s() == 7 * 86400
    assert cli.json("init", "--blobs", tmp_path / "elsewhere", "--restore-window-days", "7") == {
        "config": str(file)
    }
    assert cli("init", "--blobs", tmp_path / "other")[0] == 4
    assert cli("init", "--store", tmp_path / "b", "--s3-region", "x")[0] == 2


def test_backbones_are_listed_and_added(cli: Cli, t5: Backbone, bert: Backbone) -> None:
    assert cli("backbones", "ls")[0] == 3
    made = cli.json("backbones", "add", t5.folder, "--name", "small")
    assert made["fingerprint"] == t5.fingerprint
    assert cli.json("backbones", "ls") == [made]
    assert "small" in cli("backbones", "ls")[1]
    assert cli("backbones", "add", bert.folder, "--name", "small")[0] == 4


@pytest.mark.parametrize("form", list(EXPORTERS))
def test_what_is_exported_can_be_imported_again_with_the_same_content(
    cli: Cli, acme: Store, t5: Backbone, tmp_path: Path, form: str
) -> None:
    queries = tuple(name for name in t5.sites if name.endswith(".q"))
    acme.publish("acme/queries", low_rank(t5, sites=queries))
    out = tmp_path / "out"
    code, printed, err = cli("export", "acme/queries", out, "--format", form)
    assert code == 0, err
    assert printed.strip() == str(out)
    (made,) = cli.json("import", out, "acme/back", "--backbone", "tiny-t5")
    old, new = acme.resolve("acme/queries"), acme.resolve("acme/back")
    assert new.manifest.content_digest == old.manifest.content_digest
    assert made["digest"] == new.digest
    assert cli("export", "acme/queries", out, "--format", form)[0] == 4
    if form == "patchbay":
        assert read_artefact(out).digest == old.digest


def test_what_a_format_cannot_express_is_refused_with_the_way_to_write_it(
    cli: Cli, acme: Store, tmp_path: Path
) -> None:
    code, out, err = cli("export", "acme/x:1", tmp_path / "out", "--format", "adapterhub")
    assert (code, out) == (5, "")
    assert f"{acme.resolve('acme/x:1').reference} cannot be written as adapterhub: " in err
    assert "hint: `--format patchbay` writes every artefact." in err
    assert not (tmp_path / "out").exists()


def test_a_routing_is_exported_with_its_bank(cli: Cli, acme: Store, tmp_path: Path) -> None:
    code, _, err = cli("export", "acme/task", tmp_path / "out")
    assert code == 0, err
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["peft_type"] in ("POLY", "LORA")
    assert load((tmp_path / "out" / "adapter_model.safetensors").read_bytes())
    assert cli("export", "acme/skills", tmp_path / "bank")[0] == 2


def test_pickled_weights_are_converted_and_left_behind(cli: Cli, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    torch.save({"x": torch.arange(3.0)}, old / "adapter_model.bin")
    made = cli.json("convert", old, tmp_path / "new")
    assert made["written"] == ["adapter_config.json", "adapter_model.safetensors"]
    tensors = load((tmp_path / "new" / "adapter_model.safetensors").read_bytes())
    assert tensors["x"].tolist() == [0.0, 1.0, 2.0]
    assert cli("convert", old, tmp_path / "new")[0] == 4
    (old / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert cli("convert", old, tmp_path / "other")[0] == 5
    assert not (tmp_path / "other").exists()
