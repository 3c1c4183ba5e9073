"""What of a step would wait for a device that computes beside the host."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from world_kit import World

from benchmarks.drive import answers
from serving.engine import Engine, Request, Sampling


class Waits(TorchDispatchMode):
    """Counts the operations of a step that wait for the device when it is not the CPU."""

    _WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "item")

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        has_no_size = name == "repeat_interleave" and not (kwargs or {}).get("output_size")
        if name in self._WAITING or has_no_size:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def lists_made(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of all tensors that are made lists from now on."""
    shapes: list[torch.Size] = []
    plain = torch.Tensor.tolist
    monkeypatch.setattr(
        torch.Tensor, "tolist", lambda self: shapes.append(self.shape) or plain(self)
    )
    return shapes


def test_a_decode_step_waits_once_for_its_greedy_tokens(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Engine = world.engine()
    tasks = world.tasks[:9]
    sampling = Sampling(max_tokens=9, ignore_eos=True)
    requests = [
        Request(f"{i}", "generate", task, (5, 6, 7 + i), sampling) for i, task in enumerate(tasks)
    ]
    answers(engine, requests)  # all adapters are in memory now, so that the rows start together
    for request in requests:
        engine.submit(request)
    engine.step()
    engine.step()
    shapes = lists_made(monkeypatch)
    with Waits() as waits:
        engine.step()
    assert shapes == [torch.Size([len(tasks)])]
    assert not waits.counts
    engine.close()
