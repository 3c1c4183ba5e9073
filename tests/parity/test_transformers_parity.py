"""Mixed batches of the engine against transformers with each adapter merged, one at a time."""

from __future__ import annotations

import json

import pytest
import torch
from merged_reference import generate, merged_model
from safetensors.torch import load_file, save_file

from adapters_store.backbone import Backbone
from benchmarks.drive import answers
from benchmarks.synthetic import (
    MemoryLoader,
    make_bank,
    make_bert,
    make_lora,
    make_routing,
    make_t5,
)
from serving.engine import Engine, EngineConfig, Request, Sampling, Token

TINY = {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 48, "num_layers": 2, "vocab_size": 50}
SHAPES = {
    "relu-tied": {"feed_forward_proj": "relu"},
    "gated-tied": {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 3},
    "gated-untied": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "silu-untied": {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False, "d_kv": 16},
}
MAX_TOKENS = 12


def _untie(folder):
    """Give the checkpoint an output matrix of its own, as published v1.1 checkpoints have."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    generator = torch.Generator().manual_seed(9)
    shape = tensors["shared.weight"].shape
    tensors["lm_head.weight"] = torch.randn(shape, generator=generator)
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = False
    config.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps(config))
    return Backbone.from_folder(folder, name="untied")


@pytest.fixture(scope="module", params=SHAPES)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    backbone = make_t5(folder, liveliness=4.0, **{**TINY, **SHAPES[request.param]})
    if request.param == "silu-untied":
        backbone = _untie(folder)
    loader = MemoryLoader()
    artefacts = [make_lora(backbone, rank=rank, seed=rank) for rank in (1, 3, 8, 20)]
    bank = make_bank(backbone, rank=2, num_skills=4, num_heads=4)
    artefacts += [make_routing(backbone, bank, seed=seed) for seed in (1, 2)]
    narrow = [site for site in backbone.sites.values() if site.role in ("self.q", "self.v")]
    artefacts.append(make_lora(backbone, rank=4, seed=99, sites=narrow, effect=3.0))
    loader.add(bank)
    for artefact in artefacts:
        loader.add(artefact)
    generator = torch.Generator().manual_seed(4)
    requests, expected = [], {}
    for i, artefact in enumerate([None, *artefacts]):
        model = merged_model(backbone, artefact, bank)
        for j, length in enumerate((3, 9, 19)):
            ids = tuple(torch.randint(2, 50, (length,), generator=generator).tolist())
            name = f"{i}-{j}"
            digest = None if artefact is None else artefact.digest
            requests.append(Request(name, "generate", digest, ids, Sampling(max_tokens=MAX_TOKENS)))
            expected[name] = generate(model, ids, MAX_TOKENS)
    return backbone, loader, requests, expected


@pytest.mark.parametrize("form", ["composed", "shared"])
def test_greedy_tokens_equal_generate_with_merged_weights(case, form):
    backbone, loader, requests, expected = case
    engine = Engine(backbone, loader, EngineConfig(mixture_form=form))
    outcomes = answers(engine, requests)
    engine.close()
    assert {name: outcome.tokens for name, outcome in outcomes.items()} == expected
    assert len({tuple(tokens) for tokens in expected.values()}) > 12


def test_log_probabilities_equal_those_of_the_model(case):
    backbone, loader, requests, _ = case
    request = requests[1]
    engine = Engine(backbone, loader)
    sampling = Sampling(max_tokens=4, logprobs=5, ignore_eos=True)
    row = Request("a", "generate", None, request.input_ids, sampling)
    events = [e for e in answers(engine, [row])["a"].events if isinstance(e, Token)]
    engine.close()
    model = merged_model(backbone)
    start = [0, *[e.token for e in events]]
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor([request.input_ids]), decoder_input_ids=torch.tensor([start])
        ).logits[0]
    for i, event in enumerate(events):
        top = logits[i].log_softmax(0).topk(5)
        assert [token for token, _ in event.top] == top.indices.tolist()
        assert [p for _, p in event.top] == pytest.approx(top.values.tolist(), abs=1e-4)


def test_encoder_outputs_equal_bert(tmp_path):
    backbone = make_bert(
        tmp_path,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        vocab_size=70,
        max_position_embeddings=80,
    )
    loader = MemoryLoader()
    lora = make_lora(backbone, rank=3, effect=0.7, num_labels=3, pooling="cls")
    bank = make_bank(backbone, rank=2, num_skills=3, num_heads=2)
    routed = make_routing(backbone, bank, num_labels=4)
    for artefact in (lora, bank, routed):
        loader.add(artefact)
    generator = torch.Generator().manual_seed(0)
    requests = []
    tasks = [None, lora, routed]
    for i, length in enumerate((1, 2, 15, 16, 17, 40, 80, 5, 33)):
        ids = tuple(torch.randint(0, 70, (length,), generator=generator).tolist())
        task = tasks[i % 3]
        requests.append(Request(f"{i}", "embed", task.digest if task else None, ids))
    engine = Engine(backbone, loader)
    outcomes = answers(engine, requests)
    engine.close()
    models = [merged_model(backbone, task, bank) for task in tasks]
    for i, request in enumerate(requests):
        with torch.inference_mode():
            hidden = models[i % 3](torch.tensor([request.input_ids])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        assert outcomes[request.id].vector == pytest.approx(expected.tolist(), abs=1e-5)
