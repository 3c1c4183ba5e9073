"""``inspect``, ``import`` and ``diff`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_kit import Cli
from store_kit import bank, contents, low_rank, routing

from adapters_store.artefact import Artefact, write_artefact
from adapters_store.backbone import Backbone
from adapters_store.store import Store


@pytest.fixture
def source(t5: Backbone, tmp_path: Path) -> Path:
    write_artefact(low_rank(t5), tmp_path / "art")
    return tmp_path / "art"


def written(artefact: Artefact, folder: Path) -> Path:
    write_artefact(artefact, folder)
    return folder


def test_inspecting_an_artefact_of_this_product_accepts_it(
    cli: Cli, source: Path, t5: Backbone, tmp_path: Path
) -> None:
    code, out, err = cli("inspect", source, "--backbone", t5.folder)
    assert (code, err) == (0, "")
    assert dict(line.split(None, 1) for line in out.splitlines()) == {
        "source": str(source),
        "format": "patchbay",
        "method": "low_rank",
        "backbone": "tiny-t5",
        "verdict": "accept",
        "parts": "2 low_rank",
        "tensors": "4, 864 bytes",
    }
    found = cli.json("inspect", source, "--backbone", t5.folder)
    assert list(found) == [
        "source", "format", "method", "verdict", "backbone", "reasons", "notes", "parts",
        "num_tensors", "data_bytes",
    ]  # fmt: skip
    assert not (tmp_path / "store").exists()


def test_the_backbone_is_named_by_folder_name_or_the_artefact_itself(
    cli: Cli, source: Path, t5: Backbone, bert: Backbone
) -> None:
    assert cli("inspect", source)[0] == 3
    for backbone in (t5, bert):
        assert cli("backbones", "add", backbone.folder)[0] == 0
    assert cli.json("inspect", source)["backbone"] == "tiny-t5"
    assert cli.json("inspect", source, "--backbone", "tiny-t5")["verdict"] == "accept"
    found = cli.json("inspect", source, "--backbone", "tiny-bert", code=5)
    assert [reason["code"] for reason in found["reasons"]] == ["incompatible"]
    code, _, err = cli("inspect", source, "--backbone", "tiny-none")
    assert code == 3
    assert "known: tiny-bert, tiny-t5" in err
    (source / "manifest.json").unlink()
    code, _, err = cli("inspect", source)
    assert code == 2
    assert "say which backbone" in err
    assert "hint: Give `--backbone NAME`" in err


def test_a_rejected_source_exits_with_5_and_says_why(
    cli: Cli, source: Path, t5: Backbone, tmp_path: Path
) -> None:
    (source / "data.safetensors").write_bytes(b"\x80\x04pickle bytes here")
    code, out, _ = cli("inspect", source, "--backbone", t5.folder)
    assert code == 5
    assert "verdict   reject" in out
    assert "unsafe: data.safetensors is a Python pickle" in out
    (tmp_path / "empty").mkdir()
    found = cli.json("inspect", tmp_path / "empty", "--backbone", t5.folder, code=5)
    assert found["reasons"][0]["code"] == "unknown_format"
    code, _, err = cli("import", source, "acme/x", "--backbone", t5.folder)
    assert code == 5
    assert "data is a Python pickle" in err
    assert cli("ls")[1].count("\n") == 1


def test_importing_stores_and_a_rehearsal_does_not(
    cli: Cli, source: Path, t5: Backbone, tmp_path: Path
) -> None:
    rehearsed = cli.json("import", source, "acme/x", "--backbone", t5.folder, "--dry-run")
    assert not (tmp_path / "store").exists()
    made = cli.json("import", source, "acme/x", "--backbone", t5.folder)
    assert len(rehearsed) == len(made) == 1
    known = {key: value for key, value in rehearsed[0].items() if value is not None}
    assert set(known) == {"tenant", "name", "digest", "kind", "backbone", "data_bytes"}
    assert known.items() <= made[0].items()
    assert made[0]["aliases"] == ["prod"]
    before = contents(tmp_path / "store")
    code, out, err = cli("import", source, "acme/y", "--dry-run")
    assert (code, err) == (0, "Nothing was stored.\n")
    assert out.split() == ["acme/y", "adapter", made[0]["digest"]]
    assert contents(tmp_path / "store") == before
    assert cli("show", "acme/y")[0] == 3
    assert cli.json("import", source, "acme/z", "--no-alias")[0]["aliases"] == []


def test_a_rehearsal_fails_as_the_import_would(cli: Cli, t5: Backbone, tmp_path: Path) -> None:
    shared = bank(t5)
    task = written(routing(t5, shared), tmp_path / "task")
    for extra in (["--dry-run"], []):
        code, _, err = cli("import", task, "acme/task", "--backbone", t5.folder, *extra)
        assert (code, "not in the store" in err) == ((6, True) if not extra else (0, False))
        assert cli("import", task, "Acme/x", "--backbone", t5.folder, *extra)[0] == 2
    code, _, err = cli("import", task, "acme/task", "--dry-run")
    assert (code, "not in the store" in err) == (6, True)


def test_options_that_an_artefact_cannot_take_are_refused(
    cli: Cli, source: Path, t5: Backbone
) -> None:
    code, _, err = cli("inspect", source, "--backbone", t5.folder, "--labels", "a,b")
    assert code == 2
    assert "import options do not apply" in err


def test_diff_tells_fields_parts_tensors_and_provenance(
    cli: Cli, t5: Backbone, store: Store, tmp_path: Path
) -> None:
    names = ("encoder.0.self.q", "encoder.1.ffn.in")
    store.publish("acme/x", low_rank(t5, sites=names))
    store.publish("acme/x", low_rank(t5, sites=(names[0], "encoder.1.ffn.out"), seed=2))
    found = cli.json("diff", "acme/x:1", "acme/x:2")
    assert list(found) == [
        "left", "right", "has_same_content", "fields", "parts", "tensors", "provenance",
        "num_equal_tensors",
    ]  # fmt: skip
    assert not found["has_same_content"]
    assert [part["place"] for part in found["parts"]] == [
        "low_rank encoder.1.ffn.in",
        "low_rank encoder.1.ffn.out",
    ]
    assert found["provenance"] == [{"place": "seed", "left": 1, "right": 2}]
    changed = {one["name"]: one for one in found["tensors"]}
    left, right = (store.tensors(store.resolve(f"acme/x:{n}").digest) for n in (1, 2))
    apart = (left[f"{names[0]}/low_rank/a"] - right[f"{names[0]}/low_rank/a"]).abs()
    entry = changed[f"{names[0]}/low_rank/a"]
    assert entry["max_difference"] == pytest.approx(float(apart.max()))
    assert entry["mean_difference"] == pytest.approx(float(apart.mean()))
    assert changed["encoder.1.ffn.in/low_rank/a"]["right"] is None
    code, out, _ = cli("diff", "acme/x:1", "acme/x:2")
    assert code == 0
    assert "low_rank encoder.1.ffn.out" in out


def test_diff_of_the_same_tensors_says_so(cli: Cli, t5: Backbone, store: Store) -> None:
    store.publish("acme/x", low_rank(t5))
    store.publish("acme/x", low_rank(t5, provenance={"note": {"by": "hand"}}))
    found = cli.json("diff", "acme/x:1", "acme/x:2")
    assert found["has_same_content"]
    assert found["tensors"] == []
    assert found["num_equal_tensors"] == 4
    assert {one["place"] for one in found["provenance"]} == {"seed", "note.by"}
    assert "All tensors are equal" in cli("diff", "acme/x:1", "acme/x:2")[2]
    same = cli.json("diff", "acme/x", "acme/x:2")
    assert same["fields"] == same["provenance"] == []


def test_resolve_and_history_follow_an_alias_through_time(
    cli: Cli, t5: Backbone, store: Store
) -> None:
    for seed in (1, 2):
        store.publish("acme/x", low_rank(t5, seed=seed))
    moved = store.alias_history("acme/x")
    assert cli("resolve", "acme/x@prod")[1] == store.resolve("acme/x:2").reference + "\n"
    then = cli.json("resolve", "acme/x@prod", "--at", moved[0].at)
    assert then["version"] == 1
    assert cli("resolve", "acme/x", "--at", "2001-01-01")[0] == 3
    assert cli("resolve", "acme/x", "--at", "yesterday")[0] == 2
    store.set_alias("acme/x", "canary", 1, reason="try")
    rows = cli.json("history", "acme/x")
    assert [(row["alias"], row["from_version"], row["to_version"]) for row in rows] == [
        ("prod", None, 1), ("prod", 1, 2), ("canary", None, 1)
    ]  # fmt: skip
    assert cli("history", "acme/x", "--alias", "canary")[1].splitlines()[1].split()[1:] == [
        "canary", "-", "1", "local", "try"
    ]  # fmt: skip
    store.delete("acme/x:1")
    code, _, err = cli("resolve", "acme/x", "--at", moved[0].at)
    assert code == 0
    assert "was deleted" in err
    assert json.loads(cli("resolve", "acme/x:2", "--json")[1])["deleted_at"] is None
