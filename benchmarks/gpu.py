"""What mixed batches cost on a GPU: decode steps of a 7B shape over the bare step and the floor.

A random Llama of 7B's shape decodes 1, 32 and 256 rows: bare, with 32 LoRAs of rank 16 at every
linear site, and with 32 routed tasks over a bank of 8 skills and 8 heads; PEFT runs the same LoRAs
on the same weights. The floor is the time in which the device's own copy moves the bytes that a
step must read: frozen matrices, distinct factors, keys and values. Without a GPU, and in a quick
run, a small shape runs the same course.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from benchmarks import peft_baseline as peft
from benchmarks.drive import drain
from benchmarks.report import Report, Target
from benchmarks.step_cost import (
    copy_bytes_per_s,
    num_factors,
    num_frozen,
    num_kv,
    num_task_elements,
)
from benchmarks.stopwatch import NUM_WARM_UP, System, take_turns
from benchmarks.synthetic import MemoryLoader, make_bank, make_lora, make_routing
from serving.device import find_device
from serving.engine import Engine, EngineConfig, Request, Sampling, Weights, load_weights

NUM_INPUT_TOKENS = 32
LOADING_S = 300.0


@dataclass(frozen=True, slots=True)
class Course:
    """What is run: a model's shape, its dtype, numbers of rows, and tasks."""

    shape: dict[str, int]
    dtype: str
    rows: tuple[int, ...]
    num_tasks: int
    rank: int
    bank: dict[str, int]
    num_rounds: int


WHOLE = Course(
    {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    },
    "bfloat16",
    (1, 32, 256),
    32,
    16,
    {"num_skills": 8, "num_heads": 8, "rank": 8},
    24,
)
SMALL = Course(
    {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
    "float32",
    (1, 4),
    4,
    4,
    {"num_skills": 4, "num_heads": 4, "rank": 4},
    4,
)
TARGETS = tuple(
    Target(f"{kind}_over_bare_{rows}", at_most=bound)
    for rows in (32, 256)
    for kind, bound in (("routed", 1.05), ("lora", 1.20))
)


def run(*, quick: bool) -> Report:
    """Measure all numbers of rows on this machine's GPU; ``quick`` and the CPU take a small one."""
    device = find_device("auto")
    course = SMALL if quick or device.type == "cpu" else WHOLE
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    config = {"device": name, "dtype": course.dtype, **course.shape, "rank": course.rank}
    report = Report("gpu", config, targets=TARGETS if course is WHOLE else ())
    with tempfile.TemporaryDirectory() as folder:
        _measure(report, course, _make(Path(folder), course, device), device)
    return report


def _make(folder: Path, course: Course, device: torch.device) -> Backbone:
    """Write the random model; it is drawn on the device."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(bos_token_id=1, eos_token_id=2, **course.shape)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, course.dtype)
        )
    model.save_pretrained(folder)
    return Backbone.from_folder(folder, name="random-llama")


def _measure(report: Report, course: Course, backbone: Backbone, device: torch.device) -> None:
    dtype = getattr(torch, course.dtype)
    loras = [
        make_lora(backbone, rank=course.rank, seed=i, effect=0.05) for i in range(course.num_tasks)
    ]
    bank = make_bank(backbone, seed=1, effect=0.05, **course.bank)
    routings = [make_routing(backbone, bank, seed=i) for i in range(course.num_tasks)]
    loader = MemoryLoader()
    for artefact in (bank, *loras, *routings):
        loader.add(artefact)
    weights = load_weights(backbone, dtype, device)
    copy = copy_bytes_per_s(device)
    kinds: dict[str, Sequence[Artefact | None]] = {
        "bare": [None],
        "lora": loras,
        "routed": routings,
    }
    for num_rows in course.rows:
        found: dict[str, System] = {}
        for kind, tasks in kinds.items():
            with _engine(course, backbone, loader, weights, tasks, num_rows) as step:
                found[kind] = _timed(kind, step, course.num_rounds)
                del step
        with _freed(device):
            model = peft.lora_model(backbone, loras, dtype).to(device)
            steps = _PeftSteps(model, num_rows, len(loras), device)
            found["peft_lora"] = _timed("peft_lora", steps.step, max(2, course.num_rounds // 4))
            del model, steps
        kv = num_rows * num_kv(backbone, NUM_INPUT_TOKENS, course.num_rounds / 2)
        read = {
            kind: dtype.itemsize * (num_frozen(backbone) + _num_own(tasks[:num_rows], bank) + kv)
            for kind, tasks in kinds.items()
        }
        for kind, system in found.items():
            floor_s = read["lora" if kind == "peft_lora" else kind] / copy
            over_floor = system.median_s / floor_s
            row = {"rows": num_rows, **system.row(found["bare"]), "floor_ms": 1e3 * floor_s}
            report.rows.append(row | {"over_floor": over_floor})
            report.ratios[f"{kind}_over_floor_{num_rows}"] = over_floor
            if kind != "bare":
                over_bare = system.median_s / found["bare"].median_s
                report.ratios[f"{kind}_over_bare_{num_rows}"] = over_bare
        slower = found["peft_lora"].median_s / found["lora"].median_s
        report.ratios[f"peft_over_lora_{num_rows}"] = slower
    report.rows.append({"copy_gb_s": copy / 1e9, "device": str(device)})


def _num_own(tasks: Sequence[Artefact | None], bank: Artefact) -> int:
    """Elements of the tasks' factors; routed ones need the whole bank at most."""
    own = num_task_elements(tasks, {bank.digest: bank})
    is_routed = any(task is not None and task.manifest.bank for task in tasks)
    return min(own, num_factors(bank)) if is_routed else own


def _timed(name: str, step: Callable[[], object], num_rounds: int) -> System:
    """The times of a step; what it belongs to is not kept."""
    system = System(name, step)
    take_turns([system], num_rounds)
    system.step = _nothing
    return system


def _nothing() -> None:
    """In the place of a step that is done with."""


@contextmanager
def _engine(
    course: Course,
    backbone: Backbone,
    loader: MemoryLoader,
    weights: Weights,
    tasks: Sequence[Artefact | None],
    num_rows: int,
) -> Iterator[Callable[[], object]]:
    """The step of an engine whose rows all decode, row ``i`` with task ``i`` modulo their count."""
    gib = 2**30
    config = EngineConfig(
        dtype=course.dtype,  # type: ignore[arg-type]
        max_rows=num_rows,
        max_kv_bytes=24 * gib,
        max_adapter_bytes=24 * gib,
        max_host_bytes=24 * gib,
        balance_flops_per_byte=200.0 if weights.device.type == "cuda" else 4.0,
    )
    with _freed(weights.device):
        engine = Engine(backbone, loader, config, weights=weights)
        num_tokens = course.num_rounds + 3 * NUM_WARM_UP + num_rows
        sampling = Sampling(max_tokens=num_tokens, ignore_eos=True)
        for task in tasks:
            if task is not None:
                engine.submit(_request(f"first {task.digest}", task, Sampling(max_tokens=1)))
        drain(engine, {})
        for i in range(num_rows):
            engine.submit(_request(f"{i}", tasks[i % len(tasks)], sampling))
        deadline = time.monotonic() + LOADING_S
        while engine.stats().num_running < num_rows:
            assert time.monotonic() < deadline, "the rows did not all begin in time"
            engine.wait(1.0)
            engine.step()
        yield engine.step
        engine.close()
        del engine


def _request(name: str, task: Artefact | None, sampling: Sampling) -> Request:
    ids = tuple(3 + (len(name) + 7 * i) % 200 for i in range(NUM_INPUT_TOKENS))
    return Request(name, "generate", None if task is None else task.digest, ids, sampling)


class _PeftSteps:
    """Greedy steps of a decoder with an adapter a row, through transformers' own cache."""

    def __init__(self, model: Any, num_rows: int, num_tasks: int, device: torch.device) -> None:
        self._model = model
        self._names = [f"t{i % num_tasks}" for i in range(num_rows)]
        ids = torch.arange(3, 3 + NUM_INPUT_TOKENS, device=device).expand(num_rows, -1)
        self._cache: Any = None
        self._ids = ids
        self.step()

    @torch.inference_mode()
    def step(self) -> None:
        """Decode one token of every row, and wait for it."""
        out = self._model(
            input_ids=self._ids,
            past_key_values=self._cache,
            use_cache=True,
            adapter_names=self._names,
        )
        self._cache = out.past_key_values
        self._ids = out.logits[:, -1].argmax(dim=1, keepdim=True)
        self._ids.tolist()


@contextmanager
def _freed(device: torch.device) -> Iterator[None]:
    """What was made inside is given back to the device behind it."""
    yield
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
