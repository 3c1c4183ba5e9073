"""Scores of predictions and paired comparisons, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from adapters_store.errors import UsageError
from benchmarks.comparisons import difference
from training.metrics import exact_match, rouge_l, scores
from training.significance import pair_bootstrap, paired_bootstrap
from training.suite.task import Example


def test_exact_match_takes_any_reference() -> None:
    example = Example("x", "a b", references=("a b", "c"))
    assert [exact_match(text, example) for text in ("a b", "c", "a", "A b")] == [1, 1, 0, 0]
    assert exact_match("a", Example("x", "a")) == 1


def test_rouge_l_is_the_best_f_measure_over_references() -> None:
    example = Example("x", "the cat sat", references=("the cat sat", "dogs bark"))
    assert rouge_l("the cat sat", example) == 1.0
    assert rouge_l("the cat ran away", example) == pytest.approx(2 * (2 / 4) * (2 / 3) / (7 / 6))
    assert rouge_l("dog barks", example) == 1.0
    assert rouge_l("", example) == 0.0


def test_an_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="Did you mean 'rouge_l'"):
        scores("rouge-l", ["a"], [Example("x", "a")])


def test_a_constant_difference_is_certain() -> None:
    found = paired_bootstrap([[1.0, 0.5], [0.9]], [[0.8, 0.3], [0.7]], draws=200)
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2, 0.2))
    assert found.is_clear
    assert found.share_not_better == 0


def test_noise_around_nothing_is_not_clear_and_the_interval_shrinks_with_more_data() -> None:
    noise = np.random.default_rng(3).normal(0, 1, (2, 4000)).tolist()
    few = paired_bootstrap([noise[0][:50]], [noise[1][:50]], draws=500)
    many = paired_bootstrap([noise[0]], [noise[1]], draws=500)
    assert not many.is_clear or abs(many.mean) < 0.1
    assert many.high - many.low < (few.high - few.low) / 4
    assert paired_bootstrap([noise[0]], [noise[1]], draws=500) == many


def test_groups_count_equally_whatever_their_size() -> None:
    found = paired_bootstrap([[1.0] * 99, [0.0]], [[0.0] * 99, [0.0]], draws=100)
    assert found.mean == pytest.approx(0.5)


@pytest.mark.parametrize(("first", "second"), [([], []), ([[1.0]], []), ([[1.0]], [[1.0, 2.0]])])
def test_groups_that_do_not_pair_are_refused(first, second) -> None:
    with pytest.raises(ValueError, match="against"):
        paired_bootstrap(first, second)


def test_seeds_of_the_same_test_examples_are_not_counted_as_more_examples() -> None:
    draw = np.random.default_rng(0).normal(0, 1, 30).tolist()

    def rows(seeds: int) -> list[dict[str, object]]:
        return [
            {"arm": arm, "task": "t", "seed": seed, "scores": {"m": scores}}
            for seed in range(seeds)
            for arm, scores in (("a", draw), ("b", [0.0] * 30))
        ]

    assert difference(rows(3), "a", "b", "m") == difference(rows(1), "a", "b", "m")


def test_tables_of_pairs_differ_by_their_mean_off_the_diagonal() -> None:
    first = [[9.0, 0.4, 0.4], [0.4, 9.0, 0.4], [0.4, 0.4, 9.0]]
    second = [[0.0, 0.1, 0.1], [0.1, 0.0, 0.1], [0.1, 0.1, 0.0]]
    found = pair_bootstrap(first, second, draws=200)
    assert found.mean == pytest.approx(0.3)
    assert found.high == pytest.approx(0.3)
    assert found.is_clear


def test_tasks_not_pairs_are_resampled() -> None:
    noise = np.random.default_rng(1).normal(0, 1, 16)
    table = noise[:, None] + noise[None, :]
    by_task = pair_bootstrap(table.tolist(), np.zeros((16, 16)).tolist(), draws=2000)
    pairs = table[~np.eye(16, dtype=bool)].tolist()
    by_pair = paired_bootstrap([pairs], [[0.0] * len(pairs)], draws=2000)
    assert by_task.mean == pytest.approx(by_pair.mean)
    assert by_task.high - by_task.low > 2 * (by_pair.high - by_pair.low)


@pytest.mark.parametrize("table", [[[1.0]], [[1.0, 2.0]]])
def test_a_table_that_is_not_square_is_refused(table) -> None:
    with pytest.raises(ValueError, match="square of at least 2"):
        pair_bootstrap(table, table)
