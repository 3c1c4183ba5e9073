"""What a PEFT import refuses: each defect by its code, in words that name it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_kit import GOLDEN, golden_backbone
from peft_kit import (
    LAYER,
    Q,
    both,
    changed,
    family_of,
    option,
    read_golden,
    renamed,
    tensor,
    verdict,
    without,
    write_peft,
)

from adapters_store.errors import InvalidArtefactError, RejectedArtefactError
from adapters_store.formats import ImportOptions, inspect
from adapters_store.formats.importing import import_from
from adapters_store.formats.options import rule_of
from adapters_store.formats.peft.settings import LoraSettings
from adapters_store.formats.reasons import REASONS
from adapters_store.formats.source import FolderSource

A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
EMBED = "base_model.model.model.embed_tokens"
POLY = "base_model.model.model.layers.0.mlp.down_proj"
IA3 = f"{LAYER}.self_attn.k_proj.ia3_l"
NAN = torch.full((4, 32), float("nan"))

CASES = {
    "no rank agrees": ("llama-lora", option(r=8), "rank_mismatch", "rank 4; .* say 8"),
    "a pattern disagrees": (
        "llama-lora",
        option(rank_pattern={"q_proj": 2}),
        "rank_mismatch",
        "rank 4; .* say 2",
    ),
    "a partner is missing": ("llama-lora", without(B), "missing_tensor", r"lora_B\.weight"),
    "an extra tensor": (
        "llama-lora",
        tensor(f"{Q}.lora_C.weight", 4),
        "extra_tensor",
        r"lora_C\.weight.*F32 \[4\], 16 bytes",
    ),
    "no prefix": (
        "llama-lora",
        renamed("base_model.model.", ""),
        "extra_tensor",
        "does not begin with 'base_model.model.'",
    ),
    "one model. too few": (
        "llama-lora",
        renamed("base_model.model.model.", "base_model.model."),
        "extra_tensor",
        "lacks 'model.' in front",
    ),
    "the same site twice": (
        "llama-lora",
        both(
            tensor(A.replace("model.model.model", "model.model.transformer"), 4, 32),
            tensor(B.replace("model.model.model", "model.model.transformer"), 32, 4),
        ),
        "extra_tensor",
        "are both site 'decoder.0.self.q'",
    ),
    "an unknown module": (
        "llama-lora",
        renamed("self_attn.q_proj", "self_attn.qkv_proj"),
        "incompatible",
        "qkv_proj' is not a linear site",
    ),
    "a layer too many": (
        "llama-lora",
        renamed("layers.1.", "layers.7."),
        "incompatible",
        r"layers\.7\.",
    ),
    "a transposed factor": ("llama-lora", tensor(A, 32, 4), "shape_mismatch", r"\[32, 4\]"),
    "another width": ("llama-lora", tensor(A, 4, 48), "shape_mismatch", r"expected \['any', 32\]"),
    "three dimensions": ("llama-lora", tensor(B, 32, 4, 1), "shape_mismatch", r"\[32, 4, 1\]"),
    "rank 0": (
        "llama-lora",
        both(tensor(A, 0, 32), tensor(B, 32, 0)),
        "rank_mismatch",
        "have rank 0",
    ),
    "a rank above the matrix": (
        "llama-lora",
        both(option(r=33), tensor(A, 33, 32), tensor(B, 32, 33)),
        "incompatible",
        r"rank 33 .* above min\(in, out\) = 32",
    ),
    "float64": ("llama-lora", tensor(A, 4, 32, dtype=torch.float64), "dtype", "is F64"),
    "integers": ("llama-lora", tensor(A, 4, 32, dtype=torch.int32), "dtype", "is I32"),
    "r is no number": ("llama-lora", option(r="four"), "unreadable", "option 'r'"),
    "r is 0": ("llama-lora", option(r=0), "unreadable", "option 'r'"),
    "alpha is text": ("llama-lora", option(lora_alpha="8"), "unreadable", "option 'lora_alpha'"),
    "bias is unknown": ("llama-lora", option(bias="some"), "unreadable", "option 'bias'"),
    "a task that PEFT lacks": (
        "llama-lora",
        option(task_type="IMAGE_CLS"),
        "unreadable",
        "option 'task_type'",
    ),
    "a pattern looks ahead": (
        "llama-lora",
        option(alpha_pattern={"(?=q)q_proj": 2}),
        "unsupported_option",
        "uses assert",
    ),
    "a pattern is malformed": (
        "llama-lora",
        option(rank_pattern={"q_proj(": 2}),
        "unsupported_option",
        "malformed",
    ),
    "an unknown option": (
        "llama-lora",
        option(use_rotation=True),
        "unknown_option",
        "'use_rotation' is True",
    ),
    "an unknown option at 0": ("llama-lora", option(shift=0), "unknown_option", "'shift' is 0"),
    "pissa": (
        "llama-lora",
        option(init_lora_weights="pissa_niter_16"),
        "unsupported_option",
        "path_initial_model_for_weight_conversion",
    ),
    "olora": (
        "llama-lora",
        option(init_lora_weights="olora"),
        "unsupported_option",
        "path_initial_model_for_weight_conversion",
    ),
    "loftq": (
        "llama-lora",
        option(init_lora_weights="loftq", loftq_config={"loftq_bits": 4}),
        "unsupported_option",
        "merge_and_unload",
    ),
    "an unknown initialisation": (
        "llama-lora",
        option(init_lora_weights="bright"),
        "unknown_option",
        "'bright' is not known",
    ),
    "an embedding's LoRA": (
        "llama-lora",
        both(
            tensor(f"{EMBED}.lora_embedding_A", 4, 64), tensor(f"{EMBED}.lora_embedding_B", 32, 4)
        ),
        "base_weights",
        r"lora_embedding_A \(F32 \[4, 64\], 1024 bytes\)",
    ),
    "a saved embedding": (
        "llama-lora",
        both(option(modules_to_save=["embed_tokens"]), tensor(f"{EMBED}.weight", 64, 32)),
        "base_weights",
        "8192 bytes",
    ),
    "an adapted output matrix": (
        "llama-lora",
        both(
            tensor("base_model.model.lm_head.lora_A.weight", 4, 32),
            tensor("base_model.model.lm_head.lora_B.weight", 64, 4),
        ),
        "base_weights",
        "'lm_head' is the backbone's own",
    ),
    "trained tokens": (
        "llama-lora",
        both(
            option(trainable_token_indices=[1, 2]),
            tensor(f"{EMBED}.token_adapter.trainable_tokens_delta", 2, 32),
        ),
        "base_weights",
        "trainable_tokens_delta",
    ),
    "a saved matrix": (
        "llama-lora",
        both(option(modules_to_save=["mlp"]), tensor(f"{LAYER}.mlp.up_proj.weight", 64, 32)),
        "unsupported_option",
        r"up_proj\.weight' \(F32 \[64, 32\], 8192 bytes\)",
    ),
    "a token classifier": (
        "bert-lora-classifier",
        option(task_type="TOKEN_CLS"),
        "unsupported_option",
        "imported for task_type SEQ_CLS, found 'TOKEN_CLS'",
    ),
    "a classifier without a task": (
        "bert-lora-classifier",
        option(task_type=None),
        "unsupported_option",
        "found None",
    ),
    "a classifier that was not saved": (
        "bert-lora-classifier",
        without("base_model.model.classifier.weight", "base_model.model.classifier.bias"),
        "missing_tensor",
        r"classifier\.weight",
    ),
    "no labels": (
        "bert-lora-classifier",
        both(
            tensor("base_model.model.classifier.weight", 0, 32),
            tensor("base_model.model.classifier.bias", 0),
        ),
        "shape_mismatch",
        r"classifier\.weight' has shape \[0, 32\]",
    ),
    "too many labels": (
        "llama-lora-score",
        tensor("base_model.model.score.weight", 10_001, 32),
        "too_large",
        "10001 labels",
    ),
    "a head that pools elsewhere": (
        "bart-lora",
        option(task_type="SEQ_CLS"),
        "unsupported_option",
        "head of model_type 'bart'",
    ),
    "a bias that bias=none does not explain": (
        "bert-lora-classifier",
        option(bias="none"),
        "extra_tensor",
        r"base_layer\.bias",
    ),
    "a bias that lora_only lacks": (
        "bert-lora-classifier",
        without("base_model.model.bert.encoder.layer.0.output.dense.base_layer.bias"),
        "missing_tensor",
        r"output\.dense\.base_layer\.bias",
    ),
    "a bias of the pooler": (
        "bert-lora-classifier",
        both(option(bias="all"), tensor("base_model.model.bert.pooler.dense.bias", 32)),
        "incompatible",
        r"pooler\.dense\.bias",
    ),
    "a lora_bias that is not there": (
        "llama-lora",
        option(lora_bias=True),
        "missing_tensor",
        r"lora_B\.bias",
    ),
    "scales on the wrong side": (
        "llama-ia3",
        option(feedforward_modules=["k_proj"]),
        "shape_mismatch",
        r"k_proj\.ia3_l' has shape \[16, 1\]; expected \[1, 32\]",
    ),
    "a scale that is a row": ("llama-ia3", tensor(IA3, 1, 16), "shape_mismatch", r"\[16, 1\]"),
    "a norm that is none": (
        "llama-norms",
        renamed("input_layernorm", "output_layernorm"),
        "incompatible",
        "output_layernorm' is not a norm",
    ),
    "singular values missing": (
        "llama-adalora",
        without(f"{Q}.lora_E"),
        "missing_tensor",
        r"lora_E",
    ),
    "another initial rank": (
        "llama-adalora",
        option(init_r=4),
        "rank_mismatch",
        "rank 3; init_r and rank_pattern say 4",
    ),
    "more names than a model has": (
        "llama-lora",
        option(target_modules=["q_proj"] * 5001),
        "unreadable",
        "option 'target_modules",
    ),
    "AdaLoRA's values in a row": (
        "llama-adalora",
        tensor(f"{Q}.lora_E", 1, 3),
        "shape_mismatch",
        r"expected \[3, 1\]",
    ),
    "prompt rows of another width": (
        "llama-prompt",
        tensor("prompt_embeddings", 3, 48),
        "shape_mismatch",
        r"expected \[3, 32\]",
    ),
    "fewer prompt rows": (
        "llama-prompt",
        option(num_virtual_tokens=4),
        "shape_mismatch",
        r"expected \[4, 32\]",
    ),
    "no number of prompt rows": (
        "llama-prompt",
        lambda config, tensors: config.pop("num_virtual_tokens"),
        "unreadable",
        "num_virtual_tokens",
    ),
    "a prompt for another width": (
        "llama-prompt",
        option(token_dim=64),
        "incompatible",
        "token_dim is 64",
    ),
    "a prefix for more layers": (
        "llama-prefix",
        option(num_layers=3),
        "incompatible",
        "num_layers is 3; the decoder .* has 2",
    ),
    "a prefix for all query heads": (
        "llama-prefix",
        both(option(num_attention_heads=4, token_dim=32), tensor("prompt_embeddings", 3, 128)),
        "incompatible",
        "num_attention_heads is 4",
    ),
    "a prefix for two stacks": (
        "llama-prefix",
        option(num_transformer_submodules=2),
        "incompatible",
        "has 1 stacks",
    ),
    "heads that do not divide": (
        "llama-poly",
        option(n_splits=3),
        "incompatible",
        "n_splits 3 does not divide",
    ),
    "more skills than saved": (
        "llama-poly",
        option(n_skills=5),
        "shape_mismatch",
        r"poly_lora_A' has shape \[2, 4, 32, 2\]; expected \[2, 5, 32, 2\]",
    ),
    "a router is missing": (
        "llama-poly",
        without(f"{POLY}.poly_router.module_logits"),
        "missing_tensor",
        "module_logits",
    ),
    "more tasks than are imported at once": (
        "llama-poly",
        option(n_tasks=2001),
        "too_large",
        "more tasks than the 2000",
    ),
    "norms of all tasks beside a bank": (
        "llama-poly",
        both(option(modules_to_save=["norm"]), tensor("base_model.model.model.norm.weight", 32)),
        "unsupported_option",
        "override parts, which a routing does not carry",
    ),
    "another routing": ("llama-poly", option(poly_type="top-k"), "unreadable", "poly_type"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_defect_is_refused_by_name(name: str, tmp_path: Path):
    golden, change, code, words = CASES[name]
    folder = changed(tmp_path, golden, change)
    inspection = verdict(folder, family_of(golden))
    assert inspection.verdict == "reject"
    matching = [reason.message for reason in inspection.reasons if reason.code == code]
    assert any(_has(words, message) for message in matching), inspection.reasons
    assert {reason.code for reason in inspection.reasons} <= set(REASONS)
    with pytest.raises(RejectedArtefactError, match=words):
        import_from(FolderSource(folder), golden_backbone(family_of(golden)).record)


def _has(words: str, message: str) -> bool:
    return re.search(words, message) is not None


REJECTED_OPTIONS = [
    name
    for name, field in LoraSettings.model_fields.items()
    if rule_of(field.metadata).verdict == "reject"
]


@pytest.mark.parametrize("name", REJECTED_OPTIONS)
def test_every_rejected_option_is_refused_by_its_name(name: str, tmp_path: Path):
    folder = changed(tmp_path, "llama-lora", option(**{name: {"set": True}}))
    (reason,) = verdict(folder, "llama").reasons
    assert (reason.code, reason.where) == ("unsupported_option", name)
    assert name in reason.message


@pytest.mark.parametrize("empty", [None, False, {}, [], ""])
def test_an_option_that_holds_nothing_is_ignored(empty, tmp_path: Path):
    values = dict.fromkeys([*REJECTED_OPTIONS, "invented_later"], empty)
    assert verdict(changed(tmp_path, "llama-lora", option(**values)), "llama").reasons == ()


@pytest.mark.parametrize("method", ["LOHA", "VERA", "OFT", "ADAPTION_PROMPT", "lora"])
def test_other_methods_are_refused_by_their_name(method: str, tmp_path: Path):
    folder = changed(tmp_path, "llama-lora", option(peft_type=method))
    (reason,) = verdict(folder, "llama").reasons
    assert reason.code == "unsupported_method"
    assert repr(method) in reason.message


def test_a_pickle_is_never_opened(tmp_path: Path):
    config, _ = read_golden("llama-lora")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x02X")
    (reason,) = verdict(tmp_path, "llama").reasons
    assert reason.code == "unsafe"
    assert "patchbay adapters convert" in reason.message


def test_a_pickle_under_the_name_of_safetensors_is_unsafe(tmp_path: Path):
    config, _ = read_golden("llama-lora")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"PK\x03\x04" + bytes(64))
    (reason,) = verdict(tmp_path, "llama").reasons
    assert reason.code == "unsafe"


def test_a_configuration_without_weights_is_refused(tmp_path: Path):
    config, _ = read_golden("llama-lora")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (reason,) = verdict(tmp_path, "llama").reasons
    assert reason.code == "missing_tensor"


@pytest.mark.parametrize("text", ["[]", "{", '{"peft_type": 3}', '{"peft_type": "LORA"} x'])
def test_a_configuration_that_is_none_is_unreadable(text: str, tmp_path: Path):
    write_peft(tmp_path, *read_golden("llama-lora"))
    (tmp_path / "adapter_config.json").write_text(text)
    (reason,) = verdict(tmp_path, "llama").reasons
    assert reason.code == "unreadable"


@pytest.mark.parametrize("is_used", [True, False])
def test_a_prefix_behind_an_attention_window_is_refused(is_used: bool):
    record = golden_backbone("llama").record
    config = {**record.config, "sliding_window": 16, "use_sliding_window": is_used}
    source = FolderSource(GOLDEN / "peft" / "llama-prefix")
    found = inspect(source, replace(record, config=config))
    assert found.verdict == ("reject" if is_used else "convert")
    if is_used:
        assert "attention window" in found.reasons[0].message


def test_norms_beside_one_task_of_poly_are_its_overrides(tmp_path: Path):
    change = both(
        option(modules_to_save=["norm"]), tensor("base_model.model.model.norm.weight", 32)
    )
    folder = changed(tmp_path, "llama-poly", change)
    parts = verdict(folder, "llama", ImportOptions(poly_task=1)).parts
    assert {part.primitive for part in parts} == {"low_rank", "override"}


def test_a_task_that_poly_lacks_is_refused():
    options = ImportOptions(poly_task=3)
    (reason,) = verdict(GOLDEN / "peft" / "llama-poly", "llama", options).reasons
    assert reason.message == "task 3 was asked for; the file has tasks 0 to 2"


def test_an_expression_that_cannot_be_read_leaves_no_orientation(tmp_path: Path):
    change = option(feedforward_modules="(?=d)down_proj")
    (reason,) = verdict(changed(tmp_path, "llama-ia3", change), "llama").reasons
    assert (reason.code, reason.where) == ("unsupported_option", "feedforward_modules")


def test_values_are_checked_when_they_are_read(tmp_path: Path):
    folder = changed(tmp_path, "llama-lora", lambda config, tensors: tensors.update({A: NAN}))
    assert verdict(folder, "llama").verdict == "convert"
    with pytest.raises(InvalidArtefactError, match="NaN"):
        import_from(FolderSource(folder), golden_backbone("llama").record)


def test_reasons_are_collected_and_bounded(tmp_path: Path):
    def spoil(config, tensors):
        config.update(use_dora=True, r=3, mystery=1)
        tensors.update({f"{Q}.more.{i}": torch.ones(1) for i in range(500)})

    reasons = verdict(changed(tmp_path, "llama-lora", spoil), "llama").reasons
    codes = {reason.code for reason in reasons}
    assert {"unsupported_option", "unknown_option", "rank_mismatch", "extra_tensor"} <= codes
    assert len(reasons) == 41
    assert "more like these" in reasons[-1].message
