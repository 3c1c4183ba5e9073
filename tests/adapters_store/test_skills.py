"""Changes of form between LoRA, skills and tasks keep the update."""

from __future__ import annotations

import pytest
import torch

from adapters_store.errors import IncompatibleError
from adapters_store.skills import lora_as_skill, task_as_lora

WIDTH_IN, WIDTH_OUT, RANK = 12, 20, 3


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_a_lora_is_a_skill_and_comes_back(num_heads: int):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(WIDTH_IN, RANK, generator=generator)
    b = torch.randn(RANK, WIDTH_OUT, generator=generator)
    skills = [lora_as_skill(a, b, num_heads, factor) for factor in (1.0, 0.5)]
    bank_a = torch.stack([skill_a for skill_a, _ in skills], dim=1)
    bank_b = torch.stack([skill_b for _, skill_b in skills], dim=1)
    assert bank_a.shape == (num_heads, 2, WIDTH_IN // num_heads, RANK)
    assert bank_b.shape == (num_heads, 2, RANK, WIDTH_OUT // num_heads)
    for skill, factor in enumerate((1.0, 0.5)):
        weights = torch.zeros(num_heads, 2)
        weights[:, skill] = 1
        found_a, found_b = task_as_lora(bank_a, bank_b, weights)
        torch.testing.assert_close(found_a, a)
        torch.testing.assert_close(found_b, factor * b)


def test_factors_are_mixed_not_products():
    generator = torch.Generator().manual_seed(1)
    bank_a = torch.randn(2, 3, WIDTH_IN // 2, RANK, generator=generator)
    bank_b = torch.randn(2, 3, RANK, WIDTH_OUT // 2, generator=generator)
    weights = torch.rand(2, 3, generator=generator)
    a, b = task_as_lora(bank_a, bank_b, weights)
    mixed_a = torch.cat([sum(weights[h, k] * bank_a[h, k] for k in range(3)) for h in range(2)])
    mixed_b = torch.cat(
        [sum(weights[h, k] * bank_b[h, k] for k in range(3)) for h in range(2)], dim=1
    )
    torch.testing.assert_close(a @ b, mixed_a @ mixed_b)


@pytest.mark.parametrize("num_heads", [5, 3])
def test_heads_that_do_not_divide_are_refused(num_heads: int):
    with pytest.raises(IncompatibleError, match="do not divide the widths 12 and 20"):
        lora_as_skill(torch.ones(WIDTH_IN, RANK), torch.ones(RANK, WIDTH_OUT), num_heads)
