"""A run's whole configuration, typed; a recipe file is this record in YAML."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from adapters_store.errors import UsageError
from training.sources.sections import Section, faults, one_line
from training.sources.sections import TasksSection as TasksSection

ObjectiveName = Literal["text2text", "classification", "choice"]
LongInput = Literal["error", "cut", "drop"]
Keep = Literal["last", "best"]


class BackboneSection(Section):
    """Where the backbone comes from: a folder or hub name, or ``scratch`` model settings.

    ``tokenizer`` names a folder, a hub name, or ``bytes`` (one token per UTF-8 byte, ByT5's ids).
    ``local_bias_peak`` starts some heads of a relative-bias model on neighbouring tokens.
    """

    source: str | None = None
    scratch: dict[str, Any] | None = None
    tokenizer: str | None = None
    is_trained: bool = False
    local_bias_peak: float | None = Field(default=None, gt=0)


class MethodSection(Section):
    """The method and its sizes; ``sites`` are shell patterns over site names or roles.

    ``start`` is a folder to begin with: an artefact, or an earlier run. A bank goes on with that
    bank's skills, LoRA and IA3 begin at their uniform average.
    """

    name: str = "mhr"
    rank: int = Field(default=8, ge=1)
    alpha: float | None = None
    num_skills: int = Field(default=8, ge=1)
    num_heads: int = Field(default=4, ge=1)
    is_private: bool = False
    gate: Literal["sigmoid", "softmax", "relaxed_bernoulli", "straight_through"] = "sigmoid"
    granularity: Literal["site", "block", "layer", "stack", "global"] = "site"
    has_random_routing: bool = False
    embedding_size: int = Field(default=16, ge=1)
    side: Literal["input", "output"] | None = None
    sites: tuple[str, ...] = ("all",)
    start: str | None = None


class TrainSection(Section):
    """The optimisation: AdamW in up to three groups, linear warm-up, then linear decay to zero.

    A step's ``rows_per_step`` rows are shared out among the workers; each runs its share at most
    ``rows_per_device`` rows at a time, all at once by default. Neither changes the losses.
    ``keep`` says which weights stand for the run: the last, or those of the best mean score on dev,
    which ``eval_every`` measures. ``alignment_every`` measures the gradient alignment of
    ``alignment_tasks`` tasks on the first ``alignment_rows`` training rows of each.
    """

    steps: int = Field(default=1000, ge=1)
    rows_per_step: int = Field(default=32, ge=1)
    rows_per_device: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    router_learning_rate: float = Field(default=0.1, gt=0)
    backbone_learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    curriculum_steps: int = Field(default=0, ge=0)
    warmup_ratio: float = Field(default=0.06, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = 0
    log_every: int = Field(default=50, ge=1)
    save_every: int = Field(default=500, ge=1)
    eval_every: int | None = Field(default=None, ge=1)
    eval_examples: int = Field(default=16, ge=1)
    keep: Keep = "last"
    alignment_every: int | None = Field(default=None, ge=1)
    alignment_tasks: int = Field(default=16, ge=2)
    alignment_rows: int = Field(default=8, ge=1)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"


class Recipe(Section):
    """One training run. Every field has its default here; unknown fields are errors.

    ``metric`` is a row of :data:`~training.metrics.METRICS`, by which dev is scored.
    ``on_long_input`` says what becomes of rows over the token limits; by default they are refused,
    but classification cuts inputs. What is cut or left out is counted and told.
    """

    name: str
    objective: ObjectiveName = "text2text"
    metric: str = "exact_match"
    max_input_tokens: int = Field(default=128, ge=1)
    max_output_tokens: int = Field(default=64, ge=1)
    on_long_input: LongInput | None = None
    backbone: BackboneSection
    tasks: TasksSection = TasksSection()
    method: MethodSection = MethodSection()
    train: TrainSection = TrainSection()


def parse_recipe(content: Any, where: str) -> Recipe:
    """A recipe from plain data; raises :class:`UsageError` that lists every bad field at once."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        found = faults(error)
        raise UsageError(f"{where} has {len(found)} fault(s): " + "; ".join(found)) from error


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe file; ``settings`` such as ``train.steps=10`` replace single fields.

    Raises :class:`UsageError` for an unreadable file, a bad setting or a bad field.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {one_line(error)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no mapping of fields")
    for setting in settings:
        _replace(content, setting)
    where = f"{path} with {', '.join(settings)}" if settings else str(path)
    return parse_recipe(content, where)


def _replace(content: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UsageError(f"setting {setting!r}; expected key=value, such as train.steps=100")
    *path, last = key.split(".")
    for step in path:
        inner = content.setdefault(step, {})
        if not isinstance(inner, dict):
            raise UsageError(f"setting {setting!r}: {step} is no section")
        content = inner
    try:
        content[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(
            f"setting {setting!r} has a value that is not YAML: {one_line(error)}"
        ) from error


def packaged_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(__file__).parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file of a packaged recipe's name or of a path; raises :class:`UsageError`."""
    packaged = packaged_recipes()
    if name in packaged:
        return packaged[name]
    if Path(name).is_file():
        return Path(name)
    near = difflib.get_close_matches(name, packaged, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"no recipe {name!r}: neither a file nor one of {', '.join(packaged)}{guess}",
        hint="Give the path of a YAML file, or a name that `patchbay train ls` lists.",
    )
