"""``prompt`` against inputs put together, and layers rolled out, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference_kit import answer, artefact_of, backbone_of, batch_of, model_of
from torch.nn.functional import pad

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import InvalidArtefactError, PatchbayError, UsageError
from adapters_store.primitives.prompt import PromptPart
from training.reference import applied

P = 3
NAMES = ("llama", "gemma", "gpt2", "t5", "bart", "bert")


def prompts(
    backbone: Backbone, *, has_positions: bool, layers: tuple[int, ...] = (0,)
) -> tuple[Artefact, dict[str, torch.Tensor]]:
    """Rows at the layers of every input, and the tensors."""
    parts = [
        PromptPart(input=place.name, layer=layer, num_tokens=P, has_positions=has_positions)
        for place in backbone.shapes.anatomy.inputs
        for layer in layers
    ]
    artefact = artefact_of(backbone, parts)
    return artefact, load_tensors(artefact)


def in_front(rows: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    return torch.cat((rows.expand(len(hidden), -1, -1), hidden), dim=1)


@torch.no_grad()
def embedded(model: Any, batch: dict[str, Any], t: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The batch as embeddings with the rows in front, and a mask for both."""
    table, prefix = model.get_input_embeddings(), ""
    name = "encoder" if "encoder/prompt/0/rows" in t else "decoder"
    found = {"attention_mask": pad(batch["attention_mask"], (P, 0), value=1)}
    if "decoder_input_ids" in batch:
        prefix = "decoder_"
        rows = t["decoder/prompt/0/rows"]
        found["decoder_inputs_embeds"] = in_front(rows, table(batch["decoder_input_ids"]))
    assert prefix or name == "encoder" or len(t) == 1
    found["inputs_embeds"] = in_front(t[f"{name}/prompt/0/rows"], table(batch["input_ids"]))
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_with_positions_are_tokens_of_their_own(name: str, padding: str) -> None:
    backbone = backbone_of(name)
    model, batch = model_of(backbone), batch_of(backbone, padding=padding)
    artefact, t = prompts(backbone, has_positions=True)
    with applied(model, backbone, artefact) as adapted:
        found = answer(adapted, **batch)
        assert adapted.prompt_rows == {one.name: P for one in backbone.shapes.anatomy.inputs}
    torch.testing.assert_close(found, answer(model, **embedded(model, batch, t)), atol=0, rtol=0)
    assert (found[:, P:] - answer(model, **batch)).abs().max() > 1e-2


@torch.no_grad()
def bert_by_hand(model: Any, batch: dict[str, Any], t: dict[str, torch.Tensor]) -> torch.Tensor:
    hidden: torch.Tensor = model.embeddings(batch["input_ids"])
    hidden = in_front(torch.zeros(P, hidden.shape[-1]), hidden)
    mask = pad(batch["attention_mask"], (P, 0), value=1)[:, None, None].bool()
    for i, layer in enumerate(model.encoder.layer):
        if f"encoder/prompt/{i}/rows" in t:
            hidden = in_front(t[f"encoder/prompt/{i}/rows"], hidden[:, P:])
        hidden = layer(hidden, attention_mask=mask)
    return hidden


@torch.no_grad()
def gpt2_by_hand(model: Any, batch: dict[str, Any], t: dict[str, torch.Tensor]) -> torch.Tensor:
    ids, inner = batch["input_ids"], model.transformer
    hidden = inner.wte(ids) + inner.wpe(torch.arange(ids.shape[1]))
    hidden = in_front(torch.zeros(P, hidden.shape[-1]), hidden)
    mask = pad(batch["attention_mask"], (P, 0), value=1)[:, None, None].bool()
    mask = mask & torch.ones(hidden.shape[1], hidden.shape[1]).tril().bool()
    for i, block in enumerate(inner.h):
        if f"decoder/prompt/{i}/rows" in t:
            hidden = in_front(t[f"decoder/prompt/{i}/rows"], hidden[:, P:])
        hidden = block(hidden, attention_mask=mask)
    logits: torch.Tensor = model.lm_head(inner.ln_f(hidden))
    return logits


BY_HAND = {"bert": bert_by_hand, "gpt2": gpt2_by_hand}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("padding", ["none", "right"])
@pytest.mark.parametrize("layers", [(0,), (0, 1)])
def test_rows_without_positions_enter_the_first_layer(
    name: str, padding: str, layers: tuple[int, ...]
) -> None:
    backbone = backbone_of(name)
    model, batch = model_of(backbone), batch_of(backbone, padding=padding)
    artefact, t = prompts(backbone, has_positions=False, layers=layers)
    with applied(model, backbone, artefact) as adapted:
        found = answer(adapted, **batch)
    expected = BY_HAND[name](model, batch, t)
    seen = pad(batch["attention_mask"], (P, 0), value=1).bool()
    torch.testing.assert_close(found[seen], expected[seen], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_deep_rows_replace_what_the_layer_would_read(name: str) -> None:
    backbone = backbone_of(name)
    model, batch = model_of(backbone), batch_of(backbone, padding="right")
    artefact, t = prompts(backbone, has_positions=True, layers=(0, 1))
    found: dict[str, torch.Tensor] = {}
    with applied(model, backbone, artefact) as adapted:
        handles = [
            model.base_model.get_submodule(place.layer_path.format(i=1)).register_forward_pre_hook(
                lambda _, args, name=place.name: found.update({name: args[0]})
            )
            for place in backbone.shapes.anatomy.inputs
        ]
        deep = answer(adapted, **batch)
    for handle in handles:
        handle.remove()
    for stack, hidden in found.items():
        assert torch.equal(hidden[:, :P], t[f"{stack}/prompt/1/rows"].expand(3, -1, -1))
        assert not torch.equal(hidden[0, P:], hidden[1, P:])
    first, _ = prompts(backbone, has_positions=True)
    with applied(model, backbone, first) as adapted:
        assert not torch.allclose(answer(adapted, **batch), deep)


def test_positions_beside_a_prompt_count_from_the_first_token() -> None:
    backbone = backbone_of("llama")
    model, batch = model_of(backbone), batch_of(backbone)
    artefact, _ = prompts(backbone, has_positions=True)
    positions = torch.arange(batch["input_ids"].shape[1])[None].expand(3, -1)
    with applied(model, backbone, artefact) as adapted:
        expected = answer(adapted, **batch)
        assert torch.equal(answer(adapted, **batch, position_ids=positions), expected)
        with pytest.raises(UsageError, match="count from 0"):
            answer(adapted, **batch, position_ids=positions + 1)


def test_token_types_of_the_rows_are_those_of_the_first_kind() -> None:
    backbone = backbone_of("bert")
    model, batch = model_of(backbone), batch_of(backbone)
    artefact, t = prompts(backbone, has_positions=True)
    types = torch.ones_like(batch["input_ids"])
    expected = answer(
        model, **embedded(model, batch, t), token_type_ids=pad(types, (P, 0), value=0)
    )
    with applied(model, backbone, artefact) as adapted:
        assert torch.equal(answer(adapted, **batch, token_type_ids=types), expected)


def part(layer: int, num_tokens: int = P) -> PromptPart:
    return PromptPart(input="decoder", layer=layer, num_tokens=num_tokens, has_positions=True)


def refusal(*arguments: Any) -> PatchbayError:
    with pytest.raises(PatchbayError) as caught, applied(*arguments):
        pass
    return caught.value


def test_deep_rows_without_rows_to_replace_are_refused() -> None:
    backbone = backbone_of("llama")
    model = model_of(backbone)
    error = refusal(model, backbone, artefact_of(backbone, [part(1)]))
    assert isinstance(error, InvalidArtefactError)
    assert "no prompt at layer 0" in error.message
    error = refusal(model, backbone, artefact_of(backbone, [part(0), part(1, P + 1)]))
    assert "has 4 rows; at layer 0 it has 3" in error.message


def test_a_stack_has_one_prompt_at_a_time() -> None:
    backbone = backbone_of("llama")
    model, artefact = model_of(backbone), artefact_of(backbone, [part(0)])
    with applied(model, backbone, artefact):
        error = refusal(model, backbone, artefact)
    assert "already has a prompt of the decoder" in error.message
