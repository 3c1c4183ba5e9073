"""Detokenisation and stop strings: nothing half, nothing early, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_kit import save_word_bert
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from adapters_store.errors import UsageError
from serving.api.text import ByteDetokenizer, StopScanner, Tokenizer

BYT5 = ByT5Tokenizer()


@given(st.lists(st.integers(0, 383), max_size=40))
@settings(max_examples=300, deadline=None)
def test_streamed_bytes_add_up_to_the_tokenizers_own_text(ids: list[int]) -> None:
    detokenizer = ByteDetokenizer(3)
    text = "".join([detokenizer.push(one) for one in ids]) + detokenizer.flush()
    assert text == BYT5.decode(ids, skip_special_tokens=True)


def test_a_character_is_given_out_whole() -> None:
    detokenizer = ByteDetokenizer(3)
    pieces = [detokenizer.push(byte + 3) for byte in "aé€😀".encode()]
    assert pieces == ["a", "", "é", "", "", "€", "", "", "", "😀"]


@given(st.text(alphabet="ab\n", max_size=30), st.lists(st.integers(1, 4), max_size=30))
@settings(max_examples=300, deadline=None)
def test_stop_strings_do_not_depend_on_chunk_borders(text: str, sizes: list[int]) -> None:
    stops = ("abb", "b\n", "aab")
    whole = StopScanner(stops)
    expected = whole.push(text) + whole.flush()
    scanner, given_out, at = StopScanner(stops), "", 0
    for size in [*sizes, len(text) or 1]:
        given_out += scanner.push(text[at : at + size])
        at += size
        assert expected.startswith(given_out)
    assert given_out + scanner.flush() == expected
    assert scanner.is_stopped == whole.is_stopped


def test_the_beginning_of_a_stop_string_is_held_back_and_released() -> None:
    scanner = StopScanner(["END"])
    assert scanner.push("a E") == "a "
    assert scanner.push("N") == ""
    assert scanner.push("x") == "ENx"
    assert not scanner.is_stopped


@given(st.text(alphabet="ab\n", max_size=30), st.lists(st.integers(1, 4), max_size=30))
@settings(max_examples=200, deadline=None)
def test_an_included_stop_is_given_out_whole_and_last(text: str, sizes: list[int]) -> None:
    stops = ("abb", "b\n", "aab")
    without, scanner = StopScanner(stops), StopScanner(stops, is_included=True)
    before = without.push(text)
    pieces, at = [], 0
    for size in [*sizes, len(text) or 1]:
        pieces.append(scanner.push(text[at : at + size]))
        at += size
    given_out = "".join(pieces)
    assert scanner.is_stopped == without.is_stopped
    if scanner.is_stopped:
        stop = given_out.removeprefix(before)
        assert stop in stops
        assert text.startswith(given_out)
        assert next(one for one in reversed(pieces) if one).endswith(stop)


def test_parts_of_characters_are_named_by_their_bytes(tmp_path: Path) -> None:
    BYT5.save_pretrained(tmp_path)
    tokenizer = Tokenizer(tmp_path, 384)
    ids = [byte + 3 for byte in "aé".encode()]
    assert [tokenizer.token_text(one) for one in ids] == ["a", r"bytes:\xc3", r"bytes:\xa9"]
    assert b"".join(tokenizer.token_bytes(one) for one in ids) == "aé".encode()
    assert tokenizer.token_text(1) == "</s>"


def byte_level_tokenizer(folder: Path) -> Tokenizer:
    """A byte-level BPE like GPT-2's with one merge."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(BYTE_VOCAB, [("t", "h")]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)
    return Tokenizer(folder, len(BYTE_VOCAB))


BYTE_VOCAB = {
    symbol: number
    for number, symbol in enumerate([*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), "th"])
}


@given(text=st.text(alphabet="th €é😀\n\ufffd", max_size=20))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_byte_level_tokens_stream_and_name_their_bytes(tmp_path: Path, text: str) -> None:
    tokenizer = byte_level_tokenizer(tmp_path)
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.token_bytes(one) for one in ids) == text.encode()
    assert tokenizer.decode(ids) == text


def test_sub_words_stream_to_the_tokenizers_own_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer(save_word_bert(tmp_path / "bert"), vocab_size=17)
    ids = tokenizer.encode("the sky is blue")
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.push(one) for one in ids]
    assert "".join(pieces) + detokenizer.flush() == "the sky is blue"
    assert tokenizer.decode(ids) == "the sky is blue"


def test_ids_outside_the_vocabulary_are_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(save_word_bert(tmp_path / "bert"), vocab_size=17)
    assert tokenizer.check([0, 16]) == (0, 16)
    with pytest.raises(UsageError, match="token id 17"):
        tokenizer.check([17])


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="tokenizer"):
        Tokenizer(tmp_path, vocab_size=10)


TEXTS = ["", "plain", "naïve €5 😀", "line\nbreak\ttab", "a </s> b <pad> <extra_id_7>", "\x00\x7f"]


def test_byte_prompts_are_tokenised_as_auto_tokenizer_does(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    BYT5.save_pretrained(tmp_path)
    ours, theirs = Tokenizer(tmp_path, 384), AutoTokenizer.from_pretrained(tmp_path)
    assert [list(ours.encode(text)) for text in TEXTS] == [theirs(t).input_ids for t in TEXTS]


def test_word_prompts_are_tokenised_as_auto_tokenizer_does(tmp_path: Path) -> None:
    folder = save_word_bert(tmp_path / "bert")
    ours, theirs = Tokenizer(folder, 17), AutoTokenizer.from_pretrained(folder)
    texts = [*TEXTS, "The SKY is blue", "grass"]
    assert [list(ours.encode(text)) for text in texts] == [theirs(t).input_ids for t in texts]
