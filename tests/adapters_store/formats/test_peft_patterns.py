"""Expressions of strangers: the same answers as Python's matcher, in linear time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters_store.errors import InvalidArtefactError
from adapters_store.formats.peft.patterns import MAX_STEPS, Meter, Pattern

_ATOMS = [
    *("a", "b", ".", r"\.", "[ab]", "[^a]", r"\d", r"\D", r"\w", r"\W", r"\s", "[a-c0-9_]"),
    *(
        "(a|b)",
        "(?:ab|a)",
        "(a*)",
        "(b+)?",
        "a{2,3}",
        "(?:a{0,2}b)",
        "^",
        "$",
        r"\b",
        r"\B",
        "(a|)",
    ),
]
_EXPRESSIONS = st.lists(
    st.tuples(st.sampled_from(_ATOMS), st.sampled_from(["", "", "*", "+?", "?"])), max_size=5
).map(lambda steps: "".join(atom + times for atom, times in steps))


def is_valid(expression: str) -> bool:
    try:
        re.compile(expression)
    except re.error:
        return False
    return not re.search(r"[*+?}]\+", expression)


@settings(deadline=None)
@given(_EXPRESSIONS.filter(is_valid), st.text("ab1._ ", min_size=1, max_size=7))
def test_an_expression_means_what_python_means(expression: str, text: str):
    assert Pattern(expression, Meter()).matches(text) == bool(re.fullmatch(expression, text))


@settings(deadline=None)
@given(_EXPRESSIONS.filter(is_valid), st.text("ab1._", min_size=1, max_size=7))
def test_an_ending_may_follow_any_dot(expression: str, text: str):
    expected = re.match(rf"(.*\.)?({expression})$", text)
    assert Pattern(expression, Meter(), is_ending=True).matches(text) == bool(expected)


@pytest.mark.parametrize("expression", ["(a+)+b", "(a|a)*b", "(.*)*.*(.*)+b", "(a?){40}a{40}b"])
def test_what_takes_python_for_ever_takes_no_time(expression: str):
    start = time.perf_counter()
    assert not Pattern(expression, Meter()).matches("a" * 200)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(", "malformed"),
        ("[[a]", "malformed"),
        ("(" * 1500 + ")" * 1500, "malformed"),
        ("a" * 5000, "more than 4000 characters"),
        ("(a{100}){100}", "more than 4000 states"),
        ("(?=a)b", "assert"),
        (r"(a)\1", "groupref"),
        ("(?i)a", "flags"),
        ("(?i:a)b", "subpattern"),
        ("a*+", "possessive repeat"),
    ],
)
def test_what_needs_memory_or_is_no_expression_is_refused(expression: str, words: str):
    with pytest.raises(InvalidArtefactError, match=words):
        Pattern(expression, Meter())


def match_often(pattern: Pattern) -> None:
    for _ in range(10_000):
        pattern.matches("a" * 200)


def test_a_configuration_has_a_budget_of_steps():
    with pytest.raises(InvalidArtefactError, match=f"more than {MAX_STEPS} steps"):
        match_often(Pattern("(a?){500}b", Meter()))


def read_many(meter: Meter) -> None:
    for number in range(10_000):
        Pattern(f"model.layers.{number}.self_attn.q_proj", meter, is_ending=True)


def test_reading_expressions_spends_from_the_budget_too():
    with pytest.raises(InvalidArtefactError, match=f"more than {MAX_STEPS} steps"):
        read_many(Meter())
