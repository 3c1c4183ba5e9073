"""Which backend an engine gets, and what is said where kernels do not run."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch

from adapters_store.errors import UnavailableError, UsageError
from serving.engine import EngineConfig
from serving.primitives import backend as backends
from serving.primitives.backend import backend_for, plain_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def fresh() -> Any:
    backend_for.cache_clear()
    yield
    backend_for.cache_clear()


def test_the_cpu_runs_by_torch_unless_kernels_are_asked_for() -> None:
    for kernels in ("auto", "torch"):
        assert backend_for(kernels, CPU, torch.float32).name == "torch"


def test_kernels_that_are_asked_for_and_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UsageError, match="does not run on cpu: the CPU has Triton's interpreter"):
        backend_for("triton", CPU, torch.float32)
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="does not run on cuda:0: triton is not installed"):
        backend_for("triton", CUDA, torch.float32)


def test_kernels_that_fail_on_a_device_are_left_to_torch_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(device: torch.device, dtype: torch.dtype) -> None:
        raise UnavailableError("no C compiler was found")

    broken = replace(plain_backend(), name="triton", check=fail)
    plain = plain_backend()
    monkeypatch.setattr(backends, "_named", lambda name: broken if name == "triton" else plain)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert backend_for("auto", CUDA, torch.float32) is plain
    assert [record.message for record in caplog.records] == [
        "low-rank products run by torch's operators on cuda:0: no C compiler was found"
    ]
    with pytest.raises(UsageError, match="no C compiler was found"):
        backend_for("triton", CUDA, torch.float32)


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(UsageError, match="kernels is 'fast'; known: auto, torch, triton"):
        EngineConfig(kernels="fast")  # type: ignore[arg-type]
