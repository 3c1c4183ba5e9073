"""The engine's counters in the form that travels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.core.messages import Stats

if TYPE_CHECKING:
    from serving.engine.stats import EngineStats


def describe(stats: EngineStats, loads_s: tuple[float, ...]) -> Stats:
    """What replicas need of an engine's state, with the loads since the last report."""
    cache = stats.cache
    return Stats(
        num_running=stats.num_running,
        num_waiting=stats.num_waiting,
        num_resident_adapters=cache.num_resident,
        resident_adapter_bytes=cache.resident_bytes,
        num_evictions=cache.num_evictions,
        lookups={
            "memory": cache.num_hits,
            "loading": cache.num_joins,
            "host": cache.num_host_hits,
            "store": cache.num_misses,
        },
        loads_s=loads_s,
        host_adapter_bytes=cache.host_bytes,
        kv_used_bytes=stats.kv_used_bytes,
        kv_bytes=stats.kv_bytes,
        num_preemptions=stats.num_preempted_total,
        num_reused_tokens=stats.num_reused_tokens_total,
    )
