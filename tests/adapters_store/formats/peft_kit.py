"""PEFT folders for tests: golden adapters, changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from golden_kit import GOLDEN, golden_backbone
from safetensors.torch import load_file, save_file

from adapters_store.formats import ImportOptions, Inspection, inspect
from adapters_store.formats.source import FolderSource

Tensors = dict[str, torch.Tensor]
Change = Callable[[dict[str, Any], Tensors], None]
LAYER = "base_model.model.model.layers.0"
Q = f"{LAYER}.self_attn.q_proj"


def family_of(case: str) -> str:
    return case.partition("-")[0]


def read_golden(case: str) -> tuple[dict[str, Any], Tensors]:
    """Configuration and tensors of a golden adapter."""
    folder = GOLDEN / "peft" / case
    config = json.loads((folder / "adapter_config.json").read_text())
    return config, load_file(folder / "adapter_model.safetensors")


def write_peft(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    """A PEFT folder with these contents."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(plain, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def changed(folder: Path, case: str, change: Change) -> Path:
    """A golden adapter after ``change``."""
    config, tensors = read_golden(case)
    change(config, tensors)
    return write_peft(folder, config, tensors)


def verdict(folder: Path, family: str, options: ImportOptions | None = None) -> Inspection:
    """The inspection against a golden backbone."""
    return inspect(FolderSource(folder), golden_backbone(family).record, options)


def option(**values: Any) -> Change:
    """Set options."""
    return lambda config, tensors: config.update(values)


def without(*names: str) -> Change:
    """Remove tensors."""

    def change(config: dict[str, Any], tensors: Tensors) -> None:
        for name in names:
            del tensors[name]

    return change


def renamed(old: str, new: str) -> Change:
    """Replace a text in all names."""

    def change(config: dict[str, Any], tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


def tensor(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Change:
    """Put a tensor of ones there, new or in place of another."""
    return lambda config, tensors: tensors.update({name: torch.ones(shape, dtype=dtype)})


def both(*changes: Change) -> Change:
    """Several changes in order."""

    def change(config: dict[str, Any], tensors: Tensors) -> None:
        for one in changes:
            one(config, tensors)

    return change
