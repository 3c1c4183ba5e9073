"""What ``patchbay doctor`` says about the store."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from adapters_store.store import Store
from patchbay.doctor import doctor


def store_facts(location: object) -> dict[str, object]:
    run = CliRunner().invoke(doctor, ["--json", "--store", str(location)])
    assert run.exit_code == 0
    facts: dict[str, object] = json.loads(run.stdout)["store"]
    return facts


def test_a_folder_is_looked_at_and_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    expected = {"path": str(folder), "catalog": "sqlite", "exists": False}
    assert store_facts(folder) == expected
    assert not folder.exists()
    Store.open(folder).close()
    assert store_facts(folder) == expected | {"exists": True}


def test_a_configuration_is_read_without_connecting_and_its_problems_told(tmp_path: Path) -> None:
    file = tmp_path / "store.yaml"
    file.write_text("catalog: postgresql://user:secret@127.0.0.1:1/db\n")
    assert store_facts(tmp_path) == {"path": str(file), "catalog": "postgresql"}
    file.write_text("blob: x\n")
    assert "did you mean 'blobs'" in str(store_facts(file)["problem"])
