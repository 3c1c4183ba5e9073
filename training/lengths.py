"""Examples over the token limits: found before training, then refused, cut or left out; counted."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adapters_store.errors import TrainingError
from training.examples import Examples, Selection
from training.recipe import LongInput
from training.suite.task import Example
from training.task import PARTS, Task

_BATCH = 256
_NUM_SPECIAL = 8  # more than any tokenizer adds to a text


@dataclass(frozen=True)
class Limits:
    """Limits in tokens and what becomes of a longer row.

    ``error`` refuses it; ``drop`` leaves it out; ``cut`` keeps the longest beginning of its input
    that fits, and refuses a longer output. ``cuts_itself``: the objective cuts inputs in its own
    way and has no outputs to write, so that ``cut`` only counts.
    """

    num_input: int
    num_output: int
    policy: LongInput = "error"
    cuts_itself: bool = False


def limits_of(objective: str, num_input: int, num_output: int, policy: LongInput | None) -> Limits:
    """Limits under an objective; by default classification cuts inputs, and others refuse rows."""
    cuts_itself = objective == "classification"
    return Limits(num_input, num_output, policy or ("cut" if cuts_itself else "error"), cuts_itself)


Notes = dict[str, int]
"""How many rows of a part were treated how, such as ``{"train_dropped": 3}``; no zeros."""


def fitted(task: Task, tokenizer: Any, limits: Limits) -> tuple[Task, Notes]:
    """The task with every row inside the limits, and how many rows that took.

    Raises TrainingError with task, part and row where the policy refuses one, or where no training
    row is left.
    """
    notes: Notes = {}
    parts: dict[str, Sequence[Example]] = {}
    for part in PARTS:
        examples: Sequence[Example] = getattr(task, part)
        if isinstance(examples, Examples) and examples.num_skipped:
            notes[f"{part}_skipped"] = examples.num_skipped
        parts[part], found = _fitted(examples, tokenizer, limits, f"task {task.name!r}, {part}")
        notes |= {f"{part}_{what}": count for what, count in found.items() if count}
    if not parts["train"]:
        raise TrainingError(
            f"task {task.name!r}: all {len(task.train)} training rows are over the limit of "
            f"{limits.num_input} input or {limits.num_output} output tokens"
        )
    if not notes:
        return task, notes
    train, dev, test = (parts[part] for part in PARTS)
    return dataclasses.replace(task, train=train, dev=dev, test=test), notes


def _fitted(
    examples: Sequence[Example], tokenizer: Any, limits: Limits, where: str
) -> tuple[Sequence[Example], dict[str, int]]:
    dropped, cuts = set[int](), dict[int, int]()
    for position, text, what, num_tokens in _long(examples, tokenizer, limits):
        if limits.policy == "drop":
            dropped.add(position)
        elif limits.policy == "cut" and what == "input":
            kept = 0 if limits.cuts_itself else _fitting(text, tokenizer, limits.num_input)
            cuts[position] = kept
        else:
            raise _too_long(examples, position, text, what, num_tokens, limits, where)
    counts = {"dropped": len(dropped), "cut": len(cuts)}
    if not dropped and (not cuts or limits.cuts_itself):
        return examples, counts
    positions = array("Q", (n for n in range(len(examples)) if n not in dropped))
    return Selection(examples, positions, _Cut(cuts)), counts


def _long(
    examples: Sequence[Example], tokenizer: Any, limits: Limits
) -> Iterator[tuple[int, str, str, int]]:
    """Rows over a limit: position, text, ``input`` or ``output``, and the number of tokens.

    A token is a byte or more, so that short texts need no tokenizer.
    """
    waiting: list[tuple[int, str, str]] = []
    for position, example in enumerate(examples):
        texts = [("input", example.input, limits.num_input)]
        if not limits.cuts_itself:
            outputs = dict.fromkeys((example.output, *example.choices))
            texts += [("output", text, limits.num_output) for text in outputs]
        for what, text, limit in texts:
            if len(text.encode()) + _NUM_SPECIAL > limit:
                waiting.append((position, what, text))
        if len(waiting) >= _BATCH:
            yield from _counted(waiting, tokenizer, limits)
            waiting.clear()
    yield from _counted(waiting, tokenizer, limits)


def _counted(
    waiting: Sequence[tuple[int, str, str]], tokenizer: Any, limits: Limits
) -> Iterator[tuple[int, str, str, int]]:
    for what, limit in (("input", limits.num_input), ("output", limits.num_output)):
        rows = [row for row in waiting if row[1] == what]
        counts = _num_tokens(tokenizer, [text for *_, text in rows], is_output=what == "output")
        for (position, _, text), num_tokens in zip(rows, counts):
            if num_tokens > limit:
                yield position, text, what, num_tokens


def _num_tokens(tokenizer: Any, texts: Sequence[str], *, is_output: bool) -> list[int]:
    """Tokens of each text with the special ones; an output has an end token in any case."""
    if not texts:
        return []
    counts = [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]
    if not is_output:
        return counts
    bare = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [max(count, len(ids) + 1) for count, ids in zip(counts, bare)]


def _fitting(text: str, tokenizer: Any, limit: int) -> int:
    """The most characters of the text's beginning that are within the limit."""
    least, most = 0, len(text)
    while most - least > 1:
        middle = (least + most) // 2
        if _num_tokens(tokenizer, [text[:middle]], is_output=False)[0] <= limit:
            least = middle
        else:
            most = middle
    return least


@dataclass(frozen=True)
class _Cut:
    """Cuts the inputs at given positions of a part to so many characters."""

    num_characters: dict[int, int]

    def __call__(self, position: int, example: Example) -> Example:
        if (kept := self.num_characters.get(position)) is None:
            return example
        return dataclasses.replace(example, input=example.input[:kept])


def _too_long(
    examples: Sequence[Example],
    position: int,
    text: str,
    what: str,
    num_tokens: int,
    limits: Limits,
    where: str,
) -> TrainingError:
    place = f" ({examples.where(position)})" if isinstance(examples, Examples) else ""
    limit = limits.num_input if what == "input" else limits.num_output
    return TrainingError(
        f"{where} row {position}{place}: {what} of {num_tokens} tokens is over the limit of "
        f"{limit}: {text[:60]!r}",
        hint=f"Raise max_{what}_tokens, or set on_long_input to drop"
        + (" or cut." if what == "input" else "."),
    )
