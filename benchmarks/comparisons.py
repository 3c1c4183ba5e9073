"""Rows of few-shot runs made into tables: means of arms, paired differences, scores by task."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from training.significance import Difference, paired_bootstrap


def means(rows: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Per arm: the mean over tasks of each seed's score, its deviation over seeds, and sizes."""
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        chosen = [row for row in rows if row["arm"] == arm]
        seeds = sorted({row["seed"] for row in chosen})
        by_seed = [
            mean(mean(row["scores"][metric]) for row in chosen if row["seed"] == seed)
            for seed in seeds
        ]
        lines.append(
            {
                "arm": arm,
                "metric": metric,
                "mean": mean(by_seed),
                "deviation": stdev(by_seed) if len(by_seed) > 1 else 0.0,
                "seeds": len(seeds),
                "runs": len(chosen),
                "num_trained": max(row["num_trained"] for row in chosen),
            }
        )
    return lines


def difference(
    rows: Sequence[dict[str, Any]], first: str, second: str, metric: str
) -> Difference | None:
    """The first arm minus the second over the runs that both have, paired example by example.

    Seeds share their test examples, so an example's score is its mean over the seeds: counting it
    once per seed would make the interval too narrow.
    """
    by_arm = [
        {(r["task"], r["seed"]): r["scores"][metric] for r in rows if r["arm"] == arm}
        for arm in (first, second)
    ]
    both = sorted(by_arm[0].keys() & by_arm[1].keys())
    if not both:
        return None
    groups = [
        [
            [mean(s) for s in zip(*(arm[key] for key in both if key[0] == task), strict=True)]
            for task in dict.fromkeys(key[0] for key in both)
        ]
        for arm in by_arm
    ]
    return paired_bootstrap(*groups)


def differences(
    rows: Sequence[dict[str, Any]], pairs: Sequence[tuple[str, str]], metric: str
) -> list[dict[str, Any]]:
    """One line per pair of arms that both ran: the mean difference and its 95 % interval."""
    lines = []
    for first, second in pairs:
        found = difference(rows, first, second, metric)
        if found is not None:
            name = f"{first} - {second}"
            interval = {"mean": found.mean, "low": found.low, "high": found.high}
            lines.append({"arm": name, "metric": metric, **interval})
    return lines


def task_table(rows: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Per task and arm: the mean over the seeds there are."""
    keys = dict.fromkeys((row["task"], row["arm"]) for row in rows)
    return [
        {
            "task": task,
            "arm": arm,
            "mean": mean(
                mean(r["scores"][metric]) for r in rows if (r["task"], r["arm"]) == (task, arm)
            ),
        }
        for task, arm in keys
    ]
