"""Where tensors are made: a whole step of all kinds on a pretended device.

Fake tensors carry a device and no values: an operation that mixes devices raises, and so does one
that would wait for a value of the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from primitives_kit import KINDS, World
from torch._subclasses.fake_tensor import FakeTensorMode

from serving.engine import EngineConfig, weights
from serving.engine.batch import DecodeBatch
from serving.engine.checkpoint import Checkpoint
from serving.engine.kv_budget import KvBudget
from serving.engine.prefill import encode
from serving.engine.row import Row
from serving.primitives.prepared import Target
from serving.residency.entry import Entry
from serving.residency.item import Item
from serving.residency.prepare import _prepare

ELSEWHERE = torch.device("meta")
KIND_NAMES = [None, "routing", *KINDS]


@contextmanager
def pretended(world: World, patch: pytest.MonkeyPatch) -> Iterator[weights.Weights]:
    """The weights of a backbone on the device; what is read from files is read before."""
    read = Checkpoint(world.backbone, torch.float32, ELSEWHERE)
    patch.setattr(weights, "Checkpoint", lambda *_: read)
    assert world.loader
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield weights.load_weights(world.backbone, torch.float32, ELSEWHERE)


def rows_of(world: World, own: weights.Weights) -> list[Row]:
    """A row of every kind, its adapter prepared for the pretended device."""
    target = Target(own.layout, own.dtype, ELSEWHERE, own.vectors, own.pooler, own.relative)
    bank = _prepare(Item.of(*world.loader.load(world.bank.digest)), target, None).bank
    start = world.backbone.architecture.decoder_start_token_id
    rows = []
    for i, kind in enumerate(KIND_NAMES):
        row = Row.of(
            world.request(f"{i}", kind, (3 + i, 4, 5)), frozenset(), start, own.reader.record.name
        )
        if kind is not None:
            item = Item.of(*world.loader.load(world.artefacts[kind].digest))
            prepared = _prepare(item, target, bank)
            row.entry = Entry(world.artefacts[kind].digest, "ready", prepared=prepared)
        rows.append(row)
    return rows


@pytest.mark.parametrize("form", ["composed", "shared"])
@pytest.mark.parametrize("name", ["t5", "bart", "llama", "gemma2", "gpt2"])
def test_all_kinds_are_read_and_decoded_on_the_device_without_waiting_for_it(
    name: str, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(name)
    with pretended(world, monkeypatch) as own:
        rows = rows_of(world, own)
        config = EngineConfig(mixture_form=form, max_rows=len(rows))
        batch = DecodeBatch(own, config, KvBudget(config.max_kv_bytes))
        encoded = encode(own, rows, torch.float32)
        batch.join(encoded.generating())
        for _ in range(2):
            logits = batch.step()
            assert logits.device == ELSEWHERE
            assert logits.shape == (len(batch.rows), world.backbone.architecture.vocab_size)
            batch.leave(batch.rows[1])
            for row in batch.rows:
                row.write(7)


def test_inputs_of_an_encoder_are_read_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("bert")
    with pretended(world, monkeypatch) as own:
        encoded = encode(own, rows_of(world, own), torch.float32)
        assert encoded.hidden.device == ELSEWHERE
        assert encoded.last_hidden().device == ELSEWHERE
