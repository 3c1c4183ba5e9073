"""Slabs in both layouts: what is stored is found, attended alike, and independent of mates."""

from dataclasses import replace

import pytest
import torch
from reference_kit import backbone_of

from serving.engine import Request
from serving.engine.kv import KvShape, Slab
from serving.engine.kv_budget import KvBudget
from serving.engine.kv_transposed import TransposedSlab
from serving.engine.row import Row

CPU = torch.device("cpu")
LAYERS, HEADS, DIM = 2, 3, 8
WIDTH = 2 * HEADS * DIM

both_layouts = pytest.mark.parametrize("is_transposed", [False, True])


def _slab(num_rows, *, is_transposed, num_positions=16, dtype=torch.float32):
    kind = TransposedSlab if is_transposed else Slab
    slab = kind(KvShape(LAYERS, HEADS, DIM, dtype, CPU), num_positions)
    for i in range(num_rows):
        slab.add(
            Row.of(Request(f"{i}", "generate", None, (3,)), frozenset(), None), KvBudget(2**30)
        )
    return slab


def _record(share, softcap):
    return replace(
        backbone_of("llama").architecture.stack("decoder"),
        num_heads=HEADS * share,
        num_kv_heads=HEADS,
        head_dim=DIM,
        attention_scale=0.3,
        softcap=softcap,
    )


def _drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _put(slab, layer, place, kv):
    first = place * slab.num_positions
    slab.write(layer, torch.arange(first, first + len(kv)), kv)


def _stored(slab, layer, place, length):
    key, value = slab.views(layer, len(slab.rows), length)
    both = torch.cat([key[place], value[place]])
    return both.transpose(0, 1).reshape(length, WIDTH)


@both_layouts
def test_runs_and_single_positions_are_found_where_they_were_stored(is_transposed):
    slab = _slab(3, is_transposed=is_transposed)
    runs = {
        (layer, i): _drawn(4 + i, WIDTH, seed=10 * layer + i)
        for layer in range(2)
        for i in range(3)
    }
    for (layer, i), kv in runs.items():
        _put(slab, layer, i, kv)
    places = torch.tensor([4, 16 + 5, 32 + 6])
    for layer in range(2):
        one = _drawn(3, WIDTH + 5, seed=99 + layer)[:, 5:]
        slab.write(layer, places, one)
        for i in range(3):
            expected = torch.cat([runs[layer, i], one[i : i + 1]])
            assert torch.equal(_stored(slab, layer, i, 5 + i), expected)


@both_layouts
def test_rows_keep_what_they_hold_while_others_come_and_go(is_transposed):
    slab = _slab(4, is_transposed=is_transposed)
    held = [_drawn(9, WIDTH, seed=i) for i in range(4)]
    for i, kv in enumerate(held):
        _put(slab, 1, i, kv)
    slab.resize(11)
    slab.copy([3, 0], [0, 1], 9)
    first, second, third, last = slab.rows
    slab.remove(second, 9, is_poisoned=True)
    assert slab.rows == [first, last, third]
    for i, expected in enumerate([held[3], held[3], held[2]]):
        assert torch.equal(_stored(slab, 1, i, 9), expected)
    keys, values = slab.views(1, slab.capacity, 16)
    assert not keys[3:].any()
    assert not values[3:].any()
    other = _slab(1, is_transposed=is_transposed, num_positions=32)
    other.rows.append(third)
    other.resize(2)
    slab.copy_row(third, other, 9, third)
    assert torch.equal(_stored(other, 1, 1, 9), held[2])


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("share", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_over_tables_is_attention_over_views(dtype, share, softcap):
    n, C = 5, 16
    record = _record(share, softcap)
    plain, transposed = (
        _slab(n, is_transposed=flag, num_positions=64, dtype=dtype) for flag in (False, True)
    )
    for i in range(n):
        kv = _drawn(C, WIDTH, seed=i, dtype=dtype)
        _put(plain, 0, i, kv)
        _put(transposed, 0, i, kv)
    q = _drawn(n, HEADS * share * DIM, seed=50, dtype=dtype)
    hidden = torch.arange(C) > torch.tensor([3, 15, 0, 8, 9])[:, None]
    mask = torch.zeros(n, C, dtype=dtype).masked_fill(hidden, float("-inf"))[:, None, None]
    expected = plain.attend(record, 0, q, C, mask)
    found = transposed.attend(record, 0, q, C, mask)
    close = (
        {"atol": 3e-2, "rtol": 3e-2} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    )
    torch.testing.assert_close(found, expected, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_rows_bits_depend_on_no_mate_and_on_no_masked_column(dtype):
    n, record = 6, _record(2, None)
    slab = _slab(n, is_transposed=True, num_positions=64, dtype=dtype)
    for i in range(n):
        _put(slab, 0, i, _drawn(40, WIDTH, seed=i, dtype=dtype))
    q = _drawn(n, HEADS * 2 * DIM, seed=50, dtype=dtype)

    def attended(num_rows, C):
        mask = torch.zeros(1, 1, 1, C, dtype=dtype)
        mask[..., 16:] = float("-inf")
        return slab.attend(record, 0, q[:num_rows], C, mask)

    whole = attended(n, 40)
    for num_rows, C in [(1, 16), (1, 48), (3, 32), (n, 64)]:
        assert torch.equal(attended(num_rows, C), whole[:num_rows])
