"""Scores of predictions against examples: a lazy table from name to a score per example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters_store.lazy import resolve
from training.suite.task import Example

METRICS: dict[str, str] = {
    "exact_match": "training.metrics:exact_match",
    "accuracy": "training.metrics:exact_match",
    "rouge_l": "training.metrics:rouge_l",
}


def exact_match(prediction: str, example: Example) -> float:
    """1.0 where the prediction is one of the accepted outputs to the letter, else 0.0.

    For tasks with labels or choices this is accuracy, which is its other name.
    """
    return float(prediction in example.accepted)


def rouge_l(prediction: str, example: Example) -> float:
    """The best ROUGE-L F-measure over the accepted outputs, stemmed, from 0 to 1."""
    scorer = _scorer()
    return max(
        float(scorer.score(reference, prediction)["rougeL"].fmeasure)
        for reference in example.accepted
    )


def check_metric(metric: str) -> None:
    """Raise UsageError for an unknown metric with the nearest name."""
    resolve(METRICS, metric, "metric")


def scores(metric: str, predictions: Sequence[str], examples: Sequence[Example]) -> list[float]:
    """One score per example; raises UsageError for an unknown metric with the nearest name."""
    function = resolve(METRICS, metric, "metric")
    return [function(text, example) for text, example in zip(predictions, examples, strict=True)]


def _scorer() -> Any:
    global _rouge
    if _rouge is None:
        from rouge_score.rouge_scorer import RougeScorer

        _rouge = RougeScorer(["rougeL"], use_stemmer=True)
    return _rouge


_rouge: Any = None
