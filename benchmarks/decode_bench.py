"""Engines over one backbone whose batches decode, with tasks of every kind; one cell at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from benchmarks.cells import Cell
from benchmarks.drive import Outcome, answers, drain
from benchmarks.stopwatch import System
from benchmarks.synthetic import (
    MemoryLoader,
    make_bank,
    make_bottleneck,
    make_lora,
    make_prefix,
    make_routing,
    make_scale,
)
from serving.engine import Engine, EngineConfig, Request, Sampling, Weights, load_weights

RANK = 8
BANK = {"num_skills": 8, "num_heads": 8, "rank": RANK}
NUM_INPUT_TOKENS = 32


class Tasks:
    """LoRAs and routed tasks by number, made when they are asked for, and the mixed batch."""

    def __init__(self, cell: Cell, backbone: Backbone) -> None:
        self.backbone = backbone
        self.sites = cell.adapted(backbone)
        self.bank = make_bank(backbone, seed=1, effect=0.05, sites=self.sites, **BANK)
        self._made: dict[tuple[str, int], Artefact] = {}

    def loras(self, count: int) -> list[Artefact]:
        """The first ``count`` LoRAs of rank 8."""
        return [self._get("lora", i, self._lora) for i in range(count)]

    def routings(self, count: int) -> list[Artefact]:
        """The first ``count`` tasks of the bank."""
        return [self._get("routing", i, self._routing) for i in range(count)]

    def mixed(self) -> list[Artefact | None]:
        """32 rows of every kind, no two adapters alike.

        4 bare rows, 8 LoRAs of ranks 4 to 16, 10 routed tasks, 4 IA3, 4 bottlenecks behind every
        sub-layer and 2 prefixes of 16 rows.
        """
        backbone = self.backbone
        ranks = [(4, 8, 16)[i % 3] for i in range(8)]
        rows: list[Artefact | None] = [None] * 4
        rows += [self._lora(500 + i, rank) for i, rank in enumerate(ranks)]
        rows += self.routings(10)
        rows += [make_scale(backbone, seed=i) for i in range(4)]
        rows += [make_bottleneck(backbone, seed=i) for i in range(4)]
        rows += [make_prefix(backbone, seed=i) for i in range(2)]
        return rows

    def _get(self, kind: str, number: int, make: Callable[[int], Artefact]) -> Artefact:
        if (kind, number) not in self._made:
            self._made[kind, number] = make(number)
        return self._made[kind, number]

    def _lora(self, seed: int, rank: int = RANK) -> Artefact:
        return make_lora(self.backbone, rank=rank, seed=seed, effect=0.1, sites=self.sites)

    def _routing(self, seed: int) -> Artefact:
        return make_routing(self.backbone, self.bank, seed=seed)


@dataclass(slots=True)
class DecodeBench:
    """Engines that share a backbone's weights, each with ``num_rows`` rows that decode."""

    cell: Cell
    backbone: Backbone
    tasks: Tasks
    weights: Weights
    num_rows: int
    num_steps: int
    loader: MemoryLoader = field(default_factory=MemoryLoader)
    engines: dict[str, Engine] = field(default_factory=dict)
    rows_of: dict[str, list[Artefact | None]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)

    @classmethod
    def open(cls, cell: Cell, tasks: Tasks, *, num_rows: int, num_steps: int) -> DecodeBench:
        """Load the weights in the cell's dtype; rows write at least ``num_steps`` tokens."""
        backbone = tasks.backbone
        weights = load_weights(backbone, cell.torch_dtype)
        bench = cls(cell, backbone, tasks, weights, num_rows, num_steps)
        bench.loader.add(tasks.bank)
        return bench

    def inputs(self) -> list[tuple[int, ...]]:
        """The same inputs for every system."""
        generator = torch.Generator().manual_seed(1)
        shape = (self.num_rows, NUM_INPUT_TOKENS)
        vocab = self.backbone.architecture.vocab_size
        rows = torch.randint(3, vocab, shape, generator=generator)
        return [tuple(row) for row in rows.tolist()]

    def engine(self, name: str, tasks: list[Artefact | None], *, form: str = "auto") -> System:
        """An engine whose rows belong to ``tasks`` in turn, all past their first token."""
        config = EngineConfig(
            dtype="float32" if self.cell.dtype == "fp32" else "bfloat16",
            max_rows=self.num_rows,
            max_step_tokens=self.num_rows * NUM_INPUT_TOKENS,
            mixture_form=form,  # type: ignore[arg-type]
            num_threads=torch.get_num_threads(),
        )
        self.engines[name] = Engine(self.backbone, self.loader, config, weights=self.weights)
        self.fill(name, tasks)
        return System(name, lambda: self._step(name))

    def fill(self, name: str, tasks: list[Artefact | None]) -> None:
        """Give the engine a row of each of ``tasks`` in turn and step until all decode.

        Every task answers a short input before, so that all rows find their adapters in memory.
        """
        engine = self.engines[name]
        self.rows_of[name] = tasks
        outcomes = self.outcomes[name] = {}
        sampling = Sampling(max_tokens=self.num_steps + 40, ignore_eos=True)
        digests = [None if task is None else self.loader.add(task) for task in tasks]
        inputs = self.inputs()
        once = Sampling(max_tokens=1, ignore_eos=True)
        answers(
            engine,
            [
                Request(f"once-{i}", "generate", digest, inputs[i][:2], once)
                for i, digest in enumerate(digests)
            ],
        )
        for i, ids in enumerate(inputs):
            engine.submit(Request(f"{i}", "generate", digests[i % len(tasks)], ids, sampling))
        while engine.stats().num_running < self.num_rows:
            assert engine.has_work, f"{name}: rows ended before all were running"
            drain(engine, outcomes, num_steps=1)

    def clear(self, name: str) -> Engine:
        """Cancel the rows of an engine and return it idle."""
        engine = self.engines[name]
        for i in range(self.num_rows):
            engine.cancel(f"{i}")
        engine.step()
        return engine

    def enabled(self, name: str, before: list[Artefact | None]) -> System:
        """Bare rows on an engine that has the adapters ``before`` in memory and has run them."""
        system = self.engine(name, before)
        self.clear(name)
        self.fill(name, [None])
        return system

    def _step(self, name: str) -> None:
        for event in self.engines[name].step():
            self.outcomes[name].setdefault(event.id, Outcome()).take(event)

    def close(self) -> None:
        """Stop every engine's loader thread and let go of the engines."""
        for engine in self.engines.values():
            engine.close()
        self.engines.clear()
