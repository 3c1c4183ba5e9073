"""Evaluation results: numbers about a version, added and never changed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from adapters_store.errors import UsageError
from adapters_store.ledger.events import check_note
from adapters_store.names import is_digest

MAX_WORD_CHARACTERS = 100


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
        if self.data_digest is not None and not is_digest(self.data_digest):
            raise UsageError(
                f"data_digest {self.data_digest[:80]!r} is not sha256:<64 hexadecimal digits>",
                param="data_digest",
            )
        if self.num_examples is not None and not 0 <= self.num_examples < 2**63:
            raise UsageError(
                f"num_examples is {self.num_examples}; expected 0 or more", param="num_examples"
            )
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise UsageError(f"seed {self.seed} has more than 64 bits", param="seed")
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
