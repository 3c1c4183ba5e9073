"""Typed errors across the process border: a code there is the same class here."""

from __future__ import annotations

from adapters_store.errors import PatchbayError, UnavailableError


def _classes(base: type[PatchbayError]) -> dict[str, type[PatchbayError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found.update(_classes(child))
    return found


def error_from(code: str, message: str, param: str | None = None) -> PatchbayError:
    """The error of that code; an unknown code becomes :class:`UnavailableError`."""
    return _classes(PatchbayError).get(code, UnavailableError)(message, param=param)
