"""Where foreign adapters are read from: one file per scheme, found through a lazy table.

A row names a function ``open(text, roots) -> Source``. ``roots`` None reads any place; a sequence
is an allow-list of locations, of which the function looks at those of its own scheme.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adapters_store.errors import UsageError
from adapters_store.formats.source import Source
from adapters_store.formats.sources.local import local_path
from adapters_store.lazy import resolve

SOURCES: dict[str, str] = {
    "file": "adapters_store.formats.sources.local:open_local",
    "s3": "adapters_store.formats.sources.s3:open_s3",
    "hf": "adapters_store.formats.sources.hub:open_hub",
}


def open_source(text: str, allowed_roots: Sequence[str] | None = None) -> Source:
    """Open a folder, ``file:///folder``, ``s3://bucket/prefix`` or ``hf://owner/repo[@revision]``.

    ``allowed_roots`` are locations below which a source may lie (folders, ``s3://bucket[/prefix]``,
    ``hf://owner[/repo]``); None allows every place, an empty sequence none. Raises UsageError for
    text that is not understood, ForbiddenError outside the roots, NotFoundError for what does not
    exist, UnavailableError where a service cannot be reached or its client is not installed.
    """
    scheme = text.partition("://")[0] if "://" in text else "file"
    opener: Callable[[str, Sequence[str] | None], Source]
    opener = resolve(SOURCES, scheme, "source scheme")
    return opener(text, allowed_roots)


def source_root(text: object) -> str:
    """An entry of an allow-list, folders made absolute; raises UsageError for one that is none."""
    entry = str(text)
    scheme = entry.partition("://")[0] if "://" in entry else "file"
    resolve(SOURCES, scheme, "source scheme")
    if scheme == "file":
        return str(local_path(entry).absolute())
    if not entry.partition("://")[2].strip("/"):
        raise UsageError(f"source root {entry!r} names no bucket or owner")
    return entry


__all__ = ["SOURCES", "open_source", "source_root"]
