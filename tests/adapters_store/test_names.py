"""References have one spelling each, and nothing outside the grammar gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters_store.errors import InvalidNameError
from adapters_store.names import Reference, check_alias, parse_name, parse_reference

DIGEST = "sha256:" + "ab" * 32
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
ALIASES = NAMES.filter(lambda text: not text.removeprefix("v").isdigit())


@st.composite
def references(draw: st.DrawFn) -> Reference:
    tenant, name = draw(NAMES), draw(NAMES)
    version = draw(st.none() | st.integers(1, 2**53))
    digest = draw(st.sampled_from([None, DIGEST]))
    alias = draw(st.none() | ALIASES) if version is None and digest is None else None
    return Reference(tenant, name, alias=alias, version=version, digest=digest)


@given(references())
def test_every_reference_roundtrips_through_its_text(reference: Reference):
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acme/redact", Reference("acme", "redact")),
        ("acme/redact@canary", Reference("acme", "redact", alias="canary")),
        ("acme/redact@latest", Reference("acme", "redact", alias="latest")),
        ("acme/redact:7", Reference("acme", "redact", version=7)),
        (f"acme/redact@{DIGEST}", Reference("acme", "redact", digest=DIGEST)),
        (f"acme/redact:7@{DIGEST}", Reference("acme", "redact", version=7, digest=DIGEST)),
        ("0/a.b_c-d", Reference("0", "a.b_c-d")),
    ],
)
def test_documented_forms_parse(text: str, expected: Reference):
    assert parse_reference(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme",
        "acme/",
        "/redact",
        "acme/redact/x",
        "acme/../x",
        "../acme",
        "Acme/redact",
        "acme/réd",
        "acme/redact ",
        "acme/redact\n",
        "acme/redact:0",
        "acme/redact:07",
        "acme/redact:-1",
        "acme/redact:x",
        "acme/redact:1:2",
        "acme/redact:99999999999999999999",
        "acme/redact@",
        "acme/redact@v7",
        "acme/redact@7",
        "acme/redact:7@prod",
        "acme/redact@sha256:abc",
        f"acme/redact@{DIGEST.upper()}",
        f"acme/redact@{DIGEST}0",
        "acme/" + "a" * 64,
    ],
)
def test_text_outside_the_grammar_is_refused(text: str):
    with pytest.raises(InvalidNameError) as caught:
        parse_reference(text)
    assert caught.value.hint


@given(st.text(max_size=80))
def test_any_text_parses_to_itself_or_is_refused(text: str):
    try:
        reference = parse_reference(text)
    except InvalidNameError:
        return
    assert str(reference) == text


@pytest.mark.parametrize("alias", ["latest", "v1", "v007", "12", "UP", "", "-x"])
def test_reserved_aliases_cannot_be_set(alias: str):
    with pytest.raises(InvalidNameError):
        check_alias(alias)


def test_ordinary_aliases_can_be_set():
    assert [check_alias(alias) for alias in ("prod", "v1-rc", "canary.2")] == [
        "prod",
        "v1-rc",
        "canary.2",
    ]


@pytest.mark.parametrize("text", ["acme/x:1", "acme/x@prod", f"acme/x@{DIGEST}"])
def test_a_name_alone_carries_no_version(text: str):
    with pytest.raises(InvalidNameError, match="expected tenant/name"):
        parse_name(text)
