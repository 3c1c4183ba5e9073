"""Sampling within transformers' ``generate`` by the random numbers that the engine promises."""

from __future__ import annotations

import torch
from transformers import LogitsProcessor

from serving.engine import Sampling
from serving.engine.draw import uniform


class Drawn(LogitsProcessor):
    """Leaves the token that a row's own random numbers pick from its distribution, and no other.

    The plain definition: temperature, then the top k, then tokens until one lies in the nucleus,
    whose likelier tokens have less mass than ``top_p``. ``seeds`` are those of the batch's rows.
    """

    def __init__(self, sampling: Sampling, seeds: list[int]) -> None:
        self._sampling, self._seeds, self._position = sampling, seeds, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens = [self._draw(row, seed) for row, seed in zip(scores, self._seeds, strict=True)]
        self._position += 1
        places = torch.tensor(tokens)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(1, places, 0.0)

    def _draw(self, scores: torch.Tensor, seed: int) -> int:
        settings = self._sampling
        least = scores.topk(settings.top_k or len(scores)).values[-1]
        kept = (scores / settings.temperature).masked_fill(scores < least, -torch.inf)
        shares = kept.double().softmax(dim=0)
        for number in range(16):
            point = uniform(seed, self._position, number)
            token = int(torch.searchsorted(shares.cumsum(0), point, right=True))
            if shares[shares > shares[token]].sum() < settings.top_p:
                return token
        raise AssertionError("sixteen tokens in a row lay outside of the nucleus")
