"""The part of a body that says how tokens are chosen."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from serving.api.fields import Bias, Body, Count, Penalty, Stops, TokenId, TokenIds


class SamplingBody(Body):
    """How each output is chosen. What is left out is as the backbone's folder says, else neutral.

    ``temperature`` 0 is greedy.
    """

    max_tokens: Count | None = Field(default=None, description="Default: the task's own limit.")
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31, description="0 keeps all tokens.")
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    logit_bias: dict[Annotated[int, Field(ge=0, lt=2**31)], Bias] | None = Field(
        default=None, max_length=1024, description="Token id to what is added to its logit."
    )
    allowed_token_ids: list[TokenId] | None = Field(
        default=None, min_length=1, description="The only tokens that may be written."
    )
    min_tokens: int | None = Field(default=None, ge=0, description="Nothing ends an output before.")
    no_repeat_ngram_size: int | None = Field(
        default=None, ge=0, lt=2**31, description="No n-gram of this size twice; 0 allows it."
    )
    bad_words_ids: list[TokenIds] | None = Field(
        default=None, max_length=1024, description="Token sequences that are never completed."
    )
    forced_bos_token_id: TokenId | None = Field(
        default=None, description="The first token, behind an encoder."
    )
    forced_eos_token_id: TokenId | None = Field(
        default=None, description="The last token that max_tokens allows."
    )
    suppress_tokens: list[TokenId] | None = Field(
        default=None, max_length=1024, description="Never written."
    )
    begin_suppress_tokens: list[TokenId] | None = Field(
        default=None, max_length=1024, description="Not written first."
    )
    ignore_eos: bool = False
    stop: str | Stops | None = None
    stop_token_ids: list[TokenId] = Field(default=[], max_length=64)
    include_stop_str_in_output: bool = False
    num_beams: int | None = Field(default=None, ge=1, le=64, description="Above 1: beam search.")
    length_penalty: float | None = Field(default=None, ge=-10, le=10)
    early_stopping: bool | Literal["never"] | None = None

    @model_validator(mode="after")
    def _beams(self) -> Self:
        if self.beams == 1 and self.length_penalty is not None:
            raise ValueError("length_penalty needs num_beams above 1")
        if self.beams == 1 and self.early_stopping is not None:
            raise ValueError("early_stopping needs num_beams above 1")
        return self

    @property
    def beams(self) -> int:
        """Beams of each output, 1 where none are asked for."""
        return self.num_beams or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings as a sequence."""
        if isinstance(self.stop, str):
            return (self.stop,) if self.stop else ()
        return tuple(self.stop or ())

    @property
    def biases(self) -> tuple[tuple[int, float], ...]:
        """Tokens with what is added to their logits."""
        return tuple((self.logit_bias or {}).items())
