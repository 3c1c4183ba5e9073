"""Metrics: a frozen table of names, honest values, one text for all replicas."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
from live_server import LiveServer
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import METRICS, Metrics
from serving.snapshots import STALE_S, SnapshotFolder, render, snapshot

FROZEN = {
    "patchbay_adapter_evictions_total": "counter",
    "patchbay_adapter_load_seconds": "histogram",
    "patchbay_adapter_lookups_total": "counter",
    "patchbay_batch_distinct_adapters": "histogram",
    "patchbay_batch_rows": "histogram",
    "patchbay_build_info": "gauge",
    "patchbay_core_up": "gauge",
    "patchbay_host_adapter_bytes": "gauge",
    "patchbay_kv_bytes": "gauge",
    "patchbay_kv_used_bytes": "gauge",
    "patchbay_preemptions_total": "counter",
    "patchbay_rejected_total": "counter",
    "patchbay_request_duration_seconds": "histogram",
    "patchbay_requests_total": "counter",
    "patchbay_resident_adapter_bytes": "gauge",
    "patchbay_resident_adapters": "gauge",
    "patchbay_reused_tokens_total": "counter",
    "patchbay_rows_running": "gauge",
    "patchbay_rows_waiting": "gauge",
    "patchbay_step_seconds": "histogram",
    "patchbay_time_to_first_token_seconds": "histogram",
    "patchbay_tokens_total": "counter",
}


def test_names_and_types_are_frozen() -> None:
    assert {name: spec.type for name, spec in METRICS.items()} == FROZEN


def test_names_follow_the_conventions() -> None:
    for name, spec in METRICS.items():
        assert name.startswith("patchbay_")
        assert name.endswith("_total") == (spec.type == "counter")
        assert not {"adapter", "tenant", "model"} & set(spec.labels)
        assert bool(spec.buckets) == (spec.type == "histogram")


def test_the_served_text_parses_and_counts_what_happened(
    http: httpx.Client, server: LiveServer
) -> None:
    body = {"model": "acme/upper", "prompt": "hello", "max_tokens": 5}
    value = server.service.metrics.value
    written = value("patchbay_tokens_total", backbone="tiny-t5", direction="output")
    assert http.post("/v1/completions", json=body).status_code == 200
    http.post("/v1/completions", json={"model": "acme/none", "prompt": "a"})
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {one.name: one for one in text_string_to_metric_families(response.text)}
    samples = [sample for family in families.values() for sample in family.samples]
    assert {sample.labels["replica"] for sample in samples} == {server.service.replica}
    now = value("patchbay_tokens_total", backbone="tiny-t5", direction="output")
    assert now == written + 5
    answered = value(
        "patchbay_requests_total", method="POST", route="/v1/completions", status="200"
    )
    assert answered >= 1
    http.get("/v1/adapters/acme/upper")
    route = "/v1/adapters/{tenant}/{name}"
    assert value("patchbay_requests_total", method="GET", route=route, status="200") >= 1
    assert value("patchbay_rejected_total", code="not_found") >= 1
    assert value("patchbay_step_seconds_count", backbone="tiny-t5") >= 5
    assert value("patchbay_core_up", backbone="tiny-t5") == 1
    assert {name.removesuffix("_total") for name in FROZEN} == set(families)


def test_replicas_share_one_text_and_stale_ones_drop_out(tmp_path: Path) -> None:
    folders = {}
    for replica, amount in (("one", 2), ("two", 3), ("dead", 5)):
        metrics = Metrics()
        metrics.count("patchbay_rejected_total", amount, code='odd"\\\n')
        folders[replica] = SnapshotFolder(tmp_path, replica)
        folders[replica].write(snapshot(metrics.registry, replica))
    long_ago = time.time() - STALE_S - 1
    os.utime(tmp_path / "dead.json", (long_ago, long_ago))
    others = folders["one"].read_others()
    own = snapshot(Metrics().registry, "one")
    text = render([own, *others])
    assert text.count("# TYPE patchbay_rejected_total counter") == 1
    rejected = next(
        one for one in text_string_to_metric_families(text) if one.name == "patchbay_rejected"
    )
    assert [(s.labels["replica"], s.value) for s in rejected.samples] == [("two", 3.0)]
    assert rejected.samples[0].labels["code"] == 'odd"\\\n'
    assert not (tmp_path / "dead.json").exists()
    folders["two"].remove()
    assert folders["one"].read_others() == []
