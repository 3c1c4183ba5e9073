"""Tiny random backbones with tasks whose effect is too large to be missed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch

from adapters_store.backbone import Backbone
from benchmarks.synthetic import (
    MemoryLoader,
    make_bank,
    make_bert,
    make_lora,
    make_routing,
    make_t5,
)
from serving.engine import Engine, EngineConfig, Weights, load_weights


@dataclass
class World:
    """A backbone and the digests of its tasks; ``engine`` makes engines that are closed later."""

    backbone: Backbone
    loader: MemoryLoader
    loras: list[str]
    routings: list[str]
    engines: list[Engine]

    @cached_property
    def weights(self) -> Weights:
        return load_weights(self.backbone, torch.float32)

    @property
    def tasks(self) -> list[str | None]:
        return [None, *self.loras, *self.routings]

    def engine(self, **config: object) -> Engine:
        weights = None if "dtype" in config else self.weights
        engine = Engine(self.backbone, self.loader, EngineConfig(**config), weights=weights)
        self.engines.append(engine)
        return engine

    def inputs(self, count: int, seed: int = 0, longest: int = 24) -> list[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(seed)
        vocab = self.backbone.architecture.vocab_size
        lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
        return [
            tuple(torch.randint(2, vocab, (length,), generator=generator).tolist())
            for length in lengths
        ]


def _close(world: World) -> None:
    for engine in world.engines:
        engine.close()


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
    _close(world)


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
    _close(world)
