"""From the tokens of one output to text that is safe to give out."""

from __future__ import annotations

from dataclasses import dataclass

from serving.api.text import StopScanner, Tokenizer
from serving.engine.events import Token


@dataclass(frozen=True, slots=True)
class Ending:
    """Strings that end a text; they are looked for in what follows the first ``min_tokens``.

    ``is_included``: the string that ended a text is its last part.
    """

    stops: tuple[str, ...] = ()
    is_included: bool = False
    min_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """A token and where its text begins, in characters of the output."""

    token: Token
    offset: int


class Writer:
    """Takes the tokens of one output in order; never gives half a character or half a stop."""

    def __init__(self, tokenizer: Tokenizer, ending: Ending) -> None:
        self._detokenizer = tokenizer.detokenizer()
        self._scanner = StopScanner(ending.stops, is_included=ending.is_included)
        self._min_tokens = ending.min_tokens
        self._pending: list[Written] = []
        self._num_read = 0
        self._num_given = 0
        self.num_tokens = 0

    @property
    def is_stopped(self) -> bool:
        """True once a stop string is complete."""
        return self._scanner.is_stopped

    def push(self, token: Token) -> str:
        """Text that this token makes safe."""
        self.num_tokens += 1
        self._pending.append(Written(token, self._num_read))
        text = self._detokenizer.push(token.token)
        self._num_read += len(text)
        return self._give(text if self.num_tokens <= self._min_tokens else self._scanner.push(text))

    def flush(self) -> str:
        """What was held back, once the tokens have ended."""
        return self._give(self._scanner.push(self._detokenizer.flush()) + self._scanner.flush())

    def take(self) -> tuple[Written, ...]:
        """The tokens since the last call, without those whose text a stop string cut off."""
        taken = [one for one in self._pending if not self.is_stopped or self._is_inside(one)]
        self._pending = []
        return tuple(taken)

    def _is_inside(self, one: Written) -> bool:
        return one.offset < self._num_given

    def _give(self, text: str) -> str:
        self._num_given += len(text)
        return text
