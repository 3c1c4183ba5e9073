"""Every bad artefact against a real server, as a source and as a form: refused, and it lives on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from adversarial_kit import file_named, state, write
from bases import BASES, files_of
from cases import CASES, FORMAT_BASES, Case
from live_server import LiveServer
from mutations import Files
from places import PLACES, Place
from serve_kit import adapter_of

from adapters_store.errors import PatchbayError, RejectedArtefactError
from adapters_store.formats.reasons import REASONS
from adapters_store.limits import MIB
from adapters_store.manifest import LowRankPart

FIELDS = {
    "manifest.json": "manifest",
    "data.safetensors": "data",
    "adapter_config.json": "config",
    "adapter_model.safetensors": "data",
    "adapter.safetensors": "data",
    "head_config.json": "head_config",
    "model_head.safetensors": "head",
}


def classes(base: type[PatchbayError]) -> dict[str, type[PatchbayError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= classes(child)
    return found


@pytest.fixture(scope="module")
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def answers(http: httpx.Client, server: LiveServer) -> str:
    """What a good adapter answers, before and after everything."""
    t5 = next(one for one in server.service.resolver.served if one.name == "t5").backbone
    part = LowRankPart(site="decoder.0.self.v", rank=2, scale=4.0)
    server.service.store.publish("good/one", adapter_of(t5, part))
    return ask(http)


def ask(http: httpx.Client) -> str:
    body = {"model": "good/one", "prompt": "w5 w6 w7", "max_tokens": 3}
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def fields_of(case: Case) -> dict[str, Any]:
    options = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in case.options.items()
    }
    backbone = {} if case.base == "patchbay" else {"backbone": BASES[case.base]}
    return {"name": "bad/x", **backbone, **options}


def check(response: httpx.Response, code: str, words: str) -> None:
    """The envelope of a typed error: its own code, or that of a rejection with the reason."""
    document = response.json()
    assert set(document) == {"error", "request_id", "hint"}, response.text
    error, known = document["error"], classes(PatchbayError)
    assert response.status_code == known[error["code"]].status
    assert 400 <= response.status_code < 500, response.text
    assert words in error["message"], error
    if code in REASONS and error["code"] == RejectedArtefactError.code:
        assert f"{code}: " in error["message"]
    elif code in ("unsafe", "too_large"):
        assert error["code"] in ("unsafe_artefact", "artefact_too_large")
    else:
        assert error["code"] == code, error


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.base}: {case.name}")
def test_a_bad_artefact_is_refused_in_both_ways_and_the_server_lives_on(
    http: httpx.Client, server: LiveServer, sources: Path, answers: str, case: Case
) -> None:
    store, folder = server.service.store, Path(server.service.config.store)
    files = files_of(case.base)
    case.change(files)
    number = len(list(sources.iterdir()))
    bad = write(files, sources / f"bad-{number}")
    before = state(store, folder)
    body = fields_of(case) | {"source": f"file://{bad}"}
    check(http.post("/v1/adapters", json=body), case.code, case.words)
    if not case.is_folder_only:
        check(
            http.post("/v1/adapters", data=fields_of(case), files=form(files)),
            case.code,
            case.words,
        )
    assert state(store, folder) == before
    assert ask(http) == answers
    assert http.get("/health").status_code == 200


def form(files: Files) -> dict[str, bytes]:
    return {FIELDS[name]: data for name, data in files.items()}


@pytest.mark.parametrize("base", FORMAT_BASES)
@pytest.mark.parametrize(
    ("place", "role"),
    [(place, role) for place in PLACES for role in place.files],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_a_folder_of_other_than_plain_files_is_refused(
    http: httpx.Client, server: LiveServer, sources: Path, answers: str, base: str,
    place: Place, role: str
) -> None:  # fmt: skip
    store, folder = server.service.store, Path(server.service.config.store)
    files = files_of(base)
    bad = write(files, sources / f"place-{len(list(sources.iterdir()))}")
    place.change(bad, file_named(role, files))
    before = state(store, folder)
    body = {"name": "bad/x", "source": f"file://{bad}"}
    body |= {} if base == "patchbay" else {"backbone": BASES[base]}
    check(http.post("/v1/adapters", json=body), place.code, place.words)
    assert state(store, folder) == before
    assert ask(http) == answers


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/passwd", "a\\..\\b", ".", "CON", "x" * 500])
def test_the_file_names_of_a_form_are_not_looked_at(
    http: httpx.Client, server: LiveServer, name: str
) -> None:
    files = {field: (name, data) for field, data in form(files_of("peft/t5-lora")).items()}
    fields = {"name": f"named/x{len(name)}", "backbone": "t5"}
    assert http.post("/v1/adapters", data=fields, files=files).status_code == 201


def test_refusing_everything_took_little_memory(
    http: httpx.Client, server: LiveServer, answers: str
) -> None:
    """The process that holds server and tests, over the cases that announce or unfold to much."""
    bombs = [
        case
        for case in CASES
        if not case.is_folder_only
        and ("bomb" in case.name or case.name.startswith(("a header of", "a tensor of")))
    ]
    assert len(bombs) >= 15
    for is_measured in (False, True):
        if is_measured:
            Path("/proc/self/clear_refs").write_text("5")
            before = peak_bytes()
        for case in bombs:
            files = files_of(case.base)
            case.change(files)
            response = http.post("/v1/adapters", data=fields_of(case), files=form(files))
            assert response.status_code in (413, 422)
    assert peak_bytes() - before < 96 * MIB
    assert ask(http) == answers


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
