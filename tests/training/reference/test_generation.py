"""Generation with a cache against one full forward per token, alone and among padded rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference_kit import answer, artefact_of, backbone_of, batch_of, model_of, routing_of

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.primitives import Part
from adapters_store.primitives.bottleneck import BottleneckPart
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart
from adapters_store.primitives.scale import ScalePart
from training.reference import Adapted, applied

NUM_TOKENS = 6
NAMES = ("llama", "gemma", "gpt2", "t5", "bart")


def parts_of(backbone: Backbone, what: str) -> list[Part]:
    anatomy, sites = backbone.shapes.anatomy, list(backbone.sites)
    own = [one.name for one in anatomy.attentions if one.name.endswith("self")]
    every = [one.name for one in anatomy.attentions]
    layers = (0, 1)
    return {
        "low_rank": lambda: [LowRankPart(site=name, rank=2, scale=1.0) for name in sites],
        "scale": lambda: [ScalePart(site=name, side="output") for name in sites],
        "bottleneck": lambda: [
            BottleneckPart(block=b.name, rank=4, activation="relu", reads="sum", scale=1.0)
            for b in anatomy.blocks
        ],
        "override": lambda: [OverridePart(vector=v.name, operation="add") for v in anatomy.vectors],
        "prefix that shifts": lambda: [
            PrefixPart(attention=name, num_tokens=3, shifts_positions=True) for name in own
        ],
        "prefix that does not": lambda: [
            PrefixPart(attention=name, num_tokens=3, shifts_positions=False) for name in every
        ],
        "prompt with positions": lambda: [
            PromptPart(input=i.name, layer=layer, num_tokens=3, has_positions=True)
            for i in anatomy.inputs
            for layer in layers
        ],
        "prompt without": lambda: [
            PromptPart(input=i.name, num_tokens=3, has_positions=False) for i in anatomy.inputs
        ],
        "everything": lambda: [
            part
            for kind in ("low_rank", "bottleneck", "prefix that shifts", "prompt with positions")
            for part in parts_of(backbone, kind)
        ],
    }[what]()


KINDS = (
    "low_rank",
    "scale",
    "bottleneck",
    "override",
    "prefix that shifts",
    "prefix that does not",
    "prompt with positions",
    "prompt without",
    "everything",
)


def endless(backbone: Backbone) -> Any:
    """The backbone's model, which never stops by itself."""
    model = model_of(backbone)
    model.generation_config.eos_token_id = None
    model.generation_config.forced_eos_token_id = None
    return model


def token_by_token(
    adapted: Adapted, ids: torch.Tensor, start: int | None
) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens of one input and their logits, with a full forward for each token."""
    written = ids if start is None else torch.tensor([[start]])
    logits = []
    for _ in range(NUM_TOKENS):
        inputs = {"input_ids": written} if start is None else {"decoder_input_ids": written}
        full = answer(adapted, **{"input_ids": ids, "use_cache": False} | inputs)
        logits.append(full[0, -1])
        written = torch.cat((written, full[:, -1].argmax(-1, keepdim=True)), dim=1)
    return written[0, -NUM_TOKENS:].tolist(), torch.stack(logits)


def check(backbone: Backbone, artefact: Artefact, bank: Artefact | None = None) -> None:
    model, start = endless(backbone), None
    if backbone.config.get("is_encoder_decoder"):
        start = int(backbone.config["decoder_start_token_id"])
    batch = batch_of(backbone, padding="left" if start is None else "right")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    options = {"max_new_tokens": NUM_TOKENS, "output_logits": True, "return_dict_in_generate": True}
    with applied(model, backbone, artefact, bank) as adapted:
        together: Any = adapted.generate(input_ids=ids, attention_mask=mask, **options)
        for row in range(len(ids)):
            alone = ids[row][mask[row].bool()][None]
            tokens, logits = token_by_token(adapted, alone, start)
            assert together.sequences[row, -NUM_TOKENS:].tolist() == tokens
            found = torch.stack([step[row] for step in together.logits])
            torch.testing.assert_close(found, logits, atol=1e-4, rtol=1e-4)
            single: Any = adapted.generate(input_ids=alone, **options)
            assert single.sequences[0, -NUM_TOKENS:].tolist() == tokens


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", KINDS)
def test_generation_equals_a_full_forward_per_token(name: str, what: str) -> None:
    backbone = backbone_of(name)
    check(backbone, artefact_of(backbone, parts_of(backbone, what)))


@pytest.mark.parametrize("name", NAMES)
def test_a_routing_generates_with_its_bank(name: str) -> None:
    backbone = backbone_of(name)
    bank, routing = routing_of(backbone, num_heads=2, num_skills=3)
    check(backbone, routing, bank)


@pytest.mark.parametrize("what", ["prefix that shifts", "prompt with positions"])
def test_beams_share_the_rows(what: str) -> None:
    backbone = backbone_of("llama")
    model, artefact = endless(backbone), artefact_of(backbone, parts_of(backbone, what))
    batch = batch_of(backbone, padding="left")
    with applied(model, backbone, artefact) as adapted:
        found = [
            adapted.generate(**batch, max_new_tokens=NUM_TOKENS, num_beams=3, use_cache=cached)
            for cached in (True, False)
        ]
    assert torch.equal(found[0], found[1])
