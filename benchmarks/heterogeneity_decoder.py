"""The same question on a decoder alone: mixed steps over bare ones, and whole answers over others'.

A random Llama-shaped model (512 wide, 8 layers, 8 query heads over 4 key heads, gated 1408)
decodes 32 rows on every linear site. Whole answers are measured on inputs of mixed lengths against
padded ``generate`` and transformers' own continuous batching, on the same weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.drive import answers
from benchmarks.heterogeneity import NUM_ROWS, Bench, System, measure
from benchmarks.report import Report
from benchmarks.synthetic import MemoryLoader, make_bank, make_llama, make_lora, make_routing
from serving.engine import Request, Sampling, load_weights

MODEL: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8192,
    "max_position_embeddings": 1024,
}
BANK = {"num_skills": 8, "num_heads": 8, "rank": 8}
MIXED_LENGTHS = (8, 16, 32, 128)
NUM_TOKENS = 24


def run_decoder(report: Report, *, num_rounds: int, num_repeats: int) -> None:
    """Add the rows and ratios of the decoder, all with ``decoder`` in their names."""
    with tempfile.TemporaryDirectory() as folder:
        backbone = make_llama(Path(folder), **MODEL)
        bench = Bench(backbone, MemoryLoader(), num_rounds, load_weights(backbone, torch.float32))
        bank = make_bank(backbone, effect=0.05, **BANK)
        bench.loader.add(bank)
        loras: list[str | None] = []
        routed: list[str | None] = []
        for seed in range(NUM_ROWS):
            loras.append(bench.loader.add(make_lora(backbone, rank=8, seed=seed, effect=0.1)))
            routed.append(bench.loader.add(make_routing(backbone, bank, seed=seed)))
        systems = [
            bench.engine("decoder_bare", [None]),
            bench.engine("decoder_lora_32", loras),
            bench.engine("decoder_routed_32", routed),
            bench.engine("decoder_mixed_32", [None, *loras[:15], *routed[:16]]),
        ]
        measure(systems, num_rounds)
        bare_s = median(systems[0].times_s)
        for system in systems:
            seconds = median(system.times_s)
            report.rows.append(
                {
                    "system": system.name,
                    "step_ms": seconds * 1e3,
                    "over_bare": seconds / bare_s,
                }
            )
            if system.name != "decoder_bare":
                report.ratios[f"{system.name}_over_bare"] = seconds / bare_s
        _whole_answers(report, bench, num_repeats)
        bench.close()


def _mixed_inputs() -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    lengths = [MIXED_LENGTHS[i % len(MIXED_LENGTHS)] for i in range(NUM_ROWS)]
    vocab = MODEL["vocab_size"]
    return [torch.randint(3, vocab, (n,), generator=generator).tolist() for n in lengths]


def _whole_answers(report: Report, bench: Bench, num_repeats: int) -> None:
    """Tokens a second of the bare engine over those of transformers, on mixed lengths."""
    import transformers

    inputs = _mixed_inputs()
    model = transformers.AutoModelForCausalLM.from_pretrained(bench.backbone.folder).eval()
    settings = transformers.GenerationConfig(
        max_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=0
    )
    blocks = transformers.ContinuousBatchingConfig(num_blocks=256, max_batch_tokens=2048)
    engine = bench.engines["decoder_bare"]
    for i in range(NUM_ROWS):
        engine.cancel(f"{i}")
    engine.step()
    sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)
    requests = [
        Request(f"{i}", "generate", None, tuple(ids), sampling) for i, ids in enumerate(inputs)
    ]
    longest = max(len(ids) for ids in inputs)
    padded = torch.tensor([[0] * (longest - len(ids)) + ids for ids in inputs])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in inputs])

    @torch.inference_mode()
    def run_generate() -> object:
        return model.generate(padded, attention_mask=mask, generation_config=settings)

    def run_continuous() -> object:
        return model.generate_batch(
            inputs, generation_config=settings, continuous_batching_config=blocks
        )

    systems = [
        System("engine", lambda: answers(engine, requests)),
        System("generate", run_generate),
        System("continuous", run_continuous),
    ]
    for _ in range(num_repeats):
        for system in systems:
            system.measure()
    engine_s, generate_s, continuous_s = (median(system.times_s) for system in systems)
    ratios = report.ratios
    ratios["decoder_bare_tokens_s"] = NUM_ROWS * NUM_TOKENS / engine_s
    ratios["decoder_bare_tokens_s_over_generate"] = generate_s / engine_s
    ratios["bare_tokens_s_over_transformers_cb"] = continuous_s / engine_s
