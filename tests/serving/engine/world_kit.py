"""A tiny backbone with its tasks, and what its own ``generate`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from adapters_store.backbone import Backbone
from benchmarks.synthetic import MemoryLoader
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

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


def written(sequence: torch.Tensor, ends: Sequence[int] = (1,)) -> list[int]:
    """A sequence of ``generate`` without its start and from its end on."""
    tokens: list[int] = sequence.tolist()[1:]
    at = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:at]
