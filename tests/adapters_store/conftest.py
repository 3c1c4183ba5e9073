"""Backbones shared by the store's tests: tiny random models as Hugging Face saves them."""

from __future__ import annotations

import pytest
from store_kit import open_store, save_bert, save_t5

from adapters_store.backbone import Backbone
from adapters_store.store import Store


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone.from_folder(save_t5(tmp_path_factory.mktemp("models") / "tiny-t5"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone.from_folder(save_bert(tmp_path_factory.mktemp("models") / "tiny-bert"))


@pytest.fixture
def store_folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(store_folder, t5: Backbone, bert: Backbone):
    with open_store(store_folder, t5, bert) as opened:
        assert isinstance(opened, Store)
        yield opened
