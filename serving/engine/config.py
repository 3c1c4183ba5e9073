"""Engine configuration, validated when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

import torch

from adapters_store.errors import UsageError
from serving.device import is_device_name
from serving.engine.policies import POLICIES
from serving.primitives.backend import KERNELS

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMS = ("auto", "composed", "shared")
GRAPHS = ("auto", "off", "unrecorded")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits and choices of one engine; raises :class:`UsageError` that lists every problem.

    ``device``: ``auto`` (a CUDA device where there is one), ``cpu``, ``cuda`` or ``cuda:N``; one
    that is not there is refused when the engine is made.
    ``num_threads``: torch threads of this process. ``max_rows``: rows that decode together.
    ``max_step_tokens``: input tokens read in one step. A longer input is read over several, by a
    decoder in parts, by the encoder before one some layers a step; else in a step of its own.
    ``max_kv_bytes``: keys and values of all rows.
    ``prefix_cache_bytes``: those of inputs read before, for inputs that begin alike; 0 keeps none.
    ``max_input_tokens`` / ``max_output_tokens``: per request. ``max_waiting``: queued requests.
    ``max_lookahead``: queued rows whose adapters are loaded ahead. ``max_adapter_bytes``: budget
    of adapters that are ready to run, ``max_host_bytes`` of adapters as they were read.
    ``mixture_form``: how routed rows decode; ``auto`` computes the cheaper form from
    ``balance_flops_per_byte``, the machine's FLOP per byte of memory traffic. ``kernels`` run
    low-rank products: Triton's on CUDA where they run there, else torch's operators; ``triton``
    insists. ``graphs``: whether decode steps are recorded as CUDA graphs, which needs the kernels;
    ``unrecorded`` runs the same steps over the same memory as they are. ``policy`` orders the
    waiting rows; ``tenant_weights`` are the shares of tenants that do not have share 1,
    ``burst_tokens`` the work that a tenant below its share may save up for a burst.
    ``max_step_adapters``: distinct adapters of one step. ``max_wait_s``: seconds after which a
    waiting row passes priorities and keeps others from taking its place.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    num_threads: int = 1
    max_rows: int = 32
    max_step_tokens: int = 2048
    max_input_tokens: int = 2048
    max_output_tokens: int = 2048
    max_waiting: int = 1024
    max_lookahead: int = 64
    max_adapter_bytes: int = 2 * 1024**3
    max_host_bytes: int = 1024**3
    max_kv_bytes: int = 4 * 1024**3
    prefix_cache_bytes: int = 256 * 1024**2
    mixture_form: Literal["auto", "composed", "shared"] = "auto"
    kernels: Literal["auto", "torch", "triton"] = "auto"
    graphs: Literal["auto", "off", "unrecorded"] = "auto"
    balance_flops_per_byte: float = 4.0
    policy: str = "fair"
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    max_step_adapters: int = 1024
    max_wait_s: float = 30.0
    burst_tokens: int = 4096

    def __post_init__(self) -> None:
        problems = [
            f"{item.name} is {getattr(self, item.name)!r}; expected a number above 0"
            for item in fields(self)
            if item.name.startswith(("num_", "max_", "balance_")) and getattr(self, item.name) <= 0
        ]
        problems += [
            f"{name} is {getattr(self, name)}; expected at least 0"
            for name in ("prefix_cache_bytes", "burst_tokens")
            if getattr(self, name) < 0
        ]
        if self.dtype not in DTYPES:
            problems.append(f"dtype is {self.dtype!r}; known: {', '.join(DTYPES)}")
        if not is_device_name(self.device):
            problems.append(f"device is {self.device!r}; expected auto, cpu, cuda or cuda:N")
        if self.mixture_form not in FORMS:
            problems.append(f"mixture_form is {self.mixture_form!r}; known: {', '.join(FORMS)}")
        if self.kernels not in KERNELS:
            problems.append(f"kernels is {self.kernels!r}; known: {', '.join(KERNELS)}")
        if self.graphs not in GRAPHS:
            problems.append(f"graphs is {self.graphs!r}; known: {', '.join(GRAPHS)}")
        if self.policy not in POLICIES:
            problems.append(f"policy is {self.policy!r}; known: {', '.join(POLICIES)}")
        problems += [
            f"tenant_weights.{tenant} is {weight!r}; expected a number above 0"
            for tenant, weight in self.tenant_weights.items()
            if not weight > 0
        ]
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as torch names it."""
        return DTYPES[self.dtype]
