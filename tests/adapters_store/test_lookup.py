"""Paths of other model classes, transformers versions and wrappers find their canonical places."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters_store.families import MODEL_TYPES, Family, family_of
from adapters_store.families.lookup import Lookup, find_site, find_vector, lookup

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
CLASSES = (
    transformers.AutoModel,
    transformers.AutoModelForCausalLM,
    transformers.AutoModelForSeq2SeqLM,
    transformers.AutoModelForMaskedLM,
    transformers.AutoModelForSequenceClassification,
    transformers.AutoModelForTokenClassification,
    transformers.AutoModelForQuestionAnswering,
    transformers.AutoModelForImageClassification,
    transformers.AutoModelForAudioClassification,
)
HEADS = ("lm_head", "cls.", "pooler", "score", "classif", "qa_outputs", "pre_classifier", "vocab_")
ENCODER_CLASSES = {"AutoModelForTokenClassification"}
"""Of encoder-decoders; AutoModelForCausalLM takes their decoder alone."""

SITES = {  # as transformers 4.57.6 and, where marked, earlier releases and other classes name them
    ("t5", "encoder.block.1.layer.0.SelfAttention.q"): "encoder.1.self.q",
    ("t5", "decoder.block.0.layer.1.EncDecAttention.v"): "decoder.0.cross.v",
    ("t5", "decoder.block.0.layer.2.DenseReluDense.wo"): "decoder.0.ffn.out",
    ("t5", "transformer.encoder.block.0.layer.1.DenseReluDense.wi"): "encoder.0.ffn.in",
    ("umt5", "encoder.block.0.layer.1.DenseReluDense.wi_0"): "encoder.0.ffn.gate",
    ("bart", "model.encoder.layers.0.self_attn.out_proj"): "encoder.0.self.o",
    ("bart", "model.decoder.layers.0.encoder_attn.k_proj"): "decoder.0.cross.k",
    ("bart", "decoder.layers.0.fc1"): "decoder.0.ffn.in",
    ("mbart", "model.decoder.layers.0.fc2"): "decoder.0.ffn.out",
    ("bert", "bert.encoder.layer.1.attention.self.query"): "encoder.1.self.q",
    ("bert", "encoder.layer.0.attention.output.dense"): "encoder.0.self.o",
    ("bert", "bert.encoder.layer.0.intermediate.dense"): "encoder.0.ffn.in",
    ("roberta", "roberta.encoder.layer.0.output.dense"): "encoder.0.ffn.out",
    ("xlm-roberta", "roberta.encoder.layer.0.attention.self.key"): "encoder.0.self.k",
    ("distilbert", "distilbert.transformer.layer.0.attention.q_lin"): "encoder.0.self.q",
    ("distilbert", "distilbert.transformer.layer.1.ffn.lin2"): "encoder.1.ffn.out",
    ("gpt2", "transformer.h.2.attn.c_attn"): "decoder.2.self.qkv",
    ("gpt2", "transformer.h.2.attn.c_proj"): "decoder.2.self.o",
    ("gpt2", "h.0.mlp.c_fc"): "decoder.0.ffn.in",
    ("gpt2", "transformer.h.0.mlp.c_proj"): "decoder.0.ffn.out",
    ("llama", "model.layers.2.self_attn.k_proj"): "decoder.2.self.k",
    ("llama", "transformer.layers.0.mlp.gate_proj"): "decoder.0.ffn.gate",
    ("mistral", "model.layers.0.mlp.up_proj"): "decoder.0.ffn.in",
    ("mistral", "model.language_model.layers.0.mlp.down_proj"): "decoder.0.ffn.out",
    ("qwen2", "model.layers.0.self_attn.q_proj"): "decoder.0.self.q",
    ("qwen3", "layers.0.self_attn.o_proj"): "decoder.0.self.o",
    ("gemma", "model.layers.1.self_attn.v_proj"): "decoder.1.self.v",
    ("gemma2", "model.layers.1.mlp.up_proj"): "decoder.1.ffn.in",
    ("gemma3_text", "model.language_model.layers.0.self_attn.q_proj"): "decoder.0.self.q",
    ("gemma3_text", "language_model.model.layers.0.self_attn.q_proj"): "decoder.0.self.q",
    ("vit", "vit.encoder.layer.1.attention.attention.query"): "encoder.1.self.q",
    ("vit", "encoder.layer.0.attention.attention.key"): "encoder.0.self.k",
    ("vit", "vit.encoder.layer.0.attention.attention.value"): "encoder.0.self.v",
    ("vit", "vit.encoder.layer.0.attention.output.dense"): "encoder.0.self.o",
    ("vit", "vit.encoder.layer.0.intermediate.dense"): "encoder.0.ffn.in",
    ("vit", "vit.encoder.layer.0.output.dense"): "encoder.0.ffn.out",
    ("vit", "vit.layers.0.attention.q_proj"): "encoder.0.self.q",
    (
        "audio-spectrogram-transformer",
        "audio_spectrogram_transformer.encoder.layer.0.attention.attention.query",
    ): "encoder.0.self.q",
    (
        "audio-spectrogram-transformer",
        "audio_spectrogram_transformer.encoder.layer.1.output.dense",
    ): "encoder.1.ffn.out",
}
VECTORS = {
    ("t5", "encoder.block.0.layer.0.layer_norm.weight"): "encoder.0.self.norm.gain",
    ("t5", "transformer.decoder.final_layer_norm.weight"): "decoder.final.norm.gain",
    ("bart", "model.encoder.layernorm_embedding.bias"): "encoder.embedding.norm.bias",
    ("bart", "model.decoder.layers.0.encoder_attn_layer_norm.weight"): "decoder.0.cross.norm.gain",
    ("bert", "bert.embeddings.LayerNorm.weight"): "encoder.embedding.norm.gain",
    ("bert", "bert.encoder.layer.0.output.LayerNorm.gamma"): "encoder.0.ffn.norm.gain",
    ("bert", "encoder.layer.0.attention.output.LayerNorm.beta"): "encoder.0.self.norm.bias",
    ("bert", "bert.encoder.layer.0.attention.self.value.bias"): "encoder.0.self.v.bias",
    ("distilbert", "distilbert.transformer.layer.0.sa_layer_norm.bias"): "encoder.0.self.norm.bias",
    ("gpt2", "transformer.ln_f.weight"): "decoder.final.norm.gain",
    ("gpt2", "transformer.h.0.attn.c_attn.bias"): "decoder.0.self.qkv.bias",
    ("llama", "model.norm.weight"): "decoder.final.norm.gain",
    ("llama", "model.layers.0.self_attn.q_proj.bias"): "decoder.0.self.q.bias",
    ("qwen3", "model.layers.0.self_attn.q_norm.weight"): "decoder.0.self.q_norm.gain",
    ("gemma2", "model.layers.0.post_feedforward_layernorm.weight"): "decoder.0.ffn.post_norm.gain",
    ("gemma2", "model.layers.0.pre_feedforward_layernorm.weight"): "decoder.0.ffn.norm.gain",
    ("gemma2", "model.layers.0.post_attention_layernorm.weight"): "decoder.0.self.post_norm.gain",
    ("llama", "model.layers.0.post_attention_layernorm.weight"): "decoder.0.ffn.norm.gain",
    ("vit", "vit.encoder.layer.0.layernorm_before.weight"): "encoder.0.self.norm.gain",
    ("vit", "vit.encoder.layer.0.attention.attention.query.bias"): "encoder.0.self.q.bias",
    ("vit", "vit.layernorm.bias"): "encoder.final.norm.bias",
}
UNKNOWN = {
    ("llama", "lm_head"),
    ("llama", "model.layers.3.self_attn.q_proj"),  # the model has three layers
    ("llama", "model.layers.0.self_attn.c_attn"),
    ("llama", "bert.layers.0.self_attn.q_proj"),
    ("llama", "model.layers.0.self_attn"),
    ("llama", "xmodel.layers.0.self_attn.q_proj"),
    ("llama", ""),
    ("bert", "bert.pooler.dense"),
    ("bert", "encoder.layer.0.output"),
    ("vit", "vit.encoder.layer.0.attention.attention"),
    ("vit", "vit.encoder.layer.0.output.dense.dense"),
    ("gpt2", "transformer.h.0.attn.c_attn.weight"),
    ("llama", "model." * 50_000 + "layers.0.self_attn.q_proj"),
}


def golden(model_type: str) -> tuple[Family, dict[str, Any]]:
    config = json.loads((GOLDEN / f"{model_type}.json").read_text())
    return family_of(config), config


@pytest.mark.parametrize(("case", "name"), SITES.items(), ids=lambda value: "-".join(value))
def test_a_module_path_of_another_class_or_version_finds_its_site(
    case: tuple[str, str], name: str
) -> None:
    model_type, path = case
    site = find_site(*golden(model_type), path)
    assert site is not None
    assert site.name == name


@pytest.mark.parametrize(("case", "name"), VECTORS.items(), ids=lambda value: "-".join(value))
def test_a_parameter_path_of_another_class_or_version_finds_its_vector(
    case: tuple[str, str], name: str
) -> None:
    model_type, path = case
    vector = find_vector(*golden(model_type), path)
    assert vector is not None
    assert vector.name == name


@pytest.mark.parametrize(("model_type", "path"), sorted(UNKNOWN), ids=lambda text: text[:40])
def test_a_path_that_is_no_site_finds_nothing(model_type: str, path: str) -> None:
    assert find_site(*golden(model_type), path) is None


def test_blocks_and_attentions_are_found_by_module_path() -> None:
    bert, vit = lookup(*golden("bert")), lookup(*golden("vit"))
    block = bert.block("bert.encoder.layer.1.output.dense")
    attention = vit.attention("vit.encoder.layer.0.attention.attention")
    assert block is not None
    assert block.name == "encoder.1.after_ffn"
    assert attention is not None
    assert attention.name == "encoder.0.self"
    assert bert.block("bert.encoder.layer.1.intermediate.dense") is None
    assert bert.attention("bert.encoder.layer.0.attention") is None


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_path_of_the_tables_finds_itself(model_type: str) -> None:
    family, config = golden(model_type)
    found, anatomy = lookup(family, config), family.anatomy(config)
    assert all(found.site(one.module_path) == one for one in family.sites(config))
    assert all(found.vector(one.parameter_path) == one for one in anatomy.vectors)
    assert all(found.block(one.output_path) == one for one in anatomy.blocks)
    assert all(found.attention(one.module_path) == one for one in anatomy.attentions)


def model_classes(model_type: str) -> dict[str, Any]:
    """One model without weights per class that transformers has for this type."""
    _, config = golden(model_type)
    built = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        return {
            factory.__name__: factory.from_config(built)
            for factory in CLASSES
            if type(built) in factory._model_mapping
        }


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_class_of_the_model_names_every_site_once(model_type: str) -> None:
    family, config = golden(model_type)
    found, sites = lookup(family, config), family.sites(config)
    models = model_classes(model_type)
    assert len(models) > 1
    for name, model in models.items():
        linear = [
            path for path, one in model.named_modules() if isinstance(one, nn.Linear | Conv1D)
        ]
        hits = {path: found.site(path) for path in linear}
        names = [site.name for site in hits.values() if site is not None]
        assert len(set(names)) == len(names)
        others = [path for path, site in hits.items() if site is None]
        assert all(any(head in path for head in HEADS) for path in others), others
        is_half = len({site.stack for site in sites}) == 2 and (
            name in ENCODER_CLASSES or name == "AutoModelForCausalLM"
        )
        assert is_half or set(names) == {site.name for site in sites}, name


def test_a_path_that_could_be_two_places_finds_none() -> None:
    family, config = golden("llama")
    renames = ((r"^a\.layers\.0\.", "layers.1."),)
    double = Family("double", family.sites, family.anatomy, prefixes=("a.",), renames=renames)
    found = Lookup(double, config)
    assert found.site("a.layers.0.self_attn.q_proj") is None
    site = found.site("a.layers.2.self_attn.q_proj")
    assert site is not None
    assert site.name == "decoder.2.self.q"


def test_a_lookup_is_kept_per_family_and_configuration() -> None:
    family, config = golden("llama")
    assert lookup(family, config) is lookup(family, dict(config))
    assert lookup(family, config) is not lookup(family, config | {"num_hidden_layers": 2})


def test_hundreds_of_keys_take_milliseconds() -> None:
    family, config = golden("vit")
    paths = [f"vit.encoder.layer.{i}.attention.attention.query" for i in range(500)]
    lookup(family, config)
    start = time.perf_counter()
    assert sum(find_site(family, config, path) is not None for path in paths) == 2
    assert time.perf_counter() - start < 1.0
