"""Lazy tables: an extension point is a dict from name to ``module:Object``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from adapters_store.errors import UsageError


def resolve(table: Mapping[str, str], name: str, what: str) -> Any:
    """Import and return the object that ``table`` gives for ``name``.

    ``what`` names the table in the error ("training method"). Raises :class:`UsageError` with the
    known names and the nearest match when the name is unknown.
    """
    target = table.get(name)
    if target is None:
        near = difflib.get_close_matches(name, table, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown {what} {name!r}; known: {', '.join(sorted(table))}.{guess}")
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
