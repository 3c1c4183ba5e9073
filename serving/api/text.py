"""Text at the edge: prompts to token ids, and token ids back to text while they arrive."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from adapters_store.errors import UsageError


def _byte_symbols() -> dict[str, int]:
    """The printable stand-ins of bytes in byte-level BPE vocabularies (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    own = {chr(byte): byte for byte in printable}
    return own | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTE_OF = _byte_symbols()


class Detokenizer(Protocol):
    """Turns ids into text step by step; never gives half a character."""

    def push(self, token: int) -> str: ...
    def flush(self) -> str: ...


class Tokenizer:
    """The tokenizer of a backbone folder; raises :class:`UsageError` where there is none."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._tokenizer = _load(folder)
        self.vocab_size = vocab_size
        self._special = frozenset(int(token) for token in self._tokenizer.all_special_ids)
        self._is_bytes = type(self._tokenizer).__name__.startswith("ByT5")

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt with the model's special tokens (such as the final end token)."""
        ids = self._tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"]
        return tuple(int(token) for token in ids)

    @property
    def has_chat_template(self) -> bool:
        """Whether the folder says how conversations are written."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    def encode_chat(self, messages: Sequence[dict[str, str]]) -> tuple[int, ...]:
        """Token ids of a conversation up to where the assistant's next turn begins.

        Raises :class:`UsageError` for messages that the template refuses.
        """
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise UsageError(
                f"the chat template refuses the messages: {error}", param="messages"
            ) from error
        ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tuple(int(token) for token in ids)

    def check(self, ids: Sequence[int]) -> tuple[int, ...]:
        """``ids`` as given; raises :class:`UsageError` for ids outside the vocabulary."""
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise UsageError(
                    f"token id {token} is outside the vocabulary of {self.vocab_size}",
                    param="prompt",
                )
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of finished ids without special tokens: what every chunk of a stream adds up to."""
        detokenizer = self.detokenizer()
        return "".join([detokenizer.push(token) for token in ids]) + detokenizer.flush()

    def token_text(self, token: int) -> str:
        """One token as text, for log-probabilities; special tokens keep their names.

        Parts of a character read ``bytes:\\xe2``, as in OpenAI's API.
        """
        data = self.token_bytes(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of one token, which may be parts of characters."""
        if self._is_bytes:
            byte = token - int(self._tokenizer.offset)
            if 0 <= byte < 256:
                return bytes([byte])
        text = str(self._tokenizer.decode([token], skip_special_tokens=False))
        if "\ufffd" not in text:
            return text.encode()
        piece = str(self._tokenizer.convert_ids_to_tokens(token))
        if piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:-1], 16)])
        if all(symbol in _BYTE_OF for symbol in piece):
            return bytes(_BYTE_OF[symbol] for symbol in piece)
        return text.encode()

    def detokenizer(self) -> Detokenizer:
        """A fresh incremental detokeniser for one output."""
        if self._is_bytes:
            return ByteDetokenizer(int(self._tokenizer.offset))
        return WordDetokenizer(self._tokenizer, self._special)


def _load(folder: Path) -> Any:
    """The folder's tokenizer, where possible by its own class: ``AutoTokenizer`` loads torch."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if settings.get("tokenizer_class") == "ByT5Tokenizer":
            from transformers.models.byt5.tokenization_byt5 import ByT5Tokenizer

            return ByT5Tokenizer.from_pretrained(str(folder), local_files_only=True)
        if (folder / "tokenizer.json").is_file():
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UsageError(
            f"cannot load the tokenizer of {folder}: {error}",
            hint="The folder needs the files that `tokenizer.save_pretrained` writes.",
        ) from error


class ByteDetokenizer:
    """Byte-level vocabularies: id minus offset is a byte of UTF-8; other ids are special."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")

    def push(self, token: int) -> str:
        """Text that this id completes; empty within a character."""
        byte = token - self._offset
        return self._decoder.decode(bytes([byte])) if 0 <= byte < 256 else ""

    def flush(self) -> str:
        """What is left at the end; an unfinished character is dropped."""
        return self._decoder.decode(b"", final=True)


class WordDetokenizer:
    """Sub-word vocabularies: decode a sliding window and give what it adds.

    The window begins one finished piece back, so that joining rules (spaces, ``##``) see the
    piece before; text that ends in U+FFFD is an unfinished character and is held back.
    """

    def __init__(self, tokenizer: Any, special: frozenset[int]) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._ids: list[int] = []
        self._start = 0
        self._read = 0

    def push(self, token: int) -> str:
        """Text that this id completes; empty within a character and for special tokens."""
        if token in self._special:
            return ""
        self._ids.append(token)
        return self._advance(is_final=False)

    def flush(self) -> str:
        """What is left at the end, with U+FFFD for an unfinished character."""
        return self._advance(is_final=True)

    def _advance(self, is_final: bool) -> str:
        before = self._decode(self._ids[self._start : self._read])
        after = self._decode(self._ids[self._start :])
        if len(after) <= len(before) or (after.endswith("�") and not is_final):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return after[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)) if ids else ""


class StopScanner:
    """Finds stop strings in arriving text, also across chunks.

    The stop itself is given out only where ``is_included``, and then at once as a whole.
    """

    def __init__(self, stops: Sequence[str], *, is_included: bool = False) -> None:
        self._stops = tuple(stops)
        self._is_included = is_included
        self._held = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """Text that is safe to give out; sets ``is_stopped`` when a stop string is complete."""
        if self.is_stopped:
            return ""
        self._held += text
        found_at = [
            (at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0
        ]
        if found_at:
            self.is_stopped = True
            stop, start = min(found_at)
            found, self._held = self._held[: stop if self._is_included else start], ""
            return found
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        found, self._held = self._held[:cut], self._held[cut:]
        return found

    def flush(self) -> str:
        """Text held back that turned out not to begin a stop string."""
        found, self._held = self._held, ""
        return found

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
