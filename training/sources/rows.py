"""Rows that other rows are made of: a part of them by position, and rows held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.examples import Row, Rows


class Part:
    """The rows at ``positions`` of others, in that order."""

    def __init__(self, rows: Rows, positions: Sequence[int]) -> None:
        self.rows, self.positions = rows, positions
        self.classes = rows.classes

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Row:
        return self.rows[self.positions[index]]

    def where(self, index: int) -> str:
        """The place that the whole gives for the row."""
        return self.rows.where(self.positions[index])


class HeldRows:
    """Rows in memory; ``numbers`` are their positions in the file ``name``."""

    def __init__(
        self, name: str, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]
    ) -> None:
        self.name, self.rows, self.numbers = name, rows, numbers
        self.classes: Mapping[str, Sequence[str]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def where(self, index: int) -> str:
        """File and row, from 0."""
        return f"{self.name}, row {self.numbers[index]}"
