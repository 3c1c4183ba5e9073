"""Whole answers on inputs of mixed lengths: the bare engine beside transformers, same weights.

32 inputs of 8, 16, 32 and 128 tokens get as many tokens each: from the engine, from ``generate``
on the padded batch and, where the model is a decoder, from transformers' own continuous batching.
"""

from __future__ import annotations

import torch

from benchmarks.decode_bench import DecodeBench
from benchmarks.drive import answers
from benchmarks.peft_baseline import load_model
from benchmarks.report import Report
from benchmarks.stopwatch import System, take_turns
from serving.engine import Request, Sampling

MIXED_LENGTHS = (8, 16, 32, 128)


def add_whole_answers(
    report: Report, bench: DecodeBench, *, num_tokens: int, num_repeats: int
) -> None:
    """Add tokens a second and their ratios, and the share of answers equal to ``generate``'s."""
    import transformers

    cell = bench.cell
    inputs = _inputs(bench)
    model = load_model(bench.backbone.folder, cell.torch_dtype)
    longest = max(len(ids) for ids in inputs)
    left = cell.family == "llama"
    padded = torch.tensor([_pad(ids, longest, left) for ids in inputs])
    mask = torch.tensor([_pad([1] * len(ids), longest, left) for ids in inputs])
    model.generation_config.eos_token_id = None
    settings = transformers.GenerationConfig(
        max_new_tokens=num_tokens, do_sample=False, pad_token_id=0, decoder_start_token_id=0
    )
    engine = bench.clear("bare")
    sampling = Sampling(max_tokens=num_tokens, ignore_eos=True)
    requests = [
        Request(f"{i}", "generate", None, tuple(ids), sampling) for i, ids in enumerate(inputs)
    ]

    written: dict[str, list[list[int]]] = {}

    def run_engine() -> None:
        outcomes = answers(engine, requests)
        written["engine"] = [outcomes[f"{i}"].tokens for i in range(len(inputs))]

    @torch.inference_mode()
    def run_generate() -> None:
        ids = model.generate(padded, attention_mask=mask, generation_config=settings)
        written["generate"] = ids[:, -num_tokens:].tolist()

    systems = [System("engine", run_engine), System("generate", run_generate)]
    if cell.family == "llama":
        blocks = transformers.ContinuousBatchingConfig(num_blocks=256, max_batch_tokens=2048)
        systems.append(
            System(
                "transformers_cb",
                lambda: model.generate_batch(
                    inputs, generation_config=settings, continuous_batching_config=blocks
                ),
            )
        )
    take_turns(systems, num_repeats, num_warm_up=0)
    pairs = zip(written["engine"], written["generate"], strict=True)
    same = sum(own == other for own, other in pairs) / len(inputs)
    median_s = {system.name: system.median_s for system in systems}
    for name, seconds in median_s.items():
        tokens_s = len(inputs) * num_tokens / seconds
        report.rows.append(
            {"part": cell.name, "whole_answers": name, "tokens": num_tokens, "tokens_s": tokens_s}
        )
    ratios = report.ratios
    ratios[f"{cell.prefix}bare_answers_same{cell.breadth}"] = same
    ratios[f"{cell.prefix}bare_tokens_s{cell.breadth}"] = (
        len(inputs) * num_tokens / median_s["engine"]
    )
    ratios[f"{cell.prefix}bare_tokens_s_over_generate{cell.breadth}"] = (
        median_s["generate"] / median_s["engine"]
    )
    if cell.family == "llama":
        ratios[f"bare_tokens_s_over_transformers_cb{cell.breadth}"] = (
            median_s["transformers_cb"] / median_s["engine"]
        )


def _inputs(bench: DecodeBench) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    vocab = bench.backbone.architecture.vocab_size
    lengths = [MIXED_LENGTHS[i % len(MIXED_LENGTHS)] for i in range(bench.num_rows)]
    return [torch.randint(3, vocab, (n,), generator=generator).tolist() for n in lengths]


def _pad(row: list[int], length: int, left: bool) -> list[int]:
    fill = [0] * (length - len(row))
    return [*fill, *row] if left else [*row, *fill]
