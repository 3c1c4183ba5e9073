"""How much of a run each task gets: shares of the drawn rows by the sizes of the tasks.

Source: Raffel et al. 2020 (T5), section 3.5.2: p_i in proportion to min(n_i, K)^(1/T), with T 1
for examples-proportional mixing; equal shares are the limit of a high temperature.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.examples import Examples, Selection
from training.sampler import Curriculum, MixedSampler, TaskBalancedSampler
from training.sources.sections import MixingSection
from training.suite.task import Example
from training.task import Task


def build_sampler(
    tasks: Sequence[Task],
    rows_per_step: int,
    seed: int,
    mixing: MixingSection,
    curriculum: Curriculum,
) -> TaskBalancedSampler:
    """The sampler that draws the tasks as ``mixing`` says, by the sizes of their train parts."""
    if mixing.rule == "balanced":
        return TaskBalancedSampler(tasks, rows_per_step, seed, curriculum=curriculum)
    found = shares([num_rows(task.train) for task in tasks], mixing)
    return MixedSampler(tasks, rows_per_step, seed, shares=found, curriculum=curriculum)


def shares(sizes: Sequence[int], mixing: MixingSection) -> list[float]:
    """Each task's share by its number of examples; they add up to 1."""
    if mixing.rule == "balanced":
        return [1 / len(sizes)] * len(sizes)
    counted = [min(size, mixing.max_examples or size) for size in sizes]
    weights = [size ** (1.0 / (mixing.temperature or 1.0)) for size in counted]
    return [weight / sum(weights) for weight in weights]


def num_rows(part: Sequence[Example]) -> int:
    """How many rows the examples are made of: several prompts make a task no larger."""
    whole = part.examples if isinstance(part, Selection) else part
    num_prompts = len(whole.prompts) if isinstance(whole, Examples) else 1
    return -(-len(part) // num_prompts)
