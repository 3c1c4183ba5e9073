"""The served metrics: one frozen table of names, and the registry of one replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: Prometheus type, help text, label names, and buckets of a histogram."""

    type: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: Mapping[str, MetricSpec] = {
    "patchbay_requests_total": MetricSpec(
        "counter", "HTTP requests answered.", ("method", "route", "status")
    ),
    "patchbay_rejected_total": MetricSpec("counter", "Requests refused, by code.", ("code",)),
    "patchbay_request_duration_seconds": MetricSpec(
        "histogram", "From the request's headers to the last byte.", ("route",), _LATENCY
    ),
    "patchbay_time_to_first_token_seconds": MetricSpec(
        "histogram", "From submission to the first token or score.", ("backbone",), _LATENCY
    ),
    "patchbay_tokens_total": MetricSpec(
        "counter", "Tokens read (input) and written (output).", ("backbone", "direction")
    ),
    "patchbay_step_seconds": MetricSpec(
        "histogram", "Duration of one engine step.", ("backbone",), _LATENCY
    ),
    "patchbay_batch_rows": MetricSpec(
        "histogram", "Rows that shared one engine step.", ("backbone",), _COUNTS
    ),
    "patchbay_batch_distinct_adapters": MetricSpec(
        "histogram", "Distinct tasks that shared one engine step.", ("backbone",), _COUNTS
    ),
    "patchbay_rows_running": MetricSpec("gauge", "Rows in the batch now.", ("backbone",)),
    "patchbay_rows_waiting": MetricSpec("gauge", "Rows waiting for admission.", ("backbone",)),
    "patchbay_adapter_lookups_total": MetricSpec(
        "counter", "Adapter lookups, by the tier that answered.", ("backbone", "tier")
    ),
    "patchbay_adapter_evictions_total": MetricSpec(
        "counter", "Adapters dropped from memory to make room.", ("backbone",)
    ),
    "patchbay_adapter_load_seconds": MetricSpec(
        "histogram", "Loading one adapter from the store.", ("backbone",), _LATENCY
    ),
    "patchbay_resident_adapters": MetricSpec("gauge", "Adapters held in memory.", ("backbone",)),
    "patchbay_resident_adapter_bytes": MetricSpec(
        "gauge", "Bytes of adapters held in memory.", ("backbone",)
    ),
    "patchbay_host_adapter_bytes": MetricSpec(
        "gauge", "Bytes of adapters in memory as they were read.", ("backbone",)
    ),
    "patchbay_kv_bytes": MetricSpec("gauge", "Bytes set aside for keys and values.", ("backbone",)),
    "patchbay_kv_used_bytes": MetricSpec(
        "gauge", "Bytes of keys and values that rows have.", ("backbone",)
    ),
    "patchbay_preemptions_total": MetricSpec(
        "counter", "Rows whose keys and values were dropped and computed anew.", ("backbone",)
    ),
    "patchbay_reused_tokens_total": MetricSpec(
        "counter", "Input tokens whose keys and values were there already.", ("backbone",)
    ),
    "patchbay_core_up": MetricSpec("gauge", "1 while the engine core answers.", ("backbone",)),
    "patchbay_build_info": MetricSpec("gauge", "Always 1; versions as labels.", ("version",)),
}


class Metrics:
    """The metrics of one replica in a registry of its own; raises KeyError on unknown names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        for name, spec in METRICS.items():
            if spec.type == "counter":
                made: Any = Counter(name, spec.help, spec.labels, registry=self.registry)
            elif spec.type == "gauge":
                made = Gauge(name, spec.help, spec.labels, registry=self.registry)
            else:
                made = Histogram(
                    name, spec.help, spec.labels, registry=self.registry, buckets=spec.buckets
                )
            self._metrics[name] = made

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add ``amount`` to a counter."""
        self._at(name, labels).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._at(name, labels).set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record ``value`` in a histogram."""
        self._at(name, labels).observe(value)

    def value(self, sample: str, **labels: str) -> float:
        """The present value of a sample such as ``patchbay_batch_rows_count``; 0.0 when absent."""
        return self.registry.get_sample_value(sample, labels) or 0.0

    def _at(self, name: str, labels: dict[str, str]) -> Any:
        metric = self._metrics[name]
        return metric.labels(**labels) if labels else metric
