"""What this engine runs: the parts of an artefact against the table of serving primitives."""

from __future__ import annotations

from adapters_store.errors import NotServedError
from adapters_store.manifest import Manifest
from serving.primitives import PRIMITIVES


def check_servable(manifest: Manifest) -> None:
    """Raise NotServedError with every kind of part that would not run, exactly as it is meant."""
    unknown = dict.fromkeys(
        repr(part.primitive) for part in manifest.parts if part.primitive not in PRIMITIVES
    )
    if unknown:
        raise NotServedError(
            f"the engine cannot run this {manifest.kind}: primitive {', '.join(unknown)}; "
            f"served: {', '.join(PRIMITIVES)}"
        )
