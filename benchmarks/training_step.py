"""One multi-task training step: MHR against shared LoRA and PEFT's Poly, all in one process.

A random T5 of 512 wide; every batch has eight rows of eight tasks; the same sites, rank, optimiser
(fused AdamW) and data for everyone. Steps are taken in turn, so that a busy machine slows all.
"""

from __future__ import annotations

import copy
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks.report import Report
from training.backbones import sites_of
from training.injection import select_sites
from training.methods import MethodConfig
from training.model import AdaptedModel

MODEL = {
    "vocab_size": 8192,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1376,
    "num_heads": 8,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "feed_forward_proj": "gated-silu",
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
NUM_TASKS, NUM_INPUT, NUM_OUTPUT, RANK = 8, 96, 24, 8
Step = Callable[[], None]


def _batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    high = MODEL["vocab_size"]
    return {
        "input_ids": torch.randint(2, high, (NUM_TASKS, NUM_INPUT), generator=generator),
        "labels": torch.randint(2, high, (NUM_TASKS, NUM_OUTPUT), generator=generator),
    }


def _stepper(loss: Callable[[], torch.Tensor], model: torch.nn.Module) -> tuple[Step, int]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)

    def step() -> None:
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step, sum(p.numel() for p in trained)


def _ours(backbone: Any, config: MethodConfig, patterns: tuple[str, ...]) -> tuple[Step, int]:
    model = copy.deepcopy(backbone)
    adapted = AdaptedModel.build(model, select_sites(sites_of(model), patterns), config)
    adapted.train()
    batch, tasks = _batch(), torch.arange(NUM_TASKS)
    return _stepper(lambda: adapted(tasks, **batch).loss, adapted)


def _bare(backbone: Any) -> tuple[Step, int]:
    """Forward and backward of the frozen model, with the input embeddings as the only leaf."""
    model = copy.deepcopy(backbone).requires_grad_(False)
    batch = _batch()
    leaf = model.shared(batch["input_ids"]).detach().requires_grad_(True)

    def step() -> None:
        model(inputs_embeds=leaf, labels=batch["labels"]).loss.backward()
        leaf.grad = None

    return step, 0


def _peft_poly(backbone: Any, patterns: tuple[str, ...]) -> tuple[Step, int]:
    import peft

    model = copy.deepcopy(backbone)
    paths = [site.module_path for site in select_sites(sites_of(model), patterns)]
    config = peft.PolyConfig(
        task_type="SEQ_2_SEQ_LM",
        r=RANK,
        n_tasks=NUM_TASKS,
        n_skills=8,
        n_splits=8,
        target_modules=sorted({path.rpartition(".")[2] for path in paths}),
    )
    poly = peft.get_peft_model(model, config).train()
    batch, tasks = _batch(), torch.arange(NUM_TASKS)
    return _stepper(lambda: poly(**batch, task_ids=tasks).loss, poly)


def run(*, quick: bool) -> Report:
    """Step times in milliseconds at all linear sites and at q and v."""
    rounds = 5 if quick else 20
    torch.manual_seed(0)
    backbone = T5ForConditionalGeneration(T5Config(**MODEL))
    report = Report(
        "training_step",
        {"rows": NUM_TASKS, "input": NUM_INPUT, "output": NUM_OUTPUT, "rank": RANK}
        | {"skills": 8, "heads": 8, "rounds": rounds},
    )
    for suffix, patterns in (("", ("all",)), ("_qv", ("self.q", "self.v", "cross.q", "cross.v"))):
        mhr = MethodConfig("mhr", rank=RANK, num_skills=8, num_heads=8, num_tasks=NUM_TASKS)
        arms = {
            "bare": _bare(backbone),
            "shared LoRA": _ours(backbone, MethodConfig("lora", rank=RANK), patterns),
            "MHR": _ours(backbone, mhr, patterns),
            "PEFT Poly": _peft_poly(backbone, patterns),
        }
        times: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(rounds + 2):
            for name, (step, _) in arms.items():
                began = time.perf_counter()
                step()
                if number >= 2:
                    times[name].append(1e3 * (time.perf_counter() - began))
        for name, (_, num_trained) in arms.items():
            report.rows.append(
                {
                    "sites": patterns[0] if len(patterns) == 1 else "q, v",
                    "system": name,
                    "step_ms": median(times[name]),
                    "best_ms": min(times[name]),
                    "num_trained": num_trained,
                }
            )
        report.ratios[f"mhr_over_lora{suffix}"] = _ratio(times, "MHR", "shared LoRA")
        report.ratios[f"peft_poly_over_mhr{suffix}"] = _ratio(times, "PEFT Poly", "MHR")
        report.ratios[f"lora_over_bare{suffix}"] = _ratio(times, "shared LoRA", "bare")
    report.ratios["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return report


def _ratio(times: dict[str, list[float]], first: str, second: str) -> float:
    """The median of the rounds' own ratios."""
    return median(a / b for a, b in zip(times[first], times[second], strict=True))
