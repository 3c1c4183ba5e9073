"""Multiple choice as T-Few trains it: the right answer likely, the wrong ones not, and in order.

Legend: R rows, C choices of a row (padded to the most), T tokens of a choice. Source: Liu et al.
2022 (T-Few), section 3.2: L = L_LM + L_UL + L_LN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import cross_entropy

from adapters_store.errors import TrainingError
from training.model import AdaptedModel
from training.objectives.base import Answering, Row
from training.objectives.text2text import IGNORED, Text2Text
from training.suite.task import Example

_EPSILON = 1e-6


class Choice(Text2Text):
    """Text to text whose outputs are chosen from a list: the row's ``choices``, or the labels.

    Evaluation is rank classification: the choice of least length-normalised loss. Needs an
    encoder-decoder; the input is encoded once for all of its choices.
    """

    def _choices(self, task: int, example: Example) -> tuple[str, ...]:
        choices = example.choices or tuple(self.labels[task])
        if example.output not in choices:
            raise TrainingError(
                f"output {example.output!r} is not one of the choices {list(choices)}",
                hint="Give every row `choices`, or the task its labels.",
            )
        return choices

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """As text to text with ``labels`` (R, C, T), ``is_choice`` (R, C) and ``right`` (R,)."""
        lists = [self._choices(task, example) for task, example in rows]
        most = max(len(choices) for choices in lists)
        flat = [choice for choices in lists for choice in (*choices, *[""] * (most - len(choices)))]
        targets = self._pad(self._encode(flat, self.max_output_tokens, "choice"), IGNORED)
        is_choice = [[True] * len(c) + [False] * (most - len(c)) for c in lists]
        right = [c.index(example.output) for c, (_, example) in zip(lists, rows)]
        return {
            **self._inputs([example.input for _, example in rows]),
            "labels": targets.view(len(rows), most, -1),
            "is_choice": torch.tensor(is_choice),
            "right": torch.tensor(right),
            "task_of_row": torch.tensor([task for task, _ in rows]),
        }

    def loss(self, model: AdaptedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The sum of the three losses, each a mean over the batch."""
        log_p_RCT, is_token_RCT = self._token_scores(model, batch)
        rows = torch.arange(len(log_p_RCT), device=log_p_RCT.device)
        right = batch["right"]
        is_right = torch.zeros_like(batch["is_choice"])
        is_right[rows, right] = True
        likelihood = -log_p_RCT[is_right][is_token_RCT[is_right]].mean()
        is_wrong_RCT = is_token_RCT & (batch["is_choice"] & ~is_right).unsqueeze(-1)
        unlikely = -torch.log1p(-log_p_RCT.exp() + _EPSILON)[is_wrong_RCT]
        unlikelihood = unlikely.mean() if len(unlikely) else likelihood.new_zeros(())
        normalised = cross_entropy(_mean_scores(log_p_RCT, is_token_RCT, batch), right)
        return likelihood + unlikelihood + normalised

    @torch.no_grad()
    def predict(self, model: Answering, task: int, examples: Sequence[Example]) -> list[str]:
        """The choice of highest mean log-probability for each example."""
        device = next(model.parameters()).device
        collated = self.collate([(task, example) for example in examples])
        batch = {name: value.to(device) for name, value in collated.items()}
        scores = _mean_scores(*self._token_scores(model, batch), batch)
        lists = [self._choices(task, example) for example in examples]
        return [c[index] for c, index in zip(lists, scores.argmax(-1).tolist())]

    def _token_scores(
        self, model: Answering, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (R, C, T) of every choice's tokens, and which of them are tokens."""
        labels = batch["labels"]
        num_rows, most, width = labels.shape
        encoded = model.encode(
            batch["task_of_row"],
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
        )
        hidden = encoded.last_hidden_state.repeat_interleave(most, 0)
        outputs = model(
            batch["task_of_row"],
            encoder_outputs=(hidden,),
            attention_mask=batch["attention_mask"].repeat_interleave(most, 0),
            labels=labels.reshape(num_rows * most, width),
        )
        flat = labels.reshape(-1)
        logits = outputs.logits.float().reshape(-1, outputs.logits.shape[-1])
        log_p = -cross_entropy(logits, flat, reduction="none", ignore_index=IGNORED)
        return log_p.view(num_rows, most, width), labels != IGNORED


def _mean_scores(
    log_p_RCT: torch.Tensor, is_token_RCT: torch.Tensor, batch: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    lengths = is_token_RCT.sum(-1).clamp(min=1)
    scores = (log_p_RCT * is_token_RCT).sum(-1) / lengths
    return scores.masked_fill(~batch["is_choice"], float("-inf"))
