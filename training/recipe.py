"""A run's whole configuration, typed; a recipe file is this record in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters_store.errors import UsageError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneSection(_Section):
    """Where the backbone comes from: a folder or hub name, or ``scratch`` model settings.

    ``tokenizer`` names a folder, a hub name, or ``bytes`` (one token per UTF-8 byte, ByT5's ids).
    """

    source: str | None = None
    scratch: dict[str, Any] | None = None
    tokenizer: str | None = None
    is_trained: bool = False


class TasksSection(_Section):
    """Which data: the generated suite or a JSON Lines file, and how much of it."""

    source: Literal["suite", "jsonl"] = "suite"
    path: str | None = None
    names: tuple[str, ...] | None = None
    num_train: int = Field(default=10_000, ge=1)
    num_dev: int = Field(default=100, ge=0)
    num_test: int = Field(default=200, ge=0)
    has_labels: bool = False
    seed: int = 0


class MethodSection(_Section):
    """The method and its sizes; ``sites`` are shell patterns over site names or roles."""

    name: str = "mhr"
    rank: int = Field(default=8, ge=1)
    alpha: float | None = None
    num_skills: int = Field(default=8, ge=1)
    num_heads: int = Field(default=4, ge=1)
    is_private: bool = False
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    sites: tuple[str, ...] = ("all",)


class TrainSection(_Section):
    """The optimisation: AdamW in up to three groups, linear warm-up, then linear decay to zero."""

    steps: int = Field(default=1000, ge=1)
    rows_per_step: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    router_learning_rate: float = Field(default=0.1, gt=0)
    backbone_learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_ratio: float = Field(default=0.06, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = 0
    log_every: int = Field(default=50, ge=1)
    save_every: int = Field(default=500, ge=1)
    eval_every: int | None = None
    eval_examples: int = Field(default=16, ge=1)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"


class Recipe(_Section):
    """One training run. Every field has its default here; unknown fields are errors."""

    name: str
    objective: Literal["text2text", "classification"] = "text2text"
    max_input_tokens: int = Field(default=128, ge=1)
    max_output_tokens: int = Field(default=64, ge=1)
    backbone: BackboneSection
    tasks: TasksSection = TasksSection()
    method: MethodSection = MethodSection()
    train: TrainSection = TrainSection()


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; raises :class:`UsageError` that lists every bad field at once."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise UsageError(f"{path} has {len(faults)} fault(s): " + "; ".join(faults)) from error
