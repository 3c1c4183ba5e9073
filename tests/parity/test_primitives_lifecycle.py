"""Every primitive against the reference while adapters come, go and change under a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_kit import Drawn
from primitives_kit import KINDS, NUM_TOKENS, NUM_TOP, World

from adapters_store.errors import UnavailableError
from adapters_store.store import Store
from benchmarks.drive import Outcome, answers, drain
from serving.core.loader import StoreLoader
from serving.engine import Engine, EngineConfig, Request, Sampling, Token

ALL_KINDS = (*KINDS, "routing")
WRITERS = ("llama", "gpt2", "t5", "bart")
NUM_TASKS = 32
LONG = tuple(3 + 7 * i % 57 for i in range(40))
"""An input whose beginning a decoder keeps for inputs that begin alike."""


@pytest.fixture(scope="module", params=[*WRITERS, "bert", "roberta"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.close()


@pytest.fixture(scope="module", params=WRITERS)
def writer(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.close()


def requests_of(world: World, kinds: list[str | None], ids: tuple[int, ...]) -> list[Request]:
    return [world.request(f"{kind}", kind, ids) for kind in kinds]


def check_all(world: World, outcomes: dict[str, Outcome], kinds: Any, ids: tuple[int, ...]) -> None:
    for kind in kinds:
        world.check(outcomes[f"{kind}"], kind, ids)


def memory(engine: Engine) -> tuple[int, ...]:
    stats = engine.stats()
    cache = stats.cache
    return cache.resident_bytes, cache.host_bytes, stats.table_bytes, stats.kv_bytes


def test_each_of_32_distinct_tasks_answers_beside_the_31_others(world: World) -> None:
    newer = [world.newer(kind) for kind in ALL_KINDS[: NUM_TASKS - len(ALL_KINDS)]]
    kinds = [*ALL_KINDS, *newer]
    lengths = [world.inputs()[i % 3] for i in range(NUM_TASKS)]
    requests = [world.request(kind, kind, ids) for kind, ids in zip(kinds, lengths, strict=True)]
    assert len({request.adapter for request in requests}) == NUM_TASKS
    engine = world.engine(max_rows=NUM_TASKS)
    answers(engine, requests)
    outcomes = answers(engine, requests)
    assert engine.stats().last_num_adapters == NUM_TASKS
    if world.can_generate:
        assert max(engine.stats().batch_rows) == NUM_TASKS
    for kind, ids in zip(kinds, lengths, strict=True):
        world.check(outcomes[kind], kind, ids)


@pytest.mark.parametrize("timeout_s", [0.0, 60.0])
@pytest.mark.parametrize("leaving", [0, 1])
def test_rows_go_on_while_their_neighbours_adapters_are_unloaded(
    world: World, leaving: int, timeout_s: float
) -> None:
    ids = world.inputs()[0]
    kinds = [None, *ALL_KINDS]
    gone = [kind for kind in kinds[leaving::2] if kind is not None]
    engine = world.engine(max_rows=128)
    answers(engine, requests_of(world, kinds, ids))
    outcomes: dict[str, Outcome] = {}
    for request in requests_of(world, kinds, ids):
        engine.submit(request)
    drain(engine, outcomes, num_steps=3 if world.can_generate else 0)
    for kind in gone:
        engine.unload(world.artefacts[kind].digest, timeout_s)
    if timeout_s:
        with pytest.raises(UnavailableError, match="being unloaded"):
            engine.submit(world.request("late", gone[0], ids))
    else:
        assert not {world.artefacts[kind].digest for kind in gone} & engine.resident()
    drain(engine, outcomes)
    engine.step()
    assert not {world.artefacts[kind].digest for kind in gone} & engine.resident()
    if timeout_s:
        check_all(world, outcomes, kinds, ids)
        return
    check_all(world, outcomes, [kind for kind in kinds if kind not in gone], ids)
    for kind in gone:
        assert outcomes[kind].code == UnavailableError.code
        own = outcomes[kind].tokens
        assert own == world.expected(kind, ids).tokens[: len(own)]
        assert len(own) > 0 or not world.can_generate


def test_an_adapter_that_was_unloaded_comes_back_the_same(world: World) -> None:
    kinds = [None, *ALL_KINDS, *world.heads]
    engine = world.engine(max_rows=128)
    for _ in range(2):
        check_all(world, answers(engine, requests_of(world, kinds, LONG)), kinds, LONG)
        assert min(memory(engine)[:2]) > 0
        for digest in (*engine.resident(), world.bank.digest):
            engine.unload(digest, 0.0)
        assert memory(engine) == (0, 0, 0, 0)


def test_adapters_that_push_each_other_out_of_memory_answer_the_same(world: World) -> None:
    ids = world.inputs()[2]
    kinds = [None, *ALL_KINDS, *world.heads]
    largest = 0
    for kind in kinds[1:]:
        engine = world.engine()
        answers(engine, requests_of(world, [kind], ids))
        largest = max(largest, engine.stats().cache.resident_bytes)
    engine = world.engine(max_rows=6, max_adapter_bytes=largest, max_host_bytes=largest)
    for _ in range(2):
        check_all(world, answers(engine, requests_of(world, kinds, ids)), kinds, ids)
    assert engine.stats().cache.num_evictions > len(ALL_KINDS)
    assert engine.stats().cache.resident_bytes <= largest


def test_a_name_answers_by_its_new_version_and_rows_of_the_old_one_go_on(
    world: World, tmp_path: Path
) -> None:
    kinds = [*ALL_KINDS, *world.heads]
    newer = {kind: world.newer(kind) for kind in kinds}
    names = {kind: f"acme/task-{i}" for i, kind in enumerate(kinds)}
    with Store.open(tmp_path) as store:
        store.add_backbone(world.backbone)
        store.publish("acme/bank", world.bank)

        def publish(versions: dict[str, str]) -> None:
            store.publish_many((names[k], world.artefacts[v]) for k, v in versions.items())

        def requests(sort: str) -> list[Request]:
            """One row a name, by the digest that the name means now."""
            return [
                replace(
                    world.request(f"{sort}/{kind}", kind, LONG),
                    adapter=store.resolve(f"{names[kind]}@prod").digest,
                )
                for kind in kinds
            ]

        def check(outcomes: dict[str, Outcome], sort: str, versions: dict[str, str]) -> None:
            for kind in kinds:
                world.check(outcomes[f"{sort}/{kind}"], versions[kind], LONG)

        older = {kind: kind for kind in kinds}
        publish(older)
        config = EngineConfig(max_rows=128)
        engine = Engine(world.backbone, StoreLoader(store), config, weights=world.weights)
        outcomes = answers(engine, requests("warm"))
        check(outcomes, "warm", older)
        old = requests("old")
        for request in old:
            engine.submit(request)
        drain(engine, outcomes, num_steps=2 if world.can_generate else 0)
        num_reused = engine.stats().num_reused_tokens_total
        publish(newer)
        for request in requests("new"):
            engine.submit(request)
        for request in old:
            engine.unload(str(request.adapter), 60.0)
        drain(engine, outcomes)
        check(outcomes, "old", older)
        check(outcomes, "new", newer)
        assert engine.stats().num_reused_tokens_total == num_reused
        for kind in kinds:
            store.set_alias(names[kind], "prod", 1, expected_version=2)
        check(answers(engine, requests("back")), "back", older)
        engine.close()


@torch.no_grad()
def test_all_n_outputs_are_drawn_from_the_distributions_of_generate(writer: World) -> None:
    ids, seeds = writer.inputs()[0], [11, 12, 13, 14]
    sampling = Sampling(
        max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=NUM_TOP, temperature=1.4, top_k=20
    )
    kinds = [None, *ALL_KINDS]
    requests = [
        replace(writer.request(f"{kind}/{seed}", kind, ids), sampling=replace(sampling, seed=seed))
        for kind in kinds
        for seed in seeds
    ]
    outcomes = answers(writer.engine(max_rows=256), requests)
    for kind in kinds:
        input_ids = torch.tensor([ids] * len(seeds))
        with writer.adapted(kind) as adapted:
            wanted = adapted.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=NUM_TOKENS,
                do_sample=False,
                logits_processor=[Drawn(sampling, seeds)],
                output_logits=True,
                return_dict_in_generate=True,
            )
        own = [outcomes[f"{kind}/{seed}"] for seed in seeds]
        assert [one.tokens for one in own] == wanted.sequences[:, -NUM_TOKENS:].tolist(), kind
        assert len({tuple(one.tokens) for one in own}) > 1
        logprobs = torch.stack(wanted.logits, dim=1).log_softmax(2)
        for one, expected in zip(own, logprobs, strict=True):
            events = [event for event in one.events if isinstance(event, Token)]
            for event, row in zip(events, expected, strict=True):
                assert event.logprob == pytest.approx(row[event.token].item(), abs=1e-4)
                top = [value for _, value in event.top]
                assert top == pytest.approx(row.topk(NUM_TOP).values.tolist(), abs=1e-4)
