"""Where ``adapters`` keeps its modules in each type of model, and what it does there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from adapters_store.families.shapes import BackboneShapes

FlexPooling = Literal["cls", "last"]


@dataclass(frozen=True, slots=True)
class Layout:
    """One type of model, for the library's ``adapter_class``.

    Keys are ``stack.kind``, such as ``encoder.self``, and roles of sites. ``bottlenecks`` are the
    modules that hold bottlenecks by the adapter's name, with ``{i}`` for the layer's index;
    ``linear`` are the paths of linear maps where the library's transformers has others than the
    family. ``feed_forward`` gives a role the LoRA option that adapts it; ``prefixes`` are the
    library's names of attentions. ``no_prompts`` is the reason where prompts are missing;
    ``pooling`` is None where a head's vector is none of the primitive's.
    """

    adapter_class: str
    bottlenecks: Mapping[str, str]
    linear: Mapping[str, str] = field(default_factory=dict)
    feed_forward: Mapping[str, str] = field(
        default_factory=lambda: {"ffn.in": "intermediate_lora", "ffn.out": "output_lora"}
    )
    prefixes: Mapping[str, str] = field(default_factory=dict)
    no_prompts: str = "`adapters` has no prompts for this type of model"
    pooling: FlexPooling | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place of the backbone under its canonical name.

    ``kind`` is self, cross or ffn; ``layer`` counts through encoder and decoder, as the library's
    options do; ``key`` is what the layout says of it.
    """

    name: str
    kind: str
    layer: int
    key: str


_BERT = Layout(
    adapter_class="BertAdapterModel",
    bottlenecks={
        "encoder.self": "encoder.layer.{i}.attention.output.adapters",
        "encoder.ffn": "encoder.layer.{i}.output.adapters",
    },
    prefixes={"encoder.self": "self_prefix"},
    no_prompts="",
    pooling="cls",
)
_BART = Layout(
    adapter_class="BartAdapterModel",
    bottlenecks={
        "encoder.self": "encoder.layers.{i}.attention_adapters.adapters",
        "encoder.ffn": "encoder.layers.{i}.output_adapters.adapters",
        "decoder.self": "decoder.layers.{i}.attention_adapters.adapters",
        "decoder.cross": "decoder.layers.{i}.cross_attention_adapters.adapters",
        "decoder.ffn": "decoder.layers.{i}.output_adapters.adapters",
    },
    prefixes={
        "encoder.self": "encoder_prefix",
        "decoder.self": "self_prefix",
        "decoder.cross": "cross_prefix",
    },
)
_T5 = Layout(
    adapter_class="T5AdapterModel",
    bottlenecks={
        "encoder.self": "encoder.block.{i}.layer.0.adapters",
        "encoder.ffn": "encoder.block.{i}.layer.1.adapters",
        "decoder.self": "decoder.block.{i}.layer.0.adapters",
        "decoder.cross": "decoder.block.{i}.layer.1.adapters",
        "decoder.ffn": "decoder.block.{i}.layer.2.adapters",
    },
    prefixes={
        "encoder.self": "encoder_prefix",
        "decoder.self": "self_prefix",
        "decoder.cross": "cross_prefix",
    },
)
_GPT2 = Layout(
    adapter_class="GPT2AdapterModel",
    bottlenecks={
        "decoder.self": "h.{i}.attention_adapters.adapters",
        "decoder.ffn": "h.{i}.output_adapters.adapters",
    },
    prefixes={"decoder.self": "self_prefix"},
    pooling="last",
)
_LLAMA = Layout(
    adapter_class="LlamaAdapterModel",
    bottlenecks={
        "decoder.self": "layers.{i}.attention_adapters.adapters",
        "decoder.ffn": "layers.{i}.output_adapters.adapters",
    },
    feed_forward={"ffn.out": "intermediate_lora", "ffn.in": "output_lora"},
    prefixes={"decoder.self": "self_prefix"},
    pooling="last",
)
_VIT = Layout(
    adapter_class="ViTAdapterModel",
    bottlenecks={
        "encoder.self": "encoder.layer.{i}.attention_adapters.adapters",
        "encoder.ffn": "encoder.layer.{i}.output.output_adapters.adapters",
    },
    linear={
        "encoder.self.q": "encoder.layer.{i}.attention.attention.query",
        "encoder.self.k": "encoder.layer.{i}.attention.attention.key",
        "encoder.self.v": "encoder.layer.{i}.attention.attention.value",
        "encoder.ffn.in": "encoder.layer.{i}.intermediate.dense",
        "encoder.ffn.out": "encoder.layer.{i}.output.dense",
    },
    prefixes={"encoder.self": "self_prefix"},
    no_prompts="",
    pooling="cls",
)
LAYOUTS: dict[str, Layout] = {
    "bert": _BERT,
    "roberta": replace(_BERT, adapter_class="RobertaAdapterModel"),
    "xlm-roberta": replace(_BERT, adapter_class="XLMRobertaAdapterModel"),
    "bart": _BART,
    "mbart": replace(_BART, adapter_class="MBartAdapterModel"),
    "t5": _T5,
    "mt5": replace(_T5, adapter_class="MT5AdapterModel"),
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, adapter_class="MistralAdapterModel"),
    "vit": _VIT,
}
"""By ``model_type``."""


def blocks(layout: Layout, shapes: BackboneShapes) -> Iterator[Place]:
    """Every block that may hold a bottleneck, in the backbone's order."""
    for block in shapes.anatomy.blocks:
        stack, index, role = block.name.split(".")
        kind = role.removeprefix("after_")
        path = layout.bottlenecks.get(f"{stack}.{kind}")
        if path is not None:
            yield Place(block.name, kind, _layer(stack, index, shapes), path.format(i=index))


def attentions(layout: Layout, shapes: BackboneShapes) -> Iterator[Place]:
    """Every attention that may have a prefix, in the backbone's order."""
    for attention in shapes.anatomy.attentions:
        stack, index, kind = attention.name.split(".")
        location = layout.prefixes.get(f"{stack}.{kind}")
        if location is not None:
            yield Place(attention.name, kind, _layer(stack, index, shapes), location)


def sites(layout: Layout, shapes: BackboneShapes) -> Iterator[Place]:
    """Every linear site that LoRA may adapt; ``key`` is the option that says so."""
    for site in shapes.sites.values():
        kind, _, matrix = site.role.partition(".")
        if kind == "ffn":
            option = layout.feed_forward.get(site.role)
        else:
            option = "selfattn_lora" if matrix in ("q", "k", "v", "qkv") else None
        if option is not None:
            yield Place(site.name, kind, _layer(site.stack, str(site.layer), shapes), option)


def _layer(stack: str, index: str, shapes: BackboneShapes) -> int:
    before = 0
    for place in shapes.anatomy.inputs:
        if place.name == stack:
            break
        before += place.num_layers
    return before + int(index)
