"""Reading the tensors that pieces name, each as rarely as memory allows."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from adapters_store.artefact import load_tensors
from adapters_store.canonical import canonical_json
from adapters_store.formats.inspection import TensorRef
from adapters_store.formats.source import Source, read_tensor_table
from adapters_store.limits import MIB, Limits
from adapters_store.tensor_file import PREFIX_BYTES, StoredTensor

if TYPE_CHECKING:
    import torch

KEPT_BYTES = 64 * MIB


class TensorReader:
    """Tensors of one source on the CPU in their stored dtypes; they must not be changed.

    Those read last are kept, KEPT_BYTES of them: a prefix is cut from one tensor and a task's
    routing from many, and a source may be far away.
    """

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._tables: dict[str, dict[str, StoredTensor]] = {}
        self._kept: OrderedDict[TensorRef, torch.Tensor] = OrderedDict()
        self._kept_bytes = 0

    def read(self, ref: TensorRef) -> torch.Tensor:
        """One tensor; raises as ``read_tensor_table`` and ``load_tensors`` do."""
        if ref in self._kept:
            self._kept.move_to_end(ref)
            return self._kept[ref]
        if ref.file not in self._tables:
            table = read_tensor_table(self._source, ref.file, self._limits)
            self._tables[ref.file] = {tensor.name: tensor for tensor in table}
        tensor = self._decode(ref.file, self._tables[ref.file][ref.name])
        self._kept[ref] = tensor
        self._kept_bytes += tensor.nbytes
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return tensor

    def _decode(self, file: str, stored: StoredTensor) -> torch.Tensor:
        """Wrap the bytes in a safetensors file of their own, so that one reader decodes all."""
        data = self._source.read_range(file, stored.begin, stored.end)
        entry = {"dtype": stored.dtype, "shape": list(stored.shape), "data_offsets": [0, len(data)]}
        header = canonical_json({"tensor": entry})
        return load_tensors(len(header).to_bytes(PREFIX_BYTES, "little") + header + data)["tensor"]
