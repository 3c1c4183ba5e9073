"""What a mixed batch costs: decode steps with 1 to 128 tasks over the bare step.

The run goes through cells: a random encoder-decoder (T5) or decoder (Llama), 512 or 1024 wide, in
fp32 or bf16, with every linear site or q and v alone adapted. In a cell, 32 rows decode on every
system (bare; 1, 8 and 32 LoRAs of rank 8; as many routed tasks over a bank of 8 skills and 8
heads; all kinds mixed; PEFT on the same weights), then 128 rows of 128 tasks beside 128 bare ones.
All systems take one step in turn, round after round, on the same weights, and the medians are
compared. The step times include everything: adapters, attention, output matrix and the choice of
the token.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from adapters_store.artefact import Artefact
from benchmarks import peft_baseline as peft
from benchmarks.cells import CELLS, Cell
from benchmarks.decode_bench import BANK, NUM_INPUT_TOKENS, RANK, DecodeBench, Tasks
from benchmarks.report import Report, Target, choose_parts
from benchmarks.step_cost import (
    copy_bytes_per_s,
    num_factors,
    num_frozen,
    num_kv,
    num_task_elements,
    products_s,
)
from benchmarks.stopwatch import NUM_WARM_UP, System, take_turns
from benchmarks.whole_answers import add_whole_answers

NUM_ROWS, MANY_ROWS = 32, 128
COUNTS = (1, 8, NUM_ROWS)
SHARED = "routed_shared_32"
"""Routed rows that read the bank instead of factors of their own."""
PARTS = tuple(cell.name for cell in CELLS)
QUICK: dict[str, tuple[str, ...]] = {
    "512-fp32-all": (
        *("bare", "bare_enabled", "lora_32", "routed_32", "mixed_32"),
        *("peft_lora_32", "transformers_bare"),
    ),
    "512-fp32-qv": ("bare", "routed_32", "peft_poly_32"),
    "decoder-512-fp32-all": ("bare", "lora_32", "routed_32", "mixed_32"),
}
"""The cells of a quick run and their systems; a cell that is asked for by name has the fewest."""
QUICK_FEWEST = ("bare", "lora_32", "routed_32")

TARGETS = (
    *(
        Target(f"{kind}_32_over_bare{suffix}", at_most=bound)
        for suffix, bound in (("", 1.20), ("_1024", 1.12), ("_bf16", 1.45), ("_bf16_1024", 1.30))
        for kind in ("routed", "lora")
    ),
    Target("mixed_32_over_bare", at_most=1.35),
    Target("bare_enabled_speed_over_bare", at_least=0.97),
    Target("peft_32_over_routed", at_least=5.0),
    Target("peft_32_over_lora", at_least=5.0),
    Target("bare_tokens_s_over_transformers_cb", at_least=1.0),
    Target("bare_tokens_s_over_generate", at_least=1.3),
    Target("decoder_bare_tokens_s_over_generate", at_least=1.3),
)


def run(*, quick: bool, parts: Sequence[str] = ()) -> Report:
    """Measure the cells ``parts``, or all; ``quick`` takes fewer rounds, systems and cells."""
    num_rounds = 6 if quick else 20
    report = Report("heterogeneity", _config(), targets=TARGETS)
    chosen = choose_parts(parts, PARTS) if parts or not quick else QUICK
    for cell in CELLS:
        if cell.name in chosen:
            wanted = QUICK.get(cell.name, QUICK_FEWEST) if quick else None
            with report.timed(cell.name), tempfile.TemporaryDirectory() as folder:
                _measure(report, cell, Path(folder), num_rounds, wanted)
    return report


def _config() -> dict[str, Any]:
    return {
        "rows": NUM_ROWS,
        "rank": RANK,
        "bank": f"{BANK['num_skills']} skills x {BANK['num_heads']} heads",
        "input_tokens": NUM_INPUT_TOKENS,
        "torch_threads": torch.get_num_threads(),
    }


def _measure(
    report: Report, cell: Cell, folder: Path, num_rounds: int, wanted: tuple[str, ...] | None
) -> None:
    tasks = Tasks(cell, cell.backbone(folder))
    num_steps = num_rounds + NUM_WARM_UP
    bench = DecodeBench.open(cell, tasks, num_rows=NUM_ROWS, num_steps=num_steps)
    references: dict[str, peft.PlainSteps] = {}
    builders = _builders(bench, references)
    systems = [make() for name, make in builders.items() if wanted is None or name in wanted]
    take_turns(systems, num_rounds)
    _rows(report, bench, systems)
    _ratios(report, cell, systems)
    _same(report, bench, references)
    if cell.sites == "all" and (wanted is None or "mixed_32" in wanted):
        few = wanted is not None
        add_whole_answers(report, bench, num_tokens=12 if few else 24, num_repeats=1 if few else 3)
    bench.close()
    if wanted is None:
        many = DecodeBench.open(cell, tasks, num_rows=MANY_ROWS, num_steps=num_steps)
        systems = [
            many.engine("bare_rows_128", [None]),
            many.engine("lora_128", [*tasks.loras(MANY_ROWS)]),
            many.engine("routed_128", [*tasks.routings(MANY_ROWS)]),
        ]
        take_turns(systems, num_rounds)
        _rows(report, many, systems)
        _ratios(report, cell, systems)
        many.close()


def _builders(
    bench: DecodeBench, references: dict[str, peft.PlainSteps]
) -> dict[str, Callable[[], System]]:
    """What makes each system of 32 rows, in the order in which they take their turns."""
    cell, tasks, backbone = bench.cell, bench.tasks, bench.backbone

    def plain() -> System:
        model = peft.load_model(backbone.folder, cell.torch_dtype)
        references["bare"] = steps = peft.PlainSteps(model, bench.inputs())
        return System("transformers_bare", steps.step)

    def lora() -> System:
        model = peft.lora_model(backbone, tasks.loras(NUM_ROWS), cell.torch_dtype)
        names = [f"t{i}" for i in range(NUM_ROWS)]
        references["lora_32"] = steps = peft.PlainSteps(model, bench.inputs(), adapter_names=names)
        return System("peft_lora_32", steps.step)

    def poly() -> System:
        routings = tasks.routings(NUM_ROWS)
        model = peft.poly_model(backbone, tasks.bank, routings, cell.torch_dtype)
        numbers = torch.arange(NUM_ROWS)
        references["routed_32"] = steps = peft.PlainSteps(model, bench.inputs(), task_ids=numbers)
        return System("peft_poly_32", steps.step)

    def engine(name: str, rows: Callable[[], Sequence[Artefact | None]]) -> Callable[[], System]:
        return lambda: bench.engine(name, [*rows()])

    def shared() -> System:
        return bench.engine(SHARED, [*tasks.routings(NUM_ROWS)], form="shared")

    builders: dict[str, Callable[[], System]] = {
        "bare": engine("bare", lambda: [None]),
        "bare_enabled": lambda: bench.enabled("bare_enabled", [*tasks.routings(NUM_ROWS)]),
    }
    for n in COUNTS:
        builders[f"lora_{n}"] = engine(f"lora_{n}", lambda n=n: tasks.loras(n))  # type: ignore[misc]
        builders[f"routed_{n}"] = engine(f"routed_{n}", lambda n=n: tasks.routings(n))  # type: ignore[misc]
    builders[SHARED] = shared
    builders["mixed_32"] = engine("mixed_32", tasks.mixed)
    if cell.family == "t5":
        builders |= {"transformers_bare": plain, "peft_lora_32": lora}
        if cell.sites == "qv":
            builders["peft_poly_32"] = poly
    return builders


def _rows(report: Report, bench: DecodeBench, systems: list[System]) -> None:
    """A row of every system: times, and what the step reads a second beside a measured copy."""
    cell, tasks = bench.cell, bench.tasks
    size = cell.torch_dtype.itemsize
    copy = copy_bytes_per_s()
    frozen = num_frozen(bench.backbone)
    mean_steps = len(systems[0].times_s) / 2 + NUM_WARM_UP + 1
    kv = bench.num_rows * num_kv(bench.backbone, NUM_INPUT_TOKENS, mean_steps)
    products_ms = 1e3 * products_s(bench.backbone, bench.num_rows, cell.torch_dtype)
    for system in systems:
        row = {"part": cell.name, **system.row(systems[0])}
        if system.name in bench.engines:
            own = (
                num_factors(tasks.bank)
                if system.name == SHARED
                else num_task_elements(bench.rows_of[system.name], {tasks.bank.digest: tasks.bank})
            )
            read = size * (frozen + own + kv)
            row |= {
                "read_mb": read / 1e6,
                "gb_s": read / system.median_s / 1e9,
                "of_copy": read / system.median_s / copy,
            }
        report.rows.append(row)
    report.rows.append(
        {
            "part": cell.name,
            "frozen_products_ms": products_ms,
            "rows": bench.num_rows,
            "bare_over_products": 1e3 * systems[0].median_s / products_ms,
            "copy_gb_s": copy / 1e9,
        }
    )


def _ratios(report: Report, cell: Cell, systems: list[System]) -> None:
    step = {system.name: system.median_s for system in systems}
    base = systems[0].median_s
    ratios = report.ratios

    def note(name: str, value: float, suffix: str = cell.suffix) -> None:
        ratios[f"{cell.prefix}{name}{suffix}"] = value

    for name, seconds in step.items():
        if name.startswith(("lora_", "routed_", "mixed_", "bare_e")):
            note(f"{name}_over_bare", seconds / base)
    if "bare_enabled" in step:
        note("bare_enabled_speed_over_bare", base / step["bare_enabled"])
    if "peft_lora_32" in step:
        note("peft_32_over_routed", step["peft_lora_32"] / step["routed_32"])
        note("peft_32_over_lora", step["peft_lora_32"] / step["lora_32"])
    if "peft_poly_32" in step:
        note("peft_poly_32_over_routed", step["peft_poly_32"] / step["routed_32"], cell.breadth)
    if "transformers_bare" in step:
        note("transformers_over_bare", step["transformers_bare"] / base)


def _same(report: Report, bench: DecodeBench, references: dict[str, peft.PlainSteps]) -> None:
    """Share of rows whose tokens agree with the reference's on the same weights."""
    for name, steps in references.items():
        outcomes = bench.outcomes[name]
        same = 0
        for i, expected in enumerate(zip(*steps.tokens, strict=True)):
            tokens = tuple(outcomes[f"{i}"].tokens)
            length = min(len(tokens), len(expected))
            same += tokens[:length] == expected[:length]
        share = same / bench.num_rows
        report.ratios[f"{bench.cell.prefix}{name}_same_tokens{bench.cell.suffix}"] = share
