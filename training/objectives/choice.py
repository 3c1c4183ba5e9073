"""Multiple choice as T-Few trains it, by an encoder-decoder or by a decoder alone.

Legend: R rows, C choices, T tokens of a choice, L tokens of an input with a choice behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import cross_entropy

from training.objectives.base import Answering
from training.objectives.continuation import Continuation
from training.objectives.ranking import Ranking
from training.objectives.text2text import IGNORED
from training.suite.task import Example


class Choice(Ranking):
    """Multiple choice by an encoder-decoder: the input is encoded once for all of its choices."""

    def _choice_tensors(
        self, examples: Sequence[Example], choices: Sequence[Sequence[str]]
    ) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` (R, S) and ``labels`` (R, C, T)."""
        flat = [choice for of_row in choices for choice in of_row]
        targets = self._pad(self._encode(flat, self.max_output_tokens, "choice"), IGNORED)
        return {
            **self._inputs([example.input for example in examples]),
            "labels": targets.view(len(examples), len(choices[0]), -1),
        }

    def _token_scores(
        self, model: Answering, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        labels_RCT = batch["labels"]
        most = labels_RCT.shape[1]
        encoded = model.encode(
            batch["task_of_row"],
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
        )
        outputs = model(
            batch["task_of_row"],
            encoder_outputs=(encoded.last_hidden_state.repeat_interleave(most, 0),),
            attention_mask=batch["attention_mask"].repeat_interleave(most, 0),
            labels=labels_RCT.flatten(0, 1),
        )
        return _log_p(outputs.logits, labels_RCT), labels_RCT != IGNORED


class ContinuationChoice(Ranking, Continuation):
    """Multiple choice by a decoder alone: every choice continues the input in a row of its own.

    A choice's score is the log-probability of its tokens and the end token behind the input.
    """

    def _choice_tensors(
        self, examples: Sequence[Example], choices: Sequence[Sequence[str]]
    ) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels`` (R, C, L), one row for each choice."""
        most = len(choices[0])
        answered = [Example(e.input, c) for e, of_row in zip(examples, choices) for c in of_row]
        sequences = self._sequences(answered)
        return {name: value.view(len(examples), most, -1) for name, value in sequences.items()}

    def _token_scores(
        self, model: Answering, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        labels_RCL = batch["labels"]
        outputs = model(
            batch["task_of_row"].repeat_interleave(labels_RCL.shape[1], 0),
            input_ids=batch["input_ids"].flatten(0, 1),
            attention_mask=batch["attention_mask"].flatten(0, 1),
        )
        next_RCT = labels_RCL[..., 1:]
        return _log_p(outputs.logits[:, :-1], next_RCT), next_RCT != IGNORED


def _log_p(logits: torch.Tensor, labels_RCT: torch.Tensor) -> torch.Tensor:
    """The labels' log-probabilities (R, C, T) from logits (R * C, T, V); 0 where ignored."""
    flat = labels_RCT.reshape(-1)
    scores = logits.float().reshape(len(flat), -1)
    return -cross_entropy(scores, flat, reduction="none", ignore_index=IGNORED).view_as(labels_RCT)
