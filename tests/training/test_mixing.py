"""Mixing: shares by the rules of T5, draws that keep them, batches by seed and step alone."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from training.mixing import build_sampler, num_rows, shares
from training.recipe import TasksSection
from training.sampler import Curriculum, MixedSampler, TaskBalancedSampler
from training.sources.sections import MixingSection
from training.suite import Example
from training.task import Task

SIZES = (1000, 100, 10)


def tasks(sizes: tuple[int, ...] = SIZES) -> list[Task]:
    """Tasks of as many rows, whose inputs grow longer."""
    return [
        Task(f"t{task}", [Example("x" * (1 + row % 50), str(row)) for row in range(size)])
        for task, size in enumerate(sizes)
    ]


def drawn(sampler: TaskBalancedSampler, steps: int) -> Counter[int]:
    """Rows per task over the first steps."""
    return Counter(task for step in range(steps) for task, _ in sampler.batch(step))


@pytest.mark.parametrize(
    ("mixing", "expected"),
    [
        (MixingSection(), (1 / 3, 1 / 3, 1 / 3)),
        (MixingSection(rule="proportional"), (1000 / 1110, 100 / 1110, 10 / 1110)),
        (MixingSection(rule="proportional", max_examples=100), (100 / 210, 100 / 210, 10 / 210)),
        (
            MixingSection(rule="temperature", temperature=2, max_examples=100),
            (10 / (20 + 10**0.5), 10 / (20 + 10**0.5), 10**0.5 / (20 + 10**0.5)),
        ),
        (MixingSection(rule="temperature", temperature=1e9), (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_shares_follow_the_rule_and_draws_follow_the_shares(
    mixing: MixingSection, expected: tuple[float, ...]
) -> None:
    assert shares(SIZES, mixing) == pytest.approx(expected)
    sampler = build_sampler(tasks(), 10, 0, mixing, Curriculum())
    counts = drawn(sampler, 400)
    for task, share in enumerate(expected):
        assert counts[task] == pytest.approx(4000 * share, rel=0.15, abs=8)
    assert counts.total() == 4000


def test_a_draw_rounds_every_share_up_or_down_by_less_than_a_row() -> None:
    part = [0.5, 0.3, 0.19, 0.01]
    sampler = MixedSampler(tasks((5, 5, 5, 5)), 4, 3, shares=part)
    for draw in range(30):
        counts = Counter(t for step in range(8) for t, _ in sampler.batch(draw * 8 + step))
        assert all(abs(counts[task] - 32 * share) < 1 for task, share in enumerate(part))


def test_mixed_batches_are_a_function_of_seed_and_step_alone() -> None:
    mixing = MixingSection(rule="temperature", temperature=3)
    first, second, other = (
        build_sampler(tasks(), 6, seed, mixing, Curriculum(steps=20)) for seed in (1, 1, 2)
    )
    straight = [first.batch(step) for step in range(24)]
    assert [second.batch(step) for step in reversed(range(24))] == straight[::-1]
    assert [other.batch(step) for step in range(24)] != straight


def test_a_mixed_curriculum_begins_with_short_rows() -> None:
    mixing = MixingSection(rule="proportional")

    def mean(curriculum: Curriculum) -> float:
        sampler = build_sampler(tasks(), 8, 0, mixing, curriculum)
        return sum(len(e.input) for step in range(8) for _, e in sampler.batch(step)) / 64

    assert mean(Curriculum(steps=1000)) < 0.5 * mean(Curriculum())


def test_tasks_far_more_than_rows_all_get_their_turn() -> None:
    many = tasks((3,) * 200)
    counts = drawn(MixedSampler(many, 4, 0, shares=[1 / 200] * 200), 400)
    assert len(counts) == 200
    assert max(counts.values()) <= 20


def test_size_is_rows_whatever_the_number_of_examples_made_of_them() -> None:
    assert num_rows([Example("a", "b")] * 7) == 7


@pytest.mark.parametrize(
    "given",
    [
        {"rule": "temperature"},
        {"temperature": 2},
        {"rule": "balanced", "max_examples": 5},
        {"rule": "temperature", "temperature": 0},
    ],
)
def test_a_mixing_option_that_would_do_nothing_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MixingSection.model_validate(given)


def test_a_mixing_survives_the_recipe_file() -> None:
    section = TasksSection(mixing=MixingSection(rule="temperature", temperature=2))
    assert TasksSection.model_validate_json(section.model_dump_json()) == section
