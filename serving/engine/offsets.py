"""Where a row's tokens stand in the stacks, behind what its adapter puts before them.

A row's *index* counts its prompt rows and tokens from 0; its keys and values lie in that order
behind those of a prefix. Positions are the index plus an offset, which learned tables and rotary
angles may see differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.primitives.prefix import NO_FRONT, Front
from serving.primitives.prepared import Prepared


@dataclass(frozen=True, slots=True)
class Offsets:
    """What comes before a row's tokens in one attention, counted in rows; nothing by default.

    ``num_prompt`` come before the tokens in the stream; ``num_front`` before the keys of the layer
    that has most, and ``fronts`` says of each layer that has any. A position in the learned table
    is the index plus ``table``, one in the rotary angles the index plus ``rotary``.
    """

    num_prompt: int = 0
    num_front: int = 0
    table: int = 0
    rotary: int = 0
    fronts: Mapping[int, Front] = field(default_factory=dict)

    @property
    def is_shifted(self) -> bool:
        """True where keys stand in front, or positions are not the index."""
        return bool(self.num_front or self.table or self.rotary)

    def front(self, layer: int) -> Front:
        """What stands before the keys of a layer."""
        return self.fronts.get(layer, NO_FRONT)


NO_OFFSETS = Offsets()


@dataclass(frozen=True, slots=True)
class Places:
    """Offsets in the stack that reads the input, in the one that writes, and in its cross."""

    reader: Offsets = NO_OFFSETS
    writer: Offsets = NO_OFFSETS
    cross: Offsets = NO_OFFSETS

    @classmethod
    def of(cls, prepared: Prepared, reader: str) -> Places:
        """The places of an adapter's rows; ``reader`` names the stack that reads inputs."""
        if not prepared.prefixes and not prepared.prompts:
            return NO_PLACES
        return cls(
            _offsets(prepared, reader, "self"),
            _offsets(prepared, "decoder", "self"),
            _offsets(prepared, "decoder", "cross"),
        )


NO_PLACES = Places()


def _offsets(prepared: Prepared, stack: str, kind: str) -> Offsets:
    prefix = prepared.prefixes.get(f"{stack}.{kind}")
    prompt = prepared.prompts.get(stack) if kind == "self" else None
    shift = 0 if prefix is None else prefix.shift
    num_prompt = 0 if prompt is None else prompt.num_rows
    return Offsets(
        num_prompt=num_prompt,
        num_front=0 if prefix is None else prefix.num_rows,
        table=shift if prompt is None or prompt.has_positions else shift - num_prompt,
        rotary=shift,
        fronts={} if prefix is None else {layer: prefix.front(layer) for layer in prefix.rows},
    )
