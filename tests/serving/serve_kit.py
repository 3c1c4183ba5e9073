"""Tiny real backbones and artefacts for the tests of the served application."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ByT5Tokenizer,
    T5Config,
    T5ForConditionalGeneration,
)

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import Backbone
from adapters_store.manifest import (
    BankPart,
    HeadPart,
    LowRankPart,
    Part,
    RoutingPart,
    TaskSignature,
)
from adapters_store.store import Store
from serving.config import BackboneConfig, EngineSection, ServeConfig
from serving.tenancy import hash_key

DEVELOPMENT_KEY = "pb-dev-test"
LABELS = ("red", "green", "blue")
WORDS = ("the", "sky", "is", "blue", "grass", "green", "fire", "red", "a", "b", "c", "d")
NUM_SKILLS, NUM_HEADS, RANK = 3, 2, 2
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if messages[-1].role == 'assistant' %}{{ raise_exception('whose turn?') }}{% endif %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
TEXT = TaskSignature(task="text2text", max_input_tokens=200, max_output_tokens=8)


def save_byte_t5(folder: Path, seed: int = 0) -> Path:
    """A random byte-level T5 that writes printable ASCII alone, and never ends by itself."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=384,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight.normal_()
        model.lm_head.weight[: 3 + 32] = 0
        model.lm_head.weight[3 + 127 :] = 0
    model.save_pretrained(folder)
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def save_word_bert(folder: Path, seed: int = 0) -> Path:
    """A random BERT with a vocabulary of a few words."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def text_adapter(
    backbone: Backbone, seed: int, signature: TaskSignature = TEXT, scale: float = 4.0
) -> Artefact:
    """A random low-rank adapter on every site, strong enough to change the text."""
    generator = torch.Generator().manual_seed(seed)
    parts, tensors = [], {}
    for site in backbone.sites.values():
        parts.append(LowRankPart(site=site.name, rank=RANK, scale=scale))
        a = torch.randn(site.in_features, RANK, generator=generator) / site.in_features**0.5
        tensors[f"{site.name}/low_rank/a"] = a
        tensors[f"{site.name}/low_rank/b"] = torch.randn(
            RANK, site.out_features, generator=generator
        )
    return build_artefact(
        kind="adapter", backbone=backbone, parts=parts, tensors=tensors, signature=signature
    )


def adapter_of(
    backbone: Backbone, *parts: Part, seed: int = 0, signature: TaskSignature = TEXT
) -> Artefact:
    """An adapter of any parts with random tensors."""
    generator = torch.Generator().manual_seed(seed)
    specs = [spec for part in parts for spec in part.tensor_specs(backbone.shapes)]
    return build_artefact(
        kind="adapter",
        backbone=backbone,
        parts=parts,
        tensors={spec.name: torch.randn(spec.shape, generator=generator) for spec in specs},
        signature=signature,
    )


def label_adapter(backbone: Backbone, seed: int, labels: Sequence[str] = LABELS) -> Artefact:
    """A random classification head."""
    generator = torch.Generator().manual_seed(seed)
    width = backbone.shapes.hidden_size
    return build_artefact(
        kind="adapter",
        backbone=backbone,
        parts=[HeadPart(num_labels=len(labels), pooling="mean")],
        tensors={
            "head/weight": torch.randn(len(labels), width, generator=generator),
            "head/bias": torch.randn(len(labels), generator=generator),
        },
        signature=TaskSignature(task="classification", labels=tuple(labels), max_input_tokens=32),
    )


def peft_lora(backbone: Backbone, seed: int, **changes: object) -> dict[str, bytes]:
    """A LoRA of PEFT's format on every value map of the decoder, as its two files."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for site in backbone.sites.values():
        if site.name.startswith("decoder") and site.name.endswith("self.v"):
            stem = f"base_model.model.{site.module_path}"
            a = torch.randn(RANK, site.in_features, generator=generator)
            b = torch.randn(site.out_features, RANK, generator=generator)
            tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM",
        "r": RANK,
        "lora_alpha": 64,
        "target_modules": r".*decoder.*SelfAttention\.v",
    }
    return {"config": json.dumps(config | changes).encode(), "data": save(tensors)}


def write_peft(files: dict[str, bytes], folder: Path) -> Path:
    """The files under the names that PEFT gives them."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes(files["config"])
    (folder / "adapter_model.safetensors").write_bytes(files["data"])
    return folder


def skill_bank(backbone: Backbone, seed: int = 0) -> Artefact:
    """A random bank on the decoder's sites."""
    generator = torch.Generator().manual_seed(seed)
    parts, tensors = [], {}
    for site in [one for one in backbone.sites.values() if one.name.startswith("decoder")]:
        parts.append(
            BankPart(
                site=site.name,
                rank=RANK,
                num_skills=NUM_SKILLS,
                num_heads=NUM_HEADS,
                scale=4.0,
            )
        )
        a_shape = (NUM_HEADS, NUM_SKILLS, site.in_features // NUM_HEADS, RANK)
        b_shape = (NUM_HEADS, NUM_SKILLS, RANK, site.out_features // NUM_HEADS)
        tensors[f"{site.name}/mixture/a"] = torch.randn(a_shape, generator=generator)
        tensors[f"{site.name}/mixture/b"] = torch.randn(b_shape, generator=generator)
    return build_artefact(kind="bank", backbone=backbone, parts=parts, tensors=tensors)


def routing_weights(bank: Artefact, seed: int) -> torch.Tensor:
    """Random mixing weights (S, H, K) over ``bank``."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(bank.manifest.bank_parts), NUM_HEADS, NUM_SKILLS)
    return torch.rand(shape, generator=generator)


def routing_task(backbone: Backbone, bank: Artefact, seed: int) -> Artefact:
    """A random task over ``bank``."""
    sites = tuple(part.site for part in bank.manifest.bank_parts)
    part = RoutingPart(sites=sites, num_skills=NUM_SKILLS, num_heads=NUM_HEADS)
    return build_artefact(
        kind="routing",
        backbone=backbone,
        parts=[part],
        tensors={"routing/weights": routing_weights(bank, seed)},
        signature=TEXT,
        bank=bank.digest,
    )


def fill_store(folder: Path, t5: Backbone, bert: Backbone | None = None) -> None:
    """Two text tasks, a bank with one routed task, and a colour classifier where ``bert`` is."""
    with Store.open(folder) as store:
        store.add_backbone(t5, name="tiny-t5")
        bank = skill_bank(t5)
        batch = [
            ("acme/upper", text_adapter(t5, 1)),
            ("acme/lower", text_adapter(t5, 2)),
            ("acme/skills", bank),
            ("acme/routed", routing_task(t5, bank, 3)),
        ]
        if bert is not None:
            store.add_backbone(bert, name="tiny-bert")
            batch.append(("paint/colour", label_adapter(bert, 4)))
        store.publish_many(batch)


def serve_config(store: Path, *folders: Path, **changes: object) -> ServeConfig:
    """Development mode over these backbones, named by their folders."""
    values: dict[str, object] = {
        "store": store,
        "backbones": [BackboneConfig(name=one.name, folder=one) for one in folders],
        "development_key_hash": hash_key(DEVELOPMENT_KEY),
        "engine": EngineSection(max_rows=8, max_waiting=64),
    }
    return ServeConfig.model_validate(values | changes)
