"""What a mixed batch costs: decode steps with 1 to 128 tasks over the bare step.

A random T5 of the published t5-v1_1-small shape (512 wide, 8+8 layers, gated) with a vocabulary
of 8192 decodes 32 rows. Every linear site is adapted (LoRA rank 8; bank of 8 skills, 8 heads,
rank 8). The mixed batch holds 4 bare rows, 8 LoRAs of ranks 4 to 16, 10 routed tasks, 4 IA3, 4
bottlenecks of rank 16 behind every sub-layer and 2 prefixes of 16 rows, no two alike. All systems
take one step in turn, round after round, on the same weights, and the medians are compared. The
step times include everything: adapters, attention, output matrix and the choice of the token.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from benchmarks.drive import Outcome, answers, drain
from benchmarks.report import Report
from benchmarks.synthetic import (
    MemoryLoader,
    make_bank,
    make_bottleneck,
    make_lora,
    make_prefix,
    make_routing,
    make_scale,
    make_t5,
)
from serving.engine import Engine, EngineConfig, Request, Sampling, Weights, load_weights

NUM_ROWS = 32
RANK = 8
NUM_INPUT_TOKENS = 32
_NUM_WARM_UP = 2
MODEL = {
    "d_model": 512,
    "d_kv": 64,
    "num_heads": 6,
    "d_ff": 1024,
    "num_layers": 8,
    "vocab_size": 8192,
    "feed_forward_proj": "gated-gelu",
}
BANK = {"num_skills": 8, "num_heads": 8, "rank": RANK}


@dataclass(slots=True)
class System:
    """Something that decodes one token of every row per call; ``times_s`` are its steps."""

    name: str
    step: Callable[[], object]
    times_s: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Take one step and note its time."""
        start = time.perf_counter()
        self.step()
        self.times_s.append(time.perf_counter() - start)


@dataclass(slots=True)
class Bench:
    """The backbone, the tasks and the systems of one run."""

    backbone: Backbone
    loader: MemoryLoader
    num_rounds: int
    weights: Weights
    engines: dict[str, Engine] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)

    def inputs(self) -> list[tuple[int, ...]]:
        """The same inputs for every system."""
        generator = torch.Generator().manual_seed(1)
        shape = (NUM_ROWS, NUM_INPUT_TOKENS)
        rows = torch.randint(2, int(MODEL["vocab_size"]), shape, generator=generator)  # type: ignore[call-overload]
        return [tuple(row) for row in rows.tolist()]

    def engine(self, name: str, tasks: list[str | None], *, form: str = "auto") -> System:
        """An engine whose batch of 32 rows has taken its first step."""
        config = EngineConfig(
            max_rows=NUM_ROWS,
            max_step_tokens=NUM_ROWS * NUM_INPUT_TOKENS,
            mixture_form=form,  # type: ignore[arg-type]
            num_threads=torch.get_num_threads(),
        )
        engine = Engine(self.backbone, self.loader, config, weights=self.weights)
        self.engines[name] = engine
        self.outcomes[name] = {}
        return self.refill(name, tasks)

    def refill(self, name: str, tasks: list[str | None]) -> System:
        """Give the engine 32 rows and step until all of them decode."""
        engine = self.engines[name]
        sampling = Sampling(max_tokens=self.num_rounds + 40, ignore_eos=True)
        for i, ids in enumerate(self.inputs()):
            engine.submit(Request(f"{i}", "generate", tasks[i % len(tasks)], ids, sampling))
        while engine.stats().num_running < NUM_ROWS:
            drain(engine, self.outcomes[name], num_steps=1)
        return System(name, lambda: self._step(name))

    def _step(self, name: str) -> None:
        for event in self.engines[name].step():
            self.outcomes[name].setdefault(event.id, Outcome()).take(event)

    def close(self) -> None:
        """Stop every engine's loader thread."""
        for engine in self.engines.values():
            engine.close()


def run(*, quick: bool, folder: Path | None = None) -> Report:
    """Measure every system; ``quick`` takes fewer rounds and leaves the slow extras out."""
    from benchmarks.heterogeneity_decoder import run_decoder
    from benchmarks.peft_baseline import PlainSteps, load_model, lora_model, poly_model

    num_rounds = 8 if quick else 24
    report = Report("heterogeneity", _config(num_rounds))
    with tempfile.TemporaryDirectory() as temporary:
        backbone = make_t5(folder or Path(temporary), liveliness=2.0, **MODEL)
        bench = Bench(backbone, MemoryLoader(), num_rounds, load_weights(backbone, torch.float32))
        loras, routings, mixed = _tasks(bench, 32 if quick else 128)
        narrow = [site for site in backbone.sites.values() if site.role[-1] in "qv"]
        narrow_bank = make_bank(backbone, seed=2, effect=0.05, sites=narrow, **BANK)
        bench.loader.add(narrow_bank)
        narrow_tasks = [make_routing(backbone, narrow_bank, seed=i) for i in range(NUM_ROWS)]
        counts = [1, 32] if quick else [1, 8, 32, 128]
        spread = {n: [i * (n // NUM_ROWS or 1) % n for i in range(NUM_ROWS)] for n in counts}
        systems = [bench.engine("bare", [None])]
        for n in counts:
            systems.append(bench.engine(f"lora_{n}", [_add(bench, loras[i]) for i in spread[n]]))
            systems.append(
                bench.engine(f"routed_{n}", [_add(bench, routings[i]) for i in spread[n]])
            )
        chosen = [_add(bench, r) for r in routings[:NUM_ROWS]]
        systems.append(bench.engine("routed_shared_32", list(chosen), form="shared"))
        systems.append(bench.engine("mixed_32", mixed))
        enabled = bench.engine("bare_enabled", [*chosen])
        for i in range(NUM_ROWS):
            bench.engines["bare_enabled"].cancel(f"{i}")
        bench.outcomes["bare_enabled"].clear()
        bench.engines["bare_enabled"].step()
        systems.append(bench.refill(enabled.name, [None]))
        systems.append(bench.engine("routed_qv_32", [_add(bench, r) for r in narrow_tasks]))
        inputs = bench.inputs()
        plain = PlainSteps(load_model(backbone.folder), inputs)
        names = [f"t{i}" for i in range(NUM_ROWS)]
        peft_lora = PlainSteps(lora_model(backbone, loras[:NUM_ROWS]), inputs, adapter_names=names)
        poly = PlainSteps(
            poly_model(backbone, narrow_bank, narrow_tasks),
            inputs,
            task_ids=torch.arange(NUM_ROWS),
        )
        systems += [
            System("transformers_bare", plain.step),
            System("peft_lora_32", peft_lora.step),
            System("peft_poly_qv_32", poly.step),
        ]
        measure(systems, num_rounds)
        _finish(report, systems)
        _same(report, bench, {"bare": plain, "lora_32": peft_lora, "routed_qv_32": poly})
        _throughput(report, bench, 1 if quick else 3)
        bench.close()
    run_decoder(report, num_rounds=num_rounds, num_repeats=1 if quick else 3)
    return report


def _config(num_rounds: int) -> dict[str, Any]:
    return {
        **MODEL,
        "rows": NUM_ROWS,
        "rank": RANK,
        "bank": "8 skills x 8 heads",
        "sites": "all linear",
        "input_tokens": NUM_INPUT_TOKENS,
        "rounds": num_rounds,
        "dtype": "float32",
        "torch_threads": torch.get_num_threads(),
    }


def _add(bench: Bench, artefact: Artefact) -> str:
    return bench.loader.add(artefact)


def _tasks(bench: Bench, count: int) -> tuple[list[Artefact], list[Artefact], list[str | None]]:
    backbone = bench.backbone
    loras = [make_lora(backbone, rank=RANK, seed=i, effect=0.1) for i in range(count)]
    bank = make_bank(backbone, seed=1, effect=0.05, **BANK)
    bench.loader.add(bank)
    routings = [make_routing(backbone, bank, seed=i) for i in range(count)]
    mixed: list[str | None] = [None] * 4
    mixed += [
        _add(bench, make_lora(backbone, rank=(4, 8, 16)[i % 3], seed=500 + i, effect=0.1))
        for i in range(8)
    ]
    mixed += [_add(bench, routing) for routing in routings[:10]]
    mixed += [_add(bench, make_scale(backbone, seed=i)) for i in range(4)]
    mixed += [_add(bench, make_bottleneck(backbone, seed=i)) for i in range(4)]
    mixed += [_add(bench, make_prefix(backbone, seed=i)) for i in range(2)]
    assert len(mixed) == NUM_ROWS
    return loras, routings, mixed


def measure(systems: list[System], num_rounds: int) -> None:
    """Let all systems take a step in turn, round after round; the first rounds do not count."""
    for number in range(num_rounds + _NUM_WARM_UP):
        if number == _NUM_WARM_UP:
            for system in systems:
                system.times_s.clear()
        for system in systems:
            system.measure()


def _finish(report: Report, systems: list[System]) -> None:
    step = {s.name: median(s.times_s) for s in systems}
    for system in systems:
        ordered = sorted(system.times_s)
        report.rows.append(
            {
                "system": system.name,
                "step_ms": step[system.name] * 1e3,
                "p10_ms": ordered[len(ordered) // 10] * 1e3,
                "p90_ms": ordered[-1 - len(ordered) // 10] * 1e3,
                "over_bare": step[system.name] / step["bare"],
            }
        )
    ratios = report.ratios
    for name, seconds in step.items():
        if name.startswith(("lora_", "routed_", "mixed_", "bare_")) and name != "routed_qv_32":
            ratios[f"{name}_over_bare"] = seconds / step["bare"]
    ratios["peft_32_over_routed"] = step["peft_lora_32"] / step["routed_32"]
    ratios["peft_32_over_lora"] = step["peft_lora_32"] / step["lora_32"]
    ratios["peft_poly_32_over_routed"] = step["peft_poly_qv_32"] / step["routed_qv_32"]
    ratios["transformers_over_bare"] = step["transformers_bare"] / step["bare"]


def _same(report: Report, bench: Bench, references: dict[str, Any]) -> None:
    """Share of rows whose tokens agree with the reference's on the same weights."""
    for name, steps in references.items():
        outcomes = bench.outcomes[name]
        expected = list(zip(*steps.tokens, strict=True))
        same = 0
        for i in range(NUM_ROWS):
            tokens = tuple(outcomes[f"{i}"].tokens)
            length = min(len(tokens), len(expected[i]))
            same += tokens[:length] == expected[i][:length]
        report.ratios[f"{name}_same_tokens"] = same / NUM_ROWS


def _throughput(report: Report, bench: Bench, num_rounds: int) -> None:
    """Whole answers: tokens a second of the bare engine over ``generate`` on one full batch."""
    from benchmarks.peft_baseline import load_model

    model = load_model(bench.backbone.folder)
    inputs = bench.inputs()
    num_tokens = 24
    engine = bench.engines["bare"]
    for i in range(NUM_ROWS):
        engine.cancel(f"{i}")
    engine.step()
    sampling = Sampling(max_tokens=num_tokens, ignore_eos=True)
    requests = [Request(f"{i}", "generate", None, x, sampling) for i, x in enumerate(inputs)]

    def run_engine() -> object:
        return answers(engine, requests)

    @torch.inference_mode()
    def run_generate() -> object:
        ids = torch.tensor(inputs)
        return model.generate(ids, max_new_tokens=num_tokens, min_new_tokens=num_tokens)

    systems = [System("generate", run_generate), System("engine", run_engine)]
    for _ in range(num_rounds):
        for system in systems:
            system.measure()
    generate_s, engine_s = (median(system.times_s) for system in systems)
    report.ratios["bare_tokens_s"] = NUM_ROWS * num_tokens / engine_s
    report.ratios["bare_tokens_s_over_generate"] = generate_s / engine_s
