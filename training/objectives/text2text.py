"""Text to text: cross entropy over the target's tokens, greedy generation to evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapters_store.errors import TrainingError
from training.model import AdaptedModel
from training.objectives.base import Answering, Row, weighted
from training.suite.task import Example

IGNORED = -100


class Text2Text:
    """The objective of encoder-decoder backbones.

    ``tokenizer`` is a transformers tokenizer; limits are in tokens, the end token included. An
    input over the limit raises :class:`TrainingError` rather than being cut.
    """

    num_means = 1

    def __init__(
        self,
        tokenizer: Any,
        max_input_tokens: int = 128,
        max_output_tokens: int = 64,
        labels: Sequence[Sequence[str]] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.max_input_tokens = max_input_tokens
        self.max_output_tokens = max_output_tokens
        self.labels = [list(names) for names in labels]

    def _encode(self, texts: Sequence[str], limit: int, what: str) -> list[list[int]]:
        ids: list[list[int]] = [self.tokenizer(text)["input_ids"] for text in texts]
        for text, tokens in zip(texts, ids):
            self._check_length(len(tokens), limit, what, text)
        return ids

    def _check_length(self, num_tokens: int, limit: int, what: str, text: str) -> None:
        if num_tokens > limit:
            raise TrainingError(
                f"{what} of {num_tokens} tokens is over the limit of {limit}: {text[:60]!r}"
            )

    def _pad(self, ids: Sequence[Sequence[int]], value: int) -> torch.Tensor:
        width = max(len(row) for row in ids)
        return torch.tensor([[*row, *([value] * (width - len(row)))] for row in ids])

    def _inputs(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        pad = self.tokenizer.pad_token_id
        input_ids = self._pad(self._encode(texts, self.max_input_tokens, "input"), pad)
        return {"input_ids": input_ids, "attention_mask": (input_ids != pad).long()}

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` (R, S), ``labels`` (R, T) and ``task_of_row``."""
        examples: list[Example] = [example for _, example in rows]
        targets = self._encode([e.output for e in examples], self.max_output_tokens, "output")
        return {
            **self._inputs([example.input for example in examples]),
            "labels": self._pad(targets, IGNORED),
            "task_of_row": torch.tensor([task for task, _ in rows]),
        }

    def counts(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The number of target tokens, (1,)."""
        return (batch["labels"] != IGNORED).sum().view(1)

    def loss(
        self,
        model: AdaptedModel,
        batch: Mapping[str, torch.Tensor],
        totals: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean cross entropy over the target tokens of the batch."""
        return weighted([torch.as_tensor(model(**batch).loss)], self.counts(batch), totals)

    @torch.no_grad()
    def predict(self, model: Answering, task: int, examples: Sequence[Example]) -> list[str]:
        """Greedy outputs; longer than the limit are cut there."""
        device = next(model.parameters()).device
        inputs = self._inputs([example.input for example in examples])
        batch = {name: value.to(device) for name, value in inputs.items()}
        task_of_row = torch.full((len(examples),), task, device=device)
        ids = model.generate(
            task_of_row, **batch, max_new_tokens=self.max_output_tokens, do_sample=False
        )
        return list(self.tokenizer.batch_decode(ids, skip_special_tokens=True))
