"""One tiny published run shared by the tests of training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from published_kit import Published
from training_kit import tiny_recipe

from adapters_store.store import Store
from training.publish import publish_run
from training.run import Run


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """Three suite tasks trained a few steps on a tiny T5 and published in float32."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run = Run.build(tiny_recipe())
    run.train(folder)
    with Store.open(tmp_path_factory.mktemp("store")) as store:
        publish_run(folder, store, "acme", dtype=torch.float32, backbone_name="tiny")
        yield Published(folder, run, store)
