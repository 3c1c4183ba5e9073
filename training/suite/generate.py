"""Drawing examples of a task, reproducibly."""

import difflib
import hashlib
import random

from training.suite.catalog import TASKS
from training.suite.lexicon import Split, lexicon
from training.suite.task import Example

_MAX_REPEATS = 100


class UnknownTaskError(ValueError):
    """A task name that the suite does not have; the message names the nearest one."""


def generate(task: str, split: Split, num_examples: int, seed: int) -> list[Example]:
    """Return `num_examples` examples of `task`, a function of the arguments alone.

    Examples are distinct, unless 100 draws in a row yield nothing new; then repeats are kept. The
    first n examples do not depend on `num_examples`.

    Raises:
        UnknownTaskError: no task has that name.
        ValueError: the split is unknown or `num_examples` is negative.
    """
    if task not in TASKS:
        nearest = difflib.get_close_matches(task, TASKS, n=1, cutoff=0.0)[0]
        raise UnknownTaskError(
            f"the suite has no task {task!r}; did you mean {nearest!r}? "
            f"training.suite.TASKS lists all {len(TASKS)}"
        )
    if num_examples < 0:
        raise ValueError(f"num_examples is {num_examples}; expected 0 or more")
    words = lexicon(split)
    digest = hashlib.blake2b(f"{task}/{split}/{seed}".encode(), digest_size=16).digest()
    rng = random.Random(int.from_bytes(digest))
    sample = TASKS[task].sample
    examples: list[Example] = []
    seen: set[str] = set()
    for _ in range(num_examples):
        example = sample(rng, words)
        for _ in range(_MAX_REPEATS):
            if example.input not in seen:
                break
            example = sample(rng, words)
        seen.add(example.input)
        examples.append(example)
    return examples
