"""Frozen products: both forms compute the product, and no row's bits depend on its mates."""

import pytest
import torch

from serving.engine.transformer import product
from serving.engine.transformer.product import Packed, Plain, frozen_product, packing_pays

SHAPES = [(64, 96), (40, 24), (512, 1152), (33, 7)]
DTYPES = [torch.float32, torch.bfloat16]

needs_packing = pytest.mark.skipif(
    not product._can_pack(torch.bfloat16), reason="this build of torch packs no bfloat16 weights"
)


def _drawn(shape, dtype, num_rows=9):
    generator = torch.Generator().manual_seed(shape[0])
    D, E = shape
    weight, bias = torch.randn(D, E, generator=generator), torch.randn(E, generator=generator)
    return [one.to(dtype) for one in (torch.randn(num_rows, D, generator=generator), weight, bias)]


@needs_packing
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", [Plain, Packed])
def test_a_form_computes_the_product(form, shape, dtype):
    x, weight, bias = _drawn(shape, dtype)
    kept = x.clone()
    expected = x.double() @ weight.double()
    close = {"atol": 0.3, "rtol": 1e-2} if dtype == torch.bfloat16 else {"atol": 1e-3, "rtol": 1e-4}
    with torch.inference_mode():
        made, bare = form(weight, bias), form(weight, None)
        for found, whole in [
            (made(x), expected + bias.double()),
            (bare(x), expected),
            (made.unbiased(x), expected),
        ]:
            assert found.dtype == dtype
            assert found.is_contiguous()
            torch.testing.assert_close(found.double(), whole, **close)
        assert made(x[:0]).shape == (0, shape[1])
        assert torch.equal(made(x[:, :]), made(torch.cat([x, x], dim=1)[:, : shape[0]]))
    assert torch.equal(x, kept)


@needs_packing
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_packed_rows_bits_depend_on_no_mate_and_on_no_number_of_mates(shape, dtype):
    x, weight, bias = _drawn(shape, dtype, num_rows=70)
    with torch.inference_mode():
        packed = Packed(weight, bias)
        whole = packed(x)
        for n in (1, 2, 3, 8, 31, 32, 33, 64):
            assert torch.equal(packed(x[:n]), whole[:n])
            assert torch.equal(packed(x[-n:]), whole[-n:])


def test_the_form_is_what_the_measurement_says(monkeypatch):
    weight = torch.randn(8, 8)
    for pays, form in [(True, Packed), (False, Plain)]:
        monkeypatch.setattr(product, "packing_pays", lambda dtype, pays=pays: pays)
        assert type(frozen_product(weight)) is form


def test_what_cannot_be_packed_is_not_measured():
    assert packing_pays(torch.float64) is False


def test_the_measurement_draws_no_random_number():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    packing_pays.cache_clear()
    packing_pays(torch.float32)
    assert torch.equal(torch.rand(2), expected)


def test_products_are_made_with_few_numbers_of_rows_and_little_more_work():
    made = [product.rounded_up(n) for n in range(4097)]
    assert made[:17] == list(range(17))
    assert all(n <= rounded <= n * 1.125 for n, rounded in enumerate(made))
    assert len(set(made[1:2049])) <= 16 + 7 * 8


@needs_packing
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_packed_product_of_any_number_of_rows_is_that_of_its_rows(dtype):
    x, weight, bias = _drawn((40, 24), dtype, num_rows=300)
    with torch.inference_mode():
        packed = Packed(weight, bias)
        whole = packed(x)
        for n in (17, 19, 37, 100, 257):
            some = packed(x[:n])
            assert some.shape == (n, 24)
            assert some.is_contiguous()
            assert torch.equal(some, whole[:n])
