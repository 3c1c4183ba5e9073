"""Counters and gauges of an engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving.residency.entry import CacheStats

COUNTED = (
    "steps",
    "input_tokens",
    "output_tokens",
    "finished",
    "failed",
    "cancelled",
    "preempted",
    "reused_tokens",
)
"""What an engine counts since its start: the fields ``num_{name}_total``."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """``last_*`` describe the latest step; ``num_*_total`` count since the engine started.

    ``batch_rows`` maps a number of decoded rows to how many steps had it. ``table_bytes`` are the
    row-ordered factors of the running batch, ``kv_bytes`` all keys and values with the spare places
    of slabs, ``kv_used_bytes`` those that rows have. A row is preempted when its keys and values
    are dropped for others' and computed anew later. ``prefix_bytes`` are keys and values of inputs
    read before; reused tokens are input tokens that were found there.
    """

    num_running: int
    num_waiting: int
    last_num_adapters: int
    last_step_s: float
    num_steps_total: int
    num_input_tokens_total: int
    num_output_tokens_total: int
    num_finished_total: int
    num_failed_total: int
    num_cancelled_total: int
    num_preempted_total: int
    num_reused_tokens_total: int
    table_bytes: int
    kv_bytes: int
    kv_used_bytes: int
    prefix_bytes: int
    cache: CacheStats
    batch_rows: dict[int, int] = field(default_factory=dict)
