"""The cells of the heterogeneity benchmark: a model's shape, width, dtype and adapted sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from adapters_store.backbone import Backbone
from adapters_store.families.site import Site
from benchmarks.synthetic import make_llama, make_t5

T5: dict[int, dict[str, Any]] = {
    512: {
        "d_model": 512,
        "d_kv": 64,
        "num_heads": 6,
        "d_ff": 1024,
        "num_layers": 8,
        "vocab_size": 8192,
        "feed_forward_proj": "gated-gelu",
    },
    1024: {
        "d_model": 1024,
        "d_kv": 64,
        "num_heads": 16,
        "d_ff": 2816,
        "num_layers": 4,
        "vocab_size": 8192,
        "feed_forward_proj": "gated-gelu",
    },
}
"""Encoder-decoders of the shapes of t5-v1_1-small and, with fewer layers, t5-v1_1-large."""

LLAMA: dict[int, dict[str, Any]] = {
    512: {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 8192,
        "max_position_embeddings": 1024,
    },
    1024: {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 4,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "vocab_size": 8192,
        "max_position_embeddings": 1024,
    },
}
"""Decoders of the same widths with grouped queries."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the grid; everything in it is measured in turn on the same weights."""

    family: Literal["t5", "llama"]
    width: int
    dtype: Literal["fp32", "bf16"]
    sites: Literal["all", "qv"]

    @property
    def name(self) -> str:
        """For example ``1024-bf16-all`` or ``decoder-512-fp32-qv``."""
        return f"{self.prefix.replace('_', '-')}{self.width}-{self.dtype}-{self.sites}"

    @property
    def prefix(self) -> str:
        """What the names of this cell's ratios begin with."""
        return "" if self.family == "t5" else "decoder_"

    @property
    def breadth(self) -> str:
        """The suffix of ratios that do not depend on the sites."""
        return f"{'_bf16' * (self.dtype == 'bf16')}{'_1024' * (self.width == 1024)}"

    @property
    def suffix(self) -> str:
        """What the names of this cell's ratios end with: ``_bf16``, ``_1024``, ``_qv``."""
        return self.breadth + "_qv" * (self.sites == "qv")

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as torch names it."""
        return DTYPES[self.dtype]

    @property
    def shape(self) -> Mapping[str, Any]:
        """The model's configuration."""
        return (T5 if self.family == "t5" else LLAMA)[self.width]

    def backbone(self, folder: Path) -> Backbone:
        """Write the random model to ``folder``."""
        if self.family == "t5":
            return make_t5(folder, liveliness=2.0, **self.shape)
        return make_llama(folder, **self.shape)

    def adapted(self, backbone: Backbone) -> list[Site]:
        """The sites that this cell's tasks change."""
        return adapted_sites(backbone, self.sites)


def adapted_sites(backbone: Backbone, which: str) -> list[Site]:
    """All linear sites, or where ``which`` is ``qv`` those of queries and values."""
    sites = list(backbone.sites.values())
    return sites if which == "all" else [site for site in sites if site.role[-1] in "qv"]


CELLS = tuple(
    Cell(family, width, dtype, sites)  # type: ignore[arg-type]
    for family in ("t5", "llama")
    for width in (512, 1024)
    for dtype in ("fp32", "bf16")
    for sites in ("all", "qv")
)
