"""What a collection did, or would do: purged versions, what was kept and why, freed bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Purged:
    """A deleted version whose content is given up; its row stays."""

    reference: str
    kind: str
    deleted_at: str
    deleted_by: str
    delete_reason: str

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Kept:
    """A deleted version past its window that something still needs; ``why`` says what."""

    reference: str
    deleted_at: str
    why: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            "reference": self.reference,
            "deleted_at": self.deleted_at,
            "why": list(self.why),
        }


@dataclass(frozen=True, slots=True)
class RemovedBlob:
    """A blob that nothing needs: of a purged artefact, or never catalogued (``orphan``)."""

    digest: str
    size_bytes: int
    why: Literal["purged", "orphan"]

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Collection:
    """The report of one collection; with ``is_dry_run`` nothing was changed.

    ``deleted_before`` is where the restore window begins: what was deleted until then was
    considered.
    ``num_uploads`` counts abandoned uploads.
    """

    is_dry_run: bool
    at: str
    deleted_before: str
    purged: tuple[Purged, ...]
    kept: tuple[Kept, ...]
    blobs: tuple[RemovedBlob, ...]
    num_uploads: int

    @property
    def bytes_freed(self) -> int:
        """The size of the removed blobs in bytes."""
        return sum(blob.size_bytes for blob in self.blobs)

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            "is_dry_run": self.is_dry_run,
            "at": self.at,
            "deleted_before": self.deleted_before,
            "purged": [one.as_json() for one in self.purged],
            "kept": [one.as_json() for one in self.kept],
            "blobs": [one.as_json() for one in self.blobs],
            "num_uploads": self.num_uploads,
            "bytes_freed": self.bytes_freed,
        }
