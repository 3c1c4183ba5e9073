"""The times that catalog rows carry: ISO 8601 in UTC with milliseconds, which sort as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adapters_store.errors import UsageError


def now() -> str:
    """The present time."""
    return _text(datetime.now(UTC))


def shifted(at: str, seconds: float) -> str:
    """A catalog time that many seconds later; raises UsageError outside the calendar."""
    try:
        return _text(datetime.fromisoformat(at) + timedelta(seconds=seconds))
    except OverflowError as error:
        raise UsageError(f"{seconds:g} seconds from {at} is outside the calendar") from error


def moment(at: str | datetime) -> str:
    """A caller's time as catalog rows write it.

    Text is ISO 8601, in UTC where it names no offset; a datetime carries its time zone. Raises
    UsageError otherwise.
    """
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise UsageError(f"time {at} has no time zone; expected one", param="at")
        return _text(at)
    try:
        parsed = datetime.fromisoformat(at)
        return _text(parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"time {at[:60]!r} is not ISO 8601, such as 2026-10-01T09:30:00Z", param="at"
        ) from error


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
