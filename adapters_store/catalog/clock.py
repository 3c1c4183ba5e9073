"""The time that catalog rows carry."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The present time as ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
