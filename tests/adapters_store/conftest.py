"""An embedded store in a folder, with two backbones and no artefact."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import Cli
from store_kit import open_store

from adapters_store.backbone import Backbone
from adapters_store.store import Store


@pytest.fixture
def store_folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(store_folder, t5: Backbone, bert: Backbone):
    with open_store(store_folder, t5, bert) as opened:
        assert isinstance(opened, Store)
        yield opened


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs ``patchbay adapters`` on a store in ``tmp_path/store``."""
    monkeypatch.setenv("PATCHBAY_STORE", str(tmp_path / "store"))
    return Cli(capsys)
