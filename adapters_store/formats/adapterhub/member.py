"""One method of an adapter: its options, read strictly, and where its modules stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters_store.formats.adapterhub.draft import Draft, short
from adapters_store.formats.adapterhub.layout import Layout
from adapters_store.formats.adapterhub.options import REQUIRED, Option

_MAX_INT = 2**24


@dataclass(frozen=True, slots=True)
class Member:
    """One method. ``name`` is the adapter's own name, which its keys carry.

    ``options`` has every key that the method knows; ``alpha`` is LoRA's, as it was trained.
    """

    name: str
    options: Mapping[str, Any]
    layout: Layout
    alpha: float = 1.0

    def leaves_out(self, layer: int) -> bool:
        """True where the options leave that layer out, counted through encoder and decoder."""
        return layer in self.options["leave_out"]


def read_options(
    config: Mapping[str, Any], known: tuple[Option, ...], draft: Draft
) -> dict[str, Any] | None:
    """The values with the library's defaults filled in, or None with a reason for each misfit.

    A key that is not known is passed over where its value is empty.
    """
    values: dict[str, Any] = {}
    is_sound = True

    def reject(code: str, key: str, message: str) -> None:
        nonlocal is_sound
        is_sound = False
        draft.abandon(code, f"{key} {message}", f"{draft.scope}.{key}")

    for option in known:
        value = config.get(option.name, option.default)
        values[option.name] = value
        if value is REQUIRED:
            reject("unreadable", option.name, "is missing")
        elif option.handling == "limited" and value not in option.allowed:
            reject("unsupported_option", option.name, f"is {short(value)}: {option.rule}")
        elif option.handling == "converts" and not _has_type(value, option.types):
            expected = " or ".join(kind.__name__ for kind in option.types)
            expected += f" up to {_MAX_INT}" if int in option.types else ""
            reject("unreadable", option.name, f"is {short(value)}; expected {expected}")
    names = {option.name for option in known} | {"architecture"}
    for name in sorted(set(config) - names):
        if not _is_empty(config[name]):
            reject("unknown_option", name[:100], f"is {short(config[name])}; it is not known")
    return values if is_sound else None


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _has_type(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in types
    is_huge = isinstance(value, int) and abs(value) > _MAX_INT
    return isinstance(value, types) and not is_huge
