"""``adapter_config.json`` by method: every option, its type, its default and what it means here.

An option that no model here names may only hold nothing. See :mod:`adapters_store.formats.options`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters_store.formats.options import accept as _accept
from adapters_store.formats.options import convert as _convert
from adapters_store.formats.options import reject as _reject

TaskType = Literal[
    "SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"
]
Names = str | Annotated[list[str], Field(max_length=5000)] | None
Count = Annotated[int, Field(strict=True, ge=1, le=2**20)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]


class Settings(BaseModel):
    """Options that every method has."""

    model_config = ConfigDict(frozen=True, extra="allow")
    peft_type: Annotated[str, _convert("chooses the method")]
    task_type: Annotated[
        TaskType | None, _convert("SEQ_CLS needs the saved classifier, which becomes the head")
    ] = None
    base_model_name_or_path: Annotated[
        str | None, _accept("kept as a note; the backbone's fingerprint is the identity")
    ] = None
    revision: Annotated[str | None, _accept("of the base model; see there")] = None
    inference_mode: Annotated[bool | None, _accept("concerns training")] = None
    auto_mapping: Annotated[Any, _accept("names a class, which is not imported")] = None
    peft_version: Annotated[str | None, _accept("kept in the source's own file")] = None
    modules_to_save: Annotated[
        Names,
        _convert(
            "a classifier becomes the head, norms overrides; others are rejected with their size"
        ),
    ] = None


class TargetSettings(Settings):
    """Options of methods that name the modules they act on."""

    target_modules: Annotated[
        Names,
        _accept("the tensors decide; what the targets do not explain, and the reverse, is noted"),
    ] = None
    exclude_modules: Annotated[Names, _accept("as target_modules")] = None


class FactorSettings(TargetSettings):
    """Options that LoRA and AdaLoRA share."""

    bias: Annotated[
        Literal["none", "all", "lora_only"], _convert("saved biases replace the backbone's")
    ] = "none"
    fan_in_fan_out: Annotated[Flag, _accept("concerns merging; kept as a note")] = False
    lora_dropout: Annotated[Number, _accept("concerns training")] = 0.0
    layers_to_transform: Annotated[int | list[int] | None, _accept("as target_modules")] = None
    layers_pattern: Annotated[Names, _accept("as target_modules")] = None
    init_lora_weights: Annotated[
        bool | str | None,
        _convert("initialisations that change the base model's weights are rejected"),
    ] = True
    loftq_config: Annotated[Any, _accept("see init_lora_weights")] = None
    eva_config: Annotated[Any, _accept("see init_lora_weights")] = None
    corda_config: Annotated[Any, _accept("see init_lora_weights")] = None
    lora_ga_config: Annotated[Any, _accept("see init_lora_weights")] = None
    ensure_weight_tying: Annotated[
        Any, _accept("concerns embeddings, which are rejected where they are adapted")
    ] = None
    megatron_core: Annotated[Any, _accept("concerns megatron_config")] = None
    qalora_group_size: Annotated[Any, _accept("concerns use_qalora")] = None
    use_dora: Annotated[Any, _reject("learns the magnitude of merged columns (DoRA)")] = None
    layer_replication: Annotated[Any, _reject("builds another model out of repeated layers")] = None
    target_parameters: Annotated[Any, _reject("adapts bare parameters, such as experts")] = None
    trainable_token_indices: Annotated[Any, _reject("changes rows of the embedding")] = None
    alora_invocation_tokens: Annotated[Any, _reject("acts behind an invocation only")] = None
    use_qalora: Annotated[Any, _reject("pools the input by groups")] = None
    use_bdlora: Annotated[Any, _reject("has block-diagonal factors")] = None
    kasa_config: Annotated[Any, _reject("truncates the base model's weights")] = None
    monteclora_config: Annotated[Any, _reject("samples its factors")] = None
    arrow_config: Annotated[Any, _reject("routes between other adapters")] = None
    velora_config: Annotated[Any, _reject("saves tensors of its own")] = None
    megatron_config: Annotated[Any, _reject("needs Megatron's parallel layers")] = None


class LoraSettings(FactorSettings):
    """LoRA."""

    r: Annotated[Count, _convert("checked against the tensors, whose rank is the truth")] = 8
    lora_alpha: Annotated[Number, _convert("scale alpha / r")] = 8
    use_rslora: Annotated[Flag, _convert("scale alpha / sqrt(r)")] = False
    rank_pattern: Annotated[
        dict[str, Count] | None, _convert("the rank of modules that a pattern matches")
    ] = None
    alpha_pattern: Annotated[
        dict[str, Number] | None, _convert("the alpha of modules that a pattern matches")
    ] = None
    lora_bias: Annotated[Flag, _convert("added to the site's bias, times the scale")] = False


class AdaLoraSettings(FactorSettings):
    """AdaLoRA."""

    r: Annotated[Any, _accept("unused by AdaLoRA")] = None
    use_rslora: Annotated[Any, _reject("is not defined for AdaLoRA")] = None
    rank_pattern: Annotated[
        dict[str, list[Flag]] | None, _convert("explains ranks below init_r; already applied")
    ] = None
    alpha_pattern: Annotated[Any, _reject("is not defined for AdaLoRA")] = None
    lora_bias: Annotated[Any, _reject("is not defined for AdaLoRA")] = None
    lora_alpha: Annotated[
        Number, Field(gt=0), _convert("scale alpha / (init_r + 1e-5), for pruned modules too")
    ] = 8
    init_r: Annotated[Count, _convert("see lora_alpha; checked against the tensors")] = 12
    target_r: Annotated[Any, _accept("concerns training")] = None
    tinit: Annotated[Any, _accept("concerns training")] = None
    tfinal: Annotated[Any, _accept("concerns training")] = None
    delta_t: Annotated[Any, Field(alias="deltaT"), _accept("concerns training")] = None
    beta1: Annotated[Any, _accept("concerns training")] = None
    beta2: Annotated[Any, _accept("concerns training")] = None
    orth_reg_weight: Annotated[Any, _accept("concerns training")] = None
    total_step: Annotated[Any, _accept("concerns training")] = None


class Ia3Settings(TargetSettings):
    """IA3."""

    feedforward_modules: Annotated[
        Names, _convert("these modules' inputs are scaled, all others' outputs")
    ] = None
    fan_in_fan_out: Annotated[Flag, _accept("concerns merging; kept as a note")] = False
    init_ia3_weights: Annotated[Any, _accept("concerns training")] = None


class NormSettings(TargetSettings):
    """LayerNorm tuning."""


class PolySettings(TargetSettings):
    """Poly and multi-head routing."""

    r: Annotated[Count, _convert("scale 1 / r; checked against the tensors")] = 8
    n_tasks: Annotated[Count, _convert("one routing per task")] = 1
    n_skills: Annotated[Count, _convert("skills of the bank")] = 4
    n_splits: Annotated[Count, _convert("heads of the bank")] = 1
    poly_type: Annotated[Literal["poly"], _convert("weights are normalised sigmoids")] = "poly"
    init_weights: Annotated[Any, _accept("concerns training")] = None


class PromptLearningSettings(Settings):
    """Methods that learn virtual tokens."""

    num_virtual_tokens: Annotated[Count, _convert("the number of rows")]
    num_transformer_submodules: Annotated[
        Literal[1, 2] | None,
        _convert("PEFT reads the first submodule's rows alone, and so does the import"),
    ] = None
    token_dim: Annotated[Count | None, _convert("checked against the backbone")] = None
    num_attention_heads: Annotated[Count | None, _convert("checked against the backbone")] = None
    num_layers: Annotated[Count | None, _convert("checked against the backbone")] = None


class PromptTuningSettings(PromptLearningSettings):
    """Prompt tuning."""

    prompt_tuning_init: Annotated[Any, _accept("concerns training")] = None
    prompt_tuning_init_text: Annotated[Any, _accept("concerns training")] = None
    tokenizer_name_or_path: Annotated[Any, _accept("concerns training; never loaded")] = None
    tokenizer_kwargs: Annotated[Any, _accept("concerns training; never used")] = None


class PTuningSettings(PromptLearningSettings):
    """P-tuning; its encoder is not saved, only the rows that it gave."""

    encoder_reparameterization_type: Annotated[Any, _accept("concerns training")] = None
    encoder_hidden_size: Annotated[Any, _accept("concerns training")] = None
    encoder_num_layers: Annotated[Any, _accept("concerns training")] = None
    encoder_dropout: Annotated[Any, _accept("concerns training")] = None


class PrefixTuningSettings(PromptLearningSettings):
    """Prefix tuning; a projection is not saved, only the rows that it gave."""

    prefix_projection: Annotated[Any, _accept("already applied to the saved rows")] = None
    encoder_hidden_size: Annotated[Any, _accept("concerns training")] = None
    init_weights: Annotated[Any, _accept("concerns training")] = None


SETTINGS: dict[str, type[Settings]] = {
    "LORA": LoraSettings,
    "ADALORA": AdaLoraSettings,
    "IA3": Ia3Settings,
    "LN_TUNING": NormSettings,
    "PROMPT_TUNING": PromptTuningSettings,
    "P_TUNING": PTuningSettings,
    "PREFIX_TUNING": PrefixTuningSettings,
    "POLY": PolySettings,
}
"""By peft_type; the rows are those of the methods."""
