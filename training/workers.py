"""The processes that train one run together: each computes a share of every batch.

Started by `accelerate launch`, `torchrun` or Ray Train; a process that none of them started is
the only worker. Legend: P trained numbers, E extra numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from adapters_store.errors import PatchbayError, TrainingError, UnavailableError, UsageError

T = TypeVar("T")


class Workers:
    """This process among the workers: ``rank`` from 0 to ``size`` - 1, its device, the sums.

    Only rank 0 writes (``is_main``). Every other method but :meth:`share` waits for the same call
    on all of them. Raises :class:`UsageError` for fp16 without an accelerator device and for what
    `accelerate launch` asks against the recipe, :class:`UnavailableError` where the workers do not
    find each other.
    """

    def __init__(self, mixed_precision: str = "no") -> None:
        _check_launcher(mixed_precision)
        AcceleratorState._reset_state()  # an earlier run of this process may differ in precision
        stated = int(os.environ.get("WORLD_SIZE", "1"))
        self.accelerator = Accelerator(
            mixed_precision=mixed_precision, cpu=stated > 1 and not _has_accelerator()
        )
        self.rank: int = self.accelerator.process_index
        self.size: int = self.accelerator.num_processes
        self.device: torch.device = self.accelerator.device
        if self.size < stated:
            raise UnavailableError(
                f"the launcher states {stated} workers; found {self.size}",
                hint="Start every worker by one launcher, or unset WORLD_SIZE.",
            )
        if mixed_precision == "fp16" and self.device.type == "cpu":
            raise UsageError("mixed_precision fp16 needs a GPU; on a CPU choose bf16 or no")

    @classmethod
    @contextmanager
    def joined(cls, mixed_precision: str = "no") -> Iterator[Self]:
        """The workers for the length of a process's only run: they part at its end."""
        workers = cls(mixed_precision)
        try:
            yield workers
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this worker writes the run's folder and talks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This worker's items: every ``size``-th, so that shares differ by one item at most."""
        return items[self.rank :: self.size]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of every worker's ``values``, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every worker's ``value``, by rank; pickled, so for what is rare and small."""
        found = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
        return found

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Leave the block together: a typed error of one worker is raised by every worker."""
        fault: PatchbayError | None = None
        try:
            yield
        except PatchbayError as error:
            fault = error
        self.raise_first(fault)

    def check_same(self, what: str, value: str) -> None:
        """Raise :class:`TrainingError` where the workers' values differ."""
        found = self.gather(value)
        if len(set(found)) > 1:
            raise TrainingError(
                f"the workers differ in {what}: {', '.join(found)}",
                hint="Give every worker the same files and versions.",
            )

    def raise_first(self, fault: PatchbayError | None) -> None:
        """Raise the fault of the lowest rank that has one, if any has."""
        faults = [found for found in self.gather(fault) if found is not None]
        if faults:
            raise faults[0]

    def align(self, tensors: Sequence[torch.Tensor], step: int) -> None:
        """Give every worker rank 0's ``tensors``, once, at the start of a run.

        Raises :class:`TrainingError` where the workers would not go on from the same ``step``.
        """
        if self.size == 1:
            return
        steps = self.gather(step)
        if len(set(steps)) > 1:
            raise TrainingError(
                f"the workers would go on from steps {steps}",
                hint="The run's folder must be one that every worker sees.",
            )
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)

    def sum_gradients(
        self, parameters: Sequence[torch.nn.Parameter], extra: torch.Tensor
    ) -> torch.Tensor:
        """Sum the gradients over the workers, with the sum of ``extra`` (E,) as the result.

        One all-reduce over one flat float32 tensor (P + len(parameters) + E,): what is frozen is
        not in it, and a parameter that no worker's rows touched keeps no gradient, as with one
        worker.
        """
        if self.size == 1:
            return extra
        touched = [float(parameter.grad is not None) for parameter in parameters]
        flat = torch.cat(
            [
                *(_gradient(parameter).reshape(-1) for parameter in parameters),
                torch.tensor(touched, device=extra.device),
                extra,
            ]
        )
        dist.all_reduce(flat)
        sizes = [parameter.numel() for parameter in parameters]
        parts = torch.split(flat, [*sizes, len(parameters), len(extra)])
        *gradients, touched_by, sums = parts
        for parameter, gradient, count in zip(parameters, gradients, touched_by.tolist()):
            parameter.grad = gradient.view_as(parameter) if count else None
        return sums


def _check_launcher(mixed_precision: str) -> None:
    """Refuse settings of `accelerate launch` that would be dropped."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", mixed_precision):
        raise UsageError(
            f"the launcher asks for mixed precision {asked}; the recipe's train.mixed_precision is "
            f"{mixed_precision}"
        )
    for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise UsageError(f"the launcher asks for {name}; every worker here holds all weights")


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _has_accelerator() -> bool:
    """Whether processes can each have a device of their own that is no CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found is not None and found.type != "mps"
