"""Claims: one process at a time does a job, for as long as it says so."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from adapters_store.catalog.clock import now, shifted
from adapters_store.catalog.schema import CLAIMS
from adapters_store.errors import ConflictError


@dataclass(frozen=True, slots=True)
class Claim:
    """A job's name, who does it, and for how many seconds without a word."""

    name: str
    owner: str
    ttl_s: float

    def take(self, connection: Connection) -> None:
        """Take the job, also from an owner that fell silent; raises ConflictError while it runs."""
        row = connection.execute(select(CLAIMS).where(CLAIMS.c.name == self.name)).first()
        if row is not None and row.owner != self.owner and row.expires_at > now():
            raise ConflictError(
                f"{self.name} is being done by {row.owner}, at least until {row.expires_at}",
                hint="Wait for it to end, or until that time if its process is gone.",
            )
        connection.execute(delete(CLAIMS).where(CLAIMS.c.name == self.name))
        expires_at = shifted(now(), self.ttl_s)
        connection.execute(
            insert(CLAIMS).values(name=self.name, owner=self.owner, expires_at=expires_at)
        )

    def renew(self, connection: Connection) -> None:
        """Go on with the job; raises ConflictError where another took it over."""
        renewed = connection.execute(
            update(CLAIMS)
            .where(CLAIMS.c.name == self.name, CLAIMS.c.owner == self.owner)
            .values(expires_at=shifted(now(), self.ttl_s))
        )
        if renewed.rowcount != 1:
            raise ConflictError(f"{self.name} was taken over by another process while this slept")

    def end(self, connection: Connection) -> None:
        """Give the job back."""
        connection.execute(
            delete(CLAIMS).where(CLAIMS.c.name == self.name, CLAIMS.c.owner == self.owner)
        )
