"""Limits, cancellation, failures and counters of the engine."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest
import torch

from adapters_store.artefact import build_artefact, load_tensors
from adapters_store.errors import OverloadedError, UsageError
from benchmarks.drive import Outcome, answers, drain
from benchmarks.synthetic import MemoryLoader, make_lora
from serving.engine import Engine, EngineConfig, Finished, Request, Sampling, Token

IDS = (5, 6, 7)


@dataclass
class GatedLoader:
    """Holds the loads of ``held`` digests back until ``gate`` opens."""

    inner: MemoryLoader
    held: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    num_loads: int = 0

    def load(self, digest):
        self.num_loads += 1
        if digest in self.held:
            assert self.gate.wait(10)
        return self.inner.load(digest)


def _generate(name, adapter, max_tokens=3, **sampling):
    return Request(name, "generate", adapter, IDS, Sampling(max_tokens=max_tokens, **sampling))


def test_tokens_then_one_finished_event(t5_world):
    outcome = answers(t5_world.engine(), [_generate("a", None, 5, ignore_eos=True)])["a"]
    assert [type(e) for e in outcome.events] == [Token] * 5 + [Finished]
    finished = outcome.events[-1]
    assert finished == Finished("a", "length", 3, 5)


def test_a_full_queue_is_overloaded(t5_world):
    engine = t5_world.engine(max_waiting=2)
    engine.submit(_generate("a", None))
    engine.submit(_generate("b", None))
    with pytest.raises(OverloadedError, match="the limit is 2"):
        engine.submit(_generate("c", None))
    outcomes: dict[str, Outcome] = {}
    drain(engine, outcomes)
    engine.submit(_generate("c", None))
    drain(engine, outcomes)
    assert set(outcomes) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("a", "generate", None, ()), "0 tokens"),
        (Request("a", "generate", None, (1,) * 17), "17 tokens; expected 1 to 16"),
        (Request("a", "generate", None, (40,)), "outside the vocabulary of 40"),
        (Request("a", "generate", None, (-1,)), "outside the vocabulary"),
        (Request("a", "classify", None, (1,)), "needs an adapter"),
        (Request("a", "rank", None, (1,)), "kind is 'rank'"),
        (Request("a", "generate", None, (1,), Sampling(max_tokens=99)), "max_tokens is 99"),
    ],
)
def test_impossible_requests_are_refused(t5_world, request_, message):
    engine = t5_world.engine(max_input_tokens=16, max_output_tokens=32)
    with pytest.raises(UsageError, match=message):
        engine.submit(request_)
    assert not engine.has_work


def test_an_id_in_use_is_refused(t5_world):
    engine = t5_world.engine()
    engine.submit(_generate("a", None))
    with pytest.raises(UsageError, match="already in use"):
        engine.submit(_generate("a", None))
    engine.step()
    with pytest.raises(UsageError, match="already in use"):
        engine.submit(_generate("a", None))


def test_an_encoder_cannot_generate(bert_world):
    with pytest.raises(UsageError, match="no decoder"):
        bert_world.engine().submit(Request("a", "generate", None, (1,)))


@pytest.mark.parametrize(
    "values", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}]
)
def test_impossible_sampling_is_refused(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        Sampling(**values)


def test_every_wrong_setting_is_reported_at_once():
    with pytest.raises(UsageError, match=r"max_rows.*dtype.*mixture_form"):
        EngineConfig(max_rows=0, dtype="int3", mixture_form="fast")


def test_cancel_frees_running_and_waiting_rows(t5_world):
    engine = t5_world.engine(max_rows=2)
    for name in ("a", "b", "c"):
        engine.submit(_generate(name, t5_world.loras[0], 20, ignore_eos=True))
    outcomes: dict[str, Outcome] = {}
    while engine.stats().num_running < 2:
        drain(engine, outcomes, num_steps=1)
    before = engine.stats()
    assert (before.num_running, before.num_waiting) == (2, 1)
    assert before.kv_bytes > 0
    assert before.table_bytes > 0
    assert engine.cancel("c")
    assert engine.cancel("a")
    assert engine.cancel("b")
    assert not engine.cancel("a")
    after = engine.stats()
    assert (after.num_running, after.num_waiting, after.kv_bytes, after.table_bytes) == (0, 0, 0, 0)
    drain(engine, outcomes)
    assert {name: outcomes[name].reason for name in "abc"} == dict.fromkeys("abc", "cancelled")


def test_a_cancelled_mate_does_not_disturb_the_others(t5_world):
    engine = t5_world.engine()
    requests = [
        _generate(f"r{i}", task, 12, ignore_eos=True) for i, task in enumerate(t5_world.tasks[:8])
    ]
    expected = answers(engine, requests)
    outcomes: dict[str, Outcome] = {}
    for request in requests:
        engine.submit(request)
    while engine.stats().num_running < 8:
        drain(engine, outcomes, num_steps=1)
    engine.cancel("r2")
    drain(engine, outcomes)
    for request in requests:
        if request.id != "r2":
            assert outcomes[request.id].tokens == expected[request.id].tokens


def test_an_unknown_adapter_fails_its_rows_alone(t5_world):
    missing = "sha256:" + "0" * 64
    outcomes = answers(
        t5_world.engine(), [_generate("bad", missing), _generate("good", t5_world.loras[0])]
    )
    assert outcomes["bad"].code == "not_found"
    assert outcomes["good"].reason in ("stop", "length")


def test_an_adapter_of_another_backbone_is_incompatible(t5_world, bert_world):
    loader = MemoryLoader({**t5_world.loader.artefacts, **bert_world.loader.artefacts})
    engine = Engine(t5_world.backbone, loader)
    outcome = answers(engine, [_generate("a", bert_world.loras[0])])["a"]
    engine.close()
    assert outcome.code == "incompatible"


def test_classifying_without_a_head_is_incompatible(t5_world):
    request = Request("a", "classify", t5_world.loras[0], IDS)
    assert answers(t5_world.engine(), [request])["a"].code == "incompatible"


def test_a_row_that_overflows_fails_alone_and_poisons_nobody(t5_world):
    wild = make_lora(t5_world.backbone, rank=2, seed=1, effect=1e30)
    loader = MemoryLoader(dict(t5_world.loader.artefacts))
    loader.add(wild)
    engine = Engine(t5_world.backbone, loader)
    good = [_generate(f"g{i}", t5_world.loras[i], 8, ignore_eos=True) for i in range(4)]
    expected = answers(engine, good)
    mixed = answers(engine, [_generate("wild", wild.digest, 8), *good])
    again = answers(engine, good)
    engine.close()
    assert mixed["wild"].code == "not_finite"
    for request in good:
        assert mixed[request.id].tokens == expected[request.id].tokens
        assert again[request.id].tokens == expected[request.id].tokens


def test_a_row_never_waits_behind_a_cold_adapter(t5_world):
    cold, warm = t5_world.loras[:2]
    loader = GatedLoader(t5_world.loader, {cold})
    engine = Engine(t5_world.backbone, loader, EngineConfig(max_rows=4))
    outcomes: dict[str, Outcome] = {}
    engine.submit(_generate("bare", None))
    engine.submit(_generate("cold", cold))
    engine.submit(_generate("bare2", None))
    while len([o for o in outcomes.values() if o.reason]) < 2:
        drain(engine, outcomes, num_steps=1)
    assert "cold" not in outcomes
    loader.gate.set()
    engine.submit(_generate("warm", warm))
    drain(engine, outcomes)
    engine.close()
    assert {k for k, v in outcomes.items() if v.reason} == {"bare", "bare2", "cold", "warm"}


def test_waiting_for_a_load_does_not_hold_back_a_row_that_can_run(t5_world):
    cold = t5_world.loras[0]
    loader = GatedLoader(t5_world.loader, {cold})
    engine = Engine(t5_world.backbone, loader, weights=t5_world.weights)
    engine.submit(_generate("cold", cold))
    engine.step()
    start = time.monotonic()
    engine.wait(0.2)
    assert time.monotonic() - start > 0.15
    engine.submit(_generate("bare", None))
    engine.wait(60.0)
    assert time.monotonic() - start < 30
    events = engine.step()
    loader.gate.set()
    engine.close()
    assert {event.id for event in events} == {"bare"}


def test_many_rows_of_one_adapter_load_it_once(t5_world):
    loader = GatedLoader(t5_world.loader)
    engine = Engine(t5_world.backbone, loader)
    answers(engine, [_generate(f"r{i}", t5_world.loras[3]) for i in range(6)])
    stats = engine.stats().cache
    engine.close()
    assert loader.num_loads == 1
    assert (stats.num_loads, stats.num_misses, stats.num_joins) == (1, 1, 5)


def test_logprobs_are_those_of_the_chosen_token(t5_world):
    request = _generate("a", t5_world.loras[0], 4, ignore_eos=True, logprobs=3)
    tokens = [e for e in answers(t5_world.engine(), [request])["a"].events if type(e) is Token]
    for event in tokens:
        assert len(event.top) == 3
        assert event.top[0] == (event.token, pytest.approx(event.logprob))
        assert event.top[0][1] >= event.top[1][1] >= event.top[2][1]
        assert sum(torch.tensor([p for _, p in event.top]).exp()) <= 1.0 + 1e-5


def test_counters_add_up(t5_world):
    engine = t5_world.engine(max_rows=4)
    requests = [
        _generate(f"r{i}", task, 3, ignore_eos=True) for i, task in enumerate(t5_world.tasks[:10])
    ]
    answers(engine, requests)
    stats = engine.stats()
    assert stats.num_finished_total == 10
    assert stats.num_input_tokens_total == 30
    assert stats.num_output_tokens_total == 30
    assert sum(rows * count for rows, count in stats.batch_rows.items()) == 30
    assert max(stats.batch_rows) <= 4
    assert stats.cache.resident_bytes > 0
    assert stats.last_step_s > 0


def test_a_bare_batch_has_no_tables(t5_world):
    engine = t5_world.engine()
    engine.submit(_generate("a", None, 10, ignore_eos=True))
    engine.step()
    assert engine.stats().table_bytes == 0
    assert engine.stats().last_num_adapters == 0


def test_bfloat16_serves_every_kind_of_row(t5_world):
    engine = t5_world.engine(dtype="bfloat16")
    requests = [
        _generate(f"r{i}", task, 4, ignore_eos=True) for i, task in enumerate(t5_world.tasks)
    ]
    outcomes = answers(engine, requests)
    assert all(len(outcomes[r.id].tokens) == 4 for r in requests)


def test_a_bad_tensor_of_one_adapter_leaves_the_engine_serving(t5_world):
    source = t5_world.loader.artefacts[t5_world.loras[0]]
    tensors = load_tensors(source)
    fine = build_artefact(
        kind="adapter",
        backbone=t5_world.backbone,
        parts=source.manifest.parts,
        tensors=tensors,
        signature=source.manifest.signature,
    )

    class Broken:
        def load(self, digest):
            return fine.manifest, {}

    engine = Engine(t5_world.backbone, Broken())
    outcomes = answers(engine, [_generate("a", fine.digest), _generate("b", None)])
    engine.close()
    assert outcomes["a"].code == "internal_error"
    assert outcomes["b"].reason in ("stop", "length")
