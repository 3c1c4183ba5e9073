"""Evaluation results: numbers about a version, added and never changed."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from adapters_store.catalog import versions as version_rows
from adapters_store.catalog.database import Database
from adapters_store.catalog.journal import journal
from adapters_store.catalog.schema import EVALUATIONS
from adapters_store.errors import NotFoundError, UsageError
from adapters_store.ledger.events import check_note
from adapters_store.names import Reference, is_digest, parsed

MAX_WORD_CHARACTERS = 100
MAX_EVIDENCE = 64


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One measured number.

    ``metric`` and ``split`` are short words (``exact_match``, ``test``), ``value`` is finite,
    ``data_digest`` is of the examples, ``num_examples`` counts them. Raises UsageError for values
    outside that.
    """

    metric: str
    value: float
    split: str = "test"
    data_digest: str | None = None
    num_examples: int | None = None
    seed: int | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        for what in ("metric", "split"):
            word = check_note(getattr(self, what), what, max_characters=MAX_WORD_CHARACTERS)
            if not word.strip():
                raise UsageError(f"the evaluation's {what} is empty", param=what)
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise UsageError(f"value is {self.value!r}; expected a number", param="value")
        if not math.isfinite(self.value):
            raise UsageError(f"value is {self.value}; expected a finite number", param="value")
        object.__setattr__(self, "value", float(self.value))
        if self.data_digest is not None and not is_digest(self.data_digest):
            raise UsageError(
                f"data_digest {self.data_digest[:80]!r} is not sha256:<64 hexadecimal digits>",
                param="data_digest",
            )
        for what, least in (("num_examples", 0), ("seed", -(2**63))):
            number = getattr(self, what)
            if number is not None and not (type(number) is int and least <= number < 2**63):
                raise UsageError(
                    f"{what} is {number!r}; expected a whole number from {least} with 64 bits",
                    param=what,
                )
        check_note(self.notes, "notes")

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """An evaluation as stored: its id, the version it is about, who added it and when."""

    id: int
    reference: str
    evaluation: Evaluation
    actor: str
    at: str

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        about = {"id": self.id, "reference": self.reference, "actor": self.actor, "at": self.at}
        return about | self.evaluation.as_json()


class Evaluations:
    """``store.evaluations`` and ``store.add_evaluation``; a reference means one version."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, reference: str | Reference, evaluation: Evaluation, *, actor: str = "local"
    ) -> EvaluationRecord:
        """Add a result to a live version; raises NotFoundError or DeletedError."""
        with journal(self._database, actor) as change:
            found = version_rows.resolve(change.connection, parsed(reference))
            added = change.connection.execute(
                insert(EVALUATIONS)
                .values(
                    name_id=version_rows.name_id(change.connection, parsed(reference)),
                    number=found.number,
                    actor=change.actor,
                    at=change.at,
                    **evaluation.as_json(),
                )
                .returning(EVALUATIONS.c.id)
            )
            number = int(added.scalar_one())
            change.record("evaluation.added", found.subject, id=number, **evaluation.as_json())
            return EvaluationRecord(number, found.reference, evaluation, change.actor, change.at)

    def list(self, reference: str | Reference) -> builtins.list[EvaluationRecord]:
        """The results of one version, deleted or not, oldest first; raises NotFoundError."""
        with self._database.read() as connection:
            found = version_rows.find(connection, parsed(reference))
            query = select(EVALUATIONS).where(
                EVALUATIONS.c.name_id == version_rows.name_id(connection, parsed(reference)),
                EVALUATIONS.c.number == found.number,
            )
            rows = connection.execute(query.order_by(EVALUATIONS.c.id)).all()
        return [_as_record(row, found.reference) for row in rows]


def check_evidence(connection: Connection, name_id: int, evidence: Sequence[int]) -> None:
    """Raise NotFoundError unless every id is of an evaluation of some version of that name.

    Raises UsageError above ``MAX_EVIDENCE`` ids.
    """
    if len(evidence) > MAX_EVIDENCE:
        raise UsageError(
            f"evidence names {len(evidence)} evaluations; the limit is {MAX_EVIDENCE}",
            param="evidence",
        )
    query = select(EVALUATIONS.c.id).where(
        EVALUATIONS.c.name_id == name_id, EVALUATIONS.c.id.in_(evidence)
    )
    missing = sorted(set(evidence) - set(connection.execute(query).scalars()))
    if missing:
        raise NotFoundError(
            f"no evaluation {missing[0]} of this name; evidence must be of its own versions",
            hint="List a version's evaluations to see their ids.",
            param="evidence",
        )


def _as_record(row: Row[Any], reference: str) -> EvaluationRecord:
    names = Evaluation.__dataclass_fields__
    evaluation = Evaluation(**{name: row._mapping[name] for name in names})
    return EvaluationRecord(row.id, reference, evaluation, row.actor, row.at)
