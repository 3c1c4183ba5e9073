"""What an export to PEFT refuses by name, and the forms that it chooses."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers
from golden_kit import GOLDEN, golden_backbone
from safetensors.torch import load_file

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import (
    ConflictError,
    IncompatibleError,
    RejectedArtefactError,
    UsageError,
)
from adapters_store.formats.importing import import_from
from adapters_store.formats.peft.export import export_peft
from adapters_store.formats.source import FolderSource
from adapters_store.manifest import BankPart, HeadPart, LowRankPart, RoutingPart, TaskSignature
from adapters_store.primitives.bottleneck import BottleneckPart
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart
from adapters_store.primitives.scale import ScalePart
from training.reference import applied

TEXT = TaskSignature(task="text2text")
LABELS = TaskSignature(task="classification", labels=("no", "yes"))
EMBEDDING = TaskSignature(task="embedding")
Q, NORM, FINAL = "decoder.0.self.q", "decoder.0.self.norm", "decoder.final.norm"


def made(family: str, parts, *, seed=0, signature=TEXT, kind="adapter", bank=None, **fixed):
    """An artefact whose tensors are random where ``fixed`` (by name) does not give them."""
    backbone = golden_backbone(family)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for part in parts:
        for spec in part.tensor_specs(backbone.shapes):
            if not spec.is_optional or spec.name in fixed:
                draw = torch.randn(spec.shape, generator=generator)
                tensors[spec.name] = fixed.get(spec.name, draw.abs() if kind == "routing" else draw)
    return build_artefact(
        kind=kind,
        backbone=backbone,
        parts=parts,
        tensors=tensors,
        signature=signature,
        bank=bank,
    )


def low_rank(site: str = Q, rank: int = 2, scale: float = 0.5) -> LowRankPart:
    return LowRankPart(site=site, rank=rank, scale=scale)


def override(vector: str, operation: str = "replace") -> OverridePart:
    return OverridePart(vector=vector, operation=operation)


def prompt(stack: str = "decoder", layer: int = 0, has_positions: bool = True) -> PromptPart:
    return PromptPart(input=stack, layer=layer, num_tokens=2, has_positions=has_positions)


def prefix(layer: int, num_tokens: int = 2, shifts: bool = True, stack="decoder") -> PrefixPart:
    name = f"{stack}.{layer}.self"
    return PrefixPart(attention=name, num_tokens=num_tokens, shifts_positions=shifts)


HEAD = HeadPart(num_labels=2, pooling="last")
BOTTLENECK = BottleneckPart(
    block="decoder.0.after_ffn", rank=2, activation="relu", reads="output", scale=1.0
)
REFUSED = {
    "a bottleneck": ("llama", [BOTTLENECK], TEXT, "bottleneck"),
    "two methods": (
        "llama",
        [low_rank(), ScalePart(site=Q, side="output")],
        TEXT,
        "low_rank, scale together",
    ),
    "both scales of a site": (
        "llama",
        [ScalePart(site=Q, side="input"), ScalePart(site=Q, side="output")],
        TEXT,
        "'decoder.0.self.q' has both",
    ),
    "a deep prompt": ("llama", [prompt(), prompt(layer=1)], TEXT, "one prompt with positions"),
    "a prompt without positions": ("llama", [prompt(has_positions=False)], TEXT, "one prompt"),
    "a prompt of the decoder": ("t5", [prompt()], TEXT, "the first stack"),
    "a prefix of one layer": ("llama", [prefix(0)], TEXT, r"last stack \(2\); .* has 1"),
    "prefixes of unequal length": ("llama", [prefix(0), prefix(1, 3)], TEXT, "equally many"),
    "a prefix that shifts nothing": (
        "llama",
        [prefix(0, shifts=False), prefix(1, shifts=False)],
        TEXT,
        "shift positions",
    ),
    "a prefix of the encoder": (
        "t5",
        [prefix(0, stack="encoder"), prefix(1, stack="encoder")],
        TEXT,
        "self-attention of the last stack",
    ),
    "unequal prefixes behind an encoder": (
        "t5",
        [prefix(0), prefix(1)],
        TEXT,
        "layer 1 of t5 the rows of an earlier layer",
    ),
    "rows and a norm": ("llama", [prompt(), override(f"{FINAL}.gain")], TEXT, "beside rows"),
    "a norm that is added to": (
        "llama",
        [override(f"{FINAL}.gain", "add")],
        TEXT,
        r"decoder\.final\.norm\.gain' \(add\)",
    ),
    "half a norm": (
        "gpt2",
        [low_rank("decoder.0.self.o"), override(f"{NORM}.gain")],
        TEXT,
        "norms may be replaced whole",
    ),
    "a bias alone": (
        "gpt2",
        [override("decoder.0.self.o.bias")],
        TEXT,
        r"decoder\.0\.self\.o\.bias",
    ),
    "biases of some sites": (
        "gpt2",
        [
            low_rank("decoder.0.self.o"),
            low_rank("decoder.0.ffn.in"),
            override("decoder.0.self.o.bias"),
        ],
        TEXT,
        r"has none for \['decoder\.0\.ffn\.in\.bias'\]",
    ),
    "a bias added where nothing is adapted": (
        "gpt2",
        [low_rank("decoder.0.self.o"), override("decoder.0.ffn.in.bias", "add")],
        TEXT,
        "adds to the biases of adapted sites",
    ),
    "a head that pools otherwise": (
        "llama",
        [low_rank(), HeadPart(num_labels=2, pooling="mean")],
        LABELS,
        "pools 'mean'",
    ),
    "a dense layer that the class lacks": (
        "llama",
        [low_rank(), HeadPart(num_labels=2, pooling="last", dense_size=32)],
        LABELS,
        "dense layer of 32",
    ),
    "a bias that the class lacks": ("llama", [low_rank(), HEAD], LABELS, "the head has a bias"),
    "a head of an encoder-decoder": ("t5", [low_rank(), HEAD], LABELS, "model_type 't5'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_peft_cannot_express_is_refused_by_name(name: str, tmp_path: Path):
    family, parts, signature, words = REFUSED[name]
    artefact = made(family, parts, signature=signature)
    with pytest.raises(RejectedArtefactError, match=words):
        export_peft(artefact, golden_backbone(family), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def bank_and_routing(family="llama", scale=0.5, rank=2, **weights) -> tuple[Artefact, Artefact]:
    parts = [
        BankPart(site=site, rank=rank, num_skills=3, num_heads=2, scale=scale)
        for site in (Q, "decoder.1.ffn.in")
        if site in golden_backbone(family).sites
    ] or [
        BankPart(site="decoder.0.self.o", rank=rank, num_skills=3, num_heads=2, scale=scale),
    ]
    bank = made(family, parts, signature=None, kind="bank")
    routing = RoutingPart(sites=tuple(part.site for part in parts), num_skills=3, num_heads=2)
    task = made(family, [routing], kind="routing", bank=bank.digest, seed=1, **weights)
    return bank, task


def exported_config(task: Artefact, bank: Artefact, folder: Path, family="llama"):
    export_peft(task, golden_backbone(family), folder, bank)
    return json.loads((folder / "adapter_config.json").read_text())


def test_weights_without_logits_become_logits_that_give_them(tmp_path: Path):
    weights = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(2))
    weights[0, 0] = torch.tensor([0.0, 1.0, 0.0])
    weights = weights / weights.sum(-1, keepdim=True)
    bank, task = bank_and_routing(**{"routing/weights": weights})
    assert exported_config(task, bank, tmp_path / "out")["peft_type"] == "POLY"
    imported = dict(import_from(FolderSource(tmp_path / "out"), golden_backbone("llama").record))
    assert imported["-bank"].manifest.content_digest == bank.manifest.content_digest
    (tmp_path / "data").write_bytes(imported["-task-0"].data)
    found = load_file(tmp_path / "data")["routing/weights"]
    torch.testing.assert_close(found, weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("scale", "total", "family"), [(0.5, 1.7, "llama"), (0.7, 1.0, "llama"), (0.5, 1.0, "gpt2")]
)
def test_what_poly_cannot_hold_is_mixed_into_lora(scale, total, family, tmp_path: Path):
    num_sites = 1 if family == "gpt2" else 2
    weights = torch.rand(num_sites, 2, 3, generator=torch.Generator().manual_seed(3))
    weights = total * weights / weights.sum(-1, keepdim=True)
    bank, task = bank_and_routing(family, scale, **{"routing/weights": weights})
    config = exported_config(task, bank, tmp_path / "out", family)
    assert (config["peft_type"], config["lora_alpha"] / config["r"]) == ("LORA", scale)
    ((_, artefact),) = import_from(FolderSource(tmp_path / "out"), golden_backbone(family).record)
    assert [part.site for part in artefact.manifest.low_rank_parts] == [
        part.site for part in bank.manifest.bank_parts
    ]


def test_a_bank_alone_and_a_routing_without_its_bank_are_refused(tmp_path: Path):
    bank, task = bank_and_routing()
    with pytest.raises(UsageError, match="a bank is no task"):
        export_peft(bank, golden_backbone("llama"), tmp_path / "out")
    with pytest.raises(IncompatibleError, match="bank"):
        export_peft(task, golden_backbone("llama"), tmp_path / "out")


def test_a_folder_with_files_is_left_alone(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConflictError, match="not an empty folder"):
        export_peft(made("llama", [low_rank()]), golden_backbone("llama"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_common_rank_and_alpha_stand_outside_the_patterns(tmp_path: Path):
    sites = [f"decoder.{i}.self.{part}" for i in range(2) for part in "qkv"]
    parts = [low_rank(site) for site in sites[:4]]
    parts += [low_rank(sites[4], rank=3, scale=0.1), low_rank(sites[5], scale=1 / 3)]
    export_peft(made("llama", parts), golden_backbone("llama"), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 1)
    assert config["rank_pattern"] == {"model.layers.1.self_attn.k_proj": 3}
    assert set(config["alpha_pattern"]) == {
        "model.layers.1.self_attn.k_proj",
        "model.layers.1.self_attn.v_proj",
    }
    ((_, again),) = import_from(FolderSource(tmp_path / "out"), golden_backbone("llama").record)
    found = {part.site: (part.rank, part.scale) for part in again.manifest.low_rank_parts}
    assert found == {part.site: (part.rank, pytest.approx(part.scale, rel=1e-15)) for part in parts}


def test_an_embedding_task_is_exported_for_the_base_model(tmp_path: Path):
    artefact = made("bert", [low_rank("encoder.0.self.q")], signature=EMBEDDING)
    export_peft(artefact, golden_backbone("bert"), tmp_path / "out")
    names = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight" in names


def test_a_bias_that_the_backbone_lacks_travels_as_one_that_lora_adds(tmp_path: Path):
    artefact = made("t5", [low_rank("encoder.0.self.q"), override("encoder.0.self.q.bias")])
    export_peft(artefact, golden_backbone("t5"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["lora_bias"]
    ((_, again),) = import_from(FolderSource(tmp_path / "out"), golden_backbone("t5").record)
    assert again.manifest.content_digest == artefact.manifest.content_digest


@pytest.mark.parametrize("num_layers", [3, 4])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_pairs_of_a_prefix_are_dealt_to_layers_as_peft_deals_them(num_layers, tmp_path: Path):
    config = transformers.T5Config.from_pretrained(GOLDEN / "backbones" / "t5")
    config.num_layers = config.num_decoder_layers = num_layers
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "base")

    def load():
        auto = transformers.AutoModelForSeq2SeqLM
        return auto.from_pretrained(tmp_path / "base").eval()

    settings = peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="SEQ_2_SEQ_LM")
    theirs = peft.get_peft_model(load(), settings).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    backbone = Backbone.from_folder(tmp_path / "base")
    ((_, artefact),) = import_from(FolderSource(tmp_path / "adapter"), backbone.record)
    export_peft(artefact, backbone, tmp_path / "out")
    again = peft.PeftModel.from_pretrained(load(), tmp_path / "out").eval()
    given = {
        "input_ids": torch.tensor([[5, 6, 7]]),
        "attention_mask": torch.ones(1, 3, dtype=torch.long),
        "decoder_input_ids": torch.tensor([[3, 9, 4, 8]]),
    }
    with torch.inference_mode():
        expected = theirs(**given).logits
        with applied(load(), backbone, artefact) as ours:
            torch.testing.assert_close(ours(**given).logits, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(again(**given).logits, expected, atol=1e-5, rtol=0)
