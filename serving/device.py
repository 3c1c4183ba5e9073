"""Which device an engine runs on, by name. torch is imported when a device is looked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from adapters_store.errors import UsageError

if TYPE_CHECKING:
    import torch

DEVICE_PATTERN = r"auto|cpu|cuda(:\d{1,3})?"


def is_device_name(name: str) -> bool:
    """True for ``auto``, ``cpu``, ``cuda`` and ``cuda:N``."""
    return re.fullmatch(DEVICE_PATTERN, name) is not None


def find_device(name: str) -> torch.device:
    """The device of a name: ``auto`` is the first CUDA device where there is one, else the CPU.

    Raises :class:`UsageError` for a name of another form and for a CUDA device that is not there.
    """
    import torch

    if not is_device_name(name):
        raise UsageError(f"device is {name!r}; expected auto, cpu, cuda or cuda:N")
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and num_cuda == 0):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= num_cuda:
        found = ", ".join(["cpu", *(f"cuda:{i}" for i in range(num_cuda))])
        raise UsageError(
            f"device is {name!r}; expected a device of this machine, found {found} "
            f"(torch {torch.__version__})",
            hint="Choose auto or cpu, or install a CUDA build of torch and check nvidia-smi.",
        )
    return torch.device("cuda", index)
