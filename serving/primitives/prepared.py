"""What a primitive makes of an artefact's tensors: the forms the engine can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from serving.primitives.factors import Factors
from serving.primitives.layout import SiteLayout

if TYPE_CHECKING:
    from serving.primitives.head import Head
    from serving.primitives.mixture import Bank, Mixture


@dataclass(frozen=True, slots=True)
class Target:
    """The backbone that factors are prepared for: its packed sites, dtype and device."""

    layout: SiteLayout
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, slots=True)
class Prepared:
    """Runnable parts of one artefact; a primitive fills the fields it owns.

    ``factors`` maps packed site indices to low-rank factors (of an adapter, or composed from a
    bank), ``mixture`` is a routing over a bank, ``bank`` the bank itself, ``head`` the row's own
    output.
    """

    factors: Mapping[int, Factors] = field(default_factory=dict)
    mixture: Mixture | None = None
    bank: Bank | None = None
    head: Head | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes held, without the bank that a mixture shares with other tasks."""
        total = sum(f.num_bytes for f in self.factors.values())
        for part in (self.mixture, self.bank, self.head):
            total += 0 if part is None else part.num_bytes
        return total

    def merged(self, other: Prepared) -> Prepared:
        """Both, where ``other`` fills what is empty here."""
        return Prepared(
            {**self.factors, **other.factors},
            self.mixture or other.mixture,
            self.bank or other.bank,
            self.head or other.head,
        )
