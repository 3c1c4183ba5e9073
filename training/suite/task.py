"""The two record types of the suite: one example, and one task that samples examples."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from training.suite.lexicon import Lexicon


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised pair, with what evaluation may need to know of it.

    `references` are all outputs that count as right, none meaning `output` alone; `choices` are
    the answers to choose from where a row brings its own.
    """

    input: str
    output: str
    references: tuple[str, ...] = field(default=(), repr=False)
    choices: tuple[str, ...] = field(default=(), repr=False)

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every output that counts as right."""
        return self.references or (self.output,)


@dataclass(frozen=True)
class SuiteTask:
    """A named text transformation.

    `name` is the tenant-facing identifier ([a-z0-9][a-z0-9._-]{0,62}); `skills` is the composition
    source + fields + transform; `labels` lists every possible output of a label-valued task and is
    empty otherwise; `sample` draws one example using only the words of the given lexicon.
    """

    name: str
    description: str
    skills: tuple[str, ...]
    labels: tuple[str, ...]
    sample: Callable[[random.Random, Lexicon], Example]
