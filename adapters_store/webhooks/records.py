"""What webhooks are told as: subscriptions and deliveries that were given up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Webhook:
    """One subscription.

    ``cursor`` is the last event it is done with; ``next_at`` says when a failed delivery is tried
    again and ``last_error`` why it failed. ``secret`` is set in the answer to its creation alone.
    """

    id: int
    url: str
    events: tuple[str, ...]
    tenant: str | None
    allow_private: bool
    actor: str
    created_at: str
    cursor: int
    next_at: str | None = None
    last_error: str | None = None
    num_dead: int = 0
    secret: str | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form, without the secret."""
        document = asdict(self) | {"events": list(self.events)}
        del document["secret"]
        return document


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a webhook's receiver did not take after every attempt."""

    webhook_id: int
    sequence: int
    type: str
    at: str
    attempts: int
    last_error: str

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return asdict(self)
