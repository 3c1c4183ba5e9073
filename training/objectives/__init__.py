"""Objectives: a lazy table from name to the class that makes batches, losses and predictions."""

from __future__ import annotations

OBJECTIVES: dict[str, str] = {
    "text2text": "training.objectives.text2text:Text2Text",
    "choice": "training.objectives.choice:Choice",
    "classification": "training.objectives.classification:Classification",
}
