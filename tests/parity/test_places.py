"""Rows that no longer fit behind their adapter's prefixes and prompts fail alone, and the bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from primitives_kit import NUM_TOKENS, World

from adapters_store.errors import UsageError
from benchmarks.drive import answers, drain
from serving.engine import Failed

PREFIX, PROMPT = "prefix that shifts", "prompt with positions"


@pytest.fixture(scope="module", params=["llama", "gpt2", "bert"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.close()


@pytest.fixture(scope="module")
def t5() -> Iterator[World]:
    world = World("t5")
    yield world
    world.close()


@pytest.mark.parametrize("kind", [PREFIX, PROMPT])
def test_positions_before_the_tokens_count_towards_the_backbones_limit(
    world: World, kind: str
) -> None:
    limit = world.backbone.architecture.max_positions
    assert limit is not None
    most = limit - (NUM_TOKENS if world.can_generate else 0)
    num_before = 2 if kind == PROMPT and not world.can_generate else 3
    ids = tuple(3 + i % 50 for i in range(most))
    engine = world.engine()
    requests = {
        "fits": world.request("fits", kind, ids[:-num_before]),
        "does not": world.request("does not", kind, ids[: 1 - num_before]),
        "bare": world.request("bare", None, ids),
    }
    outcomes = answers(engine, list(requests.values()))
    for name, own in (("fits", kind), ("bare", None)):
        world.check(outcomes[name], own, requests[name].input_ids)
    (failed,) = outcomes["does not"].events
    assert isinstance(failed, Failed)
    assert failed.code == UsageError.code
    assert f"up to {limit + 1} positions; this backbone takes {limit}" in failed.message
    assert engine.stats().num_failed_total == 1


def test_rows_behind_a_prefix_are_refused_where_they_outgrow_the_budget(t5: World) -> None:
    ids = tuple(3 + i % 50 for i in range(62))
    bare = t5.request("bare", None, ids)
    record = t5.backbone.architecture.stack("decoder")
    position_bytes = 4 * 2 * record.num_layers * record.kv_heads * record.head_dim
    # One place of 64 positions for each of self and cross attention, and not one of 128 too.
    engine = t5.engine(max_kv_bytes=position_bytes * (64 + 64 + 32))
    wide = t5.request("wide", "prefix that does not", ids)
    outcomes = answers(engine, [wide, bare])
    t5.check(outcomes["bare"], None, ids)
    (failed,) = outcomes["wide"].events
    assert isinstance(failed, Failed)
    assert "max_kv_bytes is" in failed.message


def test_memory_of_rows_with_fronts_is_given_back(t5: World) -> None:
    engine = t5.engine()
    kinds = [PREFIX, PROMPT, "everything", "prefix of unlike rows", None]
    outcomes = {}
    for i, kind in enumerate(kinds):
        engine.submit(t5.request(f"{i}", kind, t5.inputs()[2]))
    drain(engine, outcomes, num_steps=4)
    assert engine.stats().kv_bytes > 0
    for i in range(len(kinds)):
        engine.cancel(f"{i}")
    drain(engine, outcomes)
    stats = engine.stats()
    assert (stats.kv_bytes, stats.table_bytes, stats.num_running) == (0, 0, 0)
