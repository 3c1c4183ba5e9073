"""What every system of one case serves: a model folder, 32 LoRAs as PEFT folders, inputs.

All of it follows from seeds, so that our engine makes the same artefacts that the peers read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.formats.peft.export import export_peft
from benchmarks.cells import LLAMA, adapted_sites
from benchmarks.synthetic import MemoryLoader, make_bank, make_llama, make_lora, make_routing

NUM_TASKS = 32
RANK = 8
EFFECT = 0.25
BANK = {"num_skills": 8, "num_heads": 8, "rank": RANK, "effect": EFFECT}
INITIALIZER_RANGE = 0.06
"""The usual 0.02 makes a random model repeat one token, which hides differences."""


@dataclass(frozen=True, slots=True)
class World:
    """The backbone with the digests of its tasks in ``loader``."""

    backbone: Backbone
    loader: MemoryLoader
    loras: list[str | None]
    routings: list[str | None]


def write_world(folder: Path, *, width: int, sites: str) -> None:
    """Write ``backbone/`` and ``adapters/0`` to ``adapters/31``; ``sites`` is ``qv`` or ``all``."""
    settings = {**LLAMA[width], "initializer_range": INITIALIZER_RANGE}
    backbone = make_llama(folder / "backbone", seed=0, **settings)
    for number, lora in enumerate(_loras(backbone, sites)):
        export_peft(lora, backbone, folder / "adapters" / f"{number}")


def open_world(folder: Path, *, sites: str) -> World:
    """The same LoRAs as artefacts, and as many tasks routed over one bank at the same sites."""
    backbone = Backbone.from_folder(folder / "backbone", name="random-llama")
    loader = MemoryLoader()
    bank = make_bank(backbone, seed=1, sites=adapted_sites(backbone, sites), **BANK)
    loader.add(bank)
    loras: list[str | None] = [loader.add(lora) for lora in _loras(backbone, sites)]
    routings: list[str | None] = [
        loader.add(make_routing(backbone, bank, seed=seed)) for seed in range(NUM_TASKS)
    ]
    return World(backbone, loader, loras, routings)


def make_inputs(vocab_size: int, num_rows: int, num_tokens: int) -> list[list[int]]:
    """Random token ids without the special ones; seed 1."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, vocab_size, (num_rows, num_tokens), generator=generator).tolist()


def _loras(backbone: Backbone, sites: str) -> list[Artefact]:
    chosen = adapted_sites(backbone, sites)
    return [
        make_lora(backbone, rank=RANK, seed=seed, effect=EFFECT, sites=chosen)
        for seed in range(NUM_TASKS)
    ]
