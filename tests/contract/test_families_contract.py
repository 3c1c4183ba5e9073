"""Every family's tables against the real transformers model of each golden configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families_kit import (
    GOLDEN,
    NUM_TOKENS,
    Built,
    Watched,
    build,
    built,
    golden_config,
    watch,
    watched_attention,
)
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.pytorch_utils import Conv1D

from adapters_store.errors import InvalidArtefactError
from adapters_store.families import FAMILIES, MODEL_TYPES, Anatomy, Site, family_of

BIASED = {"attention_bias": True, "mlp_bias": True}
GATED = {"feed_forward_proj": "gated-gelu", "is_gated_act": True, "dense_act_fn": "gelu_new"}
VARIANTS = {
    "t5 gated": ("t5", GATED),
    "llama biased": ("llama", BIASED | {"head_dim": 10, "num_key_value_heads": None}),
    "gpt2 narrow": ("gpt2", {"n_inner": 20}),
    "qwen3 biased": ("qwen3", BIASED),
    "gemma3 biased": ("gemma3_text", BIASED),
    "vit unbiased": ("vit", {"qkv_bias": False}),
    "vit other pooler": ("vit", {"pooler_act": "relu"}),
}
LEFT_OUT = {"pooler.dense.bias", "embeddings.patch_embeddings.projection.bias"}
"""One-dimensional parameters that no row may override: what comes before and after the stack."""


def config_of(case: str) -> dict[str, object]:
    name, changes = VARIANTS.get(case, (case, {}))
    return golden_config(name) | changes


@pytest.fixture(scope="module", params=[*MODEL_TYPES, *VARIANTS])
def made(request: pytest.FixtureRequest) -> Built:
    return built(config_of(request.param))


@pytest.fixture(scope="module")
def seen(made: Built) -> Watched:
    return watch(made.model)


def test_every_model_type_has_a_golden_configuration_and_a_family() -> None:
    names = sorted(path.stem for path in GOLDEN.glob("*.json"))
    assert names == sorted(MODEL_TYPES)
    assert all(golden_config(name)["model_type"] == name for name in names)
    assert set(MODEL_TYPES.values()) == set(FAMILIES)


def test_every_site_is_a_linear_map_of_these_widths(made: Built) -> None:
    for site in made.sites:
        module = made.model.get_submodule(site.module_path)
        if isinstance(module, Conv1D):
            assert tuple(module.weight.shape) == (site.in_features, site.out_features)
        else:
            assert isinstance(module, nn.Linear)
            assert (module.in_features, module.out_features) == (
                site.in_features,
                site.out_features,
            )


def test_every_linear_map_but_the_pooler_is_a_site(made: Built) -> None:
    linear = {
        path
        for path, module in made.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and path != "pooler.dense"
    }
    assert {site.module_path for site in made.sites} == linear
    assert len({site.name for site in made.sites}) == len(made.sites)


def test_sites_are_listed_in_the_order_in_which_they_run(made: Built) -> None:
    order: list[str] = []
    for site in made.sites:
        module = made.model.get_submodule(site.module_path)
        module.register_forward_hook(lambda *_, name=site.name: order.append(name))
    made.run()
    together = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "in"}

    def coarse(name: str) -> str:
        stem, _, part = name.rpartition(".")
        return f"{stem}.{together.get(part, part)}"

    assert [coarse(name) for name in order] == [coarse(site.name) for site in made.sites]


def test_a_block_adds_f_to_the_stream_before_or_under_its_norm(made: Built, seen: Watched) -> None:
    blocks = made.anatomy.blocks
    assert blocks
    for number, block in enumerate(blocks):
        stack, layer, _ = block.name.split(".")
        x, f = seen.tapped(block.residual), seen.outputs[block.output_path]
        assert f.shape[-1] == x.shape[-1] == block.width
        after = blocks[number + 1] if number + 1 < len(blocks) else None
        if after is not None and after.name.startswith(f"{stack}.{layer}."):
            stream = seen.tapped(after.residual)
        else:
            stream = seen.outputs[layer_path(made, stack).format(i=layer)]
        if block.post_norm_path is None:
            assert_close(stream, x + f)
        else:
            norm = made.model.get_submodule(block.post_norm_path)
            assert_close(stream, norm(x + f))


def test_a_sub_layer_reads_u(made: Built, seen: Watched) -> None:
    sites = {site.name: site for site in made.sites}
    for block in made.anatomy.blocks:
        stem, _, end = block.name.rpartition(".")
        kind = end.removeprefix("after_")
        names = [f"{stem}.{kind}.{part}" for part in ("q", "qkv", "gate", "in")]
        readers = [sites[name] for name in names if name in sites]
        x = seen.tapped(block.residual)
        u = x if block.pre_norm_path is None else seen.outputs[block.pre_norm_path]
        assert readers
        for reader in readers:
            assert_close(seen.calls[reader.module_path][0][0], u)
        assert (block.pre_norm_path is None) == (block.post_norm_path is not None)


def test_a_stream_enters_each_layer_as_its_first_argument(made: Built, seen: Watched) -> None:
    first: set[str] = set()
    for block in made.anatomy.blocks:
        stack, layer, _ = block.name.split(".")
        if f"{stack}.{layer}" not in first:
            first.add(f"{stack}.{layer}")
            entering = seen.calls[layer_path(made, stack).format(i=layer)][0][0]
            assert_close(seen.tapped(block.residual), entering)


def layer_path(made: Built, stack: str) -> str:
    (place,) = (one for one in made.anatomy.inputs if one.name == stack)
    return place.layer_path


def test_inputs_are_the_stacks_with_their_embedding_and_layers(made: Built, seen: Watched) -> None:
    stacks = {site.stack for site in made.sites}
    assert {place.name for place in made.anatomy.inputs} == stacks
    for place in made.anatomy.inputs:
        assert seen.outputs[place.embedding_path].shape[-1] == place.width
        layers = {site.layer for site in made.sites if site.stack == place.name}
        assert layers == set(range(place.num_layers))
        parent = place.layer_path.removesuffix(".{i}")
        assert len(made.model.get_submodule(parent)) == place.num_layers


def test_a_stack_is_entered_with_tokens_and_knows_their_positions(
    made: Built, seen: Watched
) -> None:
    relative = {one.name.partition(".")[0] for one in made.anatomy.attentions if one.relative_bias}
    for place in made.anatomy.inputs:
        args, keywords = seen.calls[place.stack_path]
        assert args or not {"input_ids", "pixel_values", "input_values"}.isdisjoint(keywords)
        if place.position_path is not None:
            table = made.model.get_submodule(place.position_path)
            assert isinstance(table, nn.Embedding)
            assert seen.outputs[place.position_path].shape[-1] == place.width
        if place.rotary_path is not None:
            args, keywords = seen.calls[place.rotary_path]
            positions = keywords["position_ids"] if len(args) == 1 else args[1]
            assert positions.shape[-1] == NUM_TOKENS
        kinds = (place.position_path, place.rotary_path, place.name in relative or None)
        is_text = made.model.main_input_name == "input_ids"
        assert sum(kind is not None for kind in kinds) == (1 if is_text else 0)


def test_a_relative_bias_is_a_table_of_the_attention(made: Built) -> None:
    for one in made.anatomy.attentions:
        if one.relative_bias is not None:
            table = made.model.get_submodule(one.relative_bias.path)
            assert tuple(table.weight.shape) == (one.relative_bias.num_buckets, one.num_heads)


def test_attentions_are_those_that_attend_with_these_heads(made: Built) -> None:
    with watched_attention(made.model) as found:
        made.run()
    places = made.anatomy.attentions
    assert found == {
        one.module_path: (one.num_heads, one.num_kv_heads, one.head_dim) for one in places
    }
    sites = {site.name: site for site in made.sites}
    for one in places:
        widths = {
            "q": one.num_heads * one.head_dim,
            "k": one.num_kv_heads * one.head_dim,
            "v": one.num_kv_heads * one.head_dim,
            "qkv": (one.num_heads + 2 * one.num_kv_heads) * one.head_dim,
        }
        own = [part for part in widths if f"{one.name}.{part}" in sites]
        assert own in (["q", "k", "v"], ["qkv"])
        assert all(sites[f"{one.name}.{part}"].out_features == widths[part] for part in own)
        assert sites[f"{one.name}.o"].in_features == widths["q"] if "q" in own else True


def test_vectors_are_the_parameters_of_that_size(made: Built) -> None:
    parameters = made.parameters()
    for vector in made.anatomy.vectors:
        if vector.is_present:
            assert tuple(parameters[vector.parameter_path].shape) == (vector.size,)
        else:
            assert parameters.get(vector.parameter_path) is None
            assert vector.name.endswith(".bias")
    names = [vector.name for vector in made.anatomy.vectors]
    assert len(set(names)) == len(names)


def test_every_norm_and_bias_of_the_layers_is_a_vector(made: Built) -> None:
    known = {one.parameter_path for one in made.anatomy.vectors if one.is_present}
    flat = {path for path, one in made.parameters().items() if one.dim() == 1}
    assert flat - known <= LEFT_OUT
    assert known <= flat


def test_the_pooler_is_dense_and_tanh_over_the_first_token(made: Built) -> None:
    path = made.anatomy.pooler_path
    act = made.config.get("pooler_act", "tanh")
    has_pooler = getattr(made.model, "pooler", None) is not None and act == "tanh"
    assert path == ("pooler" if has_pooler else None)
    if path is not None:
        output = made.run()
        dense = made.model.get_submodule(f"{path}.dense")
        assert_close(output.pooler_output, torch.tanh(dense(output.last_hidden_state[:, 0])))


def test_the_last_hidden_state_has_the_stated_width(made: Built) -> None:
    assert made.run().last_hidden_state.shape[-1] == made.anatomy.width


def test_paths_are_relative_to_the_base_model_of_a_class_that_writes(made: Built) -> None:
    if not made.anatomy.can_generate:
        return
    is_seq2seq = made.model.config.is_encoder_decoder
    factory = AutoModelForSeq2SeqLM if is_seq2seq else AutoModelForCausalLM
    model = build(made.config, factory=factory)
    assert model.can_generate()
    for site in made.sites:
        assert isinstance(model.base_model.get_submodule(site.module_path), nn.Linear | Conv1D)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_setting_left_out_means_what_transformers_takes_it_for(model_type: str) -> None:
    config = golden_config(model_type)
    if "num_key_value_heads" in config:  # so many heads that every default divides them
        config |= {"num_attention_heads": 32, "hidden_size": 64}
    num_compared = 0
    for key in sorted(config.keys() - {"model_type"}):
        changes = [{k: v for k, v in config.items() if k != key}, config | {key: None}]
        for changed in changes:
            try:
                complete = AutoConfig.for_model(**changed).to_dict()
            except (TypeError, ValueError, StrictDataclassError):
                continue  # transformers itself does not take it
            found = places(changed)
            if isinstance(found, str):
                assert key in found
            else:
                assert found == places(complete), key
                num_compared += 1
    assert num_compared > 10


def places(config: dict[str, Any]) -> tuple[tuple[Site, ...], Anatomy] | str:
    """Everything that the tables say of a configuration, or why they refuse it."""
    family = family_of(config)
    try:
        return family.sites(config), family.anatomy(config)
    except InvalidArtefactError as error:
        return error.message
