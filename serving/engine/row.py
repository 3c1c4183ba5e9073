"""The one object that follows a request through the engine."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from serving.engine.bans import Bans
from serving.engine.offsets import NO_PLACES, Places
from serving.engine.origin import Origin
from serving.engine.request import Request
from serving.engine.seen import Seen
from serving.primitives.prepared import Prepared
from serving.residency.entry import Entry

if TYPE_CHECKING:
    from serving.engine.beams import Beams

_BARE = Prepared()


@dataclass(slots=True, eq=False)
class Row:
    """``token`` is the next decoder input at ``position``; ``entry`` the leased adapter, if any.

    ``num_fed`` of the tokens written have become an input since the row last joined.

    The lease ends when the row has joined the decode batch; ``bank``, the digest of the bank that
    its adapter routes over, stays. ``tokens`` are
    those written so far. Whatever the choice of the next one depends on is here, so that a row
    whose keys and values were dropped goes on as if they had not been: ``seed`` of its random
    numbers, ``ends``, the tokens that end it, ``seen`` for its penalties, ``bans`` for what it may
    not write, ``has_masks`` whether any token is banned, suppressed or forced. ``arrived_at`` is
    when it was first queued, in ``time.monotonic`` seconds, ``is_paid`` whether its tenant was
    charged for its input, which happens once however often it is read; ``beams`` the search that
    the row is a beam of. ``reads`` names the stack that reads the input; ``places`` says, once
    the adapter is there, what it puts before the row's tokens.
    """

    request: Request
    entry: Entry | None = None
    seed: int = 0
    ends: frozenset[int] = frozenset()
    seen: Seen | None = None
    bans: Bans | None = None
    has_masks: bool = False
    token: int = 0
    position: int = 0
    num_fed: int = 0
    tokens: list[int] = field(default_factory=list)
    bank: str | None = None
    arrived_at: float = 0.0
    is_paid: bool = False
    reads: str = "encoder"
    places: Places | None = None
    beams: Beams | None = None
    _origin: Origin | None = None

    @classmethod
    def of(
        cls,
        request: Request,
        end_tokens: frozenset[int],
        start_token: int | None,
        reads: str = "encoder",
    ) -> Self:
        """A new row. ``start_token`` is the decoder's own; None where it reads the prompt."""
        sampling = request.sampling
        row = cls(
            request,
            reads=reads,
            seed=secrets.randbits(64) if sampling.seed is None else sampling.seed,
            ends=(frozenset() if sampling.ignore_eos else end_tokens)
            | frozenset(sampling.stop_token_ids),
        )
        row._begin(start_token)
        return row

    def place(self) -> Places:
        """What stands before the row's tokens; nothing is known to before the adapter is ready."""
        if self.places is None:
            if self.request.adapter is not None and self.entry is None:
                return NO_PLACES
            self.places = Places.of(self.prepared, self.reads)
        return self.places

    @property
    def num_read(self) -> int:
        """Rows of the stream that the input takes: those of a prompt, then the tokens."""
        return self.place().reader.num_prompt + self.num_input

    def fork(self) -> Row:
        """A row that goes on from here on its own; it holds no lease."""
        seen = None if self.seen is None else self.seen.copy()
        bans = None if self.bans is None else self.bans.copy()
        return replace(self, entry=None, seen=seen, bans=bans, tokens=self.tokens.copy())

    def write(self, token: int) -> None:
        """Take a chosen token: it is the next input."""
        self.token, self.position = token, self.position + 1
        self.num_fed += 1
        self.tokens.append(token)
        if self.seen is not None:
            self.seen.write(token)
        if self.bans is not None:
            self.bans.write(token)

    def take_over(self, other: Row) -> None:
        """Go on from what ``other``, which is used no longer, has written."""
        self.tokens, self.seen, self.bans = other.tokens, other.seen, other.bans

    def drop(self, start_token: int | None) -> None:
        """Go on without keys and values; what was written stays, but a search starts anew."""
        self.position = self.num_fed = 0
        if self.beams is not None:
            self.tokens, self.beams = [], None
            self._begin(start_token)

    def go_on_after(self, num_read: int) -> None:
        """Decode behind that many :attr:`inputs`."""
        self.num_fed = len(self.tokens)
        self.position = num_read if self.tokens else num_read - 1
        self.token = self.tokens[-1] if self.tokens else self.request.input_ids[-1]

    @property
    def is_recalling(self) -> bool:
        """True while tokens written before keys and values were dropped are fed again."""
        return self.num_fed < len(self.tokens)

    def recall(self) -> None:
        """Take the next token that was written before as the next input."""
        self.token, self.position = self.tokens[self.num_fed], self.position + 1
        self.num_fed += 1

    @property
    def inputs(self) -> tuple[int, ...]:
        """What the row reads before it goes on: all tokens that were written but the last.

        Without tokens written, that is the request's input. Tokens of no meaning stand for the rows
        of a prompt. A decoder behind an encoder reads the request's input alone.
        """
        own = self.tokens[:-1] if self.reads == "decoder" else []
        return (*[0] * self.place().reader.num_prompt, *self.request.input_ids, *own)

    @property
    def origin(self) -> Origin:
        """What the request reads and by which adapter."""
        if self._origin is None:
            self._origin = Origin(self.request.adapter, self.request.input_ids)
        return self._origin

    @property
    def reads_own(self) -> bool:
        """True where the row also reads tokens it has written; else :attr:`origin` says it all."""
        return self.reads == "decoder" and bool(self.tokens)

    @property
    def scores_input(self) -> bool:
        """True where log-probabilities of the prompt are still to be given."""
        return self.request.sampling.prompt_logprobs is not None and not self.tokens

    @property
    def prepared(self) -> Prepared:
        """The adapter's runnable parts; empty for a bare row. The entry must be ready."""
        if self.entry is None:
            return _BARE
        assert self.entry.prepared is not None
        return self.entry.prepared

    def needs(self, digests: Collection[str]) -> bool:
        """Whether the row's adapter, or the bank that it routes over, is among ``digests``."""
        bank = self.bank if self.entry is None else self.entry.bank_digest
        return self.request.adapter in digests or bank in digests

    @property
    def num_input(self) -> int:
        """Input tokens."""
        return len(self.request.input_ids)

    @property
    def width(self) -> int:
        """Rows of the decode batch that the request takes."""
        return self.request.sampling.num_beams if self.request.kind == "generate" else 0

    @property
    def num_output(self) -> int:
        """Output tokens so far."""
        return len(self.tokens)

    def _begin(self, start_token: int | None) -> None:
        """Note what the row has read in its decoder before its first token."""
        sampling = self.request.sampling
        read = self.request.input_ids if start_token is None else (start_token,)
        self.seen = Seen(read) if sampling.has_penalties else None
        self.bans = None
        if sampling.no_repeat_ngram_size or sampling.bad_words_ids:
            words = [word for word in sampling.bad_words_ids if not _is_end(word, self.ends)]
            self.bans = Bans(read, sampling.no_repeat_ngram_size, words)
        self.has_masks = self.bans is not None or sampling.has_masks


def _is_end(word: tuple[int, ...], ends: frozenset[int]) -> bool:
    return len(word) == 1 and word[0] in ends
