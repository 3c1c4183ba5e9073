"""``bottleneck`` against layers that are rolled out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from reference_kit import answer, artefact_of, backbone_of, batch_of, model_of
from torch import nn

from adapters_store.artefact import load_tensors
from adapters_store.primitives.bottleneck import BottleneckActivation, BottleneckPart, Reads
from training.reference import applied

ACTIVATIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "leaky_relu": nn.LeakyReLU(0.01),
    "identity": nn.Identity(),
}
Add = Callable[[str, torch.Tensor, torch.Tensor, torch.Tensor, nn.Module | None], torch.Tensor]
"""From a block, x, u, f and a norm behind to what the sub-layer adds in the end."""


def adder(parts: list[BottleneckPart], t: dict[str, torch.Tensor]) -> Add:
    """The formula of every part, term by term."""

    def add(
        block: str, x: torch.Tensor, u: torch.Tensor, f: torch.Tensor, norm: nn.Module | None
    ) -> torch.Tensor:
        total = f
        for part in parts:
            if part.block != block:
                continue
            after = x + f if norm is None else norm(x + f)
            z = {"output": f, "sum": after, "residual": x, "input": u}[part.reads]
            stem = f"{block}/bottleneck/{part.reads}"
            if part.norm_eps is not None:
                centred = z - z.mean(-1, keepdim=True)
                deviation = (centred.pow(2).mean(-1, keepdim=True) + part.norm_eps).sqrt()
                z = centred / deviation * t[f"{stem}/norm_gain"] + t[f"{stem}/norm_bias"]
            inner = ACTIVATIONS[part.activation](z @ t[f"{stem}/down"] + t[f"{stem}/down_bias"])
            total = total + part.scale * (inner @ t[f"{stem}/up"] + t[f"{stem}/up_bias"])
        return total

    return add


def bert_by_hand(model: Any, batch: dict[str, Any], add: Add) -> torch.Tensor:
    x: torch.Tensor = model.embeddings(batch["input_ids"])
    for i, layer in enumerate(model.encoder.layer):
        output = layer.attention.output
        f = output.dense(layer.attention.self(x)[0])
        x = output.LayerNorm(x + add(f"encoder.{i}.after_self", x, x, f, output.LayerNorm))
        output = layer.output
        f = output.dense(layer.intermediate(x))
        x = output.LayerNorm(x + add(f"encoder.{i}.after_ffn", x, x, f, output.LayerNorm))
    return x


def gpt2_by_hand(model: Any, batch: dict[str, Any], add: Add) -> torch.Tensor:
    ids, inner = batch["input_ids"], model.transformer
    x: torch.Tensor = inner.wte(ids) + inner.wpe(torch.arange(ids.shape[1]))
    for i, block in enumerate(inner.h):
        u = block.ln_1(x)
        x = x + add(f"decoder.{i}.after_self", x, u, block.attn(u)[0], None)
        u = block.ln_2(x)
        x = x + add(f"decoder.{i}.after_ffn", x, u, block.mlp(u), None)
    logits: torch.Tensor = model.lm_head(inner.ln_f(x))
    return logits


def t5_by_hand(model: Any, batch: dict[str, Any], add: Add) -> torch.Tensor:
    encoded = t5_stack(model.encoder, batch["input_ids"], "encoder", None, add)
    decoded = t5_stack(model.decoder, batch["decoder_input_ids"], "decoder", encoded, add)
    scale = model.config.d_model**-0.5 if model.config.tie_word_embeddings else 1.0
    logits: torch.Tensor = model.lm_head(decoded * scale)
    return logits


def t5_stack(
    stack: Any, ids: torch.Tensor, name: str, encoded: torch.Tensor | None, add: Add
) -> torch.Tensor:
    x: torch.Tensor = stack.embed_tokens(ids)
    num_tokens, bias = ids.shape[1], None
    mask = torch.full((num_tokens, num_tokens), float("-inf")).triu(1)[None, None]
    for i, block in enumerate(stack.block):
        u = block.layer[0].layer_norm(x)
        f, bias, _ = block.layer[0].SelfAttention(
            u, mask=mask if name == "decoder" else None, position_bias=bias
        )
        x = x + add(f"{name}.{i}.after_self", x, u, f, None)
        if encoded is not None:
            u = block.layer[1].layer_norm(x)
            f = block.layer[1].EncDecAttention(u, key_value_states=encoded)[0]
            x = x + add(f"{name}.{i}.after_cross", x, u, f, None)
        u = block.layer[-1].layer_norm(x)
        x = x + add(f"{name}.{i}.after_ffn", x, u, block.layer[-1].DenseReluDense(u), None)
    normed: torch.Tensor = stack.final_layer_norm(x)
    return normed


BY_HAND = {"bert": bert_by_hand, "gpt2": gpt2_by_hand, "t5": t5_by_hand}


def check(name: str, parts: list[BottleneckPart]) -> None:
    backbone = backbone_of(name)
    artefact, model, batch = artefact_of(backbone, parts), model_of(backbone), batch_of(backbone)
    with torch.no_grad():
        expected = BY_HAND[name](model, batch, adder(parts, load_tensors(artefact)))
        bare = BY_HAND[name](model, batch, adder([], {}))
    torch.testing.assert_close(bare, answer(model, **batch), atol=1e-5, rtol=1e-5)
    with applied(model, backbone, artefact) as adapted:
        found = answer(adapted, **batch)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert (found - bare).abs().max() > 1e-2


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("reads", get_args(Reads))
@pytest.mark.parametrize("norm_eps", [None, 1e-5])
def test_every_reading_at_every_block(name: str, reads: Reads, norm_eps: float | None) -> None:
    blocks = backbone_of(name).shapes.anatomy.blocks
    parts = [
        BottleneckPart(
            block=block.name, rank=4, activation="relu", reads=reads, scale=0.6, norm_eps=norm_eps
        )
        for block in blocks
    ]
    check(name, parts)


@pytest.mark.parametrize("activation", get_args(BottleneckActivation))
def test_every_activation(activation: BottleneckActivation) -> None:
    part = BottleneckPart(
        block="encoder.1.after_ffn", rank=8, activation=activation, reads="sum", scale=1.0
    )
    check("bert", [part])


@pytest.mark.parametrize("name", BY_HAND)
def test_bottlenecks_of_one_block_read_the_same_values(name: str) -> None:
    block = backbone_of(name).shapes.anatomy.blocks[1].name
    parts = [
        BottleneckPart(block=block, rank=4, activation="gelu", reads=reads, scale=0.5)
        for reads in get_args(Reads)
    ]
    check(name, parts)
