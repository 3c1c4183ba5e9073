"""Contracts over the registry's lazy tables and its table of errors."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from adapters_store import errors
from adapters_store.blobs import BLOBS
from adapters_store.catalog import CATALOGS
from adapters_store.catalog.migrations import MIGRATIONS
from adapters_store.families import FAMILIES, MODEL_TYPES, Family
from adapters_store.lazy import resolve
from adapters_store.manifest import Manifest
from adapters_store.primitives import PRIMITIVES, BackboneShapes, Part, as_part
from patchbay.cli import COMMANDS, SUMMARIES

TABLES = {"blobs": BLOBS, "catalogs": CATALOGS, "migrations": MIGRATIONS}
ROWS = [(name, row) for name, table in TABLES.items() for row in table]
ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.PatchbayError)
]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_row_resolves_to_something_callable(name: str, row: str):
    assert callable(resolve(TABLES[name], row, name))


@pytest.mark.parametrize("name", list(TABLES))
def test_an_unknown_row_names_the_known_and_the_nearest(name: str):
    first = next(iter(TABLES[name]))
    with pytest.raises(errors.UsageError, match=f"Did you mean '{first}'") as caught:
        resolve(TABLES[name], first + "x", name)
    assert all(row in caught.value.message for row in TABLES[name])


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_is_a_record_of_its_own_name(name: str):
    family = resolve(FAMILIES, name, "backbone family")
    assert isinstance(family, Family)
    assert family.name == name


def test_every_model_type_has_a_family_and_each_family_a_model_type():
    assert set(MODEL_TYPES.values()) == set(FAMILIES)


@pytest.mark.parametrize("primitive", list(PRIMITIVES))
def test_every_primitive_is_a_frozen_part_that_knows_its_name_and_kinds(primitive: str):
    part_type = resolve(PRIMITIVES, primitive, "primitive")
    assert issubclass(part_type, Part)
    assert part_type.model_fields["primitive"].default == primitive
    assert part_type.model_config["frozen"] is True
    assert part_type.model_config["extra"] == "forbid"
    assert part_type.kinds <= {"adapter", "bank", "routing"}
    assert part_type.kinds
    assert part_type.tensor_specs is not Part.tensor_specs
    assert inspect.getdoc(part_type)


@pytest.mark.parametrize("value", [{"primitive": "low_rnk"}, {"primitive": 3}, {}, [], "low_rank"])
def test_what_is_no_part_is_refused(value: object):
    with pytest.raises(ValueError, match="primitive"):
        as_part(value)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_code_status_exit_and_hint(error: type[errors.PatchbayError]):
    made = error("what happened")
    assert made.hint == error.default_hint
    assert made.hint
    assert str(made) == made.message == "what happened"
    assert error.code.replace("_", "").isalpha()
    assert 400 <= error.status < 600
    assert error.exit_code in {1, 2, 3, 4, 5, 6, 7, 8}
    assert inspect.getdoc(error)


def test_error_codes_differ():
    codes = [error.code for error in ERRORS]
    assert len(set(codes)) == len(codes)


def test_the_manifest_has_exactly_the_fields_of_format_1():
    assert list(Manifest.model_fields) == [
        "format",
        "kind",
        "family",
        "backbone",
        "bank",
        "parts",
        "tensors",
        "data",
        "content_digest",
        "signature",
        "provenance",
    ]
    assert [field.name for field in dataclasses.fields(BackboneShapes)] == ["sites", "anatomy"]


def test_every_command_has_a_summary():
    assert list(COMMANDS) == list(SUMMARIES)
