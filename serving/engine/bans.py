"""Tokens that may not follow what a row has read and written in its decoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Bans:
    """What would repeat an n-gram of ``ngram_size`` tokens, or complete one of ``bad_words``.

    As transformers' ``no_repeat_ngram_size`` (0 allows repetition) and ``bad_words_ids``: a word
    counts where the row already has as many tokens as the word.
    """

    __slots__ = ("_bad_words", "_followers", "_ngram_size", "_tokens")

    def __init__(
        self, read: Iterable[int], ngram_size: int, bad_words: Sequence[tuple[int, ...]]
    ) -> None:
        self._ngram_size, self._bad_words = ngram_size, bad_words
        self._tokens: list[int] = []
        self._followers: dict[tuple[int, ...], tuple[int, ...]] = {}
        for token in read:
            self.write(token)

    def write(self, token: int) -> None:
        """Take the next token of the row."""
        if 0 < self._ngram_size <= len(self._tokens) + 1:
            before = self._last(self._ngram_size - 1)
            self._followers[before] = (*self._followers.get(before, ()), token)
        self._tokens.append(token)

    def banned(self) -> set[int]:
        """Tokens that may not come next."""
        found: set[int] = set()
        if 0 < self._ngram_size <= len(self._tokens):
            found.update(self._followers.get(self._last(self._ngram_size - 1), ()))
        for word in self._bad_words:
            has_begun = len(word) <= len(self._tokens) and self._last(len(word) - 1) == word[:-1]
            if len(word) == 1 or has_begun:
                found.add(word[-1])
        return found

    def copy(self) -> Bans:
        """An independent copy, for a beam that forks."""
        made = Bans((), self._ngram_size, self._bad_words)
        made._tokens, made._followers = self._tokens.copy(), self._followers.copy()
        return made

    def _last(self, count: int) -> tuple[int, ...]:
        return tuple(self._tokens[len(self._tokens) - count :])
