"""An embedded store in a folder, with two backbones and no artefact."""

from __future__ import annotations

import pytest
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
