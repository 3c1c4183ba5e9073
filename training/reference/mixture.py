"""``mixture``: the bank's factors mixed by the routing's weights, then added as a product."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters_store.errors import UsageError
from adapters_store.primitives.mixture import BankPart
from training.reference.low_rank import add_product
from training.reference.stage import Stage


def install(parts: Sequence[BankPart], stage: Stage) -> None:
    """Mix and add each part; raises UsageError where no routing gave it weights."""
    for part in parts:
        if part.site not in stage.mixing:
            raise UsageError("a bank is no task: give a routing or an adapter")
        w_HK, stem = stage.mixing[part.site], f"{part.site}/mixture"
        a_HDr = torch.einsum("hk,hkdr->hdr", w_HK, stage.bank_tensors[f"{stem}/a"])
        b_rHO = torch.einsum("hk,hkro->rho", w_HK, stage.bank_tensors[f"{stem}/b"])
        a, b = a_HDr.reshape(-1, part.rank), b_rHO.reshape(part.rank, -1)
        add_product(stage, part.site, a, b, part.scale)
