"""What this engine runs: the parts of an artefact against the table of serving primitives."""

from __future__ import annotations

from adapters_store.errors import NotServedError
from adapters_store.lazy import resolve
from adapters_store.manifest import Manifest, Part
from serving.primitives import LIMITS, PRIMITIVES

_MAX_SHOWN = 5


def check_servable(manifest: Manifest) -> None:
    """Raise NotServedError with every kind of part that would not run, exactly as it is meant."""
    problems = dict.fromkeys(
        problem for part in manifest.parts if (problem := _problem(part)) is not None
    )
    if problems:
        shown = "; ".join(list(problems)[:_MAX_SHOWN])
        raise NotServedError(f"the engine cannot run this {manifest.kind}: {shown}")


def _problem(part: Part) -> str | None:
    if part.primitive not in PRIMITIVES:
        return f"primitive {part.primitive!r}; served: {', '.join(PRIMITIVES)}"
    if part.primitive not in LIMITS:
        return None
    limit: str | None = resolve(LIMITS, part.primitive, "serving limit")(part)
    return None if limit is None else f"primitive {part.primitive!r} with {limit}"
