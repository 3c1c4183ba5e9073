"""Examples that are made of rows when they are asked for, so that data may exceed the memory."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

from adapters_store.errors import TrainingError
from training.suite.task import Example

Row = Mapping[str, Any]


class Rows(Protocol):
    """Raw rows by position, wherever they lie; ``classes`` names the values of class columns."""

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Class names by column, in the order of their numbers."""
        ...

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def __getitem__(self, index: int, /) -> Row:
        """One row."""
        ...

    def where(self, index: int) -> str:
        """The place of a row as an error names it: file and line, or data set, split and row."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row lies, for errors: found out only when it is written."""

    rows: Rows
    index: int
    suffix: str = ""

    def __str__(self) -> str:
        return self.rows.where(self.index) + self.suffix


class Prompt(Protocol):
    """What makes an example of a row."""

    def example(self, rows: Rows, index: int) -> Example | None:
        """The row's example, or None where the prompt does not apply to the row.

        Raises TrainingError with the row's place for a row that is not what the prompt reads.
        """
        ...


class Examples(Sequence[Example]):
    """A part of a task, row by row under one or several prompts.

    Key k stands for row ``k // len(prompts)`` under prompt ``k % len(prompts)``; only the keys are
    held, 8 bytes each. ``digest`` and ``outputs`` are what a pass over all of them has found.
    """

    def __init__(
        self,
        rows: Rows,
        prompts: Sequence[Prompt],
        keys: Sequence[int],
        *,
        digest: bytes | None = None,
        outputs: frozenset[str] | None = None,
        num_skipped: int = 0,
    ) -> None:
        self.rows, self.prompts, self.keys = rows, prompts, keys
        self.digest, self.outputs, self.num_skipped = digest, outputs, num_skipped

    @classmethod
    def read(
        cls,
        rows: Rows,
        prompts: Sequence[Prompt],
        keys: Iterable[int],
        limit: int | None,
        *,
        with_outputs: bool,
    ) -> Examples:
        """Make every example once and keep the keys of those that the prompts apply to.

        Stops at ``limit`` examples. Raises TrainingError for the first bad row.
        """
        kept, num_skipped, outputs, digest = array("Q"), 0, set[str](), hashlib.sha256()
        for key in keys:
            if limit is not None and len(kept) >= limit:
                break
            example = _made(rows, prompts, key)
            if example is None:
                num_skipped += 1
                continue
            kept.append(key)
            digest.update(spelling(example))
            if with_outputs:
                outputs.add(example.output)
        return cls(
            rows,
            prompts,
            kept,
            digest=digest.digest(),
            outputs=frozenset(outputs) if with_outputs else None,
            num_skipped=num_skipped,
        )

    def where(self, index: int) -> str:
        """The place of an example's row."""
        return self.rows.where(self.keys[index] // len(self.prompts))

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return Examples(self.rows, self.prompts, self.keys[index])
        example = _made(self.rows, self.prompts, self.keys[index])
        if example is None:
            raise TrainingError(f"{self.where(index)} changed while it was in use")
        return example


class Selection(Sequence[Example]):
    """Some of a part's examples, in the order of ``positions``, each as ``change`` gives it."""

    def __init__(
        self,
        examples: Sequence[Example],
        positions: Sequence[int],
        change: Callable[[int, Example], Example],
    ) -> None:
        self.examples, self.positions, self.change = examples, positions, change

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Selection: ...
    def __getitem__(self, index: int | slice) -> Example | Selection:
        if isinstance(index, slice):
            return Selection(self.examples, self.positions[index], self.change)
        position = self.positions[index]
        return self.change(position, self.examples[position])


def spelling(example: Example) -> bytes:
    """What a digest of data takes of an example."""
    lists = (example.references, example.choices)
    return repr((example.input, example.output, *(lists if any(lists) else ()))).encode()


def _made(rows: Rows, prompts: Sequence[Prompt], key: int) -> Example | None:
    index, which = divmod(key, len(prompts))
    return prompts[which].example(rows, index)
