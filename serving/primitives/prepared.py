"""What a primitive makes of an artefact's tensors: the forms the engine can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from serving.primitives.factors import Factors
from serving.primitives.layout import SiteLayout

if TYPE_CHECKING:
    from serving.primitives.bottleneck import BlockParts
    from serving.primitives.head import Head
    from serving.primitives.mixture import Bank, Mixture
    from serving.primitives.override import BiasShift, NormVectors
    from serving.primitives.prefix import Prefix
    from serving.primitives.prompt import Prompt
    from serving.primitives.scale import SiteScale


@dataclass(frozen=True, slots=True)
class Target:
    """The backbone that parts are prepared for: its packed sites, dtype and device.

    ``vectors`` are its norm gains and biases and the biases of linear maps by canonical name, as
    the model stores them; what it does not have is not there. ``pooler`` is the weight (D, D) and
    bias (D,) of its own pooler in float32, None where the checkpoint holds none. ``relative`` names
    the attentions, such as ``decoder.self``, whose positions are a bias of the distance.
    """

    layout: SiteLayout
    dtype: torch.dtype
    device: torch.device
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    pooler: tuple[Tensor, Tensor] | None = None
    relative: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Runnable parts of one artefact; a primitive fills the fields it owns.

    ``factors``, ``scales`` and ``biases`` are by packed site (factors of an adapter, or composed
    from a bank), ``norms`` and ``bottlenecks`` by the name of the norm or block, ``prefixes`` by
    attention (``decoder.self``), ``prompts`` by stack; ``mixture`` is a routing over a bank,
    ``bank`` the bank itself, ``head`` the row's own output. Every part counts its own
    ``num_bytes``.
    """

    factors: Mapping[int, Factors] = field(default_factory=dict)
    scales: Mapping[int, SiteScale] = field(default_factory=dict)
    biases: Mapping[int, BiasShift] = field(default_factory=dict)
    norms: Mapping[str, NormVectors] = field(default_factory=dict)
    bottlenecks: Mapping[str, BlockParts] = field(default_factory=dict)
    prefixes: Mapping[str, Prefix] = field(default_factory=dict)
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    mixture: Mixture | None = None
    bank: Bank | None = None
    head: Head | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes held, without the bank that a mixture shares with other tasks."""
        total = 0
        for value in self._values().values():
            parts = value.values() if isinstance(value, Mapping) else [value]
            total += sum(part.num_bytes for part in parts if part is not None)
        return total

    def merged(self, other: Prepared) -> Prepared:
        """Both, where ``other`` fills what is empty here."""
        mine, theirs = self._values(), other._values()
        both: dict[str, Any] = {
            name: {**value, **theirs[name]} if isinstance(value, Mapping) else value or theirs[name]
            for name, value in mine.items()
        }
        return replace(self, **both)

    def _values(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}
