"""A store, and a server, that know the golden T5 and BERT."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden_kit import GOLDEN, golden_backbone
from live_server import LiveServer
from serve_kit import serve_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adapters_store.store import Store

NUM_WORDS = 64


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Path]]:
    folder = tmp_path_factory.mktemp("gate")
    with Store.open(folder) as store:
        for family in ("t5", "bert"):
            store.add_backbone(golden_backbone(family))
        yield store, folder


def with_tokenizer(family: str, folder: Path) -> Path:
    """A golden backbone with a tokenizer of numbered words beside it."""
    shutil.copytree(GOLDEN / "backbones" / family, folder)
    words = ["<pad>", "<unk>", "</s>", *(f"w{i}" for i in range(3, NUM_WORDS))]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="package")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad-sources")


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("adversarial")
    backbones = [with_tokenizer(family, folder / family) for family in ("t5", "bert")]
    config = serve_config(
        folder / "store",
        *backbones,
        sources=[str(sources)],
        limits={"max_artefact_bytes": 32 << 20},
    )
    with LiveServer(config) as live:
        yield live
