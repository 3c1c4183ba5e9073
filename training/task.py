"""A task as training sees it: a name, labelled examples per split, and how it is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters_store.errors import TrainingError
from training.examples import Examples
from training.suite.task import Example

PARTS = ("train", "dev", "test")


@dataclass(frozen=True)
class Task:
    """One task's data. ``labels`` is empty for free text; otherwise every output is one of them.

    Raises :class:`TrainingError` when a split that training needs is empty, or a label is
    unknown or listed twice.
    """

    name: str
    train: Sequence[Example]
    dev: Sequence[Example] = ()
    test: Sequence[Example] = ()
    labels: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        if not self.train:
            raise TrainingError(f"task {self.name!r} has no training examples")
        if not self.labels:
            return
        if len(set(self.labels)) < len(self.labels):
            raise TrainingError(f"task {self.name!r} has a label twice: {list(self.labels)}")
        for split in PARTS:
            part: Sequence[Example] = getattr(self, split)
            known = part.outputs if isinstance(part, Examples) else None
            if known is not None and known <= set(self.labels):
                continue
            for row, example in enumerate(part):
                if example.output not in self.labels:
                    place = f" ({part.where(row)})" if isinstance(part, Examples) else ""
                    raise TrainingError(
                        f"task {self.name!r}, {split} row {row}{place}: label {example.output!r} "
                        f"is not one of {list(self.labels)}"
                    )

    @property
    def common_choices(self) -> tuple[str, ...]:
        """The choices of the training rows where every row has the same ones, else none."""
        choices = self.train[0].choices
        return choices if all(example.choices == choices for example in self.train) else ()
