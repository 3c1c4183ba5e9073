"""Golden adapters of ``adapters`` with one thing changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from adapterhub_cases import CASES
from golden_kit import GOLDEN, golden_backbone
from safetensors.torch import load_file, save_file

from adapters_store.formats import Inspection, inspect
from adapters_store.formats.source import FolderSource


@dataclass
class Saved:
    """A folder of the library in memory: both documents and both files of tensors."""

    document: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    head: dict[str, Any] | None = None
    head_tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        return self.document["config"]

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(self.document))
        save_file(self.tensors, folder / "adapter.safetensors")
        if self.head is not None:
            (folder / "head_config.json").write_text(json.dumps(self.head))
        if self.head_tensors:
            save_file(self.head_tensors, folder / "model_head.safetensors")
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder


Change = Callable[[Saved], object]


def read(case: str) -> Saved:
    folder = GOLDEN / "adapterhub" / case / "adapter"
    saved = Saved(
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapter.safetensors"),
    )
    if (folder / "head_config.json").exists():
        saved.head = json.loads((folder / "head_config.json").read_text())
        saved.head_tensors = load_file(folder / "model_head.safetensors")
    return saved


def changed(tmp_path: Path, case: str, *changes: Change) -> FolderSource:
    saved = read(case)
    for change in changes:
        change(saved)
    return FolderSource(saved.write(tmp_path / "adapter"))


def verdict(source: FolderSource, case: str) -> Inspection:
    return inspect(source, golden_backbone(CASES[case].backbone).record)


def option(**values: Any) -> Change:
    return lambda saved: saved.config.update(values)


def about(**values: Any) -> Change:
    return lambda saved: saved.document.update(values)


def head_option(**values: Any) -> Change:
    def change(saved: Saved) -> None:
        assert saved.head is not None
        saved.head["config"].update(values)

    return change


def renamed(old: str, new: str) -> Change:
    def change(saved: Saved) -> None:
        saved.tensors = {
            name.replace(old, new): value.clone() for name, value in saved.tensors.items()
        }

    return change


def tensor(name: str, value: torch.Tensor | None) -> Change:
    """Put a tensor in place of the first one whose name ends so, or beside all; None takes it."""

    def change(saved: Saved) -> None:
        found = next((key for key in saved.tensors if key.endswith(name)), name)
        saved.tensors.pop(found, None)
        if value is not None:
            saved.tensors[found] = value.clone()

    return change
