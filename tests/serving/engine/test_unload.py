"""Unloading: it waits for its rows up to a deadline, frees every byte, and cannot be raced."""

from __future__ import annotations

import pytest

from adapters_store.errors import UnavailableError
from benchmarks.drive import Outcome, answers, drain
from serving.engine import Request, Sampling

IDS = (5, 6, 7)


def _request(name, adapter, max_tokens=6):
    return Request(name, "generate", adapter, IDS, Sampling(max_tokens=max_tokens, ignore_eos=True))


def _bytes(engine):
    cache = engine.stats().cache
    return cache.resident_bytes, cache.host_bytes, engine.stats().table_bytes


def _start(engine, adapter, max_tokens):
    engine.submit(_request("row", adapter, max_tokens))
    outcomes: dict[str, Outcome] = {}
    while not engine.stats().num_running:
        engine.wait(1.0)
        drain(engine, outcomes, num_steps=1)
    return outcomes


def test_an_idle_adapter_is_freed_at_once(t5_world):
    engine = t5_world.engine()
    answers(engine, [_request("a", t5_world.loras[0])])
    assert min(_bytes(engine)[:2]) > 0
    engine.unload(t5_world.loras[0], 60.0)
    assert _bytes(engine) == (0, 0, 0)
    assert not engine.resident()


def test_unloading_waits_for_the_rows_and_refuses_new_ones(t5_world):
    engine = t5_world.engine()
    adapter = t5_world.loras[1]
    alone = answers(t5_world.engine(), [_request("row", adapter, 12)])["row"].tokens
    outcomes = _start(engine, adapter, 12)
    engine.unload(adapter, 60.0)
    with pytest.raises(UnavailableError, match="is being unloaded"):
        engine.submit(_request("late", adapter))
    assert engine.stats().cache.resident_bytes > 0
    drain(engine, outcomes)
    assert (outcomes["row"].reason, outcomes["row"].tokens) == ("length", alone)
    assert _bytes(engine)[2] == 0
    engine.step()
    assert _bytes(engine) == (0, 0, 0)
    assert answers(engine, [_request("again", adapter, 12)])["again"].tokens == alone


def test_rows_left_after_the_deadline_fail_and_the_memory_is_freed(t5_world):
    engine = t5_world.engine()
    outcomes = _start(engine, t5_world.loras[2], 400)
    engine.submit(_request("waiting", t5_world.loras[2], 400))
    engine.submit(_request("mate", None, 5))
    engine.unload(t5_world.loras[2], 0.0)
    drain(engine, outcomes)
    assert outcomes["row"].code == outcomes["waiting"].code == UnavailableError.code
    assert outcomes["mate"].reason == "length"
    assert _bytes(engine) == (0, 0, 0)


def test_unloading_a_bank_frees_its_tasks_too(t5_world):
    engine = t5_world.engine()
    requests = [_request(str(i), digest) for i, digest in enumerate(t5_world.routings[:3])]
    answers(engine, requests)
    bank = t5_world.loader.artefacts[t5_world.routings[0]].manifest.bank
    engine.unload(bank, 0.0)
    assert _bytes(engine) == (0, 0, 0)


def test_a_bank_waits_for_its_tasks_rows_and_they_take_no_new_ones(t5_world):
    engine = t5_world.engine()
    task, other = t5_world.routings[:2]
    alone = answers(t5_world.engine(), [_request("row", task, 12)])["row"].tokens
    answers(engine, [_request("other", other)])
    outcomes = _start(engine, task, 12)
    engine.unload(t5_world.loader.artefacts[task].manifest.bank, 60.0)
    for digest in (task, other):
        with pytest.raises(UnavailableError, match="is being unloaded"):
            engine.submit(_request("late", digest))
    assert engine.stats().cache.num_resident == 3
    drain(engine, outcomes)
    assert (outcomes["row"].reason, outcomes["row"].tokens) == ("length", alone)
    engine.step()
    assert _bytes(engine) == (0, 0, 0)


def test_rows_of_a_banks_evicted_task_are_cut_off_with_it(t5_world):
    engine = t5_world.engine(max_host_bytes=1)
    task = t5_world.routings[0]
    outcomes = _start(engine, task, 400)
    engine._cache.drop(task)
    engine.unload(t5_world.loader.artefacts[task].manifest.bank, 0.0)
    drain(engine, outcomes)
    assert outcomes["row"].code == UnavailableError.code
    assert _bytes(engine) == (0, 0, 0)


def test_an_adapter_unloaded_while_it_is_read_ahead_does_not_come_back(t5_world):
    engine = t5_world.engine()
    engine.preload([t5_world.loras[0]])
    engine.unload(t5_world.loras[0], 0.0)
    answers(engine, [_request("a", t5_world.loras[1])])
    engine.unload(t5_world.loras[1], 0.0)
    assert _bytes(engine) == (0, 0, 0)
