"""Classification: a head per task over the pooled encoder states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from training.model import AdaptedModel
from training.objectives.base import Answering, Row, weighted
from training.suite.task import Example


class Classification:
    """The objective of encoder backbones; ``labels[t]`` lists task t's label names in order.

    Inputs over ``max_input_tokens`` are cut at the end, as encoders of fixed positions require.
    """

    num_means = 1

    def __init__(
        self,
        tokenizer: Any,
        max_input_tokens: int = 128,
        max_output_tokens: int = 0,
        labels: Sequence[Sequence[str]] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.max_input_tokens = max_input_tokens
        self.labels = [list(names) for names in labels]

    def _inputs(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        encoded = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_input_tokens,
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` (R, S), ``labels`` (R,) and ``task_of_row`` (R,)."""
        return {
            **self._inputs([example.input for _, example in rows]),
            "labels": torch.tensor([self.labels[t].index(e.output) for t, e in rows]),
            "task_of_row": torch.tensor([task for task, _ in rows]),
        }

    def _hidden(self, model: Answering, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        outputs = model(
            batch["task_of_row"],
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
        )
        return torch.as_tensor(outputs.last_hidden_state)

    def counts(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The number of rows, (1,)."""
        return torch.tensor([len(batch["labels"])], device=batch["labels"].device)

    def loss(
        self,
        model: AdaptedModel,
        batch: Mapping[str, torch.Tensor],
        totals: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean cross entropy over the rows, each under its own task's head."""
        hidden, mask = self._hidden(model, batch), batch["attention_mask"]
        total = hidden.new_zeros(())
        for task in sorted(set(batch["task_of_row"].tolist())):
            chosen = batch["task_of_row"] == task
            logits = model.label_logits(task, hidden[chosen], mask[chosen])
            total = total + cross_entropy(logits, batch["labels"][chosen], reduction="sum")
        return weighted([total / len(hidden)], self.counts(batch), totals)

    @torch.no_grad()
    def scores(self, model: Answering, task: int, inputs: Sequence[str]) -> torch.Tensor:
        """Label logits (R, labels) of raw inputs under one task."""
        device = next(model.parameters()).device
        batch = {name: value.to(device) for name, value in self._inputs(inputs).items()}
        batch["task_of_row"] = torch.full((len(inputs),), task, device=device)
        return model.label_logits(task, self._hidden(model, batch), batch["attention_mask"])

    def predict(self, model: Answering, task: int, examples: Sequence[Example]) -> list[str]:
        """The label of highest score for each input."""
        best = self.scores(model, task, [e.input for e in examples]).argmax(-1).tolist()
        return [self.labels[task][index] for index in best]
