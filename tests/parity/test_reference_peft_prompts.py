"""The reference against PEFT: prompt tuning, P-tuning and prefix tuning."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from peft import (
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from reference_kit import answer, artefact_of, backbone_of, batch_of, model_of

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart
from training.reference import applied

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

TASK_TYPES = {
    "t5": "SEQ_2_SEQ_LM",
    "bart": "SEQ_2_SEQ_LM",
    "bert": "FEATURE_EXTRACTION",
    "roberta": "FEATURE_EXTRACTION",
}
NAMES = ("llama", "qwen2", "gemma", "gpt2", "t5", "bart", "bert", "roberta")
P = 3


def theirs(backbone: Backbone, config: PeftConfig) -> tuple[Any, torch.Tensor]:
    """PEFT's model with random prompts, and what it saves of them."""
    torch.manual_seed(6)
    model = get_peft_model(copy.deepcopy(model_of(backbone)), config).eval()
    for parameter in model.prompt_encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model, model.get_prompt_embedding_to_save("default")


def check(peft_model: Any, backbone: Backbone, artefact: Artefact, *, writes_padded: bool) -> None:
    """Equal logits for padded rows, and equal greedy tokens of rows that are padded or not."""
    model = model_of(backbone)
    with applied(model, backbone, artefact) as adapted:
        for padding in ("none", "left", "right"):
            batch = batch_of(backbone, padding=padding)
            expected, found = answer(peft_model, **batch), answer(adapted, **batch)
            seen = torch.ones(found.shape[:2], dtype=torch.bool)
            if "decoder_input_ids" not in batch:  # what padding gives is nobody's answer
                seen[:, -batch["input_ids"].shape[1] :] = batch["attention_mask"].bool()
            torch.testing.assert_close(found[seen], expected[seen], atol=1e-5, rtol=1e-5)
            if backbone.shapes.anatomy.can_generate and (writes_padded or padding == "none"):
                batch.pop("decoder_input_ids", None)
                ids = adapted.generate(**batch, max_new_tokens=6)
                assert torch.equal(
                    ids, peft_model.generate(**batch, max_new_tokens=6, do_sample=False)
                )
    bare = answer(model, **batch_of(backbone, padding="right"))
    assert (expected[:, -bare.shape[1] :] - bare).abs().max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["prompt", "p"])
def test_prompt_tuning_and_p_tuning(name: str, method: str) -> None:
    backbone, task_type = backbone_of(name), TASK_TYPES.get(name, "CAUSAL_LM")
    if method == "prompt":
        config: PeftConfig = PromptTuningConfig(task_type=task_type, num_virtual_tokens=P)
    else:
        config = PromptEncoderConfig(
            task_type=task_type, num_virtual_tokens=P, encoder_hidden_size=8
        )
    model, rows = theirs(backbone, config)
    place = backbone.shapes.anatomy.inputs[0].name
    artefact = artefact_of(
        backbone,
        [PromptPart(input=place, num_tokens=P, has_positions=True)],
        {f"{place}/prompt/0/rows": rows[:P]},
    )
    # A decoder alone gets no positions from PEFT, so that padding counts as tokens there.
    check(model, backbone, artefact, writes_padded=task_type == "SEQ_2_SEQ_LM")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("has_projection", [False, True])
def test_prefix_tuning(name: str, has_projection: bool) -> None:
    backbone, task_type = backbone_of(name), TASK_TYPES.get(name, "CAUSAL_LM")
    config = PrefixTuningConfig(
        task_type=task_type,
        num_virtual_tokens=P,
        prefix_projection=has_projection,
        encoder_hidden_size=8 if has_projection else None,
    )
    model, flat = theirs(backbone, config)
    stack = backbone.shapes.anatomy.inputs[-1].name
    places = [
        one
        for one in backbone.shapes.anatomy.attentions
        if one.name.startswith(stack) and one.name.endswith("self")
    ]
    rows = flat.view(P, 2 * len(places), places[0].num_kv_heads, places[0].head_dim)
    is_seq2seq = task_type == "SEQ_2_SEQ_LM"
    parts, tensors = [], {}
    for i, place in enumerate(places):
        # PEFT lays the rows out twice, once for cross attention, and takes four for each layer.
        first = 4 * i % (2 * len(places)) if is_seq2seq else 2 * i
        parts.append(PrefixPart(attention=place.name, num_tokens=P, shifts_positions=True))
        tensors[f"{place.name}/prefix/key"] = rows[:, first].transpose(0, 1)
        tensors[f"{place.name}/prefix/value"] = rows[:, first + 1].transpose(0, 1)
    check(model, backbone, artefact_of(backbone, parts, tensors), writes_padded=True)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_classifier_reads_the_first_row_of_a_prompt(name: str) -> None:
    backbone = backbone_of(name)
    torch.manual_seed(7)
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(
        backbone.folder, num_labels=4
    )
    config = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=P)
    model = get_peft_model(whole, config).eval()
    state = model.state_dict()
    own = {
        key.partition(".default.")[2]: value
        for key, value in state.items()
        if "classifier.modules_to_save" in key
    }
    if name == "bert":
        head = HeadPart(num_labels=4, pooling="pooled")
        tensors = {"head/weight": own["weight"], "head/bias": own["bias"]}
    else:
        head = HeadPart(num_labels=4, pooling="cls", dense_size=32)
        tensors = {
            "head/weight": own["out_proj.weight"],
            "head/bias": own["out_proj.bias"],
            "head/dense_weight": own["dense.weight"],
            "head/dense_bias": own["dense.bias"],
        }
    prompt = PromptPart(input="encoder", num_tokens=P, has_positions=True)
    tensors["encoder/prompt/0/rows"] = model.get_prompt_embedding_to_save("default")
    artefact = artefact_of(backbone, [prompt, head], tensors)
    with applied(model_of(backbone), backbone, artefact) as adapted:
        for padding in ("none", "right"):
            batch = batch_of(backbone, padding=padding)
            with torch.no_grad():
                found = adapted.head(adapted(**batch), batch["attention_mask"])
            torch.testing.assert_close(found, answer(model, **batch), atol=1e-5, rtol=1e-5)
