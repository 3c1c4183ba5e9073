"""Plain folders and ``file://`` URLs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from adapters_store.errors import UsageError
from adapters_store.formats.source import FolderSource
from adapters_store.formats.sources.refusals import forbidden


def open_local(text: str, roots: Sequence[str] | None) -> FolderSource:
    """The folder; with roots its links are resolved first, and only a URL is understood."""
    if roots is None:
        return FolderSource(local_path(text), text)
    if "://" not in text:
        raise UsageError(
            f"source {text[:200]!r} is not a URL",
            hint="Give file:///folder, s3://bucket/prefix or hf://owner/repo.",
            param="source",
        )
    folder = local_path(text).resolve()
    if not any(folder.is_relative_to(root) for root in _folders(roots)):
        raise forbidden(text)
    return FolderSource(folder, text)


def _folders(roots: Sequence[str]) -> Iterator[Path]:
    for root in roots:
        if "://" not in root or root.startswith("file://"):
            yield local_path(root).resolve()


def local_path(text: str) -> Path:
    """The path of a folder or of a ``file://`` URL; raises UsageError."""
    if "\0" in text:
        raise UsageError(f"source {text[:200]!r} is no path", param="source")
    if "://" not in text:
        return Path(text).expanduser()
    url = urlsplit(text)
    if url.netloc not in ("", "localhost") or not url.path.startswith("/"):
        raise UsageError(f"source {text[:200]!r}; expected file:///absolute/path", param="source")
    path = unquote(url.path)
    if "\0" in path:
        raise UsageError(f"source {text[:200]!r} is no path", param="source")
    return Path(path)
