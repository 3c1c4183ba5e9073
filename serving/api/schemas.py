"""Bodies of requests. Unknown fields are refused; fields that are accepted and ignored say so."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, field_validator, model_validator

from adapters_store.formats import ImportOptions
from adapters_store.manifest import Task, TaskSignature
from serving.api.fields import Body, Count, TokenIds, Weight
from serving.api.sampling_body import SamplingBody

_SIGNATURE = "ed25519:<key>:<signature> over the artefact's digest."


class StreamOptions(Body):
    """``include_usage`` adds one last chunk with the usage of the whole request."""

    include_usage: bool = False
    include_obfuscation: bool = Field(default=False, description="Accepted and ignored.")


class OutputsBody(SamplingBody):
    """How many outputs, of which model, whole or streamed.

    ``model`` holds a reference or a served backbone's name.
    """

    model: str = Field(min_length=1, max_length=400)
    n: int = Field(default=1, ge=1, le=64)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, description="Accepted and ignored.")
    metadata: dict[str, Any] | None = Field(default=None, description="Accepted and ignored.")

    @model_validator(mode="after")
    def _outputs(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        if self.beams > 1 and self.n > self.beams:
            raise ValueError("n is at most num_beams in a beam search")
        return self


class CompletionBody(OutputsBody):
    """OpenAI's completion request.

    Text prompts of a task are put into its prompt template; token ids are taken as they are.
    """

    prompt: (
        str
        | TokenIds
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TokenIds], Field(min_length=1)]
    )
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False
    best_of: int | None = Field(
        default=None, ge=1, le=64, description="Outputs of which the likeliest n are given."
    )
    suffix: str | None = Field(default=None, description="Not supported; leave it out.")

    @field_validator("suffix")
    @classmethod
    def _is_absent(cls, value: str | None) -> str | None:
        if value:
            raise ValueError("this server does not support the field; leave it out")
        return value

    @model_validator(mode="after")
    def _candidates(self) -> Self:
        if self.best_of is None:
            return self
        if self.best_of < self.n:
            raise ValueError("best_of must be at least n")
        if self.best_of > self.n and (self.stream or self.beams > 1):
            raise ValueError("best_of cannot be combined with stream or num_beams")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Every prompt: texts, or lists of token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        texts_or_ids: list[Any] = list(self.prompt)
        return [texts_or_ids] if isinstance(texts_or_ids[0], int) else texts_or_ids


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatBody(OutputsBody):
    """OpenAI's chat request; ``max_completion_tokens`` is another name of ``max_tokens``."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.max_completion_tokens is not None:
            if self.max_tokens not in (None, self.max_completion_tokens):
                raise ValueError("max_tokens and max_completion_tokens differ")
            self.max_tokens = self.max_completion_tokens
        return self


class PredictBody(Body):
    """Inputs of a task, each answered on its own, with sampling parameters for text tasks."""

    inputs: Annotated[list[str], Field(min_length=1)]
    parameters: SamplingBody = SamplingBody()


class ImportFields(Body):
    """What a source does not say of itself; an artefact of this product says everything.

    ``backbone`` is a served model name; it may be left out where one backbone is served.
    """

    backbone: str | None = Field(default=None, max_length=100)
    task: Task | None = Field(default=None, description="Default: by backbone and head.")
    labels: tuple[str, ...] = Field(default=(), description="Names of the head's rows.")
    description: str = ""
    prompt_template: str = "{input}"
    max_input_tokens: int = Field(default=512, ge=1)
    max_output_tokens: int = Field(default=128, ge=1)
    poly_task: int | None = Field(
        default=None, ge=0, description="One task of a Poly checkpoint, as a plain adapter."
    )

    @property
    def options(self) -> ImportOptions:
        """The same for the importer."""
        values = {name: getattr(self, name) for name in ImportFields.model_fields}
        del values["backbone"]
        return ImportOptions(**values)


class UploadFields(ImportFields):
    """The texts of a form that registers uploaded files."""

    name: str = Field(max_length=200, description="tenant/name")
    aliases: list[str] = Field(default=["prod"], max_length=16)
    signature: str | None = Field(default=None, max_length=1000, description=_SIGNATURE)


class InspectBody(ImportFields):
    """Inspect an adapter that lies within the server's ``sources``."""

    source: str = Field(description="file://, s3:// or hf:// address", max_length=4000)


class SourceBody(UploadFields):
    """Register an adapter that lies within the server's ``sources``."""

    source: str = Field(description="file://, s3:// or hf:// address", max_length=4000)


class RoutingBody(Body):
    """Register a task as a routing vector over a published bank.

    ``bank`` is the bank's artefact digest or a reference to it; ``weights`` are (S, H, K): the
    bank's sites in its order, heads, skills. Weights are taken as they are, after the gate.
    """

    name: str = Field(max_length=200)
    bank: str = Field(max_length=400)
    weights: list[list[list[Weight]]]
    signature: TaskSignature
    aliases: list[str] = Field(default=["prod"], max_length=16)
    manifest_signature: str | None = Field(default=None, max_length=1000, description=_SIGNATURE)
    provenance: dict[str, Any] = Field(default_factory=dict)


class AliasBody(Body):
    """Point an alias at a version; with ``expected_version`` only if it points there now.

    ``expected_version`` 0 expects that the alias does not exist.
    """

    version: int = Field(ge=1)
    expected_version: int | None = Field(default=None, ge=0)
    reason: str = Field(default="", max_length=1000)
    evidence: list[StrictInt] = Field(
        default=[], max_length=64, description="Ids of evaluations that speak for the move."
    )


class TagBody(Body):
    """A tag's value."""

    value: str


class EvaluationBody(Body):
    """One measured number; ``data_digest`` is of the examples, ``num_examples`` counts them."""

    metric: str
    value: Annotated[float, Field(allow_inf_nan=False)]
    split: str = "test"
    data_digest: str | None = None
    num_examples: StrictInt | None = None
    seed: StrictInt | None = None
    notes: str = ""


class PinBody(Body):
    """Who keeps a version's content, and why."""

    owner: str = Field(min_length=1)
    reason: str = ""
