"""Device names: what they mean here, and what is said of one that is not there."""

from __future__ import annotations

import pytest
import torch

from adapters_store.errors import UsageError
from serving.device import find_device, is_device_name
from serving.engine import EngineConfig
from serving.upload import upload


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_names_of_devices_are_known(name: str) -> None:
    assert is_device_name(name)
    assert EngineConfig(device=name).device == name


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "cuda:0 ", "mps"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N"):
        find_device(name)
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N"):
        EngineConfig(device=name)


def test_auto_is_the_cpu_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"device is 'cuda:1'.* found cpu ") as failure:
        find_device("cuda:1")
    assert "nvidia-smi" in failure.value.hint


def test_cuda_devices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("auto") == find_device("cuda") == torch.device("cuda", 0)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="found cpu, cuda:0, cuda:1"):
        find_device("cuda:2")


def test_uploaded_values_keep_their_kind() -> None:
    cpu = torch.device("cpu")
    assert upload([1, 2], cpu).dtype == torch.int64
    assert upload([1.5], cpu).dtype == torch.float32
    assert upload([0.1], cpu, torch.float64).item() == 0.1
    assert upload([True], cpu).dtype == torch.bool
