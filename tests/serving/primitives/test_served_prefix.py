"""``prefix``: packed prefill and cached decode behind prefixes against the formula, row by row."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_kit import TARGET
from reference_kit import backbone_of

from adapters_store.errors import InvalidArtefactError
from adapters_store.primitives.prefix import PrefixPart
from serving.engine import Request, load_weights
from serving.engine.kv import KvShape
from serving.engine.kv_budget import KvBudget
from serving.engine.kv_store import KvStore, Run
from serving.engine.offsets import Places
from serving.engine.row import Row
from serving.engine.transformer.attention import PackedAttention
from serving.engine.transformer.relative_bias import bucket_of
from serving.primitives.prefix import NO_FRONT, Prefix, prepare, reference
from serving.primitives.prepared import Prepared

CPU = torch.device("cpu")
STACKS = (("llama", "decoder"), ("t5", "encoder"), ("t5", "decoder"), ("bert", "encoder"))


@cache
def _stack(name, stack):
    return load_weights(backbone_of(name), torch.float32).stacks[stack]


def _prefix(stack, rows, seed, *, is_shifted):
    """Rows of ``rows[layer]`` at every layer that has some."""
    generator = torch.Generator().manual_seed(seed)
    width = 2 * stack.record.kv_heads * stack.record.head_dim
    found = {
        layer: torch.randn(count, width, generator=generator)
        for layer, count in enumerate(rows)
        if count
    }
    return Prefix(found, dict.fromkeys(found, is_shifted), 0) if found else None


def _biases(stack, layer, length, front):
    """What is added to the scores of prefix rows and of own keys, by hand: (h, L, P), (h, L, L)."""
    record, at = stack.record, torch.arange(length)
    own = torch.zeros(record.num_heads, length, length)
    before = torch.zeros(record.num_heads, length, front.num_rows)
    if record.relative_bias is not None:
        table = stack.sights[layer].bias._weight
        queries = at + (front.num_rows if front.is_shifted else 0)
        columns = torch.arange(front.num_rows + length)
        bucket = bucket_of(columns[None] - queries[:, None], record.relative_bias)
        both = table[bucket].permute(2, 0, 1)
        before, own = both[:, :, : front.num_rows], both[:, :, front.num_rows :].clone()
    if record.is_causal:
        own = own.masked_fill(at[None, None] > at[None, :, None], float("-inf"))
    return before, own


def _expected(stack, layer, qkv_LE, prefix):
    record, length = stack.record, len(qkv_LE)
    h, k, d = record.num_heads, record.kv_heads, record.head_dim
    q, key, value = qkv_LE.view(length, h + 2 * k, d).transpose(0, 1).split([h, k, k])
    front = NO_FRONT if prefix is None else prefix.front(layer)
    before, own = _biases(stack, layer, length, front)
    rows = None if prefix is None else prefix.rows.get(layer)
    found = reference(q, key, value, own, rows, before, record.attention_scale)
    return found.transpose(0, 1).reshape(length, h * d)


rows = st.tuples(st.integers(1, 40), st.tuples(st.integers(0, 5), st.integers(0, 5)), st.booleans())


@pytest.mark.parametrize(("name", "which"), STACKS)
@given(chosen=st.lists(rows, min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_packed_rows_equal_the_reference(name, which, chosen):
    stack = _stack(name, which)
    record = stack.record
    prefixes = [
        _prefix(stack, counts, i, is_shifted=shifted)
        for i, (_, counts, shifted) in enumerate(chosen)
    ]
    spans, start = [], 0
    for (length, *_), prefix in zip(chosen, prefixes):
        spans.append((start, length, prefix))
        start += length
    width = (record.num_heads + 2 * record.kv_heads) * record.head_dim
    qkv = torch.randn(start, width, generator=torch.Generator().manual_seed(start))
    attention = PackedAttention(stack, spans, torch.float32, CPU)
    for layer in range(record.num_layers):
        out = qkv.new_empty(start, stack.query_width)
        attention(layer, qkv, out)
        for first, length, prefix in spans:
            expected = _expected(stack, layer, qkv[first : first + length], prefix)
            torch.testing.assert_close(out[first : first + length], expected, atol=1e-5, rtol=1e-4)


def _row(name, prefix, which):
    row = Row(Request(name, "generate", None, (3,)), reads="encoder")
    prefixes = {} if prefix is None else {f"{which}.self": prefix}
    row.places = Places.of(Prepared(prefixes=prefixes), "encoder")
    return row


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("name", ["llama", "t5"])
@given(chosen=st.lists(rows, min_size=1, max_size=5), moves=st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_cached_rows_equal_the_reference(name, is_transposed, chosen, moves):
    stack = _stack(name, "decoder")
    record = stack.record
    sizes = record.num_layers, record.kv_heads, record.head_dim
    store = KvStore(
        KvShape(*sizes, torch.float32, CPU, transposes_keys=is_transposed),
        KvBudget(2**30),
        lambda row: row.place().writer,
    )
    width = (record.num_heads + 2 * record.kv_heads) * record.head_dim
    found = []
    for i, (length, counts, shifted) in enumerate(chosen):
        prefix = _prefix(stack, counts, i, is_shifted=shifted)
        row = _row(f"{i}", prefix, "decoder")
        qkv = torch.randn(length, width, generator=torch.Generator().manual_seed(i))
        row.position = length - 1
        store.add(row, 1)
        if prefix is not None:
            store.put_front(row, prefix)
        store.fit(row, length, lambda one: one.position + 1)
        cached = [qkv[:, stack.query_width :]] * record.num_layers
        store.write([Run(row, 0, length)], cached)
        found.append((row, qkv, prefix))
    if moves < len(found):
        store.remove(found.pop(moves)[0], lambda one: one.position + 1)
    batch = [row for row, *_ in found]
    for group in store.groups(batch):
        members = [found[batch.index(row)] for row in group.slab.rows]
        indices = torch.tensor([row.position for row in group.slab.rows])
        group.read(1 + max(row.position + row.place().writer.num_front for row, *_ in members))
        if group.fronts is None:
            keys = torch.arange(group.length)
            at = indices.unsqueeze(1)
            masks = [s.mask(at, keys, group.length, torch.float32) for s in stack.sights]
        else:
            masks = group.fronts.masks(stack.sights, indices, group.length, torch.float32)
        for layer, mask in enumerate(masks):
            q = torch.stack([qkv[-1, : stack.query_width] for _, qkv, _ in members])
            out = group.slab.attend(record, layer, q, group.length, mask)
            for own, (_, qkv, prefix) in zip(out, members):
                expected = _expected(stack, layer, qkv, prefix)[-1]
                torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-4)


def _parts(*shifts):
    parts = [
        PrefixPart(attention=f"decoder.{i}.self", num_tokens=2 + i, shifts_positions=shifted)
        for i, shifted in enumerate(shifts)
    ]
    tensors = {}
    for i, part in enumerate(parts):
        for leaf, value in (("key", 1.0), ("value", 2.0)):
            tensors[f"{part.attention}/prefix/{leaf}"] = torch.full((3, 2 + i, 4), value)
    return parts, tensors


def test_rows_are_laid_out_as_the_cache_is():
    prefix = prepare(*_parts(False, False), TARGET).prefixes["decoder.self"]
    assert {layer: tuple(rows.shape) for layer, rows in prefix.rows.items()} == {
        0: (2, 24),
        1: (3, 24),
    }
    assert torch.equal(prefix.rows[0][:, :12], torch.ones(2, 12))
    assert torch.equal(prefix.rows[0][:, 12:], torch.full((2, 12), 2.0))
    assert (prefix.num_rows, prefix.shift, prefix.num_bytes) == (3, 0, 4 * 24 * 5)


def test_positions_shift_as_one_or_not_at_all():
    assert prepare(*_parts(True), TARGET).prefixes["decoder.self"].shift == 2
    with pytest.raises(InvalidArtefactError, match=r"decoder.self by \[2, 3\]; expected one"):
        prepare(*_parts(True, True), TARGET)
