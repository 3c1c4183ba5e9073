"""``prompt``: rows put into packed streams against the formula, and where tokens then stand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_kit import LAYOUT, TARGET

from adapters_store.errors import InvalidArtefactError
from adapters_store.primitives.prompt import PromptPart
from serving.engine.offsets import NO_PLACES, Places
from serving.engine.prefill import positions_of
from serving.primitives.plan import RunPlan
from serving.primitives.prefix import Prefix
from serving.primitives.prepared import Prepared
from serving.primitives.prompt import EMBEDDING, prepare, reference

WIDTH = 5


def _prepared(layers, num_rows=2, *, has_positions=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parts = [
        PromptPart(input="encoder", layer=i, num_tokens=num_rows, has_positions=has_positions)
        for i in layers
    ]
    tensors = {
        f"encoder/prompt/{i}/rows": torch.randn(num_rows, WIDTH, generator=generator)
        for i in layers
    }
    return prepare(parts, tensors, TARGET)


@given(
    rows=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4)), min_size=1, max_size=6),
    has_positions=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_packed_rows_equal_the_reference(rows, has_positions):
    generator = torch.Generator().manual_seed(len(rows))
    runs, prompts, spans, start = [], [], [], 0
    for i, (num_tokens, num_rows) in enumerate(rows):
        stop = start + num_rows + num_tokens
        prompt = None
        if num_rows:
            made = _prepared((0, 2), num_rows, has_positions=has_positions, seed=i)
            prompt = made.prompts["encoder"]
            runs.append((start, stop, made))
            prompts.append((start, prompt, slice(0, stop - start)))
        spans.append((start, stop, prompt))
        start = stop
    plan = RunPlan(LAYOUT.packed, runs, prompts)
    x = torch.randn(start, WIDTH, generator=generator)
    for place in (EMBEDDING, 0, 1, 2):
        found = x.clone()
        plan.enter(place, found)
        for first, stop, prompt in spans:
            own = None if prompt is None else prompt.rows.get(place)
            expected = x[first:stop]
            if own is not None:
                expected = reference(expected, own, replaces=True)
                assert torch.equal(
                    expected, reference(x[first + len(own) : stop], own, replaces=False)
                )
            assert torch.equal(found[first:stop], expected)


def test_rows_with_positions_enter_the_embedding_and_those_without_the_first_layer():
    with_positions = _prepared((0, 1), has_positions=True).prompts["encoder"]
    without = _prepared((0, 1)).prompts["encoder"]
    assert sorted(with_positions.rows) == [EMBEDDING, 1]
    assert sorted(without.rows) == [0, 1]
    assert with_positions.num_bytes == 4 * 2 * 2 * WIDTH


def test_rows_of_a_later_layer_need_as_many_in_front():
    with pytest.raises(InvalidArtefactError, match="layer 1 of 'encoder' has 2 rows; at layer 0"):
        _prepared((1,))
    parts = [
        PromptPart(input="encoder", layer=i, num_tokens=2 + i, has_positions=True) for i in (0, 1)
    ]
    tensors = {f"encoder/prompt/{i}/rows": torch.ones(2 + i, WIDTH) for i in (0, 1)}
    with pytest.raises(InvalidArtefactError, match="has 3 rows; at layer 0 it has 2"):
        prepare(parts, tensors, TARGET)


@pytest.mark.parametrize(
    ("has_positions", "shift", "table", "rotary"),
    [
        (True, 0, [0, 1, 2, 3], [0, 1, 2, 3]),
        (False, 0, [0, 0, 0, 1], [0, 1, 2, 3]),
        (False, 3, [1, 2, 3, 4], [3, 4, 5, 6]),
        (True, 3, [3, 4, 5, 6], [3, 4, 5, 6]),
    ],
)
def test_where_tokens_stand_behind_a_prompt_and_a_prefix(has_positions, shift, table, rotary):
    prompt = _prepared((0,), has_positions=has_positions)
    prefix = Prefix({0: torch.ones(3, 8)}, {0: True}, shift)
    prepared = prompt.merged(Prepared(prefixes={"encoder.self": prefix}))
    places = Places.of(prepared, "encoder")
    assert (places.reader.num_prompt, places.reader.num_front) == (2, 3)
    assert (places.writer.num_prompt, places.cross.num_front) == (0, 0)
    found, turned = positions_of([places.reader], torch.arange(4), [4])
    assert found.tolist() == table
    assert (found if turned is None else turned).tolist() == rotary


def test_a_bare_row_stands_where_its_index_says():
    assert Places.of(Prepared(), "encoder") is NO_PLACES
    indices = torch.arange(3)
    found, turned = positions_of([NO_PLACES.reader], indices, [3])
    assert found is indices
    assert turned is None
