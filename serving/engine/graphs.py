"""CUDA graphs of decode steps: a step that was recorded costs the host one call.

Graphs share one memory pool, as one step runs at a time. A step is recorded when it is met for the
second time: the first time, which runs as it is, compiles what is to be recorded.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapters_store.errors import UsageError
from serving.engine.config import EngineConfig
from serving.engine.kv_store import KvStore
from serving.engine.weights import Weights

if TYPE_CHECKING:
    from serving.engine.static_step import StaticStep

_MAX_GRAPHS = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    output: Tensor


class CudaGraphs:
    """Recorded steps by key, those used least recently forgotten first."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._met: OrderedDict[Hashable, _Recorded | None] = OrderedDict()
        self._is_broken = False

    @property
    def num_recorded(self) -> int:
        """Steps that are played back."""
        return sum(one is not None for one in self._met.values())

    def run(self, key: Hashable, step: Callable[[], Tensor]) -> Tensor | None:
        """What ``step`` gives, played back where it was recorded.

        None for good once a recording has failed, which is logged.
        """
        if self._is_broken:
            return None
        if key not in self._met:
            self._met[key] = None
            while len(self._met) > _MAX_GRAPHS:
                self._met.popitem(last=False)
            return step()
        self._met.move_to_end(key)
        recorded = self._met[key]
        if recorded is None:
            recorded = self._record(step)
            if recorded is None:
                return None
            self._met[key] = recorded
        recorded.graph.replay()
        return recorded.output

    def _record(self, step: Callable[[], Tensor]) -> _Recorded | None:
        """Record a step, which does not run it; loads of adapters may go on in other threads."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                output = step()
        except RuntimeError as error:
            self._is_broken = True
            self._met.clear()
            _log_failure(self._device, error)
            return None
        self._pool = graph.pool()
        return _Recorded(graph, output)


def static_steps(
    weights: Weights, config: EngineConfig, own: KvStore, cross: KvStore | None
) -> StaticStep | None:
    """Decode steps over fixed memory, where the configuration wants them; bare ones are recorded.

    None, which is logged, where a kernel of theirs does not run on the device.
    Raises UsageError where they are asked for without the kernels that they need.
    """
    has_kernels, device = weights.backend.name == "triton", weights.device
    if config.graphs == "unrecorded" and not has_kernels:
        raise UsageError(
            f"graphs is 'unrecorded' and low-rank products run by {weights.backend.name}",
            hint="Set kernels to 'triton' as well.",
        )
    is_recorded = config.graphs == "auto" and device.type == "cuda"
    if not has_kernels or not (is_recorded or config.graphs == "unrecorded"):
        return None
    from triton.errors import TritonError

    from serving.engine.static_step import StaticStep, Unrecorded

    recorder = CudaGraphs(device) if is_recorded else Unrecorded()
    step = StaticStep(weights, config, own, cross, recorder)
    if is_recorded:
        try:
            step.record()
        except (TritonError, RuntimeError) as error:
            _log_failure(device, error)
            return None
    return step


def _log_failure(device: torch.device, error: Exception) -> None:
    reason = (str(error).splitlines() or [""])[0]
    _log.warning("decode steps are not recorded on %s: %s", device, reason)
