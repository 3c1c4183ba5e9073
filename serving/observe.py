"""From a core's reports to metrics: counters of the core become increments here."""

from __future__ import annotations

from serving.core.messages import Heartbeat, Stats, StepReport
from serving.metrics import Metrics


class CoreObserver:
    """Feeds the metrics of one backbone; called with every report of its core."""

    def __init__(self, metrics: Metrics, backbone: str) -> None:
        self._metrics, self._backbone = metrics, backbone
        self._seen: dict[str, int] = {}

    def __call__(self, report: StepReport | Heartbeat) -> None:
        """Record one report."""
        backbone, metrics = self._backbone, self._metrics
        metrics.set("patchbay_core_up", 1, backbone=backbone)
        if isinstance(report, StepReport):
            metrics.observe("patchbay_step_seconds", report.step_s, backbone=backbone)
            metrics.observe("patchbay_batch_rows", report.num_rows, backbone=backbone)
            metrics.observe(
                "patchbay_batch_distinct_adapters",
                report.num_distinct_adapters,
                backbone=backbone,
            )
        if report.stats is not None:
            self._record(report.stats)

    def down(self) -> None:
        """The core is gone."""
        self._metrics.set("patchbay_core_up", 0, backbone=self._backbone)

    def _record(self, stats: Stats) -> None:
        backbone, metrics = self._backbone, self._metrics
        for name, value in (
            ("patchbay_rows_running", stats.num_running),
            ("patchbay_rows_waiting", stats.num_waiting),
            ("patchbay_resident_adapters", stats.num_resident_adapters),
            ("patchbay_resident_adapter_bytes", stats.resident_adapter_bytes),
            ("patchbay_host_adapter_bytes", stats.host_adapter_bytes),
            ("patchbay_kv_bytes", stats.kv_bytes),
            ("patchbay_kv_used_bytes", stats.kv_used_bytes),
        ):
            metrics.set(name, value, backbone=backbone)
        for tier, total in stats.lookups.items():
            more = self._increase(f"lookups.{tier}", total)
            metrics.count("patchbay_adapter_lookups_total", more, backbone=backbone, tier=tier)
        for name, total in (
            ("patchbay_adapter_evictions_total", stats.num_evictions),
            ("patchbay_preemptions_total", stats.num_preemptions),
            ("patchbay_reused_tokens_total", stats.num_reused_tokens),
        ):
            metrics.count(name, self._increase(name, total), backbone=backbone)
        for load_s in stats.loads_s:
            metrics.observe("patchbay_adapter_load_seconds", load_s, backbone=backbone)

    def _increase(self, key: str, total: int) -> int:
        more = total - self._seen.get(key, 0)
        self._seen[key] = total
        return max(more, 0)
