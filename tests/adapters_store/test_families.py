"""Golden families: every site, norm and embedding path exists in the Hugging Face model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from store_kit import bert_config, t5_config
from transformers import (
    BertForSequenceClassification,
    BertModel,
    MT5Config,
    MT5ForConditionalGeneration,
    T5ForConditionalGeneration,
)

from adapters_store.errors import IncompatibleError, InvalidArtefactError
from adapters_store.families import Architecture, family_of, load_family

BYT5 = {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu", "num_layers": 3}
MODELS = {
    "t5": lambda: T5ForConditionalGeneration(t5_config()),
    "t5 gated gelu": lambda: T5ForConditionalGeneration(t5_config(feed_forward_proj="gated-gelu")),
    "t5 gated silu": lambda: T5ForConditionalGeneration(t5_config(feed_forward_proj="gated-silu")),
    "byt5": lambda: T5ForConditionalGeneration(t5_config(**BYT5)),
    "mt5": lambda: MT5ForConditionalGeneration(MT5Config(**_mt5_values())),
    "bert": lambda: BertModel(bert_config()),
}
NUM_SITES = {
    "t5": 2 * 6 + 10,
    "t5 gated gelu": 2 * 7 + 11,
    "t5 gated silu": 2 * 7 + 11,
    "byt5": 3 * 7 + 11,
    "mt5": 2 * 7 + 11,
    "bert": 2 * 6,
}


def _mt5_values():
    config = t5_config().to_dict()
    keys = (
        "vocab_size",
        "d_model",
        "d_kv",
        "d_ff",
        "num_layers",
        "num_decoder_layers",
        "num_heads",
    )
    return {key: config[key] for key in keys}


@pytest.fixture(params=list(MODELS))
def built(request, tmp_path: Path):
    """A model with the mapping of its own config.json, as save_pretrained writes it."""
    torch.manual_seed(0)
    model = MODELS[request.param]()
    model.config.save_pretrained(tmp_path)
    return request.param, model, json.loads((tmp_path / "config.json").read_text())


def test_every_site_is_a_linear_module_of_these_widths(built):
    _, model, config = built
    for site in family_of(config).sites(config):
        module = model.get_submodule(site.module_path)
        assert isinstance(module, torch.nn.Linear)
        assert (module.in_features, module.out_features) == (site.in_features, site.out_features)


def test_every_linear_module_but_output_and_pooler_is_a_site(built):
    name, model, config = built
    sites = family_of(config).sites(config)
    linear = {
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and path not in ("lm_head", "pooler.dense")
    }
    assert {site.module_path for site in sites} == linear
    assert len({site.name for site in sites}) == len(sites) == NUM_SITES[name]


def test_every_path_of_the_architecture_exists(built):
    _, model, config = built
    architecture = family_of(config).architecture(config)
    for stack in architecture.stacks:
        embedding = stack.embedding
        tokens = model.get_submodule(embedding.token_path)
        assert tokens.weight.shape == (architecture.vocab_size, stack.hidden_size)
        for path in (embedding.position_path, embedding.type_path):
            if path is not None:
                assert model.get_submodule(path).weight.shape[1] == stack.hidden_size
        for path in _norm_paths(stack):
            norm = model.get_submodule(path)
            assert norm.weight.shape == (stack.hidden_size,)
            assert (getattr(norm, "bias", None) is not None) == (stack.norm.kind == "layer")
            eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
            assert eps == stack.norm.eps
        if stack.relative_bias is not None:
            table = model.get_submodule(stack.relative_bias.path).weight
            assert table.shape == (stack.relative_bias.num_buckets, stack.num_heads)
    if architecture.lm_head_path is not None:
        head = model.get_submodule(architecture.lm_head_path).weight
        assert head.shape == (architecture.vocab_size, architecture.stacks[0].hidden_size)


def _norm_paths(stack) -> list[str]:
    templates = [stack.self_norm_path, stack.ffn_norm_path]
    templates += [stack.cross_norm_path] if stack.cross_norm_path else []
    paths = [path.format(i=i) for path in templates for i in range(stack.num_layers)]
    paths += [stack.final_norm_path] if stack.final_norm_path else []
    return paths + ([stack.embedding.norm_path] if stack.embedding.norm_path else [])


def test_every_norm_of_the_model_is_in_the_architecture(built):
    _, model, config = built
    known = {path for s in family_of(config).architecture(config).stacks for path in _norm_paths(s)}
    found = {path for path, module in model.named_modules() if "Norm" in type(module).__name__}
    assert known == found


@pytest.mark.parametrize("is_tied", [True, False])
def test_output_scale_follows_tying(is_tied: bool):
    config = t5_config(tie_word_embeddings=is_tied).to_dict()
    architecture = family_of(config).architecture(config)
    assert architecture.lm_head_scale == (16**-0.5 if is_tied else 1.0)


def test_sites_of_bert_are_relative_to_the_encoder():
    model = BertForSequenceClassification(bert_config())
    config = bert_config().to_dict()
    for site in family_of(config).sites(config):
        assert isinstance(model.bert.get_submodule(site.module_path), torch.nn.Linear)


def test_site_names_tell_stack_layer_and_role():
    config = t5_config().to_dict()
    site = next(s for s in family_of(config).sites(config) if s.name == "decoder.0.cross.k")
    assert (site.stack, site.layer, site.role) == ("decoder", 0, "cross.k")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "pegasus"}, "model_type 'pegasus'"),
        ({}, "model_type 'None'"),
        (t5_config().to_dict() | {"feed_forward_proj": "mish"}, "'mish'"),
        (bert_config().to_dict() | {"hidden_act": "mish"}, "'mish'"),
        (bert_config().to_dict() | {"position_embedding_type": "relative_key"}, "absolute"),
    ],
)
def test_what_no_family_serves_is_refused(config, words: str):
    with pytest.raises(IncompatibleError, match=words):
        _describe(config)


def _describe(config) -> Architecture:
    return family_of(config).architecture(config)


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_a_configuration_that_lacks_or_breaks_a_width_is_refused(name: str):
    family = load_family(name)
    config = (t5_config() if name == "t5" else bert_config()).to_dict()
    width = "d_model" if name == "t5" else "hidden_size"
    with pytest.raises(InvalidArtefactError, match=width):
        family.sites({key: value for key, value in config.items() if key != width})
    with pytest.raises(InvalidArtefactError, match=width):
        family.sites(config | {width: "wide"})
    with pytest.raises(InvalidArtefactError, match=width):
        family.architecture(config | {width: 0})


@pytest.mark.parametrize(
    ("model_type", "changes", "error", "words"),
    [
        ("llama", {"num_key_value_heads": 3}, InvalidArtefactError, "3 in config.json does not"),
        ("llama", {"num_key_value_heads": 0}, InvalidArtefactError, "num_key_value_heads"),
        ("llama", {"head_dim": "wide"}, InvalidArtefactError, "head_dim in config.json is 'wide'"),
        ("llama", {"head_dim": None, "hidden_size": 25}, InvalidArtefactError, "does not divide"),
        ("gpt2", {"n_head": 5}, InvalidArtefactError, "n_head 5 in config.json does not divide"),
        ("gpt2", {"add_cross_attention": True}, IncompatibleError, "add_cross_attention"),
        ("bert", {"add_cross_attention": True}, IncompatibleError, "add_cross_attention"),
        ("roberta", {"max_position_embeddings": 2}, InvalidArtefactError, "positions begin at"),
        ("distilbert", {"activation": "mish"}, IncompatibleError, "'mish'"),
        ("vit", {}, IncompatibleError, "does not run backbones of family 'vit'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, IncompatibleError, "is 'yarn'"),
        ("llama", {"rope_scaling": {"type": "linear"}}, InvalidArtefactError, "factor of the rot"),
        ("llama", {"partial_rotary_factor": 0.5}, IncompatibleError, "partial_rotary_factor"),
        ("llama", {"hidden_act": "mish"}, IncompatibleError, "hidden_act 'mish'"),
        ("llama", {"eos_token_id": "x"}, InvalidArtefactError, "expected token ids"),
        ("gemma2", {"attn_logit_softcapping": "x"}, InvalidArtefactError, "expected a number"),
        ("gemma2", {"layer_types": ["full_attention"]}, IncompatibleError, "layer 1"),
        ("gemma3_text", {"use_bidirectional_attention": True}, IncompatibleError, "causal"),
        ("gpt2", {"scale_attn_weights": False}, IncompatibleError, "scale_attn_weights is False"),
    ],
)
def test_a_configuration_that_no_table_fits_is_refused(model_type, changes, error, words: str):
    golden = Path(__file__).parents[1] / "golden" / "families" / f"{model_type}.json"
    config = json.loads(golden.read_text()) | changes
    with pytest.raises(error, match=words):
        _describe_all(config)


def _describe_all(config) -> Architecture:
    family = family_of(config)
    family.sites(config)
    family.anatomy(config)
    return family.architecture(config)
