"""The table of bad artefacts: what is broken, how, and what is said of it.

``code`` is the reason of the rejection of a foreign adapter, or the code of the typed error.
"""

# ruff: noqa: E501 (one case is one row)

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from mutations import (
    Change,
    all_tensors,
    bytes_of,
    deep,
    document_bytes,
    entry,
    every,
    extra_tensor,
    first,
    gzip_bomb,
    header,
    nothing,
    old_pickle,
    pickled,
    put,
    renamed,
    sealed,
    setting,
    shifted,
    torch_zip,
    twice,
    without_setting,
    without_tensor,
    zip_bomb,
)


@dataclass(frozen=True)
class Case:
    """One sound adapter, one change, and the refusal: a code and words of the message.

    ``options`` are those of an import. ``is_folder_only`` says that a form cannot carry it.
    """

    name: str
    base: str
    change: Change
    code: str
    words: str
    options: Mapping[str, Any] = field(default_factory=dict)
    is_folder_only: bool = False


NAN = float("nan")
HUGE = struct.pack("<Q", 1 << 40)
ABSURD = {"shape": [1 << 25, 1 << 25], "data_offsets": [0, 1 << 52]}
# What any file of any format can suffer, with the code of a foreign rejection.
EVERYWHERE = [
    Case("empty weights", "", bytes_of(lambda _: b""), "unreadable", "too short for safetensors"),
    Case("truncated weights", "", bytes_of(lambda d: d[:-5]), "unreadable", "truncated"),
    Case("bytes after the tensors", "", bytes_of(lambda d: d + b"more"), "unreadable", "unexpected bytes"),
    Case("a header of a terabyte", "", bytes_of(lambda d: HUGE + d[8:]), "too_large", "announces a header of 1099511627776 bytes"),
    Case("a header past the end", "", bytes_of(lambda d: struct.pack("<Q", len(d)) + d[8:]), "unreadable", "runs past the end"),
    Case("a header that is no JSON", "", header(lambda _: "{nope"), "unreadable", "not JSON"),
    Case("a header that is no UTF-8", "", header(lambda _: b'{"\xff\xfe": 1}'), "unreadable", "not JSON in UTF-8"),
    Case("a header that is a list", "", header(lambda _: "[]"), "unreadable", "not a JSON object"),
    Case("a header of brackets", "", header(lambda _: deep("[").decode()), "unreadable", "not JSON"),
    Case("a header of braces", "", header(lambda _: deep('{"a":').decode()), "unreadable", "not JSON"),
    Case("NaN in the header", "", header(lambda _: '{"a": NaN}'), "unreadable", "NaN, which is not a JSON number"),
    Case("a tensor twice", "", header(twice), "unreadable", "repeats the key"),
    Case("metadata that is no text", "", header(lambda h: h.update(__metadata__={"a": 1})), "unreadable", "__metadata__"),
    Case("overlapping tensors", "", entry(shifted(-4), 1), "unreadable", "overlaps"),
    Case("a gap between tensors", "", entry(shifted(4), 0), "unreadable", "has a gap"),
    Case("a negative offset", "", entry(lambda e: e.update(data_offsets=[-8, 8])), "unreadable", "data_offsets"),
    Case("a negative size", "", entry(lambda e: e.update(shape=[-4, -4])), "unreadable", "expected a list of whole numbers"),
    Case("a size that is true", "", entry(lambda e: e.update(shape=[True, 4])), "unreadable", "expected a list of whole numbers"),
    Case("nine dimensions", "", entry(lambda e: e.update(shape=[1] * 9)), "unreadable", "expected a list of whole numbers"),
    Case("a tensor of petabytes", "", entry(lambda e: e.update(ABSURD)), "unreadable", "overlaps"),
    Case("an unknown dtype", "", entry(lambda e: e.update(dtype="F4")), "unreadable", "dtype 'F4'"),
    Case("an unknown key of a tensor", "", entry(lambda e: e.update(url="x")), "unreadable", "not described by dtype"),
    Case("float64", "", all_tensors(lambda t: t.double()), "dtype", "F64"),
    Case("whole numbers", "", all_tensors(lambda t: t.int()), "dtype", "I32"),
    Case("NaN", "", first(put(NAN)), "not_finite", "NaN or infinity"),
    Case("infinity", "", first(put(-torch.inf)), "not_finite", "NaN or infinity"),
    Case("NaN in bfloat16", "", every(all_tensors(lambda t: t.bfloat16()), first(put(NAN, torch.bfloat16))), "not_finite", "(BF16) holds NaN"),
    Case("infinity in float16", "", every(all_tensors(lambda t: t.half()), first(put(torch.inf, torch.float16))), "not_finite", "(F16) holds NaN or infinity"),
    Case("a pickle that runs a command", "", bytes_of(pickled), "unsafe", "pickle"),
    Case("a pickle of a state dict", "", bytes_of(old_pickle), "unsafe", "pickle"),
    Case("an archive of torch.save", "", bytes_of(torch_zip), "unsafe", "zip archive"),
    Case("a zip bomb", "", bytes_of(zip_bomb), "unsafe", "zip archive"),
    Case("a gzip bomb", "", bytes_of(gzip_bomb), "unsafe", "gzip"),
    Case("a GGUF file", "", bytes_of(lambda _: b"GGUF" + bytes(64)), "unsafe", "GGUF"),
    Case("an extra tensor", "", extra_tensor("surprise", 4), "extra_tensor", "surprise"),
    Case("a document that is no JSON", "", document_bytes(lambda _: b"kind: lora"), "unreadable", "not JSON"),
    Case("a document cut short", "", document_bytes(lambda d: d[:-2]), "unreadable", "not JSON"),
    Case("a document of brackets", "", document_bytes(lambda _: deep("[")), "unreadable", "not JSON"),
    Case("a document that is no UTF-8", "", document_bytes(lambda d: d.replace(b"{", b'{"\xff": 1, ', 1)), "unreadable", "not JSON in UTF-8"),
    Case("a key of the document twice", "", document_bytes(lambda d: d.replace(b"{", b'{"z": 1, "z": 1, ', 1)), "unreadable", "repeats the key 'z'"),
    Case("infinity in the document", "", document_bytes(lambda d: d.replace(b"{", b'{"z": Infinity, ', 1)), "unreadable", "Infinity, which is not a JSON number"),
    Case("a number beyond floats", "", document_bytes(lambda d: d.replace(b"{", b'{"z": 1e999, ', 1)), "unreadable", "not a finite number"),
    Case("a document that is a list", "", document_bytes(lambda _: b"[]"), "unreadable", "not a JSON object"),
    Case("a document of megabytes", "", document_bytes(lambda d: d + b" " * (9 << 20)), "too_large", "the limit is", is_folder_only=True),
]  # fmt: skip
_NATIVE_CODES = {"unsafe": "unsafe_artefact", "too_large": "artefact_too_large"}
MTTL = ("mttl_mhr/t5-poly", "mttl/t5-expert")
FORMAT_BASES = ("patchbay", "peft/t5-lora", "adapterhub/t5-seq_bn", *MTTL)

PEFT = "peft/t5-lora"
SHARED = "base_model.model.shared"
PEFT_CASES = [
    Case("a prefix too few", PEFT, renamed("base_model.model.", ""), "extra_tensor", "base_model.model."),
    Case("a prefix too many", PEFT, renamed("base_model.model.", "base_model.model.model."), "incompatible", "model.decoder.block.0"),
    Case("a missing partner", PEFT, without_tensor("lora_B.weight"), "missing_tensor", "lora_B"),
    Case("an unknown part of LoRA", PEFT, extra_tensor("base_model.model.decoder.block.0.layer.0.SelfAttention.q.lora_C.weight", 4), "extra_tensor", "lora_C"),
    Case("a module that is not there", PEFT, renamed("SelfAttention.q", "SelfAttention.qkv"), "incompatible", "qkv"),
    Case("a layer that is not there", PEFT, renamed("block.1.", "block.9."), "incompatible", "block.9"),
    Case("a transposed factor", PEFT, first(lambda t: t.T, "wo.lora_A.weight"), "shape_mismatch", "[64, 4]"),
    Case("another width", PEFT, first(lambda t: t[:, :-1], "q.lora_A.weight"), "shape_mismatch", "[4, 31]"),
    Case("another rank than configured", PEFT, setting("r", 8), "rank_mismatch", "rank 4"),
    Case("a pattern that disagrees", PEFT, setting("rank_pattern", {"q": 2}), "rank_mismatch", "rank 4"),
    Case("rank 0", PEFT, setting("r", 0), "unreadable", "option 'r'"),
    Case("rank -4", PEFT, setting("r", -4), "unreadable", "option 'r'"),
    Case("rank as a fraction", PEFT, setting("r", 4.5), "unreadable", "option 'r'"),
    Case("alpha as text", PEFT, setting("lora_alpha", "8"), "unreadable", "option 'lora_alpha'"),
    Case("alpha of infinity", PEFT, document_bytes(lambda d: d.replace(b'"lora_alpha": 8', b'"lora_alpha": Infinity')), "unreadable", "Infinity"),
    Case("alpha beyond every scale", PEFT, setting("lora_alpha", 10**400), "unreadable", "lora_alpha"),
    Case("DoRA", PEFT, setting("use_dora", True), "unsupported_option", "use_dora"),
    Case("an unknown option", PEFT, setting("use_rotation", True), "unknown_option", "use_rotation"),
    Case("a megatron configuration", PEFT, setting("megatron_config", {"a": 1}), "unsupported_option", "megatron_config"),
    Case("replicated layers", PEFT, setting("layer_replication", [[0, 2]]), "unsupported_option", "layer_replication"),
    Case("trained tokens", PEFT, setting("trainable_token_indices", [1, 2]), "unsupported_option", "trainable_token_indices"),
    Case("an embedding's factors", PEFT, every(extra_tensor(f"{SHARED}.lora_embedding_A", 4, 64), extra_tensor(f"{SHARED}.lora_embedding_B", 32, 4)), "base_weights", "lora_embedding_A"),
    Case("a saved vocabulary", PEFT, every(setting("modules_to_save", ["lm_head"]), extra_tensor("base_model.model.lm_head.weight", 64, 32)), "base_weights", "lm_head"),
    Case("weights that change the base", PEFT, setting("init_lora_weights", "pissa"), "unsupported_option", "path_initial_model_for_weight_conversion"),
    Case("a method without an importer", PEFT, setting("peft_type", "VERA"), "unsupported_method", "VERA"),
    Case("a method that is a number", PEFT, setting("peft_type", 7), "unreadable", "peft_type"),
    Case("no method", PEFT, without_setting("peft_type"), "unreadable", "peft_type"),
    Case("only a pickle", PEFT, lambda f: f.update({"adapter_model.bin": pickled(f.pop("adapter_model.safetensors"))}), "unsafe", "adapter_model.bin", is_folder_only=True),
    Case("only a zip bomb", PEFT, lambda f: f.update({"adapter_model.bin": zip_bomb(f.pop("adapter_model.safetensors"))}), "unsafe", "adapter_model.bin", is_folder_only=True),
    Case("no weights", PEFT, lambda f: f.pop("adapter_model.safetensors") and None, "missing_tensor", "adapter_model.safetensors", is_folder_only=True),
    Case("labels without a head", PEFT, nothing, "invalid_request", "need a head", {"labels": ("a", "b")}),
    Case("a task of Poly", PEFT, nothing, "invalid_request", "poly_task", {"poly_task": 0}),
    Case("IA3 the other way round", "peft/t5-ia3", all_tensors(lambda t: t.T, "ia3_l"), "shape_mismatch", "ia3_l"),
    Case("IA3 with other feed-forward modules", "peft/t5-ia3", setting("feedforward_modules", []), "shape_mismatch", "wo"),
    Case("IA3 with an extra factor", "peft/t5-ia3", extra_tensor("base_model.model.decoder.block.0.layer.0.SelfAttention.q.lora_A.weight", 4, 32), "extra_tensor", "lora_A"),
    Case("a prompt of another width", "peft/t5-prompt", all_tensors(lambda t: t[:, :-1]), "shape_mismatch", "[6, 31]"),
    Case("a prompt of other tokens", "peft/t5-prompt", setting("num_virtual_tokens", 5), "shape_mismatch", "prompt_embeddings"),
    Case("a prompt of no tokens", "peft/t5-prompt", setting("num_virtual_tokens", 0), "unreadable", "num_virtual_tokens"),
    Case("a prompt without rows", "peft/t5-prompt", renamed("prompt_embeddings", "prompt"), "missing_tensor", "prompt_embeddings"),
    Case("a prefix of other heads", "peft/t5-prefix", setting("num_attention_heads", 3), "incompatible", "num_attention_heads is 3"),
    Case("a prefix of other layers", "peft/t5-prefix", setting("num_layers", 5), "incompatible", "num_layers is 5"),
    Case("a prefix of another width", "peft/bert-prefix", all_tensors(lambda t: t[:, :-8]), "shape_mismatch", "prompt_embeddings"),
    Case("Poly heads that do not divide", "peft/t5-poly-heads", setting("n_splits", 3), "incompatible", "n_splits 3 does not divide"),
    Case("Poly with other skills", "peft/t5-poly", setting("n_skills", 5), "shape_mismatch", "poly"),
    Case("Poly without a router", "peft/t5-poly", without_tensor("module_logits"), "missing_tensor", "module_logits"),
    Case("Poly with other tasks", "peft/t5-poly", setting("n_tasks", 7), "shape_mismatch", "module_logits"),
    Case("a Poly task that is not there", "peft/t5-poly", nothing, "unsupported_option", "task 99", {"poly_task": 99}),
    Case("a norm that is not there", "peft/t5-norms", renamed("block.1.", "block.7."), "incompatible", "block.7"),
    Case("a head of other labels", "peft/bert-lora-classifier", nothing, "invalid_artefact", "2 labels; the head has 3", {"labels": ("a", "b")}),
    Case("a head that repeats labels", "peft/bert-lora-classifier", nothing, "invalid_request", "labels must differ", {"labels": ("a", "a", "b")}),
    Case("a label of no characters", "peft/bert-lora-classifier", nothing, "invalid_request", "labels.1", {"labels": ("a", "", "b")}),
    Case("a template without input", PEFT, nothing, "invalid_request", "{input} exactly once", {"prompt_template": "Say it."}),
    Case("a head that generates", "peft/bert-lora-classifier", nothing, "invalid_request", "has a head", {"task": "text2text"}),
    Case("a head of another width", "peft/bert-lora-classifier", first(lambda t: t[:, :-1], "classifier.weight"), "shape_mismatch", "classifier"),
    Case("a head without its bias", "peft/bert-lora-classifier", without_tensor("classifier.bias"), "missing_tensor", "classifier.bias"),
]  # fmt: skip

HUB = "adapterhub/t5-seq_bn"
HEAD = "adapterhub/bert-head"
HUB_CASES = [
    Case("another model type", HUB, setting("model_type", "bart"), "incompatible", "bart"),
    Case("another hidden size", HUB, setting("hidden_size", 48), "incompatible", "48"),
    Case("an activation that is unknown", HUB, setting("config/non_linearity", "mystery"), "unsupported_option", "mystery"),
    Case("an unknown option", HUB, setting("config/use_magic", True), "unknown_option", "use_magic"),
    Case("an unknown architecture", HUB, setting("config/architecture", "reft"), "unsupported_method", "reft"),
    Case("a reduction of nothing", HUB, setting("config/reduction_factor", 0), "unreadable", "reduction_factor is 0"),
    Case("a reduction that disagrees", HUB, setting("config/reduction_factor", 4), "rank_mismatch", "rank 4; width 32 over 4"),
    Case("a reduction below zero", HUB, setting("config/reduction_factor", -2), "unreadable", "reduction_factor is -2"),
    Case("an invertible part", HUB, setting("config/inv_adapter", "nice"), "unsupported_option", "inv_adapter"),
    Case("tensors of another name", HUB, renamed(".task.", ".other."), "missing_tensor", "adapters.task.adapter_down"),
    Case("a missing half", HUB, without_tensor("adapter_up.weight"), "missing_tensor", "adapter_up"),
    Case("a transposed half", HUB, first(lambda t: t.T, "adapter_up.weight"), "shape_mismatch", "adapter_up"),
    Case("a scale of text", HUB, setting("config/scaling", "big"), "unsupported_option", "scaling is 'big'"),
    Case("no configuration inside", HUB, setting("config", None), "unreadable", "expected an object with every option"),
    Case("a layer that is not there", HUB, renamed("block.1.", "block.7."), "extra_tensor", "block.7"),
    Case("Compacter without its rule", "adapterhub/bert-compacter", without_tensor("phm_rule"), "missing_tensor", "phm_rule"),
    Case("Compacter of another dimension", "adapterhub/bert-compacter", setting("config/phm_dim", 5), "unreadable", "phm_dim 5 does not divide"),
    Case("LoRA of another rank", "adapterhub/bert-lora", setting("config/r", 3), "rank_mismatch", "r 3 gives 3"),
    Case("LoRA with DoRA", "adapterhub/bert-lora", setting("config/use_dora", True), "unsupported_option", "use_dora"),
    Case("LoRA with gates", "adapterhub/bert-lora", setting("config/use_gating", True), "unsupported_option", "use_gating"),
    Case("IA3 of two columns", "adapterhub/t5-ia3", first(lambda t: t.repeat(1, 2), "lora_B"), "shape_mismatch", "lora_B"),
    Case("a prompt of other tokens", "adapterhub/bert-prompt_tuning", setting("config/prompt_length", 5), "shape_mismatch", "prompt"),
    Case("a head of other labels", HEAD, setting("config/num_labels", 5, "head_config.json"), "shape_mismatch", "expected [5, 32]"),
    Case("a head of an unknown type", HEAD, setting("config/head_type", "oracle", "head_config.json"), "unsupported_option", "oracle"),
    Case("a head with NaN", HEAD, bytes_of(lambda d: d[:-4] + b"\xff\xff\xff\x7f", "model_head.safetensors"), "invalid_artefact", "NaN or infinity"),
    Case("a head that is a pickle", HEAD, bytes_of(pickled, "model_head.safetensors"), "unsafe", "pickle"),
    Case("only a pickle", HUB, lambda f: f.update({"pytorch_adapter.bin": pickled(f.pop("adapter.safetensors"))}), "unsafe", "pytorch_adapter.bin", is_folder_only=True),
]  # fmt: skip

MHR, EXPERT = MTTL
MTTL_CASES = [
    Case("another order of axes", MHR, all_tensors(lambda t: t.transpose(0, 1), "lora_a"), "shape_mismatch", "lora_a", is_folder_only=True),
    Case("a module that is not there", MHR, renamed("SelfAttention.q", "SelfAttention.qkv"), "incompatible", "qkv", is_folder_only=True),
    Case("no prefix", MHR, renamed("model.", ""), "extra_tensor", "lora_a", is_folder_only=True),
    Case("no selector", MHR, without_tensor("module_logits"), "missing_tensor", "no selector is saved", is_folder_only=True),
    Case("rank 0", MHR, setting("hyper_parameters/lora_rank", 0), "unreadable", "lora_rank", is_folder_only=True),
    Case("skills without end", MHR, setting("hyper_parameters/n_skills", 10**12), "unreadable", "n_skills", is_folder_only=True),
    Case("tasks' names without end", MHR, setting("hyper_parameters/task_names", ["a"] * 200_000), "unreadable", "task_names", is_folder_only=True),
    Case("alpha beyond every scale", MHR, setting("hyper_parameters/lora_alpha", 10**400), "unreadable", "lora_alpha", is_folder_only=True),
    Case("a modifier that is unknown", MHR, setting("hyper_parameters/model_modifier", "os.system"), "unsupported_method", "os.system", is_folder_only=True),
    Case("a modifier that is a list", MHR, setting("hyper_parameters/model_modifier", ["poly"]), "unreadable", "model_modifier", is_folder_only=True),
    Case("another checkpoint beside it", MHR, lambda f: f.update({"last.safetensors": f["best_model.safetensors"]}), "unreadable", "2 files of weights", is_folder_only=True),
    Case("a class to import", EXPERT, setting("expert_config/class_name", "os.system"), "unsupported_method", "os.system", is_folder_only=True),
    Case("a configuration that is a text", EXPERT, setting("expert_config", "LoRAConfig"), "unreadable", "no expert_config", is_folder_only=True),
    Case("another rank", EXPERT, setting("expert_config/lora_rank", 3), "shape_mismatch", "lora_a", is_folder_only=True),
    Case("a missing partner", EXPERT, without_tensor("lora_b"), "missing_tensor", "lora_b", is_folder_only=True),
    Case("a pickled expert beside it", EXPERT, lambda f: f.update({"more.meta": b"\x80\x04.", "more.ckpt": b"\x80\x04."}), "unsafe", "pickle", is_folder_only=True),
    Case("metadata without weights", EXPERT, lambda f: f.update({"x" * 200 + ".meta.json": f["rte.meta.json"]}), "missing_tensor", "is absent", is_folder_only=True),
]  # fmt: skip

OTHER = "sha256:" + "0" * 64
NATIVE_CASES = [
    Case("another backbone", "patchbay", setting("backbone", OTHER), "incompatible", "another backbone"),
    Case("a site that is not there", "patchbay", setting("parts/0/site", "encoder.9.self.q"), "incompatible", "encoder.9.self.q"),
    Case("an unknown primitive", "patchbay", setting("parts/0/primitive", "exec"), "invalid_artefact", "unknown primitive 'exec'"),
    Case("no parts", "patchbay", setting("parts", []), "invalid_artefact", "no parts"),
    Case("an unknown key", "patchbay", setting("run", "rm -rf /"), "invalid_artefact", "run"),
    Case("another format", "patchbay", setting("format", "patchbay-artefact/9"), "invalid_artefact", "patchbay-artefact/1"),
    Case("rank 0", "patchbay", setting("parts/0/rank", 0), "invalid_artefact", "greater than or equal to 1"),
    Case("another digest", "patchbay", setting("data/digest", OTHER), "invalid_artefact", "data digest mismatch"),
    Case("another size", "patchbay", setting("data/size_bytes", 7), "invalid_artefact", "the manifest says 7"),
    Case("another content digest", "patchbay", setting("content_digest", OTHER), "invalid_artefact", "content digest mismatch"),
    Case("a template without input", "patchbay", setting("signature/prompt_template", "x"), "invalid_artefact", "{input}"),
    Case("a bank that is not here", "patchbay", every(setting("kind", "routing"), setting("bank", OTHER)), "invalid_artefact", "not allowed in kind 'routing'"),
    Case("options for an artefact", "patchbay", nothing, "invalid_request", "options do not apply", {"description": "x"}),
    Case("no data", "patchbay", lambda f: f.pop("data.safetensors") and None, "not_found", "data.safetensors", is_folder_only=True),
]  # fmt: skip


# What an artefact of this product says of the same, once its manifest agrees with its data.
_NATIVE_WORDS = {
    "float64": "'F32', 'F16' or 'BF16'",
    "whole numbers": "'F32', 'F16' or 'BF16'",
    "a document that is a list": "not of format patchbay-artefact/1",
}
_SEALED = frozenset(
    {"float64", "whole numbers", "NaN", "infinity", "NaN in bfloat16", "infinity in float16",
     "an extra tensor"}
)  # fmt: skip


def _everywhere() -> Iterator[Case]:
    for base in FORMAT_BASES:
        for case in EVERYWHERE:
            code, words, change = case.code, case.words, case.change
            if base == "patchbay":
                code = _NATIVE_CODES.get(code, "invalid_artefact")
                words = _NATIVE_WORDS.get(case.name, words)
                change = every(change, sealed) if case.name in _SEALED else change
            elif code == "not_finite":
                code = "invalid_artefact"
            is_folder_only = case.is_folder_only or base in MTTL
            yield replace(
                case,
                base=base,
                change=change,
                code=code,
                words=words,
                is_folder_only=is_folder_only,
            )


CASES = [*_everywhere(), *PEFT_CASES, *HUB_CASES, *MTTL_CASES, *NATIVE_CASES]
