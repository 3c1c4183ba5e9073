"""The vocabularies of a split: pronounceable words, each of which is in one split only."""

import functools
import hashlib
import random
from dataclasses import dataclass
from typing import Literal, get_args

from training.suite.wordlist import NOUNS, words

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_SEED = 20240
_NUM_WORDS = 5000
_ONSETS = words(
    "b br c ch d dr f fl g gr h j k kl l m n p pr r s sh sl st t th tr v w y z "
    "b d f g h k l m n p r s t v l m n r s t"
)
_NUCLEI = words("a a a a e e e e i i i o o o u u ai ea ie ei")
_INNER_CODAS = words("l m n n r r s")
_FINAL_CODAS = words("d k l m n n r s t x ck ld lt nd nk nt rd rk rn rt sk st")
_CITY_ENDINGS = words("berg burg by dale field ford ham holm mar mouth port stad ton ville wick")
_BLOCKED = words(
    "anal arse ass bitch cock coon cum cunt dick dyke fag fuc fuk gook kike nazi nig penis piss "
    "poo porn pus rap sex shit slut spic tit turd wank whor"
)


@dataclass(frozen=True)
class Lexicon:
    """The open vocabularies of one split; any word, whatever its case, is in one split only.

    Names and cities are capitalised, the rest is lower case. `nouns` are English words, `products`
    are invented ones.
    """

    split: Split
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    cities: tuple[str, ...]
    domains: tuple[str, ...]
    services: tuple[str, ...]
    products: tuple[str, ...]
    nouns: tuple[str, ...]


def split_of(word: str) -> Split:
    """Return the only split that may use `word` (80 % train, 8 % dev, 12 % test), ignoring case."""
    bucket = int.from_bytes(hashlib.blake2b(word.lower().encode(), digest_size=4).digest()) % 100
    if bucket < 80:
        return "train"
    return "dev" if bucket < 88 else "test"


@functools.cache
def lexicon(split: Split) -> Lexicon:
    """Return the vocabularies of `split`, the same ones in every process.

    Raises:
        ValueError: `split` is not one of train, dev, test.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    return Lexicon(
        split=split,
        first_names=_select(split, _capitalised(_invented("first", 3, 7))),
        last_names=_select(split, _capitalised(_invented("last", 4, 8))),
        cities=_select(split, _capitalised(_city_words())),
        domains=_select(split, _invented("domain", 4, 7)),
        services=_select(split, _invented("service", 3, 6)),
        products=_select(split, _invented("product", 3, 7)),
        nouns=_select(split, NOUNS),
    )


def _select(split: Split, vocabulary: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in vocabulary if split_of(word) == split)


def _capitalised(vocabulary: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.capitalize() for word in vocabulary)


@functools.cache
def _invented(category: str, min_length: int, max_length: int) -> tuple[str, ...]:
    """Return `_NUM_WORDS` distinct words of `min_length` to `max_length` letters."""
    rng = random.Random(f"{_SEED}/{category}")
    invented: dict[str, None] = {}
    while len(invented) < _NUM_WORDS:
        word = _word(rng, num_syllables=rng.choice((1, 2, 2, 2, 3)))
        if min_length <= len(word) <= max_length and not any(part in word for part in _BLOCKED):
            invented[word] = None
    return tuple(invented)


@functools.cache
def _city_words() -> tuple[str, ...]:
    rng = random.Random(f"{_SEED}/city")
    stems = _invented("city", 3, 6)
    return tuple(
        stem if len(stem) > 4 or rng.random() < 0.2 else stem + rng.choice(_CITY_ENDINGS)
        for stem in stems
    )


def _word(rng: random.Random, num_syllables: int) -> str:
    word = ""
    for index in range(num_syllables):
        word += rng.choice(_ONSETS) + rng.choice(_NUCLEI)
        if index == num_syllables - 1 and rng.random() < 0.5:
            word += rng.choice(_FINAL_CODAS)
        elif index < num_syllables - 1 and rng.random() < 0.25:
            word += rng.choice(_INNER_CODAS)
    return word
