"""How a backbone's own ``generation_config.json`` wants it to write: what no request says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters_store.backbone import Backbone
from adapters_store.canonical import strict_json
from adapters_store.errors import IncompatibleError, UsageError
from serving.engine.sampling import GREEDY, Sampling

_SAME = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "forced_bos_token_id",
    "num_beams",
    "length_penalty",
    "early_stopping",
)
_TOKENS = ("suppress_tokens", "begin_suppress_tokens")

NOT_APPLIED: Mapping[str, tuple[Any, ...]] = {
    "sequence_bias": (),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "exponential_decay_length_penalty": (),
    "typical_p": (1.0,),
    "top_h": (),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
    "diversity_penalty": (0.0,),
    "num_beam_groups": (1,),
    "constraints": (),
    "force_words_ids": (),
    "stop_strings": (),
    "max_time": (),
    "token_healing": (False,),
    "renormalize_logits": (False,),
    "num_return_sequences": (1,),
}
"""What ``generate`` knows and this engine does not, with the values that change nothing."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """``values`` are fields of :class:`Sampling`; ``min_length`` counts the decoder's whole input.

    ``not_applied`` names the settings of the folder that ask for what the engine does not do.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    min_length: int = 0
    is_encoder_decoder: bool = False
    not_applied: tuple[str, ...] = ()

    def sampling(self, num_input: int, **stated: Any) -> Sampling:
        """The sampling of a request with that many input tokens that states some fields itself.

        A default that what is stated rules out gives way: beams to a temperature or to
        log-probabilities of the prompt, ``min_tokens`` to ``max_tokens``, and a forced end to
        ``ignore_eos``. Raises :class:`UsageError` as :class:`Sampling` does.
        """
        own = 1 if self.is_encoder_decoder else num_input
        values = {"min_tokens": 0, **self.values}
        values["min_tokens"] = max(values["min_tokens"], self.min_length - own)
        most = stated.get("max_tokens", GREEDY.max_tokens)
        values["min_tokens"] = min(values["min_tokens"], most)
        if stated.get("ignore_eos"):
            values.pop("forced_eos_token_ids", None)
        if stated.get("temperature") or stated.get("prompt_logprobs") is not None:
            values.pop("num_beams", None)
        values |= stated
        if values.get("num_beams", 1) > 1 and "temperature" not in stated:
            values["temperature"] = 0.0
        return Sampling(**values)


def generation_defaults(backbone: Backbone) -> Defaults:
    """The defaults of a folder: of ``generation_config.json``, else of ``config.json``.

    Lengths beyond ``min_length`` and ``min_new_tokens`` are not taken: how much is written by
    default is the task's and the server's to say. Temperature is 0 unless ``do_sample`` is set.
    Raises :class:`IncompatibleError` for values that are impossible, InvalidArtefactError for a
    file that is not JSON.
    """
    path = backbone.folder / "generation_config.json"
    document: Mapping[str, Any] = backbone.config
    if path.is_file():
        read = strict_json(path.read_bytes(), f"{path}")
        document = read if isinstance(read, dict) else {}
    else:
        path = backbone.folder / "config.json"
    said = {name: value for name, value in document.items() if value is not None}
    try:
        values = _values(said)
        min_length = int(said.get("min_length", 0))
        _check(Sampling(**{"max_tokens": 2**31, **values}), backbone.architecture.vocab_size)
    except (TypeError, ValueError, UsageError) as error:
        raise IncompatibleError(
            f"the generation settings of {path} are impossible: {error}",
            hint="Correct the file; it is written by save_pretrained.",
        ) from error
    ignored = [
        name for name, neutral in NOT_APPLIED.items() if name in said and said[name] not in neutral
    ]
    if said.get("do_sample") and values.get("num_beams", 1) > 1:
        ignored.append("do_sample")
    is_encoder_decoder = backbone.architecture.is_encoder_decoder
    return Defaults(values, min_length, is_encoder_decoder, tuple(sorted(ignored)))


def _check(sampling: Sampling, vocab_size: int) -> None:
    """Raise UsageError for a token outside the vocabulary."""
    for name, tokens in sampling.token_ids.items():
        for token in tokens:
            if not 0 <= token < vocab_size:
                raise UsageError(f"{name}: token {token} is outside the vocabulary of {vocab_size}")


def _values(said: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: said[name] for name in _SAME if name in said}
    values |= {name: tuple(said[name]) for name in _TOKENS if name in said}
    if "bad_words_ids" in said:
        values["bad_words_ids"] = tuple(tuple(word) for word in said["bad_words_ids"])
    if "min_new_tokens" in said:
        values["min_tokens"] = said["min_new_tokens"]
    if "forced_eos_token_id" in said:
        forced = said["forced_eos_token_id"]
        values["forced_eos_token_ids"] = tuple(forced) if isinstance(forced, list) else (forced,)
    if not said.get("do_sample") or values.get("num_beams", 1) > 1:
        values["temperature"] = 0.0
    else:
        values.setdefault("temperature", 1.0)
    return values
