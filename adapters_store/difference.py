"""What differs between two versions: manifests field by field, parts, tensors, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters_store.manifest import Manifest, TensorEntry
from adapters_store.primitives import Part

if TYPE_CHECKING:
    import torch

    from adapters_store.reader import StoreReader

_APART = frozenset({"parts", "tensors", "provenance", "data", "content_digest"})


@dataclass(frozen=True, slots=True)
class Change:
    """One place with its value left and right; None where it is absent."""

    place: str
    left: Any
    right: Any

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {"place": self.place, "left": self.left, "right": self.right}


@dataclass(frozen=True, slots=True)
class TensorChange:
    """One tensor whose values or shape differ; differences are absolute, in float32.

    They are None where a side is absent or the shapes differ.
    """

    name: str
    left: str | None
    right: str | None
    max_difference: float | None = None
    mean_difference: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            "name": self.name,
            "left": self.left,
            "right": self.right,
            "max_difference": self.max_difference,
            "mean_difference": self.mean_difference,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """Two versions by their pinned references, and every change from left to right.

    ``has_same_content`` holds where all tensors are equal, whatever the manifests say.
    """

    left: str
    right: str
    has_same_content: bool
    fields: tuple[Change, ...] = ()
    parts: tuple[Change, ...] = ()
    tensors: tuple[TensorChange, ...] = ()
    provenance: tuple[Change, ...] = ()
    num_equal_tensors: int = 0

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            "left": self.left,
            "right": self.right,
            "has_same_content": self.has_same_content,
            "fields": [change.as_json() for change in self.fields],
            "parts": [change.as_json() for change in self.parts],
            "tensors": [change.as_json() for change in self.tensors],
            "provenance": [change.as_json() for change in self.provenance],
            "num_equal_tensors": self.num_equal_tensors,
        }


def compare(store: StoreReader, left: str, right: str) -> Difference:
    """Compare two references; raises what resolving and reading them does."""
    versions = store.resolve(left), store.resolve(right)
    one, other = versions[0].manifest, versions[1].manifest
    tensors: tuple[TensorChange, ...] = ()
    if one.content_digest != other.content_digest:
        tensors = _tensor_changes(one, other, *(store.tensors(v.digest) for v in versions))
    changed = {change.name for change in tensors}
    return Difference(
        versions[0].reference,
        versions[1].reference,
        one.content_digest == other.content_digest,
        _changes(_fields(one), _fields(other)),
        _changes(_parts(one), _parts(other)),
        tensors,
        _changes(_flat(one.provenance), _flat(other.provenance)),
        sum(entry.name not in changed for entry in one.tensors),
    )


def _fields(manifest: Manifest) -> dict[str, Any]:
    document = manifest.model_dump(mode="json")
    return _flat({key: value for key, value in document.items() if key not in _APART})


def _parts(manifest: Manifest) -> dict[str, Any]:
    return {_place(part): part.model_dump(mode="json") for part in manifest.parts}


def _place(part: Part) -> str:
    primitive, place = part.key
    return f"{primitive} {place}".rstrip()


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted places; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _changes(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[Change, ...]:
    places = [*left, *(place for place in right if place not in left)]
    return tuple(
        Change(place, left.get(place), right.get(place))
        for place in places
        if left.get(place) != right.get(place) or (place in left) != (place in right)
    )


def _tensor_changes(
    left: Manifest,
    right: Manifest,
    left_values: Mapping[str, torch.Tensor],
    right_values: Mapping[str, torch.Tensor],
) -> tuple[TensorChange, ...]:
    one = {entry.name: entry for entry in left.tensors}
    other = {entry.name: entry for entry in right.tensors}
    changes = []
    for name in sorted({*one, *other}):
        kinds = _kind(one.get(name)), _kind(other.get(name))
        if name not in one or name not in other or one[name].shape != other[name].shape:
            changes.append(TensorChange(name, *kinds))
            continue
        apart = (left_values[name].float() - right_values[name].float()).abs()
        biggest = float(apart.max()) if apart.numel() else 0.0
        if biggest or kinds[0] != kinds[1]:
            mean = float(apart.mean()) if apart.numel() else 0.0
            changes.append(TensorChange(name, *kinds, biggest, mean))
    return tuple(changes)


def _kind(entry: TensorEntry | None) -> str | None:
    return None if entry is None else f"{entry.dtype} {list(entry.shape)}"
