"""Adapters of other tools over HTTP: inspected, uploaded, read from sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from cli_kit import Cli
from live_server import LiveServer
from peft import PeftModel
from serve_kit import adapter_of, peft_lora, text_adapter, write_peft
from services.hub import HubServer, Repo
from services.s3 import S3Bucket
from test_api_adapters import answer, text
from transformers import T5ForConditionalGeneration

from adapters_store.artefact import write_artefact
from adapters_store.backbone import Backbone
from adapters_store.formats.importing import import_from
from adapters_store.formats.source import FolderSource
from adapters_store.primitives.prompt import PromptPart
from serving.api.app import create_app
from serving.primitives import PRIMITIVES

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
BACKBONE = {"backbone": "tiny-t5"}
PROMPT = PromptPart(input="encoder", num_tokens=2, has_positions=False)
HANGING = PromptPart(input="encoder", layer=1, num_tokens=2, has_positions=False)


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, server: LiveServer
) -> Cli:
    monkeypatch.setenv("PATCHBAY_STORE", str(server.service.config.store))
    return Cli(capsys)


def stored(server: LiveServer) -> Any:
    """What a refusal must leave alone."""
    store = server.service.store
    blobs = Path(server.service.config.store) / "blobs"
    return store.generation(), sorted(path for path in blobs.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "changes", [{}, {"use_dora": True}, {"lora_alpha": "x"}, {"surprise": 3}], ids=str
)
def test_inspection_is_the_same_text_over_http_and_on_the_command_line(
    http: httpx.Client, cli: Cli, byte_t5: Backbone, sources: Path, changes: dict[str, Any]
) -> None:
    folder = sources / f"inspect-{len(json.dumps(changes))}"
    source = f"file://{write_peft(peft_lora(byte_t5, 1, **changes), folder)}"
    response = http.post("/v1/adapters/inspect", json={"source": source, **BACKBONE})
    assert response.status_code == 200, response.text
    code, out, _ = cli("inspect", source, "--backbone", "tiny-t5", "--json")
    assert response.content == out.encode()
    verdict = response.json()["verdict"]
    assert (verdict, code) == (("reject", 5) if changes else ("convert", 0))
    assert response.headers["content-type"] == "application/json"


def test_uploaded_files_are_inspected_without_a_name(
    http: httpx.Client, byte_t5: Backbone, server: LiveServer
) -> None:
    before = stored(server)
    found = http.post("/v1/adapters/inspect", data=BACKBONE, files=peft_lora(byte_t5, 1)).json()
    assert (found["source"], found["format"], found["verdict"]) == ("upload", "peft", "convert")
    native = text_adapter(byte_t5, 1)
    files = {"manifest": native.manifest.canonical, "data": native.data}
    found = http.post("/v1/adapters/inspect", files=files).json()
    assert (found["format"], found["verdict"]) == ("patchbay", "accept")
    assert stored(server) == before


def test_an_uploaded_peft_adapter_answers_as_peft_does(
    http: httpx.Client, byte_t5: Backbone, tmp_path: Path
) -> None:
    files = peft_lora(byte_t5, 7)
    fields = {"name": "foreign/lora", "max_output_tokens": "6", **BACKBONE}
    made = http.post("/v1/adapters", data=fields, files=files)
    assert made.status_code == 201, made.text
    assert [one["reference"] for one in made.json()["versions"]] == [made.json()["reference"]]
    manifest = http.get(made.headers["location"]).json()["manifest"]
    assert manifest["provenance"]["imported"]["source"] == "upload"
    assert manifest["signature"]["max_output_tokens"] == 6

    base = T5ForConditionalGeneration.from_pretrained(byte_t5.folder)
    model = PeftModel.from_pretrained(base, write_peft(files, tmp_path / "peft")).eval()
    ids = torch.tensor([[*(byte + 3 for byte in b"hi"), 1]])
    with torch.no_grad():
        expected = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False)[0, 1:]
    spoken = bytes(int(token) - 3 for token in expected if token >= 3).decode()
    assert text(answer(http, "foreign/lora")) == spoken
    assert spoken != text(answer(http, "tiny-t5"))


def test_the_same_adapter_from_a_folder_a_bucket_and_a_form_has_the_same_content(
    http: httpx.Client, byte_t5: Backbone, sources: Path, s3_bucket: S3Bucket,
    monkeypatch: pytest.MonkeyPatch, server: LiveServer
) -> None:  # fmt: skip
    files = peft_lora(byte_t5, 8)
    write_peft(files, sources / "three")
    for name, field in (("adapter_config.json", "config"), ("adapter_model.safetensors", "data")):
        s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=f"team/x/{name}", Body=files[field])
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_bucket.server.url)
    roots = (str(sources), f"s3://{s3_bucket.name}/team")
    config = server.service.config.model_copy(update={"sources": roots})
    monkeypatch.setattr(server.service, "config", config)
    digests = set()
    bodies = [
        {"json": {"source": f"file://{sources}/three"}},
        {"json": {"source": f"s3://{s3_bucket.name}/team/x"}},
        {"data": {}, "files": files},
    ]
    for i, body in enumerate(bodies):
        key = "json" if "json" in body else "data"
        body[key] |= {"name": f"foreign/place-{i}", **BACKBONE}
        made = http.post("/v1/adapters", **body)
        assert made.status_code == 201, made.text
        manifest = http.get(made.headers["location"]).json()["manifest"]
        digests.add(manifest["content_digest"])
    assert len(digests) == 1
    refused = {"name": "foreign/other", "source": f"s3://{s3_bucket.name}/other", **BACKBONE}
    assert http.post("/v1/adapters", json=refused).status_code == 403


def test_an_adapter_comes_from_a_commit_of_an_allowed_owner(
    http: httpx.Client, byte_t5: Backbone, reached_hub: HubServer,
    monkeypatch: pytest.MonkeyPatch, server: LiveServer
) -> None:  # fmt: skip
    files = peft_lora(byte_t5, 12)
    commit = "c" * 40
    named = {"adapter_config.json": files["config"], "adapter_model.safetensors": files["data"]}
    reached_hub.repos["acme/lora"] = Repo({"main": commit}, {commit: named})
    config = server.service.config.model_copy(update={"sources": ("hf://acme",)})
    monkeypatch.setattr(server.service, "config", config)
    body = {"name": "foreign/hub", "source": "hf://acme/lora", **BACKBONE}
    made = http.post("/v1/adapters", json=body)
    assert made.status_code == 201, made.text
    about = http.get(made.headers["location"]).json()["manifest"]["provenance"]["imported"]
    assert (about["source"], about["revision"]) == ("hf://acme/lora", commit)
    num_requests = len(reached_hub.requests)
    for source in ("hf://other/lora", "hf://acme2/lora", "file:///etc"):
        refused = http.post("/v1/adapters", json=body | {"source": source})
        assert refused.status_code == 403, refused.text
    assert len(reached_hub.requests) == num_requests
    absent = http.post("/v1/adapters", json=body | {"source": "hf://acme/none"})
    assert absent.status_code == 404
    reached_hub.status = 400
    broken = http.post("/v1/adapters", json=body | {"source": "hf://acme/other"})
    assert broken.status_code == 503


def test_a_rejected_adapter_is_refused_with_every_reason_and_nothing_is_stored(
    http: httpx.Client, byte_t5: Backbone, server: LiveServer, sources: Path
) -> None:
    files = peft_lora(byte_t5, 9, use_dora=True, surprise=1)
    write_peft(files, sources / "dora")
    before = stored(server)
    body = {"name": "foreign/bad", **BACKBONE}
    for request in (
        {"data": body, "files": files},
        {"json": body | {"source": f"file://{sources}/dora"}},
    ):
        refused = http.post("/v1/adapters", **request)
        assert refused.status_code == 422, refused.text
        assert refused.json()["error"]["code"] == "rejected_artefact"
        assert "use_dora" in refused.json()["error"]["message"]
        assert "surprise" in refused.json()["error"]["message"]
    assert stored(server) == before
    assert answer(http, "foreign/bad").status_code == 404


def test_what_the_engine_cannot_run_is_refused_before_anything_is_stored(
    http: httpx.Client,
    byte_t5: Backbone,
    server: LiveServer,
    sources: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(PRIMITIVES, "prompt")
    prompt = adapter_of(byte_t5, PROMPT)
    before = stored(server)
    files = {"manifest": prompt.manifest.canonical, "data": prompt.data}
    write_artefact(prompt, sources / "prompt")
    for refused in (
        http.post("/v1/adapters", data={"name": "up/prompt"}, files=files),
        http.post("/v1/adapters", json={"name": "up/prompt", "source": f"file://{sources}/prompt"}),
    ):
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "not_served"
        assert "primitive 'prompt'" in refused.json()["error"]["message"]
    assert stored(server) == before


def test_a_stored_adapter_that_cannot_run_is_refused_when_asked(
    http: httpx.Client, byte_t5: Backbone, server: LiveServer
) -> None:
    server.service.store.publish("foreign/prompt", adapter_of(byte_t5, HANGING))
    before = text(answer(http, "acme/upper"))
    for path, body in (
        ("/v1/completions", {"model": "foreign/prompt", "prompt": "hi", "max_tokens": 3}),
        ("/v1/completions", {"model": "foreign/prompt", "prompt": "hi", "stream": True}),
        ("/v1/tasks/foreign/prompt/predict", {"inputs": ["hi"]}),
    ):
        refused = http.post(path, json=body)
        assert refused.status_code == 422, refused.text
        assert refused.json()["error"]["code"] == "invalid_artefact"
        assert "at layer 0 it has 0" in refused.json()["error"]["message"]
    assert text(answer(http, "acme/upper")) == before


@pytest.mark.parametrize("route", ["/v1/adapters", "/v1/adapters/inspect"])
@pytest.mark.parametrize("body", [b"{bad", b'{"x": 1, "x": 2}', b"\xff", b'{"x": NaN}'])
def test_a_body_that_is_no_json_is_a_bad_request(
    http: httpx.Client, route: str, body: bytes
) -> None:
    refused = http.post(route, content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalid_request"
    assert refused.json()["error"]["message"].startswith("the body ")
    assert "/openapi.json" in refused.json()["hint"]


def test_forms_of_mixed_or_missing_files_are_refused(http: httpx.Client, byte_t5: Backbone) -> None:
    files = peft_lora(byte_t5, 1)
    name = {"name": "foreign/x", **BACKBONE}
    cases: list[tuple[dict[str, Any], dict[str, bytes], int, str]] = [
        (name, {"config": files["config"]}, 400, "expected data"),
        (name, files | {"manifest": b"{}"}, 400, "either manifest"),
        (name, files | {"head": b"x"}, 400, "do not belong"),
        ({"name": "foreign/x"}, files, 400, "say which backbone"),
        ({"name": "foreign/x", "backbone": "none"}, files, 404, "no backbone 'none'"),
        (name | {"max_input_tokens": "many"}, files, 422, "max_input_tokens"),
        (name | {"task": "poetry"}, files, 422, "task"),
        (name | {"task": "classification"}, files, 400, "need a head"),
        (name | {"labels": ["a", "b"]}, files, 400, "need a head"),
        (name | {"poly_task": "1"}, files, 400, "poly_task is for Poly"),
        ({**BACKBONE}, files, 422, "name"),
        (name, files | {"config": b"{" + b" " * 2**20 + b"}"}, 413, "over 1048576 bytes"),
    ]
    for data, uploaded, status, words in cases:
        refused = http.post("/v1/adapters", data=data, files=uploaded)
        assert refused.status_code == status, refused.text
        assert words in refused.json()["error"]["message"]


def test_options_of_an_import_reach_the_artefact_and_never_a_native_one(
    http: httpx.Client, byte_t5: Backbone
) -> None:
    fields = {
        "name": "foreign/options",
        "description": "Says it.",
        "prompt_template": "Say: {input}",
        "max_input_tokens": "50",
        **BACKBONE,
    }
    made = http.post("/v1/adapters", data=fields, files=peft_lora(byte_t5, 2))
    signature = http.get(made.headers["location"]).json()["manifest"]["signature"]
    assert signature["description"] == "Says it."
    assert signature["prompt_template"] == "Say: {input}"
    assert signature["max_input_tokens"] == 50
    native = text_adapter(byte_t5, 2)
    files = {"manifest": native.manifest.canonical, "data": native.data}
    refused = http.post("/v1/adapters", data={"name": "up/x", "task": "text2text"}, files=files)
    assert refused.status_code == 400
    assert "options do not apply" in refused.json()["error"]["message"]


def test_a_http_import_equals_an_import_by_the_library(
    http: httpx.Client, byte_t5: Backbone, sources: Path
) -> None:
    folder = write_peft(peft_lora(byte_t5, 3), sources / "equal")
    location = f"file://{folder}"
    ((_, expected),) = import_from(FolderSource(folder, location), byte_t5.record)
    body = {"name": "foreign/equal", "source": location, **BACKBONE}
    assert http.post("/v1/adapters", json=body).json()["digest"] == expected.digest


@pytest.fixture
def openapi(server: LiveServer) -> dict[str, Any]:
    return create_app(server.service).openapi()


def test_openapi_describes_both_ways_of_registering(openapi: dict[str, Any]) -> None:
    for path in ("/v1/adapters", "/v1/adapters/inspect"):
        content = openapi["paths"][path]["post"]["requestBody"]["content"]
        form = content["multipart/form-data"]["schema"]
        assert {"manifest", "config", "data", "backbone", "labels"} <= set(form["properties"])
        assert "oneOf" in form
        assert "application/json" in content
