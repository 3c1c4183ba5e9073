"""Random damage to headers and manifests ends in typed errors only, never in another exception."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import low_rank

from adapters_store.artefact import Artefact
from adapters_store.canonical import canonical_json, strict_json
from adapters_store.errors import InvalidArtefactError, PatchbayError
from adapters_store.manifest import parse_manifest
from adapters_store.tensor_file import read_header
from adapters_store.validation import validate

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a", "site", "rank"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@FUZZ
@given(st.binary(max_size=200))
def test_random_bytes_are_no_tensor_file(data: bytes):
    try:
        tensors = read_header(data)
    except InvalidArtefactError:
        return
    assert tensors == ()


@FUZZ
@given(JSON, st.binary(max_size=64))
def test_random_headers_are_read_or_refused(document: object, body: bytes):
    header = json.dumps(document).encode()
    data = struct.pack("<Q", len(header)) + header + body
    try:
        tensors = read_header(data)
    except InvalidArtefactError:
        return
    assert sum(tensor.end - tensor.begin for tensor in tensors) == len(body)


@FUZZ
@given(st.data())
def test_a_manifest_with_one_value_replaced_is_sound_or_refused(t5, data: st.DataObject):
    artefact = low_rank(t5)
    document = artefact.manifest.model_dump(mode="json")
    target, key = document, data.draw(st.sampled_from(sorted(document)))
    while isinstance(target[key], dict | list) and target[key] and data.draw(st.booleans()):
        target = target[key]
        keys = sorted(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
    target[key] = data.draw(JSON)
    try:
        manifest = parse_manifest(json.dumps(document).encode())
        validate(Artefact(manifest, artefact.data), t5.record)
    except PatchbayError:
        return
    assert parse_manifest(manifest.canonical).digest == manifest.digest


@FUZZ
@given(JSON)
def test_canonical_json_is_a_fixed_point(value: object):
    text = canonical_json(value)  # type: ignore[arg-type]
    assert canonical_json(strict_json(text, "value")) == text


@pytest.mark.parametrize(
    "text", [b"1" * 5000, b"1e400", b'{"a":-1e999}', b"-Infinity", b"[" * 9999]
)
def test_numbers_and_nesting_beyond_reading_are_refused(text: bytes):
    with pytest.raises(InvalidArtefactError, match="value"):
        strict_json(text, "value")
