"""A plan in the making: tensors taken one by one, parts added, everything wrong collected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters_store.errors import IncompatibleError, InvalidArtefactError
from adapters_store.families.shapes import BackboneShapes
from adapters_store.formats.adapterhub.recipe import Recipe
from adapters_store.formats.inspection import Piece, Reason, TensorRef
from adapters_store.primitives import Part
from adapters_store.tensor_file import StoredTensor

MAX_REASONS = 40
_DTYPES = ("F32", "F16", "BF16")
_SHOWN = 5
_MAX_NAME = 200
_MAX_VALUE = 100


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor and the file that holds it."""

    file: str
    tensor: StoredTensor


@dataclass
class Draft:
    """What has been found of one source. ``tensors`` are those of its files by key.

    ``scope`` is the place in the configuration that is read; ``is_complete`` is False where a
    method was not planned, so that its tensors cannot be told from extra ones. ``labels`` are the
    head's.
    """

    shapes: BackboneShapes
    tensors: Mapping[str, Held]
    scope: str = "config"
    is_complete: bool = True
    labels: tuple[str, ...] = ()
    parts: list[Part] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    notes: list[Reason] = field(default_factory=list)
    _num_more: int = 0
    _misfits: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def reject(self, code: str, message: str, where: str = "") -> None:
        """Add a reason, once; those behind the first MAX_REASONS are counted."""
        reason = Reason(code, message, where)
        if reason in self.reasons:
            return
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(reason)
        else:
            self._num_more += 1

    def abandon(self, code: str, message: str, where: str = "") -> None:
        """Add a reason for which a method is not planned any further."""
        self.is_complete = False
        self.reject(code, message, where)

    def note(self, code: str, message: str, where: str = "") -> None:
        """Add what a person should know."""
        self.notes.append(Reason(code, message, where))

    def has(self, key: str) -> bool:
        """True where a file holds that tensor."""
        return key in self.tensors

    def shape(self, key: str) -> tuple[int, ...]:
        """The tensor's shape; empty where it is absent."""
        return self.tensors[key].tensor.shape if key in self.tensors else ()

    def take(self, key: str, shape: Sequence[int], *, is_shared: bool = False) -> TensorRef:
        """The tensor of that key, which must have that shape; what is wrong becomes a reason.

        ``is_shared`` allows it to be taken again.
        """
        if key in self._used and not is_shared:
            self.reject("unreadable", f"{key} is claimed by two methods", self.scope)
            return TensorRef("", key)
        is_first = key not in self._used
        self._used.add(key)
        held = self.tensors.get(key)
        if held is None:
            if is_first:
                self._misfit("missing_tensor", key, key)
            return TensorRef("", key)
        if held.tensor.shape != tuple(shape):
            found = f"{key} has shape {list(held.tensor.shape)}, expected {list(shape)}"
            self._misfit("shape_mismatch", key, found)
        if held.tensor.dtype not in _DTYPES:
            self._misfit("dtype", key, f"{key} is {held.tensor.dtype}")
        return TensorRef(held.file, held.tensor.name)

    def add(self, part: Part, recipes: Iterable[Recipe]) -> None:
        """Add a part with the recipes of its tensors, in the order of its specs."""
        try:
            specs = part.tensor_specs(self.shapes)
        except (InvalidArtefactError, IncompatibleError) as error:
            self.reject("incompatible", error.message, self.scope)
            return
        self.parts.append(part)
        self.pieces += [recipe.piece(spec.name) for recipe, spec in zip(recipes, specs)]

    def finish(self) -> None:
        """Reject for tensors that misfit or that nothing explains, and for having no effect."""
        for key in self.tensors:
            if self.is_complete and key not in self._used:
                name = self.tensors[key].tensor.name
                self._misfit("extra_tensor", name, name)
        for code, found in self._misfits.items():
            more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            shown = ", ".join(text for _, text in found[:_SHOWN])
            self.reject(code, f"{_SAID[code]}: {shown}{more}", found[0][0])
        if self._num_more:
            self.reasons.append(Reason(self.reasons[-1].code, f"and {self._num_more} more reasons"))
        if not self.parts and not self.reasons:
            self.reject("no_effect", "the configuration puts nothing into any layer", self.scope)

    def _misfit(self, code: str, key: str, found: str) -> None:
        self._misfits.setdefault(code, []).append((key[:_MAX_NAME], found[: 2 * _MAX_NAME]))


def short(value: object) -> str:
    """A value as it is shown in a message."""
    text = repr(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."


_SAID = {
    "missing_tensor": "the configuration needs tensors that are absent",
    "extra_tensor": "nothing in the configuration explains",
    "shape_mismatch": "tensors of another shape",
    "dtype": f"expected tensors of {', '.join(_DTYPES)}",
}
