"""Choosing from a list: what multiple choice computes, whatever runs the backbone.

Legend: R rows, C choices of a row (padded to the most), T tokens of a choice. Source: Liu et al.
2022 (T-Few), section 3.2: L = L_LM + L_UL + L_LN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import cross_entropy

from adapters_store.errors import TrainingError
from training.model import AdaptedModel
from training.objectives.base import Answering, Row, weighted
from training.objectives.text2text import IGNORED, Text2Text
from training.suite.task import Example

_EPSILON = 1e-6  # keeps log(1 - p) finite where p rounds to 1


class Ranking(Text2Text, ABC):
    """Text to text whose outputs are chosen from a list: the row's ``choices``, or the labels.

    The loss makes the right choice likely, every token of a wrong one unlikely, and orders the
    choices by their length-normalised log-probability. Evaluation is rank classification: the
    choice of the highest.
    """

    num_means = 3

    @abstractmethod
    def _choice_tensors(
        self, examples: Sequence[Example], choices: Sequence[Sequence[str]]
    ) -> dict[str, torch.Tensor]:
        """The backbone's inputs for the examples, each with as many choices."""

    @abstractmethod
    def _token_scores(
        self, model: Answering, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (R, C, T) of every choice's tokens, and which of them are tokens."""

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """The backbone's inputs with ``is_choice`` (R, C), ``right`` and ``task_of_row`` (R,).

        Raises TrainingError for an output that is none of its row's choices.
        """
        lists = [self._choices(task, example) for task, example in rows]
        most = max(len(choices) for choices in lists)
        padded = [[*choices, *[""] * (most - len(choices))] for choices in lists]
        is_choice = [[True] * len(c) + [False] * (most - len(c)) for c in lists]
        right = [c.index(example.output) for c, (_, example) in zip(lists, rows)]
        return {
            **self._choice_tensors([example for _, example in rows], padded),
            "is_choice": torch.tensor(is_choice),
            "right": torch.tensor(right),
            "task_of_row": torch.tensor([task for task, _ in rows]),
        }

    def counts(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The numbers of right tokens, of wrong tokens and of rows, (3,)."""
        is_right_RCT, is_wrong_RCT = _right_and_wrong(batch["labels"] != IGNORED, batch)
        num_rows = torch.tensor(len(batch["right"]), device=batch["right"].device)
        return torch.stack([is_right_RCT.sum(), is_wrong_RCT.sum(), num_rows])

    def loss(
        self,
        model: AdaptedModel,
        batch: Mapping[str, torch.Tensor],
        totals: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The sum of the three losses: means over right tokens, wrong tokens, and rows."""
        log_p_RCT, is_token_RCT = self._token_scores(model, batch)
        is_right_RCT, is_wrong_RCT = _right_and_wrong(is_token_RCT, batch)
        likelihood = -log_p_RCT[is_right_RCT].mean()
        unlikely = -torch.log1p(-log_p_RCT.exp() + _EPSILON)[is_wrong_RCT]
        unlikelihood = unlikely.mean() if len(unlikely) else likelihood.new_zeros(())
        normalised = cross_entropy(_mean_scores(log_p_RCT, is_token_RCT, batch), batch["right"])
        return weighted([likelihood, unlikelihood, normalised], self.counts(batch), totals)

    @torch.no_grad()
    def predict(self, model: Answering, task: int, examples: Sequence[Example]) -> list[str]:
        """The choice of highest mean log-probability for each example."""
        device = next(model.parameters()).device
        collated = self.collate([(task, example) for example in examples])
        batch = {name: value.to(device) for name, value in collated.items()}
        scores = _mean_scores(*self._token_scores(model, batch), batch)
        lists = [self._choices(task, example) for example in examples]
        return [c[index] for c, index in zip(lists, scores.argmax(-1).tolist())]

    def _choices(self, task: int, example: Example) -> tuple[str, ...]:
        choices = example.choices or tuple(self.labels[task])
        if example.output not in choices:
            raise TrainingError(
                f"output {example.output!r} is not one of the choices {list(choices)}",
                hint="Give every row `choices`, or the task its labels.",
            )
        return choices


def _right_and_wrong(
    is_token_RCT: torch.Tensor, batch: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tokens (R, C, T) are of the right choice, and which of a wrong one."""
    right = batch["right"]
    is_right = torch.zeros_like(batch["is_choice"])
    is_right[torch.arange(len(right), device=right.device), right] = True
    is_wrong = batch["is_choice"] & ~is_right
    return is_token_RCT & is_right.unsqueeze(-1), is_token_RCT & is_wrong.unsqueeze(-1)


def _mean_scores(
    log_p_RCT: torch.Tensor, is_token_RCT: torch.Tensor, batch: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    lengths = is_token_RCT.sum(-1).clamp(min=1)
    scores = (log_p_RCT * is_token_RCT).sum(-1) / lengths
    return scores.masked_fill(~batch["is_choice"], float("-inf"))
