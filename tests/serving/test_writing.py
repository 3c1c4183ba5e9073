"""From tokens to text that is safe to give out: stops across token borders, offsets, minima."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_kit import save_word_bert
from transformers import ByT5Tokenizer

from serving.api.text import Tokenizer
from serving.api.writing import Ending, Writer
from serving.engine.events import Token


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("byt5")
    ByT5Tokenizer().save_pretrained(folder)
    return Tokenizer(folder, 384)


def tokens(text: str) -> list[Token]:
    return [Token("", byte + 3) for byte in text.encode()]


def write(tokenizer: Tokenizer, text: str, ending: Ending) -> tuple[Writer, list[str]]:
    """The pieces of ``text``, of which every token is one byte."""
    writer, pieces = Writer(tokenizer, ending), []
    for token in tokens(text):
        pieces.append(writer.push(token))
        if writer.is_stopped:
            return writer, pieces
    pieces.append(writer.flush())
    return writer, pieces


ALPHABET = "aé€😀"
STOPS = st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=3)


@given(text=st.text(ALPHABET, max_size=20), stops=STOPS)
@settings(max_examples=200, deadline=None)
def test_nothing_of_a_stop_is_ever_given_out(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    writer, pieces = write(tokenizer, text, Ending(tuple(stops)))
    given_out = "".join(pieces)
    assert text.startswith(given_out)
    assert not any(stop in given_out for stop in stops)
    assert writer.is_stopped == any(stop in text for stop in stops)
    if not writer.is_stopped:
        assert given_out == text


@given(text=st.text(ALPHABET, max_size=20), stops=STOPS, count=st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_stops_are_not_looked_for_in_the_first_tokens(
    tokenizer: Tokenizer, text: str, stops: list[str], count: int
) -> None:
    ending = Ending(tuple(stops), is_included=True, min_tokens=count)
    writer, pieces = write(tokenizer, text, ending)
    first = len(text.encode()[:count].decode(errors="ignore"))
    assert "".join(pieces)[:first] == text[:first]
    assert writer.is_stopped == any(stop in text[first:] for stop in stops)


def test_tokens_carry_where_their_text_begins(tokenizer: Tokenizer) -> None:
    writer, _ = write(tokenizer, "aé€b", Ending())
    assert [one.offset for one in writer.take()] == [0, 1, 1, 2, 2, 2, 3]


def test_tokens_whose_text_a_stop_cuts_off_are_not_given(tokenizer: Tokenizer) -> None:
    writer, pieces = write(tokenizer, "ab€nd", Ending(("€n",)))
    assert ("".join(pieces), writer.num_tokens) == ("ab", 6)
    assert [one.token.token - 3 for one in writer.take()] == list(b"ab")
    writer, pieces = write(tokenizer, "ab€nd", Ending(("€n",), is_included=True))
    assert "".join(pieces) == "ab€n"
    assert [one.token.token - 3 for one in writer.take()] == list("ab€n".encode())


def test_a_stop_within_one_tokens_text_ends_it(tmp_path: Path) -> None:
    tokenizer = Tokenizer(save_word_bert(tmp_path / "bert"), vocab_size=17)
    writer = Writer(tokenizer, Ending(("ee",)))
    the, grass, green = tokenizer.encode("the grass green")[1:-1]
    texts = [writer.push(Token("", one)) for one in (the, grass, green)]
    assert "".join(texts) == "the grass gr"
    assert writer.is_stopped
    assert len(writer.take()) == 3
