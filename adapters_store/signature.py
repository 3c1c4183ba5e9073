"""What a task takes and gives: the typed front of an artefact."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters_store.primitives.part import Count

Task = Literal["text2text", "classification", "embedding"]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=20_000)]


class Example(BaseModel):
    """One input with the output that the task gives for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input: Text
    output: Text


class TaskSignature(BaseModel):
    """Task, labels in the order of the head's rows, prompt template and limits in tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: Task
    labels: Annotated[tuple[Label, ...], Field(max_length=10_000)] = ()
    prompt_template: Text = "{input}"
    description: Text = ""
    examples: Annotated[tuple[Example, ...], Field(max_length=5)] = ()
    max_input_tokens: Count = 512
    max_output_tokens: Count = 128

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.prompt_template.count("{input}") != 1:
            raise ValueError("prompt_template must hold {input} exactly once")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from each other")
        return self

    def render(self, text: str) -> str:
        """The prompt for one input."""
        return self.prompt_template.replace("{input}", text)
