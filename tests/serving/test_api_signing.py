"""A server that takes and serves a tenant's artefacts only with a trusted key's signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from serve_kit import TEXT, peft_lora, routing_weights, skill_bank, text_adapter
from test_api_adapters import answer, text, upload

from adapters_store.artefact import Artefact, write_artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.signing import SigningKey, Trust
from serving.api.resolver import Resolver
from serving.config import ServeConfig


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.create(tmp_path / "key.pem")


@pytest.fixture
def signed(server: LiveServer, key: SigningKey, monkeypatch: pytest.MonkeyPatch) -> LiveServer:
    """The shared server with a policy for the tenant ``safe``."""
    service = server.service
    trust = Trust({"safe": [str(key.public)]})
    monkeypatch.setattr(service, "trust", trust)
    monkeypatch.setattr(
        service, "_resolver", Resolver(service.store, service.resolver.served, trust)
    )
    return server


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, str(response.json()["error"]["code"])


def test_registration_needs_a_signature_of_exactly_this_artefact(
    http: httpx.Client, byte_t5: Backbone, signed: LiveServer, key: SigningKey, tmp_path: Path
) -> None:
    artefact, other = text_adapter(byte_t5, 71), text_adapter(byte_t5, 72)
    stranger = SigningKey.create(tmp_path / "stranger.pem")
    store = signed.service.store
    before = store.generation()
    good = str(key.sign(artefact.digest))
    for signature, expected in (
        (None, (403, "unsigned")),
        (str(stranger.sign(artefact.digest)), (403, "unsigned")),
        (str(key.sign(other.digest)), (403, "unsigned")),
        (good[:-6] + "AAAA==", (403, "unsigned")),
        ("nonsense", (422, "invalid_artefact")),
    ):
        fields = {} if signature is None else {"signature": signature}
        assert code(upload(http, "safe/one", artefact, **fields)) == expected, signature
    assert store.generation() == before
    made = upload(http, "safe/one", artefact, signature=good)
    assert made.status_code == 201, made.text
    assert [str(one.signature) for one in store.signatures.list(artefact.digest)] == [good]
    assert answer(http, "safe/one").status_code == 200
    again = upload(http, "safe/again", artefact)
    assert again.status_code == 201, "the store already holds its signature"
    assert upload(http, "free/one", other).status_code == 201


def test_what_is_stored_unsigned_is_served_once_it_is_signed(
    http: httpx.Client, byte_t5: Backbone, signed: LiveServer, key: SigningKey
) -> None:
    store = signed.service.store
    version = store.publish("safe/late", text_adapter(byte_t5, 73))
    for _ in range(2):
        assert code(answer(http, "safe/late")) == (403, "unsigned")
        refused = http.post("/v1/tasks/safe/late/predict", json={"inputs": ["a"]})
        assert code(refused) == (403, "unsigned")
    store.signatures.add(version.reference, key.sign(version.digest))
    assert answer(http, "safe/late").status_code == 200
    assert http.get("/v1/adapters/safe/late").status_code == 200


def test_a_tampered_data_blob_is_noticed_whatever_is_signed(
    http: httpx.Client, byte_t5: Backbone, signed: LiveServer, key: SigningKey
) -> None:
    artefact = text_adapter(byte_t5, 74)
    changed = Artefact(artefact.manifest, artefact.data[:-1] + bytes([artefact.data[-1] ^ 1]))
    refused = upload(http, "safe/tampered", changed, signature=str(key.sign(artefact.digest)))
    assert code(refused) == (422, "invalid_artefact")
    assert "digest mismatch" in refused.json()["error"]["message"]


def test_sources_and_routing_vectors_carry_their_signature_too(
    http: httpx.Client, byte_t5: Backbone, signed: LiveServer, key: SigningKey, sources: Path
) -> None:
    artefact = text_adapter(byte_t5, 75)
    write_artefact(artefact, sources / "to-sign")
    body: dict[str, Any] = {"name": "safe/source", "source": f"file://{sources}/to-sign"}
    assert code(http.post("/v1/adapters", json=body)) == (403, "unsigned")
    body["signature"] = str(key.sign(artefact.digest))
    assert http.post("/v1/adapters", json=body).status_code == 201

    vector: dict[str, Any] = {
        "bank": "acme/skills",
        "weights": routing_weights(skill_bank(byte_t5), 76).tolist(),
        "signature": TEXT.model_dump(mode="json"),
    }
    made = http.post("/v1/adapters", json=vector | {"name": "free/vector"})
    vector["name"] = "safe/vector"
    assert code(http.post("/v1/adapters", json=vector)) == (403, "unsigned")
    vector["manifest_signature"] = str(key.sign(made.json()["digest"]))
    assert http.post("/v1/adapters", json=vector).status_code == 201
    assert text(answer(http, "safe/vector")) == text(answer(http, "free/vector"))
    refused = http.post(
        "/v1/adapters",
        data={"name": "safe/foreign", "backbone": "tiny-t5"},
        files=peft_lora(byte_t5, 77),
    )
    assert code(refused) == (403, "unsigned")


def test_a_policy_that_names_no_key_is_a_configuration_error(key: SigningKey) -> None:
    ServeConfig(signing={"acme": (str(key.public),)})
    for signing in ({"acme": ["nonsense"]}, {"Not A Tenant": [str(key.public)]}):
        with pytest.raises((ValueError, UsageError), match="signing"):
            ServeConfig.model_validate({"signing": signing})
