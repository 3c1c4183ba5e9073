"""Keys and values of inputs read before, for inputs that begin alike under the same adapter.

A block of tokens is found by the artefact's digest, the block before it and its own tokens, never
by a hash of them: what was read under another adapter, another version of it or the bare backbone
cannot be found, and neither can other tokens.

Shapes: ``B`` tokens of a block, ``L`` layers, ``T`` tokens, ``W`` keys and values of a position.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count

import torch
from torch import Tensor

from serving.engine.finite import are_finite
from serving.engine.prefill import Encoded

BLOCK_TOKENS = 32

_Key = tuple[str | None, int, tuple[int, ...]]
_ROOT = 0


@dataclass(frozen=True, slots=True)
class _Block:
    """``kv`` (L, B, W); ``number`` names the block in the keys of those behind it."""

    number: int
    kv: Tensor


class PrefixCache:
    """Blocks within ``max_bytes``; those used least recently go first. 0 bytes keep nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()
        self._numbers = count(_ROOT + 1)
        self.num_bytes = 0

    def num_known(self, adapter: str | None, inputs: Sequence[int]) -> int:
        """Tokens at the beginning of ``inputs`` that need not be read; never all of them."""
        return BLOCK_TOKENS * len(self._chain(adapter, inputs, len(inputs) - 1))

    def read(self, adapter: str | None, inputs: Sequence[int], layers: Sequence[Tensor]) -> int:
        """Write what is known of ``inputs`` to ``layers``, a tensor (T, W) each; how many tokens.

        The blocks count as used.
        """
        keys = self._chain(adapter, inputs, len(inputs) - 1)
        for number, key in enumerate(keys):
            own = slice(number * BLOCK_TOKENS, (number + 1) * BLOCK_TOKENS)
            for layer, kv_BW in zip(layers, self._blocks[key].kv, strict=True):
                layer[own] = kv_BW
        for key in reversed(keys):
            self._blocks.move_to_end(key)
        return BLOCK_TOKENS * len(keys)

    def keep(self, adapter: str | None, inputs: Sequence[int], layers: Sequence[Tensor]) -> None:
        """Copy the whole blocks of ``inputs``; ``layers`` has keys and values (T, W) of each layer.

        They must be finite.
        """
        keys = self._chain(adapter, inputs, len(inputs))
        parent = self._blocks[keys[-1]].number if keys else _ROOT
        for start in range(len(keys) * BLOCK_TOKENS, len(inputs) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            kv = torch.stack([layer[start : start + BLOCK_TOKENS] for layer in layers])
            if kv.nbytes > self._max_bytes:
                return
            key = (adapter, parent, tuple(inputs[start : start + BLOCK_TOKENS]))
            parent = next(self._numbers)
            self._blocks[key] = _Block(parent, kv)
            self.num_bytes += kv.nbytes
            keys.append(key)
        for key in reversed(keys):
            self._blocks.move_to_end(key)
        while self.num_bytes > self._max_bytes:
            self._drop(next(iter(self._blocks)))

    def keep_all(self, encoded: Encoded) -> None:
        """Copy the blocks of the inputs whose keys and values are all finite.

        A state that is not makes those of its token so in the last layer.
        """
        starts = accumulate(encoded.lengths, initial=0)
        long = [
            (row, slice(start, start + row.num_read))
            for row, start in zip(encoded.readers, starts, strict=False)
            if row.num_read >= BLOCK_TOKENS
        ]
        if not long or not self._max_bytes:
            return
        last = [encoded.kv[-1][span] for _, span in long]
        for (row, span), is_finite in zip(long, are_finite(last), strict=True):
            if is_finite:
                layers = [kv[span] for kv in encoded.kv]
                self.keep(row.request.adapter, row.inputs, layers)

    def forget(self, adapter: str) -> None:
        """Drop every block that was read under an adapter."""
        for key in [key for key in self._blocks if key[0] == adapter]:
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        self.num_bytes -= self._blocks.pop(key).kv.nbytes

    def _chain(self, adapter: str | None, inputs: Sequence[int], most: int) -> list[_Key]:
        """Keys of the known blocks that ``inputs`` begins with, of ``most`` tokens together."""
        keys: list[_Key] = []
        parent = _ROOT
        for start in range(0, most - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            key = (adapter, parent, tuple(inputs[start : start + BLOCK_TOKENS]))
            block = self._blocks.get(key)
            if block is None:
                break
            keys.append(key)
            parent = block.number
        return keys
