"""What runs the low-rank products: torch's operators, or fused kernels where a device has them.

A backend is chosen once for an engine, and its parts are made when a plan is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from adapters_store.errors import UnavailableError, UsageError
from adapters_store.lazy import resolve
from serving.primitives.factors import Factors
from serving.primitives.layout import PackedSite
from serving.primitives.mixture import Bank, Mixture

BACKENDS: dict[str, str] = {
    "torch": "serving.primitives.kernels.plain:BACKEND",
    "triton": "serving.primitives.kernels.fused:BACKEND",
}
"""Each row names a :class:`Backend`."""
KERNELS = ("auto", *BACKENDS)

_log = logging.getLogger(__name__)


class Products(Protocol):
    """The low-rank products of a decode batch at all packed sites.

    ``shape`` says what a recorded step over these rows holds for: equal shapes launch the same
    kernels over the same memory. It is None where a step cannot be recorded.
    """

    @property
    def is_empty(self) -> bool:
        """True where no row has a product."""

    @property
    def num_bytes(self) -> int: ...
    @property
    def shape(self) -> Hashable | None: ...
    def join(self, row: int, factors: Mapping[int, Factors]) -> None: ...
    def leave(self, row: int, last: int) -> None: ...
    def touch(self) -> None: ...
    def refresh(self) -> None:
        """Bring the device up to date before a step; :meth:`apply` does so itself."""

    def apply(self, index: int, x_RD: Tensor, y_RE: Tensor) -> None:
        """Add every row's product at packed site ``index`` to ``y_RE`` in place."""


class Mixtures(Protocol):
    """The rows of a decode batch that share one bank, in the shared-bank form."""

    @property
    def rows(self) -> list[int]: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def shape(self) -> Hashable | None: ...
    def join(self, row: int, mixture: Mixture) -> None: ...
    def leave(self, row: int, last: int) -> None: ...
    def touch(self) -> None: ...
    def refresh(self) -> None: ...
    def apply(self, index: int, x_RD: Tensor, y_RE: Tensor) -> None: ...


class Runs(Protocol):
    """The low-rank products of a prefill step."""

    def apply(self, index: int, x_TD: Tensor, y_TE: Tensor) -> None: ...


class MakesProducts(Protocol):
    """Makes the products of a batch of ``max_rows`` at most, at the sites ``active``."""

    def __call__(
        self,
        sites: Sequence[PackedSite],
        active: Collection[int],
        dtype: torch.dtype,
        device: torch.device,
        max_rows: int,
    ) -> Products: ...


class MakesMixtures(Protocol):
    """Makes the mixtures of a bank for a batch of ``max_rows`` at most."""

    def __call__(self, bank: Bank, sites: Sequence[PackedSite], max_rows: int) -> Mixtures: ...


class MakesRuns(Protocol):
    """Makes the products of runs (start, stop, factors by packed site), ranges of tokens."""

    def __call__(
        self, sites: Sequence[PackedSite], runs: Sequence[tuple[int, int, Mapping[int, Factors]]]
    ) -> Runs: ...


class Probe(Protocol):
    """Tries a backend on a device."""

    def __call__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Run every kernel once; raises UnavailableError that says which one failed, and how."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What makes the parts of plans; ``check`` raises where the kernels do not run on a device."""

    name: str
    products: MakesProducts
    mixtures: MakesMixtures
    runs: MakesRuns
    check: Probe


@cache
def backend_for(kernels: str, device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend of a device: ``auto`` takes Triton's kernels on CUDA where they run there.

    Raises UsageError for ``triton`` on a device without it, UnavailableError where it fails.
    """
    if kernels == "torch" or (kernels == "auto" and device.type == "cpu"):
        return _named("torch")
    problem = _missing(device)
    if problem is None:
        try:
            backend = _named("triton")
            backend.check(device, dtype)
        except UnavailableError as error:
            problem = error.message
        else:
            return backend
    if kernels == "triton":
        raise UsageError(
            f"kernels is 'triton', which does not run on {device}: {problem}",
            hint="Choose auto or torch, or install triton and a C compiler.",
        )
    _log.warning("low-rank products run by torch's operators on %s: %s", device, problem)
    return _named("torch")


def plain_backend() -> Backend:
    """Torch's operators, which run everywhere."""
    return _named("torch")


def _named(name: str) -> Backend:
    backend: Backend = resolve(BACKENDS, name, "kernel backend")
    return backend


def _missing(device: torch.device) -> str | None:
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "the CPU has Triton's interpreter alone, with TRITON_INTERPRET=1"
    return None
