"""Weighted sums of runs of rows, for any number of bags out of one index."""

import pytest
import torch

from serving.primitives.bags import consecutive


@pytest.mark.parametrize("num_bags", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_consecutive_bags_are_products_of_one_row_each(num_bags, dtype):
    generator = torch.Generator().manual_seed(num_bags)
    table = torch.randn(num_bags, 6, 16, generator=generator).to(dtype)
    weights = torch.randn(num_bags, 6, generator=generator).to(dtype)
    expected = torch.bmm(weights.double().unsqueeze(1), table.double()).squeeze(1)
    found = consecutive(num_bags, 6).sums(table.flatten(0, 1), weights)
    close = {"atol": 0.1, "rtol": 1e-2} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(found.double(), expected, **close)


def test_fewer_bags_share_the_index_of_more():
    many, few = consecutive(8, 7), consecutive(5, 7)
    assert few._rows.data_ptr() == many._rows.data_ptr()
    assert few._rows.tolist() == list(range(35))
    assert few._starts.tolist() == [0, 7, 14, 21, 28]
