"""The engine against PEFT: many LoRAs by ``adapter_names``, and a Poly bank by ``task_ids``."""

from __future__ import annotations

import pytest
import torch

from benchmarks.drive import answers
from benchmarks.peft_baseline import PlainSteps, lora_model, poly_model
from benchmarks.synthetic import MemoryLoader, make_bank, make_lora, make_routing, make_t5
from serving.engine import Engine, EngineConfig, Request, Sampling

NUM_ROWS = 6
NUM_STEPS = 8
TINY = {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 48, "num_layers": 2, "vocab_size": 60}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft")
    return make_t5(folder, liveliness=4.0, feed_forward_proj="gated-gelu", **TINY)


def _inputs():
    generator = torch.Generator().manual_seed(2)
    return [
        tuple(torch.randint(2, 60, (5 + 3 * i,), generator=generator).tolist())
        for i in range(NUM_ROWS)
    ]


def _engine_tokens(backbone, tasks, extra, form):
    loader = MemoryLoader()
    for artefact in (*tasks, *extra):
        loader.add(artefact)
    engine = Engine(backbone, loader, EngineConfig(mixture_form=form))
    sampling = Sampling(max_tokens=NUM_STEPS + 1, ignore_eos=True)
    requests = [
        Request(f"{i}", "generate", task.digest, ids, sampling)
        for i, (task, ids) in enumerate(zip(tasks, _inputs()))
    ]
    outcomes = answers(engine, requests)
    engine.close()
    return [outcomes[f"{i}"].tokens for i in range(NUM_ROWS)]


def _peft_tokens(model, **extra):
    steps = PlainSteps(model, _inputs(), **extra)
    for _ in range(NUM_STEPS):
        steps.step()
    return [list(tokens) for tokens in zip(*steps.tokens)]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_lora_rows_equal_peft_with_adapter_names(backbone):
    loras = [make_lora(backbone, rank=4, seed=i) for i in range(NUM_ROWS)]
    names = [f"t{i}" for i in range(NUM_ROWS)]
    expected = _peft_tokens(lora_model(backbone, loras), adapter_names=names)
    assert _engine_tokens(backbone, loras, [], "auto") == expected
    assert len({tuple(tokens) for tokens in expected}) == NUM_ROWS


@pytest.mark.parametrize("form", ["composed", "shared"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_routed_rows_equal_peft_poly(backbone, form):
    sites = [site for site in backbone.sites.values() if site.role[-1] in "qv"]
    bank = make_bank(backbone, rank=2, num_skills=4, num_heads=4, sites=sites)
    routings = [make_routing(backbone, bank, seed=i) for i in range(NUM_ROWS)]
    model = poly_model(backbone, bank, routings)
    expected = _peft_tokens(model, task_ids=torch.arange(NUM_ROWS))
    assert _engine_tokens(backbone, routings, [bank], form) == expected
