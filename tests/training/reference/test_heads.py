"""``head``: every pooling over padded rows, with and without a prompt in front."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference_kit import artefact_of, backbone_of, batch_of, model_of

from adapters_store.artefact import load_tensors
from adapters_store.errors import UsageError
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.prompt import PromptPart
from training.reference import applied

P = 2


def pooled_by_hand(
    model: Any, pooling: str, hidden: torch.Tensor, mask: torch.Tensor, num_rows: int
) -> torch.Tensor:
    found = []
    for row, seen in zip(hidden, mask):
        tokens = row[num_rows:][seen.bool()]
        first = row[0] if num_rows else tokens[0]
        found.append(
            {
                "mean": tokens.mean(0),
                "cls": first,
                "last": tokens[-1],
                "pooled": model.pooler(row[None])[0],
            }[pooling]
        )
    return torch.stack(found)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "pooled"])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("dense_size", [None, 5])
@pytest.mark.parametrize("has_prompt", [False, True])
@torch.no_grad()
def test_a_head_pools_the_tokens_of_each_row(
    pooling: str, padding: str, dense_size: int | None, has_prompt: bool
) -> None:
    backbone = backbone_of("bert")
    model, batch = model_of(backbone), batch_of(backbone, padding=padding)
    head = HeadPart.model_validate({"num_labels": 4, "pooling": pooling, "dense_size": dense_size})
    prompt = PromptPart(input="encoder", num_tokens=P, has_positions=True)
    artefact = artefact_of(backbone, [head, prompt] if has_prompt else [head])
    t, mask = load_tensors(artefact), batch["attention_mask"]
    with applied(model, backbone, artefact) as adapted:
        outputs = adapted(**batch)
        found = adapted.head(outputs, mask)
        assert torch.equal(adapted.head(outputs.last_hidden_state, mask), found)
    hidden = outputs.last_hidden_state
    v = pooled_by_hand(model, pooling, hidden, mask, P if has_prompt else 0)
    if dense_size is not None:
        v = torch.tanh(v @ t["head/dense_weight"].T + t["head/dense_bias"])
    expected = v @ t["head/weight"].T + t["head/bias"]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_head_that_is_missing_or_misused_says_so() -> None:
    backbone = backbone_of("llama")
    model, batch = model_of(backbone), batch_of(backbone)
    head = artefact_of(backbone, [HeadPart(num_labels=2, pooling="last")])
    prompt = artefact_of(backbone, [PromptPart(input="decoder", num_tokens=P, has_positions=True)])
    mask = batch["attention_mask"]
    with applied(model, backbone, head) as adapted:
        with pytest.raises(UsageError, match="has no last_hidden_state"):
            adapted.head(adapted(**batch), mask)
        hidden = adapted(**batch, output_hidden_states=True).hidden_states[-1]
        assert adapted.head(hidden, mask).shape == (3, 2)
        with pytest.raises(UsageError, match="6 rows and the mask 5"):
            adapted.head(hidden, mask[:, 1:])
    with applied(model, backbone, prompt) as adapted, pytest.raises(UsageError, match="no head"):
        adapted.head(hidden, mask)
