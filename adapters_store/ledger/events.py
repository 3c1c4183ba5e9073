"""Events: one row per change, each hashed together with the hash of the one before.

The hash is the SHA-256 of the canonical JSON of an event's JSON form without ``hash``, so that
anyone with a listing can compute it again.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from adapters_store.canonical import canonical_json
from adapters_store.errors import UsageError
from adapters_store.names import Reference

if TYPE_CHECKING:
    from sqlalchemy import Row

GENESIS_HASH = "0" * 64
MAX_NOTE_CHARACTERS = 2000

EVENT_TYPES = (
    "adapter_version.created",
    "adapter_version.deleted",
    "adapter_version.purged",
    "adapter_version.restored",
    "alias.removed",
    "alias.set",
    "backbone.added",
    "evaluation.added",
    "gc.collected",
    "pin.added",
    "pin.removed",
    "signature.added",
    "store.configured",
    "tag.removed",
    "tag.set",
    "webhook.added",
    "webhook.removed",
)

Problem = Literal["altered", "missing", "out_of_order", "truncated", "rewritten"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about; a part that does not apply is None."""

    tenant: str | None = None
    name: str | None = None
    version: int | None = None
    alias: str | None = None
    digest: str | None = None

    @property
    def reference(self) -> str | None:
        """``tenant/name`` with the version where there is one; None outside tenants."""
        if self.tenant is None or self.name is None:
            return None
        return str(Reference(self.tenant, self.name, version=self.version))

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            "tenant": self.tenant,
            "name": self.name,
            "version": self.version,
            "alias": self.alias,
            "digest": self.digest,
        }


@dataclass(frozen=True, slots=True)
class Event:
    """One change. ``sequence`` counts from 1 without gaps; ``at`` is ISO 8601 in UTC and never
    runs backwards; the hashes are hexadecimal SHA-256."""

    sequence: int
    at: str
    actor: str
    type: str
    subject: Subject
    payload: Mapping[str, Any]
    previous_hash: str
    hash: str

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form; ``hash`` is over the canonical JSON of the other members."""
        return _hashed_form(self) | {"hash": self.hash}


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: sequence 0 and the genesis hash where nothing happened yet."""

    sequence: int = 0
    hash: str = GENESIS_HASH
    at: str = ""

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form; keep it elsewhere to hold the store to it later."""
        return {"sequence": self.sequence, "hash": self.hash, "at": self.at}


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where the chain does not hold, and how."""

    sequence: int
    problem: Problem
    message: str

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {"sequence": self.sequence, "problem": self.problem, "message": self.message}


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a walk along the chain found; ``head`` is the end that the store has recorded."""

    num_events: int
    head: Head
    first_break: Break | None = None

    @property
    def is_sound(self) -> bool:
        """True where no break was found."""
        return self.first_break is None

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            "num_events": self.num_events,
            "head": self.head.as_json(),
            "is_sound": self.is_sound,
            "first_break": None if self.first_break is None else self.first_break.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Draft:
    """An event before it has its place in the chain."""

    type: str
    subject: Subject
    payload: dict[str, Any] = field(default_factory=dict)


def seal(drafts: Sequence[Draft], head: Head, *, at: str, actor: str) -> list[Event]:
    """Give drafts their places after ``head``, in order, and hash them."""
    events = []
    sequence, previous = head.sequence, head.hash
    for draft in drafts:
        assert draft.type in EVENT_TYPES, draft.type
        sequence += 1
        bare = Event(sequence, at, actor, draft.type, draft.subject, draft.payload, previous, "")
        previous = compute_hash(bare)
        events.append(dataclasses.replace(bare, hash=previous))
    return events


def compute_hash(event: Event) -> str:
    """The hash that an event should have, from everything else in it."""
    return hashlib.sha256(canonical_json(_hashed_form(event))).hexdigest()


def as_row(event: Event) -> dict[str, Any]:
    """The columns of an event's row."""
    return {
        "sequence": event.sequence,
        "at": event.at,
        "actor": event.actor,
        "type": event.type,
        **event.subject.as_json(),
        "payload": canonical_json(dict(event.payload)).decode(),
        "previous_hash": event.previous_hash,
        "hash": event.hash,
    }


def from_row(columns: Row[Any]) -> Event:
    """The event of a row of all columns.

    A payload that was damaged into something else than a JSON object comes back as
    ``{"unreadable": text}``, so that its hash cannot hold.
    """
    row = columns._mapping
    try:
        payload = json.loads(row["payload"])
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        payload = {"unreadable": row["payload"]}
    return Event(
        sequence=row["sequence"],
        at=row["at"],
        actor=row["actor"],
        type=row["type"],
        subject=Subject(row["tenant"], row["name"], row["version"], row["alias"], row["digest"]),
        payload=payload,
        previous_hash=row["previous_hash"],
        hash=row["hash"],
    )


def matches(patterns: Sequence[str], event_type: str) -> bool:
    """True where one of the patterns (``alias.*``, ``*``, a whole type) covers the type."""
    return any(fnmatchcase(event_type, pattern) for pattern in patterns)


def check_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns, each of which covers a type that exists; raises UsageError otherwise."""
    if not patterns:
        raise UsageError("no event patterns; expected at least one, such as '*'", param="events")
    for pattern in patterns:
        if not any(fnmatchcase(known, pattern) for known in EVENT_TYPES):
            near = difflib.get_close_matches(pattern, EVENT_TYPES, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"event pattern {pattern[:80]!r} covers no type; known: "
                f"{', '.join(EVENT_TYPES)}.{guess}",
                param="events",
            )
    return tuple(dict.fromkeys(patterns))


def check_note(text: str, what: str, *, max_characters: int = MAX_NOTE_CHARACTERS) -> str:
    """Return ``text`` if every catalog and every reader of JSON can keep it.

    Raises UsageError for text that is too long, and for surrogates and control characters other
    than tab and line end. ``what`` names it in the error.
    """
    if len(text) > max_characters:
        raise UsageError(
            f"{what} has {len(text)} characters; the limit is {max_characters}", param=what
        )
    bad = next((c for c in text if _is_unprintable(c)), None)
    if bad is not None:
        raise UsageError(
            f"{what} holds the character U+{ord(bad):04X}; expected printable text", param=what
        )
    return text


def _is_unprintable(character: str) -> bool:
    code = ord(character)
    return (code < 0x20 and character not in "\t\n\r") or code == 0x7F or 0xD800 <= code <= 0xDFFF


def _hashed_form(event: Event) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "at": event.at,
        "actor": event.actor,
        "type": event.type,
        "subject": event.subject.as_json(),
        "payload": dict(event.payload),
        "previous_hash": event.previous_hash,
    }
