"""``/v1/adapters``: register while serving, aliases, deletion, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import torch
from live_server import LiveServer
from safetensors.torch import load, save
from serve_kit import TEXT, routing_task, routing_weights, skill_bank, text_adapter

from adapters_store.artefact import Artefact, write_artefact
from adapters_store.backbone import Backbone


def upload(http: httpx.Client, name: str, artefact: Artefact, **data: Any) -> httpx.Response:
    files = {
        "manifest": ("manifest.json", artefact.manifest.canonical),
        "data": ("data.safetensors", artefact.data),
    }
    return http.post("/v1/adapters", data={"name": name} | data, files=files)


def answer(http: httpx.Client, model: str) -> httpx.Response:
    return http.post("/v1/completions", json={"model": model, "prompt": "hi", "max_tokens": 6})


def text(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["text"])


def test_an_uploaded_adapter_answers_at_once(http: httpx.Client, byte_t5: Backbone) -> None:
    made = upload(http, "up/first", text_adapter(byte_t5, 11))
    assert made.status_code == 201, made.text
    assert made.json()["version"] == 1
    assert made.headers["x-adapter-version"] == made.json()["reference"]
    response = answer(http, "up/first")
    assert response.headers["x-adapter-version"] == made.json()["reference"]
    assert text(response) != text(answer(http, "tiny-t5"))
    assert http.get(made.headers["location"]).json()["digest"] == made.json()["digest"]


def test_an_alias_moves_only_from_where_it_was_expected(
    http: httpx.Client, byte_t5: Backbone
) -> None:
    for seed in (21, 22):
        assert upload(http, "up/moving", text_adapter(byte_t5, seed)).status_code == 201
    new, old = text(answer(http, "up/moving")), text(answer(http, "up/moving:1"))
    assert new != old
    url = "/v1/adapters/up/moving/aliases/prod"
    stale = http.put(url, json={"version": 1, "expected_version": 1})
    assert stale.status_code == 409
    assert stale.json()["error"]["code"] == "conflict"
    assert http.put(url, json={"version": 1, "expected_version": 2}).status_code == 200
    assert text(answer(http, "up/moving")) == old
    assert text(answer(http, "up/moving@latest")) == new
    versions = http.get("/v1/adapters/up/moving").json()["versions"]
    assert [one["version"] for one in versions] == [2, 1]
    page = http.get("/v1/adapters/up/moving", params={"limit": 1}).json()
    assert [one["version"] for one in page["versions"]] == [page["next"]] == [2]
    rest = http.get("/v1/adapters/up/moving", params={"before": page["next"]}).json()
    assert [one["version"] for one in rest["versions"]] == [1]


def test_a_deleted_adapter_answers_410_until_it_is_restored(
    http: httpx.Client, byte_t5: Backbone
) -> None:
    upload(http, "up/gone", text_adapter(byte_t5, 31))
    before = text(answer(http, "up/gone"))
    assert http.delete("/v1/adapters/up/gone", params={"reason": "test"}).status_code == 200
    gone = answer(http, "up/gone")
    assert gone.status_code == 410
    assert gone.json()["error"]["code"] == "deleted"
    assert http.post("/v1/tasks/up/gone/predict", json={"inputs": ["a"]}).status_code == 410
    assert http.post("/v1/adapters/up/gone/restore").status_code == 200
    assert text(answer(http, "up/gone")) == before


def test_a_posted_routing_vector_equals_the_published_artefact(
    http: httpx.Client, byte_t5: Backbone
) -> None:
    bank = skill_bank(byte_t5)
    body = {
        "name": "up/vector",
        "bank": "acme/skills",
        "weights": routing_weights(bank, 3).tolist(),
        "signature": TEXT.model_dump(mode="json"),
    }
    made = http.post("/v1/adapters", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["digest"] == routing_task(byte_t5, bank, 3).digest
    assert text(answer(http, "up/vector")) == text(answer(http, "acme/routed"))
    body["weights"] = [[[1.0]]]
    wrong = http.post("/v1/adapters", json=body)
    assert wrong.status_code == 422
    assert wrong.json()["error"]["param"] == "weights"
    body["bank"] = "acme/upper"
    assert http.post("/v1/adapters", json=body).status_code == 422


def test_a_bank_that_tasks_route_over_cannot_be_deleted(http: httpx.Client) -> None:
    assert http.delete("/v1/adapters/acme/skills").status_code == 409


def test_sources_are_read_from_the_configured_folders_alone(
    http: httpx.Client, byte_t5: Backbone, sources: Path, tmp_path: Path
) -> None:
    artefact = text_adapter(byte_t5, 41)
    write_artefact(artefact, sources / "mine")
    write_artefact(artefact, tmp_path / "theirs")
    (sources / "link").symlink_to(tmp_path / "theirs")
    made = http.post("/v1/adapters", json={"name": "up/source", "source": f"file://{sources}/mine"})
    assert made.status_code == 201, made.text
    for place in (tmp_path / "theirs", sources / "link", sources / ".." / "theirs"):
        body = {"name": "up/other", "source": f"file://{place}"}
        assert http.post("/v1/adapters", json=body).status_code == 403
    for source in ("s3://bucket/a", "hf://owner/repo"):
        body = {"name": "up/other", "source": source}
        assert http.post("/v1/adapters", json=body).status_code == 403
    for source in ("https://example.org/a", str(sources / "mine")):
        body = {"name": "up/other", "source": source}
        assert http.post("/v1/adapters", json=body).status_code == 400
    assert answer(http, "up/other").status_code == 404


def test_damaged_and_foreign_artefacts_are_refused_and_nothing_is_stored(
    http: httpx.Client, byte_t5: Backbone, server: LiveServer
) -> None:
    good = text_adapter(byte_t5, 51)
    tensors = load(good.data)
    first = next(iter(tensors))
    not_a_number = tensors | {first: torch.full_like(tensors[first], float("nan"))}
    foreign = json.loads(good.manifest.canonical) | {"backbone": "sha256:" + "0" * 64}
    stored = server.service.store.generation()
    cases: list[tuple[bytes, bytes, int]] = [
        (good.manifest.canonical, save(not_a_number), 422),
        (good.manifest.canonical, good.data[:-8], 422),
        (good.manifest.canonical, b"\x80\x04." + good.data, 422),
        (json.dumps(foreign).encode(), good.data, 422),
        (b"{not json", good.data, 422),
    ]
    for manifest, data, status in cases:
        files = {"manifest": manifest, "data": data}
        response = http.post("/v1/adapters", data={"name": "up/bad"}, files=files)
        assert response.status_code == status, response.text
        assert set(response.json()) == {"error", "request_id", "hint"}
    assert server.service.store.generation() == stored
    assert answer(http, "up/bad").status_code == 404


def test_forms_with_missing_or_unknown_parts_are_refused(
    http: httpx.Client, byte_t5: Backbone
) -> None:
    good = text_adapter(byte_t5, 52)
    only = http.post("/v1/adapters", data={"name": "up/x"}, files={"data": good.data})
    assert only.status_code == 400
    assert only.json()["error"]["param"] == "manifest"
    assert upload(http, "up/x", good, colour="red").status_code == 400
    assert upload(http, "Up/X", good).status_code == 422
    assert upload(http, "up/x", good, aliases=["v7"]).status_code == 422
    assert http.post("/v1/adapters", content=b"x").status_code == 400
    assert http.post("/v1/adapters", json=["x"]).status_code == 422


def test_adapters_are_listed_by_tenant_and_kind(http: httpx.Client) -> None:
    acme = http.get("/v1/adapters", params={"tenant": "acme"}).json()["data"]
    assert {one["name"] for one in acme} == {"upper", "lower", "skills", "routed"}
    banks = http.get("/v1/adapters", params={"tenant": "acme", "kind": "bank"}).json()["data"]
    assert [one["name"] for one in banks] == ["skills"]
    page = http.get("/v1/adapters", params={"limit": 1}).json()
    assert page["next"] == f"{page['data'][0]['tenant']}/{page['data'][0]['name']}"
