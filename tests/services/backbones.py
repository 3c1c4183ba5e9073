"""Backbones shared by the store's tests: tiny random models as Hugging Face saves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from adapters_store.backbone import Backbone


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    from store_kit import save_t5

    from adapters_store.backbone import Backbone

    return Backbone.from_folder(save_t5(tmp_path_factory.mktemp("models") / "tiny-t5"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    from store_kit import save_bert

    from adapters_store.backbone import Backbone

    return Backbone.from_folder(save_bert(tmp_path_factory.mktemp("models") / "tiny-bert"))
