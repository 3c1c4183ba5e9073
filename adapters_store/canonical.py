"""Canonical JSON and digests: one spelling for each value, so that hashes mean equality."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from adapters_store.errors import InvalidArtefactError

Json = str | int | float | bool | None | dict[str, Any] | list[Any]


def canonical_json(value: Json) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; raises ValueError for NaN and infinity."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def digest_of(data: bytes | memoryview) -> str:
    """``sha256:<hex>`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def strict_json(data: bytes, what: str) -> Json:
    """Parse JSON that has one meaning only; ``what`` names the document in the error.

    Raises :class:`~adapters_store.errors.InvalidArtefactError` for bytes that are not UTF-8 JSON,
    repeated keys, NaN or infinity, and numbers or nesting too long to read.
    """

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            repeated = sorted({key for key in keys if keys.count(key) > 1})
            raise InvalidArtefactError(f"{what} repeats the key {repeated[0]!r}")
        return found

    def refuse(constant: str) -> None:
        raise InvalidArtefactError(f"{what} holds {constant}, which is not a JSON number")

    def finite(text: str) -> float:
        number = float(text)
        if math.isinf(number):
            raise InvalidArtefactError(f"{what} holds {text[:40]}, which is not a finite number")
        return number

    try:
        value: Json = json.loads(
            data.decode(), object_pairs_hook=unique, parse_constant=refuse, parse_float=finite
        )
    except (ValueError, RecursionError) as error:
        raise InvalidArtefactError(f"{what} is not JSON in UTF-8: {error}") from error
    return value
