"""``mixture``: the bank's factors mixed by the routing's weights, then added as a product."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters_store.primitives.mixture import BankPart
from training.reference.low_rank import add_product
from training.reference.stage import Stage


def install(parts: Sequence[BankPart], stage: Stage) -> None:
    """Mix each part by the weights that its routing left with the stage, and add it."""
    for part in parts:
        w_HK, stem = stage.mixing[part.site], f"{part.site}/mixture"
        a_HDr = torch.einsum("hk,hkdr->hdr", w_HK, stage.bank_tensors[f"{stem}/a"])
        b_rHO = torch.einsum("hk,hkro->rho", w_HK, stage.bank_tensors[f"{stem}/b"])
        a, b = a_HDr.reshape(-1, part.rank), b_rHO.reshape(part.rank, -1)
        add_product(stage, part.site, a, b, part.scale)
