"""Every family that writes text against transformers' ``generate``, adapters merged one by one."""

from __future__ import annotations

import pytest
import torch
from generation_kit import make_mix, save_generator
from merged_reference import merged_model

from adapters_store.errors import UsageError
from adapters_store.families import MODEL_TYPES, load_family
from benchmarks.drive import Outcome, answers, drain
from serving.engine import Engine, EngineConfig, Request, Sampling, Token

LLAMA3 = {
    "rope_theta": 100.0,
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
WINDOWED = ["sliding_attention", "full_attention", "sliding_attention"]
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2-inner": ("gpt2", {"n_inner": 56, "activation_function": "gelu"}),
    "llama": ("llama", {}),
    "llama-tied-biased": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "llama-all-heads": ("llama", {"num_key_value_heads": 4}),
    "llama-one-key-head": ("llama", {"num_key_value_heads": 1}),
    "llama-llama3": ("llama", {"rope_parameters": LLAMA3}),
    "llama-linear": (
        "llama",
        {"rope_parameters": {"rope_theta": 50.0, "rope_type": "linear", "factor": 2.0}},
    ),
    "llama-dynamic": (
        "llama",
        {"rope_parameters": {"rope_theta": 50.0, "rope_type": "dynamic", "factor": 2.0}},
    ),
    "mistral": ("mistral", {}),
    "mistral-window": ("mistral", {"sliding_window": 6}),
    "qwen2": ("qwen2", {}),
    "qwen2-window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": WINDOWED},
    ),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 6}),
    "gemma2-window": ("gemma2", {"sliding_window": 5, "attn_logit_softcapping": 2.0}),
    "gemma3_text": (
        "gemma3_text",
        {"sliding_window": 5, "layer_types": WINDOWED, "query_pre_attn_scalar": 6},
    ),
    "bart": ("bart", {"decoder_layers": 2}),
    "bart-scaled": ("bart", {"scale_embedding": True, "activation_function": "relu"}),
    "mbart": ("mbart", {"decoder_layers": 2}),
    "t5": ("t5", {}),
    "mt5": ("mt5", {}),
    "umt5": ("umt5", {"num_decoder_layers": 2}),
}


@pytest.fixture(scope="module", params=CASES)
def mix(request, tmp_path_factory):
    model_type, changes = CASES[request.param]
    folder = tmp_path_factory.mktemp("generator")
    return make_mix(save_generator(folder, model_type, **changes))


def test_every_family_that_writes_text_has_a_case():
    running = {kind for kind, name in MODEL_TYPES.items() if load_family(name).runner is not None}
    encoders = {"bert", "roberta", "xlm-roberta", "distilbert"}
    assert {model_type for model_type, _ in CASES.values()} == running - encoders


@pytest.mark.parametrize("form", ["composed", "shared"])
def test_tokens_of_mixed_rows_equal_generate(mix, form):
    engine = Engine(mix.backbone, mix.loader, EngineConfig(mixture_form=form))
    outcomes = answers(engine, mix.requests)
    engine.close()
    assert {name: outcome.tokens for name, outcome in outcomes.items()} == mix.expected
    assert len({tuple(tokens) for tokens in mix.expected.values()}) > 8


def test_rows_that_arrive_one_by_one_get_the_same_tokens(mix):
    engine = Engine(mix.backbone, mix.loader, EngineConfig(max_rows=5))
    outcomes: dict[str, Outcome] = {}
    for request in reversed(mix.requests):
        engine.submit(request)
        drain(engine, outcomes, num_steps=1)
    drain(engine, outcomes)
    engine.close()
    assert {name: outcome.tokens for name, outcome in outcomes.items()} == mix.expected


def test_log_probabilities_equal_those_of_the_model(mix):
    requests = [mix.requests[i] for i in (2, 7, 18)]
    sampling = Sampling(max_tokens=6, logprobs=4, ignore_eos=True)
    asked = [Request(r.id, "generate", r.adapter, r.input_ids, sampling) for r in requests]
    engine = Engine(mix.backbone, mix.loader)
    outcomes = answers(engine, asked)
    engine.close()
    by_digest = {one.digest: one for one in mix.artefacts if one is not None}
    architecture = mix.backbone.architecture
    for request in asked:
        events = [event for event in outcomes[request.id].events if isinstance(event, Token)]
        tokens = [event.token for event in events]
        artefact = by_digest.get(request.adapter) if request.adapter else None
        model = merged_model(mix.backbone, artefact, mix.bank)
        with torch.inference_mode():
            if architecture.is_encoder_decoder:
                start = [architecture.decoder_start_token_id, *tokens]
                inputs = {
                    "input_ids": torch.tensor([request.input_ids]),
                    "decoder_input_ids": torch.tensor([start]),
                }
                logits = model(**inputs).logits[0]
            else:
                whole = torch.tensor([[*request.input_ids, *tokens]])
                logits = model(whole).logits[0, len(request.input_ids) - 1 :]
        for i, event in enumerate(events):
            expected = logits[i].log_softmax(0)
            assert event.logprob == pytest.approx(float(expected[event.token]), abs=1e-4)
            top = expected.topk(4)
            assert [p for _, p in event.top] == pytest.approx(top.values.tolist(), abs=1e-4)


def test_a_row_that_would_outgrow_the_positions_is_refused(mix):
    architecture = mix.backbone.architecture
    limit = architecture.max_positions
    if limit is None:
        return
    num_input = limit - 5 if architecture.is_decoder_only else limit
    max_tokens = 5 if architecture.is_decoder_only else limit
    ids = (5,) * num_input
    engine = Engine(mix.backbone, mix.loader)
    with pytest.raises(UsageError, match=f"takes {limit}$"):
        engine.submit(Request("long", "generate", None, ids, Sampling(max_tokens=max_tokens + 1)))
    outcomes = answers(
        engine, [Request("fits", "generate", None, ids, Sampling(max_tokens=max_tokens))]
    )
    engine.close()
    assert outcomes["fits"].reason in ("length", "stop")
