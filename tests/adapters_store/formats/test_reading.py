"""Tensors of a source are read as rarely as memory allows, and not before they are needed."""

from __future__ import annotations

from collections import Counter

import pytest
from golden_kit import GOLDEN, golden_backbone
from safetensors.torch import load_file

from adapters_store.formats import reading
from adapters_store.formats.importing import import_from
from adapters_store.formats.inspection import TensorRef
from adapters_store.formats.reading import TensorReader
from adapters_store.formats.source import FolderSource
from adapters_store.limits import DEFAULT_LIMITS

FILE = "adapter_model.safetensors"


class Counted(FolderSource):
    """Counts the reads of each range behind a header."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.reads: Counter[tuple[int, int]] = Counter()

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        if name == FILE and begin > 8:
            self.reads[begin, end] += 1
        return super().read_range(name, begin, end)


@pytest.mark.parametrize(("case", "num_tensors"), [("llama-prefix", 1), ("t5-poly", 48)])
def test_an_import_reads_every_tensor_once(case: str, num_tensors: int):
    source = Counted(GOLDEN / "peft" / case)
    import_from(source, golden_backbone(case.partition("-")[0]).record)
    assert len(source.reads) == num_tensors
    assert set(source.reads.values()) == {1}


def test_tensors_are_kept_within_a_budget(monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES", 600)
    source = Counted(GOLDEN / "peft" / "llama-lora")
    expected = load_file(GOLDEN / "peft" / "llama-lora" / FILE)
    reader = TensorReader(source, DEFAULT_LIMITS)
    first, second = sorted(expected)[:2]
    for name in (first, first, second, first):
        assert reader.read(TensorRef(FILE, name)).equal(expected[name])
    assert sorted(source.reads.values()) == [1, 2]
