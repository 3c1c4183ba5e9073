"""Sound adapters that the table breaks: golden files of other tools, and one of this product."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from golden_kit import GOLDEN, golden_backbone
from mutations import Files

from adapters_store.artefact import build_artefact
from adapters_store.backbone import Backbone
from adapters_store.manifest import LowRankPart, TaskSignature

SITES = ("encoder.0.self.q", "decoder.1.ffn.out")
BASES: Mapping[str, str] = {
    "patchbay": "t5",
    "peft/t5-lora": "t5",
    "peft/t5-ia3": "t5",
    "peft/t5-prompt": "t5",
    "peft/t5-prefix": "t5",
    "peft/t5-poly": "t5",
    "peft/t5-poly-heads": "t5",
    "peft/t5-norms": "t5",
    "peft/bert-lora-classifier": "bert",
    "peft/bert-prefix": "bert",
    "adapterhub/t5-seq_bn": "t5",
    "adapterhub/t5-ia3": "t5",
    "adapterhub/bert-compacter": "bert",
    "adapterhub/bert-head": "bert",
    "adapterhub/bert-lora": "bert",
    "adapterhub/bert-prompt_tuning": "bert",
}
"""By name: the golden backbone that each is for."""


@lru_cache
def _files(base: str) -> Mapping[str, bytes]:
    if base == "patchbay":
        return _native(golden_backbone("t5"))
    folder = GOLDEN / base
    folder = folder / "adapter" if base.startswith("adapterhub") else folder
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != "expected.safetensors"
    }


def files_of(base: str) -> Files:
    """The files of a sound adapter, to be changed."""
    return dict(_files(base))


def _native(backbone: Backbone) -> Mapping[str, bytes]:
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for name in SITES:
        site = backbone.sites[name]
        tensors[f"{name}/low_rank/a"] = torch.randn(site.in_features, 2, generator=generator)
        tensors[f"{name}/low_rank/b"] = torch.randn(2, site.out_features, generator=generator)
    artefact = build_artefact(
        kind="adapter",
        backbone=backbone,
        parts=[LowRankPart(site=name, rank=2, scale=0.5) for name in SITES],
        tensors=tensors,
        signature=TaskSignature(task="text2text"),
    )
    return {"manifest.json": artefact.manifest.canonical, "data.safetensors": artefact.data}
