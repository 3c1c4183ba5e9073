"""The backend of torch's operators, which runs everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from serving.primitives.backend import Backend, Mixtures
from serving.primitives.layout import PackedSite
from serving.primitives.low_rank import Segments
from serving.primitives.mixture import Bank, BankTable
from serving.primitives.row_tables import RowTables


def _mixtures(bank: Bank, sites: Sequence[PackedSite], max_rows: int) -> Mixtures:
    return BankTable(bank, sites)


def _check(device: torch.device, dtype: torch.dtype) -> None:
    """Torch's operators run on every device that torch has."""


BACKEND = Backend("torch", RowTables, _mixtures, Segments, _check)
