"""The PEFT adapters that are kept as golden files: a base model, a configuration, a name each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import peft
import transformers

Task = Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "FEATURE_EXTRACTION"]
NUM_LABELS = 3
NUM_TASKS = 3
AUTO_MODELS = {
    "CAUSAL_LM": transformers.AutoModelForCausalLM,
    "SEQ_2_SEQ_LM": transformers.AutoModelForSeq2SeqLM,
    "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    "FEATURE_EXTRACTION": transformers.AutoModel,
}


@dataclass(frozen=True)
class Case:
    """One adapter: ``make`` gives its configuration for the backbone ``family``."""

    family: str
    task: Task
    make: Callable[[], Any]
    dtype: str = "float32"


def _lora(**values: Any) -> Callable[[], Any]:
    return lambda: peft.LoraConfig(**({"r": 4, "lora_alpha": 8} | values))


def _ia3(targets: list[str], feed_forward: list[str]) -> Callable[[], Any]:
    return lambda: peft.IA3Config(target_modules=targets, feedforward_modules=feed_forward)


def _poly(targets: list[str], num_heads: int) -> Callable[[], Any]:
    return lambda: peft.PolyConfig(
        r=2, n_tasks=NUM_TASKS, n_skills=4, n_splits=num_heads, target_modules=targets
    )


def _prompt(**values: Any) -> Callable[[], Any]:
    return lambda: peft.PromptTuningConfig(num_virtual_tokens=3, **values)


def _p_tuning(**values: Any) -> Callable[[], Any]:
    return lambda: peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=16, **values)


def _prefix(**values: Any) -> Callable[[], Any]:
    return lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, **values)


def _norms(**values: Any) -> Callable[[], Any]:
    return lambda: peft.LNTuningConfig(**values)


def _adalora(targets: list[str], **values: Any) -> Callable[[], Any]:
    return lambda: peft.AdaLoraConfig(
        init_r=3, target_r=2, lora_alpha=6, total_step=10, target_modules=targets, **values
    )


_PRUNED = {
    "model.layers.0.self_attn.q_proj.lora_E": [True, False, True],
    "model.layers.0.mlp.up_proj.lora_E": [False, False, True],
    "model.layers.1.self_attn.q_proj.lora_E": [False, False, False],
    "model.layers.1.mlp.up_proj.lora_E": [True, True, True],
}


_MIXED = {
    "target_modules": "all-linear",
    "rank_pattern": {r"layers\.0\.self_attn\.(q|v)_proj": 2, "down_proj": 3},
    "alpha_pattern": {r"^model\.layers\.1\..*_proj$": 5, "layers.0.mlp.up_proj": 64},
}

CASES: dict[str, Case] = {
    "llama-lora": Case("llama", "CAUSAL_LM", _lora(target_modules=["q_proj", "v_proj"])),
    "llama-lora-patterns": Case("llama", "CAUSAL_LM", _lora(**_MIXED)),
    "llama-lora-rslora": Case("llama", "CAUSAL_LM", _lora(use_rslora=True, **_MIXED)),
    "llama-lora-layers": Case(
        "llama",
        "CAUSAL_LM",
        _lora(target_modules=["k_proj", "up_proj"], layers_to_transform=[1]),
    ),
    "llama-lora-bias": Case(
        "llama", "CAUSAL_LM", _lora(target_modules=["q_proj", "down_proj"], lora_bias=True)
    ),
    "llama-lora-bf16": Case("llama", "CAUSAL_LM", _lora(target_modules=["o_proj"]), "bfloat16"),
    "llama-lora-score": Case("llama", "SEQ_CLS", _lora(target_modules=["q_proj", "v_proj"])),
    "qwen2-lora": Case("qwen2", "CAUSAL_LM", _lora(target_modules="all-linear", bias="lora_only")),
    "gemma-lora": Case("gemma", "CAUSAL_LM", _lora(target_modules=["k_proj", "gate_proj"])),
    "qwen2-lora-biases": Case(
        "qwen2",
        "CAUSAL_LM",
        _lora(target_modules=["q_proj", "up_proj"], bias="lora_only", lora_bias=True),
    ),
    "llama-lora-norms": Case(
        "llama",
        "CAUSAL_LM",
        _lora(target_modules=["v_proj"], modules_to_save=["input_layernorm", "norm"]),
    ),
    "gpt2-lora": Case(
        "gpt2",
        "CAUSAL_LM",
        _lora(target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True),
    ),
    "t5-lora": Case(
        "t5", "SEQ_2_SEQ_LM", _lora(target_modules=r".*(SelfAttention\.q|DenseReluDense\.wo)")
    ),
    "bart-lora": Case(
        "bart", "SEQ_2_SEQ_LM", _lora(target_modules=["q_proj", "v_proj", "fc1"], bias="all")
    ),
    "bert-lora": Case("bert", "FEATURE_EXTRACTION", _lora(target_modules=["query", "value"])),
    "bert-lora-classifier": Case(
        "bert", "SEQ_CLS", _lora(target_modules=["query", "output.dense"], bias="lora_only")
    ),
    "roberta-lora-classifier": Case(
        "roberta", "SEQ_CLS", _lora(target_modules=["query", "value"], use_rslora=True)
    ),
    "roberta-lora-biases": Case(
        "roberta", "SEQ_CLS", _lora(target_modules=["query", "output.dense"], bias="all")
    ),
    "llama-ia3": Case("llama", "CAUSAL_LM", _ia3(["k_proj", "v_proj", "down_proj"], ["down_proj"])),
    "gpt2-ia3": Case("gpt2", "CAUSAL_LM", _ia3(["c_attn", "mlp.c_proj"], ["mlp.c_proj"])),
    "t5-ia3": Case("t5", "SEQ_2_SEQ_LM", _ia3(["k", "v", "wo"], ["wo"])),
    "bart-ia3": Case("bart", "SEQ_2_SEQ_LM", _ia3(["k_proj", "v_proj", "fc2"], ["fc2"])),
    "bert-ia3-classifier": Case(
        "bert", "SEQ_CLS", _ia3(["key", "value", "output.dense"], ["output.dense"])
    ),
    "llama-prompt": Case("llama", "CAUSAL_LM", _prompt()),
    "gemma-prompt": Case("gemma", "CAUSAL_LM", _prompt()),
    "gpt2-prompt": Case("gpt2", "CAUSAL_LM", _prompt()),
    "t5-prompt": Case("t5", "SEQ_2_SEQ_LM", _prompt()),
    "bart-prompt": Case("bart", "SEQ_2_SEQ_LM", _prompt()),
    "bert-prompt": Case("bert", "FEATURE_EXTRACTION", _prompt()),
    "bert-prompt-classifier": Case("bert", "SEQ_CLS", _prompt()),
    "roberta-prompt": Case("roberta", "FEATURE_EXTRACTION", _prompt()),
    "llama-ptuning": Case("llama", "CAUSAL_LM", _p_tuning()),
    "gpt2-ptuning": Case("gpt2", "CAUSAL_LM", _p_tuning(encoder_reparameterization_type="LSTM")),
    "t5-ptuning": Case("t5", "SEQ_2_SEQ_LM", _p_tuning()),
    "llama-prefix": Case("llama", "CAUSAL_LM", _prefix()),
    "llama-prefix-projection": Case(
        "llama", "CAUSAL_LM", _prefix(prefix_projection=True, encoder_hidden_size=24)
    ),
    "qwen2-prefix": Case("qwen2", "CAUSAL_LM", _prefix()),
    "gemma-prefix": Case("gemma", "CAUSAL_LM", _prefix()),
    "gpt2-prefix": Case("gpt2", "CAUSAL_LM", _prefix()),
    "t5-prefix": Case("t5", "SEQ_2_SEQ_LM", _prefix()),
    "bart-prefix": Case("bart", "SEQ_2_SEQ_LM", _prefix()),
    "bert-prefix": Case("bert", "FEATURE_EXTRACTION", _prefix()),
    "bert-prefix-classifier": Case("bert", "SEQ_CLS", _prefix()),
    "t5-poly": Case("t5", "SEQ_2_SEQ_LM", _poly(["q", "v", "wo"], 1)),
    "t5-poly-heads": Case("t5", "SEQ_2_SEQ_LM", _poly(["q", "v"], 4)),
    "llama-poly": Case("llama", "CAUSAL_LM", _poly(["q_proj", "v_proj", "down_proj"], 2)),
    "bert-poly-classifier": Case("bert", "SEQ_CLS", _poly(["query", "value"], 2)),
    "llama-norms": Case("llama", "CAUSAL_LM", _norms()),
    "gpt2-norms": Case("gpt2", "CAUSAL_LM", _norms(target_modules=["ln_1", "ln_2", "ln_f"])),
    "t5-norms": Case("t5", "SEQ_2_SEQ_LM", _norms()),
    "bert-norms-classifier": Case("bert", "SEQ_CLS", _norms(target_modules=["LayerNorm"])),
    "t5-adalora": Case("t5", "SEQ_2_SEQ_LM", _adalora(["q", "wo"])),
    "llama-adalora-pruned": Case(
        "llama", "CAUSAL_LM", _adalora(["q_proj", "up_proj"], rank_pattern=_PRUNED)
    ),
    "llama-adalora": Case("llama", "CAUSAL_LM", _adalora(["q_proj", "up_proj"])),
}
