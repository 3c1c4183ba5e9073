"""Tiny random backbones with tasks whose effect is too large to be missed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from decoder_world import make_llama_world
from transformers import PreTrainedModel, T5ForConditionalGeneration
from world_kit import World

from benchmarks.synthetic import (
    MemoryLoader,
    make_bank,
    make_bert,
    make_lora,
    make_routing,
    make_t5,
)


@pytest.fixture(scope="session")
def t5_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = Path(tmp_path_factory.mktemp("t5"))
    backbone = make_t5(
        folder,
        d_model=32,
        d_kv=8,
        num_heads=4,
        d_ff=64,
        num_layers=2,
        vocab_size=40,
        feed_forward_proj="gated-gelu",
        liveliness=4.0,
    )
    loader = MemoryLoader()
    ranks = (1, 2, 4, 8, 12, 16)
    loras = [loader.add(make_lora(backbone, rank=ranks[i % 6], seed=i)) for i in range(18)]
    bank = make_bank(backbone, rank=2, num_skills=4, num_heads=4, seed=7)
    loader.add(bank)
    routings = [loader.add(make_routing(backbone, bank, seed=i)) for i in range(18)]
    world = World(backbone, loader, loras, routings, [])
    yield world
    world.close()


@pytest.fixture(scope="session")
def bert_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = Path(tmp_path_factory.mktemp("bert"))
    backbone = make_bert(
        folder,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        vocab_size=60,
        max_position_embeddings=64,
    )
    loader = MemoryLoader()
    pools = ("mean", "cls")
    loras = [
        loader.add(
            make_lora(backbone, rank=1 + i % 9, seed=i, num_labels=2 + i % 5, pooling=pools[i % 2])
        )
        for i in range(18)
    ]
    bank = make_bank(backbone, rank=2, num_skills=4, num_heads=4, seed=3)
    loader.add(bank)
    routings = [
        loader.add(make_routing(backbone, bank, seed=i, num_labels=2 + i % 4, pooling=pools[i % 2]))
        for i in range(18)
    ]
    world = World(backbone, loader, loras, routings, [])
    yield world
    world.close()


@pytest.fixture(scope="module")
def llama_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = make_llama_world(tmp_path_factory.mktemp("llama"))
    yield world
    world.close()


@pytest.fixture(params=["llama", "t5"])
def world(request: pytest.FixtureRequest, t5_world: World, llama_world: World) -> World:
    return llama_world if request.param == "llama" else t5_world


@pytest.fixture(scope="module")
def model(t5_world: World) -> PreTrainedModel:
    """The T5 as transformers runs it."""
    return T5ForConditionalGeneration.from_pretrained(t5_world.backbone.folder).eval()
