"""Text to text on a decoder alone: the target continues the input in one sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters_store.errors import TrainingError
from training.objectives.base import Answering, Row
from training.objectives.text2text import IGNORED, Text2Text
from training.suite.task import Example


class Continuation(Text2Text):
    """The objective of decoder-only backbones: cross entropy over the target's tokens alone.

    A row is the input as the tokenizer encodes it, then the target's tokens and the end token.
    Limits and errors as in text to text. The tokenizer needs an end token; without a padding token
    the end token pads, behind the attention mask.
    """

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask``, ``labels`` (R, S + T) and ``task_of_row`` (R,)."""
        return {
            **self._sequences([example for _, example in rows]),
            "task_of_row": torch.tensor([task for task, _ in rows]),
        }

    @torch.no_grad()
    def predict(self, model: Answering, task: int, examples: Sequence[Example]) -> list[str]:
        """Greedy continuations; longer than the limit are cut there."""
        device = next(model.parameters()).device
        inputs = self._prompts(examples)
        width = max(map(len, inputs))
        left = [width - len(row) for row in inputs]
        ids = [[*[self._padding] * gap, *row] for gap, row in zip(left, inputs)]
        mask = [[*[0] * gap, *[1] * (width - gap)] for gap in left]
        found = model.generate(
            torch.full((len(examples),), task, device=device),
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            max_new_tokens=self.max_output_tokens,
            do_sample=False,
            pad_token_id=self._padding,
            eos_token_id=self._end,
        )
        return list(self.tokenizer.batch_decode(found, skip_special_tokens=True))

    def _sequences(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels`` (R, S + T), padded at the end."""
        inputs, targets = self._prompts(examples), self._targets(examples)
        sequences = [[*x, *y] for x, y in zip(inputs, targets)]
        labels = [[*[IGNORED] * len(x), *y] for x, y in zip(inputs, targets)]
        return {
            "input_ids": self._pad(sequences, self._padding),
            "attention_mask": self._pad([[1] * len(row) for row in sequences], 0),
            "labels": self._pad(labels, IGNORED),
        }

    def _prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        rows = self._encode([e.input for e in examples], self.max_input_tokens, "input")
        if not all(rows):
            raise TrainingError("an input has no tokens; a decoder has nothing to continue")
        return rows

    def _targets(self, examples: Sequence[Example]) -> list[list[int]]:
        """Each output's tokens with the end token, without any that begin a text."""
        texts = [example.output for example in examples]
        rows = [self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
        rows = [[*row, self._end] for row in rows]
        for text, row in zip(texts, rows):
            self._check_length(len(row), self.max_output_tokens, "output", text)
        return rows

    @property
    def _end(self) -> int:
        end: int | None = self.tokenizer.eos_token_id
        if end is None:
            raise TrainingError("the tokenizer has no end token; a decoder could not stop")
        return end

    @property
    def _padding(self) -> int:
        pad: int | None = self.tokenizer.pad_token_id
        return self._end if pad is None else pad
