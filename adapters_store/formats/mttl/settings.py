"""Options of mttl that change what a checkpoint computes; those of data and optimiser do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters_store.formats.options import accept, convert, reject

Count = Annotated[int, Field(strict=True, ge=1, le=2**20)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Names = Annotated[list[str], Field(max_length=100_000)]
_PREFIXES = ("lora_", "poly_", "router_", "module_logits_", "n_", "tie_", "modify_", "patch_")
_OLD_NAMES = {"poly_granularity": "router_granularity", "poly_selector": "router_selector"}


class Settings(BaseModel):
    """Options of every LoRA."""

    model_config = ConfigDict(frozen=True, extra="allow")
    lora_rank: Annotated[Count, convert("checked against the tensors")]
    lora_dropout: Annotated[Any, accept("concerns training")] = None
    lora_init_b_random: Annotated[Any, accept("concerns training")] = None
    modify_modules: Annotated[Any, accept("the tensors decide")] = None
    modify_layers: Annotated[Any, accept("the tensors decide")] = None
    tie_params: Annotated[Any, reject("saves one tensor for several modules")] = None


class ReleaseSettings(Settings):
    """The paper's release."""

    model_modifier: Annotated[str, convert("chooses the method")]
    lora_alpha: Annotated[
        Number, convert("scale alpha / rank; 1 where a checkpoint is older than the option")
    ] = 1.0
    n_tasks: Annotated[Count | None, convert("one routing per task; the tensors decide")] = None
    n_skills: Annotated[Count, convert("skills of the bank")] = 1
    n_splits: Annotated[Count, convert("heads of the bank")] = 1
    adapter_type: Annotated[
        Literal["lora", ""] | None, convert("IA3 banks are refused: a bank mixes LoRA factors")
    ] = None
    router_selector: Annotated[
        Literal["poly", "private", "average", ""] | None,
        convert("learnt logits, each task its own skill, or the uniform average"),
    ] = None
    router_granularity: Annotated[
        Literal["finegrained", "layerwise", "blockwise", "coderwise", "coarsegrained"],
        convert("which modules share a selector; also as poly_granularity"),
    ] = "finegrained"
    module_logits_relaxed_bernoulli: Annotated[Any, accept("concerns training")] = None
    module_logits_straight_through: Annotated[Flag, convert("gates are rounded")] = False
    module_logits_dropout: Annotated[
        Number, convert("must be 0: it drops gates outside training too")
    ] = 0.0
    module_logits_l2_norm: Annotated[Any, reject("gives weights that may be negative")] = None
    poly_average_correction: Annotated[
        Flag, convert("gates times sqrt(heads / skills) in place of their normalisation")
    ] = False
    poly_use_shared_skill: Annotated[Flag, convert("the last skill's gate is 1")] = False
    lora_warmup: Annotated[
        Any, reject("scales the update by a count of steps that is not saved")
    ] = None
    lora_scaling_rank: Annotated[Any, reject("multiplies further vectors into the update")] = 0
    lora_randb_init: Annotated[Any, accept("concerns training")] = None
    lora_init_scale: Annotated[Any, accept("concerns training")] = None
    lora_kaiming_init: Annotated[Any, accept("concerns training")] = None
    lora_modules: Annotated[Any, accept("the tensors decide")] = None
    lora_layers: Annotated[Any, accept("the tensors decide")] = None
    patch_modules: Annotated[Any, accept("the tensors decide")] = None
    patch_layers: Annotated[Any, accept("the tensors decide")] = None
    patch_last_k_layers: Annotated[Any, accept("concerns soft prompts")] = None
    module_logits_learning_rate: Annotated[Any, accept("concerns training")] = None
    router_learning_rate: Annotated[Any, accept("concerns training")] = None
    router_weight_decay: Annotated[Any, accept("concerns training")] = None
    router_selector_cluster_temp: Annotated[Any, accept("concerns another selector")] = None
    poly_selector_cluster_temp: Annotated[Any, accept("concerns another selector")] = None
    poly_unlikely_loss: Annotated[Any, accept("concerns training")] = None
    task_names: Annotated[Names | None, convert("names of the rows of logits")] = None


class ExpertSettings(Settings):
    """An expert's LoRA, in libraries and models of the main branch."""

    lora_alpha: Annotated[Number, convert("scale alpha / rank")] = 16.0
    n_skills: Annotated[Count, convert("skills of a skilled LoRA")] = 1
    n_splits: Annotated[Count, convert("heads of a skilled LoRA")] = 1
    class_name: Annotated[Any, convert("chooses the method; never imported")] = None


class SelectorSettings(BaseModel):
    """The Poly selector of a model of the main branch."""

    model_config = ConfigDict(frozen=True, extra="allow")
    class_name: Annotated[Any, convert("chooses the selector; never imported")] = None
    router_granularity: Annotated[
        str,
        Field(min_length=1, max_length=200),
        convert("`*`, `finegrained`, `coarsegrained` or part of a path"),
    ] = "*"
    n_splits: Annotated[Count, convert("heads of the bank")] = 1
    task_names: Annotated[
        Names | None, convert("one routing each, and one for tasks that are not known")
    ] = None
    lora_merge_after: Annotated[Any, reject("mixes outputs in place of factors")] = None
    selector_logging: Annotated[Any, accept("concerns training")] = None
    num_experts: Annotated[Any, accept("the tensors decide")] = None


def relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a whole training configuration that could change what a model computes."""
    known = {**ReleaseSettings.model_fields, **ExpertSettings.model_fields}
    renamed = {_OLD_NAMES.get(name, name): value for name, value in config.items()}
    if isinstance(renamed.get("finegrained"), bool) and "router_granularity" not in renamed:
        renamed["router_granularity"] = "finegrained" if renamed["finegrained"] else "coarsegrained"
    return {
        name: value
        for name, value in renamed.items()
        if name in known or name.startswith(_PREFIXES)
    }
