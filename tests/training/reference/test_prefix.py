"""``prefix`` against attention written out by hand, and against caches that hold the rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference_kit import answer, artefact_of, backbone_of, batch_of, model_of
from transformers import DynamicCache

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError, InvalidArtefactError, UsageError
from adapters_store.families.anatomy import Attention
from adapters_store.primitives.prefix import PrefixPart
from training.reference import applied

P = 3
PLACES = {
    "bert": ("encoder.0.self",),
    "t5": ("encoder.1.self", "decoder.0.self", "decoder.1.cross"),
    "bart": ("encoder.0.self", "decoder.1.cross"),
    "gpt2": ("decoder.1.self",),
}
CASES = [(name, place) for name, places in PLACES.items() for place in places]


def prefixes(backbone: Backbone, *, shifts: bool, names: tuple[str, ...] = ()) -> Artefact:
    """Random rows at the named attentions, or at every self-attention."""
    found = names or tuple(
        one.name for one in backbone.shapes.anatomy.attentions if one.name.endswith("self")
    )
    return artefact_of(
        backbone,
        [PrefixPart(attention=name, num_tokens=P, shifts_positions=shifts) for name in found],
    )


def heads(values: torch.Tensor, place: Attention) -> torch.Tensor:
    return values.view(*values.shape[:2], -1, place.head_dim).transpose(1, 2)


def by_hand(
    model: Any,
    backbone: Backbone,
    place: Attention,
    rows: tuple[torch.Tensor, torch.Tensor],
    x: torch.Tensor,
    read: torch.Tensor,
    mask: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """softmax(q [k_prefix; k]^T * scale + bias + mask) [v_prefix; v], before the output map."""
    own = {s.name: model.base_model.get_submodule(s.module_path) for s in backbone.sites.values()}
    if f"{place.name}.qkv" in own:
        q, k, v = own[f"{place.name}.qkv"](x).chunk(3, dim=-1)
    else:
        q = own[f"{place.name}.q"](x)
        k, v = own[f"{place.name}.k"](read), own[f"{place.name}.v"](read)
    q, k, v = heads(q, place), heads(k, place), heads(v, place)
    k = torch.cat((rows[0].expand(len(k), -1, -1, -1), k), dim=2)
    v = torch.cat((rows[1].expand(len(v), -1, -1, -1), v), dim=2)
    has_scale = backbone.family.name != "t5"
    scores = q @ k.transpose(2, 3) * (place.head_dim**-0.5 if has_scale else 1.0)
    scores = scores if bias is None else scores + bias
    seen = torch.cat((torch.ones(*mask.shape[:-1], P), mask), dim=-1)
    weights = scores.masked_fill(seen == 0, float("-inf")).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def t5_bias(module: Any, num_keys: int, num_queries: int, *, shifts: bool) -> torch.Tensor:
    """The model's own bias over prefix and tokens, query by query."""
    rows = []
    for i in range(num_queries):
        columns = torch.arange(P + num_keys)
        bucket = module._relative_position_bucket(
            columns - (i + (P if shifts else 0)),
            bidirectional=not module.is_decoder,
            num_buckets=module.relative_attention_num_buckets,
            max_distance=module.relative_attention_max_distance,
        )
        rows.append(module.relative_attention_bias(bucket))
    return torch.stack(rows).permute(2, 0, 1)[None]


@pytest.mark.parametrize(("name", "place_name"), CASES)
@pytest.mark.parametrize("shifts", [True, False])
def test_an_attention_sees_the_rows_before_its_own(
    name: str, place_name: str, shifts: bool
) -> None:
    backbone = backbone_of(name)
    model, place = model_of(backbone), backbone.shapes.attention(place_name)
    artefact = prefixes(backbone, shifts=shifts, names=(place_name,))
    t = load_tensors(artefact)
    rows = (t[f"{place_name}/prefix/key"], t[f"{place_name}/prefix/value"])
    seen: dict[str, Any] = {}

    def watch(module: Any, args: Any, kwargs: Any) -> None:
        seen["call"] = (args[0] if args else kwargs["hidden_states"], kwargs)

    site = backbone.sites[f"{place_name}.o"]
    output = model.base_model.get_submodule(site.module_path)
    batch = batch_of(backbone, padding="left" if name == "gpt2" else "right")
    with applied(model, backbone, artefact) as adapted:
        module = model.base_model.get_submodule(place.module_path)
        handles = [
            module.register_forward_pre_hook(watch, with_kwargs=True),
            output.register_forward_pre_hook(lambda _, args: seen.update(result=args[0])),
        ]
        answer(adapted, **batch)
    for handle in handles:
        handle.remove()
    x, kwargs = seen["call"]
    other = kwargs.get("key_value_states")
    is_cross = place_name.endswith("cross")
    read = other if is_cross else x
    num_queries, num_keys = x.shape[1], read.shape[1]
    mask = torch.ones(len(x), 1, num_queries, num_keys)
    if is_cross or place_name.startswith("encoder") or name == "gpt2":
        mask = mask * batch["attention_mask"][:, None, None]
    if not is_cross and place_name.startswith("decoder"):
        mask = mask.tril()
    bias = None
    if place.relative_bias is not None:
        first = model.base_model.get_submodule(place.relative_bias.path.rpartition(".")[0])
        bias = t5_bias(first, num_keys, num_queries, shifts=shifts)
    with torch.no_grad():
        expected = by_hand(model, backbone, place, rows, x, read, mask, bias)
    torch.testing.assert_close(seen["result"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma", "gpt2"])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("shifts", [True, False])
def test_a_decoder_equals_one_whose_cache_holds_the_rows(
    name: str, padding: str, shifts: bool
) -> None:
    backbone = backbone_of(name)
    model, artefact = model_of(backbone), prefixes(backbone, shifts=shifts)
    batch, t = batch_of(backbone, padding=padding), load_tensors(artefact)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    cache = DynamicCache(config=model.config)
    for i, place in enumerate(backbone.shapes.anatomy.attentions):
        rows = (t[f"{place.name}/prefix/{part}"] for part in ("key", "value"))
        cache.update(*(one.expand(len(ids), -1, -1, -1).clone() for one in rows), i)
    positions = (torch.arange(ids.shape[1]) + (P if shifts else 0))[None]
    expected = answer(
        model,
        input_ids=ids,
        attention_mask=torch.cat((mask.new_ones(len(ids), P), mask), dim=1),
        position_ids=positions,
        past_key_values=cache,
    )
    with applied(model, backbone, artefact) as adapted:
        found = answer(adapted, **batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - answer(model, **batch)).abs().max() > 1e-2


def enter(*arguments: Any) -> None:
    with applied(*arguments):
        pass


def test_positions_of_a_table_are_entered_later() -> None:
    backbone = backbone_of("bert")
    model, batch = model_of(backbone), batch_of(backbone, padding="right")
    shifting = prefixes(backbone, shifts=True)
    keeping = prefixes(backbone, shifts=False)
    positions = torch.arange(P, P + batch["input_ids"].shape[1])[None]
    with applied(model, backbone, keeping) as adapted:
        expected = answer(adapted, **batch, position_ids=positions)
    with applied(model, backbone, shifting) as adapted:
        found = answer(adapted, **batch)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_prefixes_that_shift_a_stack_unequally_are_refused() -> None:
    backbone = backbone_of("llama")
    parts = [
        PrefixPart(attention="decoder.0.self", num_tokens=2, shifts_positions=True),
        PrefixPart(attention="decoder.1.self", num_tokens=3, shifts_positions=True),
    ]
    model = model_of(backbone)
    with (
        pytest.raises(InvalidArtefactError, match=r"by \[2, 3\]"),
        applied(model, backbone, artefact_of(backbone, parts)),
    ):
        pass
    assert model.config._attn_implementation == "sdpa"


def test_an_attention_has_one_prefix_at_a_time() -> None:
    backbone = backbone_of("llama")
    model, artefact = model_of(backbone), prefixes(backbone, shifts=True)
    with applied(model, backbone, artefact), pytest.raises(UsageError, match="already has"):
        enter(model, backbone, artefact)
    enter(model, backbone, artefact)


def test_an_attention_that_looks_up_no_function_is_refused() -> None:
    backbone = backbone_of("bert")
    model = model_of(backbone)
    module = model.encoder.layer[0].attention.self
    config = module.config
    del module.config
    with (
        pytest.raises(IncompatibleError, match="does not look up"),
        applied(model, backbone, prefixes(backbone, shifts=False)),
    ):
        pass
    module.config = config
