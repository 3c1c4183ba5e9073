"""What every kind of source refuses: places outside the allowed roots, names that lead out."""

from __future__ import annotations

from adapters_store.errors import ForbiddenError, UnsafeArtefactError

MAX_DEPTH = 3
_MAX_NAME = 300


def forbidden(location: str) -> ForbiddenError:
    """The error for a source outside the allowed roots."""
    return ForbiddenError(
        f"source {location[:200]!r} is outside the places that may be read here",
        hint="Add its folder, bucket or owner to `sources` in the server's configuration.",
    )


def checked_name(name: str, location: str) -> str:
    """Return a file's relative name; raises UnsafeArtefactError where it could lead elsewhere."""
    steps = name.split("/")
    is_plain = name.isprintable() and "\\" not in name and len(name) <= _MAX_NAME
    if not is_plain or any(step in ("", ".", "..") for step in steps):
        raise UnsafeArtefactError(f"{location} lists {name[:80]!r}, not a plain file name")
    return name


def is_hidden(name: str) -> bool:
    """True for files that a source passes over: hidden ones and those below the depth."""
    steps = name.split("/")
    return len(steps) > MAX_DEPTH or any(step.startswith(".") for step in steps)
