"""The golden adapters of ``adapters``: which backbone, which configuration, how it is saved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POST_NORM = ("bart", "bert", "roberta")
PRE_NORM = ("gpt2", "llama", "t5", "vit")
_CROSS = ("bart", "t5")
_LORA = {"r": 2, "alpha": 4, "intermediate_lora": True, "output_lora": True}
_PREFIX = {"prefix_length": 3, "bottleneck_size": 8}
_SMALL = {"reduction_factor": 8}
_ONE_LAYER = {"reduction_factor": 16, "leave_out": [0]}


@dataclass(frozen=True)
class Case:
    """``config`` is a name of the library with changed options, or a list of these for a union.

    ``loader`` is the class that loads the backbone; ``is_pickle`` saves in the library's default
    format. ``head`` are the arguments of a classification head. ``reject`` is the code of the
    reason for which an import refuses the adapter, empty where it converts.
    """

    name: str
    config: Any
    loader: str = "AutoAdapterModel"
    is_pickle: bool = False
    head: dict[str, Any] = field(default_factory=dict)
    reject: str = ""

    @property
    def backbone(self) -> str:
        """The folder's name under ``backbones``."""
        return self.name.partition("-")[0]


def _everywhere() -> Iterator[Case]:
    for backbone in (*POST_NORM, *PRE_NORM):
        cross = {"cross_adapter": True} if backbone in _CROSS else {}
        yield Case(f"{backbone}-seq_bn", ("seq_bn", _SMALL | cross))
        yield Case(f"{backbone}-double_seq_bn", ("double_seq_bn", cross), loader="AutoModel")
        yield Case(f"{backbone}-par_bn", ("par_bn", _SMALL | cross))
        yield Case(f"{backbone}-compacter", ("compacter", _SMALL))
        matrices = {"attn_matrices": ["q", "v"] if backbone == "gpt2" else ["q", "k", "v"]}
        yield Case(f"{backbone}-lora", ("lora", _LORA | matrices))
        yield Case(f"{backbone}-ia3", ("ia3", {"output_lora": True}))
        yield Case(f"{backbone}-prefix_tuning", ("prefix_tuning", _PREFIX), is_pickle=True)
    for name in ("lora", "ia3"):
        yield Case(f"gpt2-{name}_queries", (name, {"attn_matrices": ["q"]}))
    for backbone in ("bart", "llama"):
        prefix = ("prefix_tuning_flat", {"prefix_length": 3, "leave_out": [0]})
        yield Case(f"{backbone}-prefix_tuning_flat", prefix, is_pickle=True)
    partial = ("prefix_tuning_flat", {"prefix_length": 3, "leave_out": [1]})
    yield Case("t5-prefix_left_out", partial, is_pickle=True, reject="unsupported_option")
    for backbone in PRE_NORM:
        plus = {"original_ln_after": False, "residual_before_ln": False, "scaling": "channel"}
        yield Case(f"{backbone}-adapter_plus", ("seq_bn", _ONE_LAYER | plus))
    for backbone in ("bert", "roberta", "vit"):
        yield Case(f"{backbone}-prompt_tuning", ("prompt_tuning", {"prompt_length": 3}))


def _relatives() -> Iterator[Case]:
    """Types of model that share a layout with one above."""
    for backbone in ("mbart", "mistral", "mt5", "xlmr"):
        cross = {"cross_adapter": True} if backbone in ("mbart", "mt5") else {}
        config = ("double_seq_bn", {"original_ln_before": True} | cross)
        yield Case(f"{backbone}-double_seq_bn", config)
        yield Case(f"{backbone}-lora", ("lora", _LORA))
        yield Case(f"{backbone}-prefix_tuning", ("prefix_tuning", _PREFIX), is_pickle=True)


def _bottlenecks() -> Iterator[Case]:
    changes: dict[str, dict[str, Any]] = {
        "learned": {"scaling": "learned"},
        "channel": {"scaling": "channel"},
        "layers": {"reduction_factor": {"1": 4, "default": 16}, "leave_out": []},
        "reads_output": {"original_ln_before": False, "residual_before_ln": False},
    }
    for activation in ("gelu", "gelu_new", "leakyrelu", "linear", "sigmoid", "swish", "tanh"):
        changes[activation] = {"non_linearity": activation}
    for name, change in changes.items():
        yield Case(f"bert-{name}", ("seq_bn", _ONE_LAYER | change))
    ln_before = _ONE_LAYER | {"ln_before": True}
    yield Case("bert-ln_before", ("seq_bn", ln_before), is_pickle=True)
    yield Case("bert-parallel_ln_before", ("par_bn", ln_before), is_pickle=True)
    rejected: dict[str, dict[str, Any]] = {
        "gated": {"use_gating": True},
        "inverse": {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2},
        "ln_after": {"ln_after": True},
        "twice_normed": {"residual_before_ln": False},
        "behind_the_norm": {"original_ln_after": False, "residual_before_ln": False},
    }
    for name, change in rejected.items():
        config = ("seq_bn", _ONE_LAYER | change)
        yield Case(f"bert-{name}", config, reject="unsupported_option")


def _compacters() -> Iterator[Case]:
    changes: dict[str, dict[str, Any]] = {
        "own_rules": {"shared_phm_rule": False},
        "factorised_rule": {"factorized_phm_rule": True, "phm_rank": 2},
        "own_factorised_rules": {"shared_phm_rule": False, "factorized_phm_rule": True},
        "shared_matrices": {"shared_W_phm": True},
        "plain_matrices": {"factorized_phm_W": False},
        "without_bias": {"phm_bias": False},
    }
    for name, change in changes.items():
        yield Case(f"bert-compacter_{name}", ("compacter++", _SMALL | change))
    config = ("compacter++", _SMALL)
    yield Case("bert-compacter_bare", config, loader="AutoModel", reject="missing_tensor")


def _unions_and_heads() -> Iterator[Case]:
    mam = [("prefix_tuning", _PREFIX), ("par_bn", _SMALL)]
    yield Case("bert-mam", mam, is_pickle=True)
    yield Case("llama-union", [("seq_bn", _SMALL), ("lora", {"r": 2, "alpha": 2})])
    gated = {"use_gating": True}
    gates = [("seq_bn", _SMALL | gated), ("lora", {"r": 2} | gated)]
    yield Case("bert-unipelt", gates, reject="unsupported_option")
    labels = {"id2label": {0: "cold", 1: "mild", 2: "warm"}, "num_labels": 3}
    for backbone in ("bert", "gpt2", "llama", "roberta", "vit"):
        yield Case(f"{backbone}-head", ("seq_bn", _ONE_LAYER), head=labels)
    pooled = labels | {"layers": 1, "use_pooler": True}
    yield Case("bert-head_pooled", ("seq_bn", _ONE_LAYER), head=pooled)
    plain = labels | {"layers": 1}
    yield Case("bert-head_plain", ("seq_bn", _ONE_LAYER), head=plain)
    linear = labels | {"activation_function": None}
    config = ("seq_bn", _ONE_LAYER)
    yield Case("bert-head_linear", config, head=linear, reject="unsupported_option")
    for backbone in ("bert", "gpt2", "llama", "roberta"):
        loader = "AutoModelForSequenceClassification"
        yield Case(f"{backbone}-static_head", ("seq_bn", _ONE_LAYER), loader=loader)
    yield Case("llama-lm_head", ("seq_bn", _ONE_LAYER), loader="AutoModelForCausalLM")


CASES = {
    case.name: case
    for group in (_everywhere, _relatives, _bottlenecks, _compacters, _unions_and_heads)
    for case in group()
}


def folder_digest(folder: Path) -> str:
    """One digest over the names and bytes of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()
