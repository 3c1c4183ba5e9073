"""Scoring stored artefacts: every primitive and pooling through the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from reference_kit import artefact_of
from training_kit import opinion_task, save_tiny_bert

from adapters_store.artefact import load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.primitives import Part
from adapters_store.primitives.bottleneck import BottleneckPart
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart
from training.evaluation import artefact_accuracy
from training.reference import applied
from training.suite import Example

TEXTS = ("city: Oslo", "date: 1999", "kebab this phrase", "a", "one two three four")


def written_parts(backbone: Backbone) -> dict[str, list[Part]]:
    anatomy = backbone.shapes.anatomy
    return {
        "bottleneck": [
            BottleneckPart(block=b.name, rank=2, activation="relu", reads="sum", scale=0.2)
            for b in anatomy.blocks
        ],
        "prefix": [
            PrefixPart(attention=one.name, num_tokens=2, shifts_positions=True)
            for one in anatomy.attentions
        ],
        "prompt": [
            PromptPart(input=one.name, num_tokens=2, has_positions=True) for one in anatomy.inputs
        ],
    }


@pytest.mark.parametrize("what", ["bottleneck", "prefix", "prompt"])
def test_a_text_task_is_scored_on_what_the_artefact_writes(published, what: str) -> None:
    backbone = published.backbone
    parts = written_parts(backbone)[what]
    artefact = artefact_of(backbone, parts)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        backbone.folder, dtype=torch.float32
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone.folder)
    examples = []
    with applied(model, backbone, artefact) as adapted:
        for text in TEXTS:
            ids = adapted.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=8)
            examples.append(Example(text, tokenizer.decode(ids[0], skip_special_tokens=True)))
    assert artefact_accuracy(backbone.folder, artefact, None, examples) == 1.0
    wrong = [Example(one.input, one.output + "!") for one in examples[:2]]
    score = artefact_accuracy(backbone.folder, artefact, None, [*wrong, *examples[2:]])
    assert score == pytest.approx(0.6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "pooled"])
def test_a_classifier_is_scored_with_its_own_pooling(tmp_path: Path, pooling: str) -> None:
    backbone = Backbone.from_folder(save_tiny_bert(tmp_path / "bert"))
    head = HeadPart.model_validate({"num_labels": 3, "pooling": pooling, "dense_size": 6})
    artefact = artefact_of(backbone, [head])
    t, model = load_tensors(artefact), transformers.AutoModel.from_pretrained(backbone.folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone.folder)
    examples = []
    for one in opinion_task().test[:12]:
        with torch.no_grad():
            outputs = model.eval()(**tokenizer(one.input, return_tensors="pt"))
        hidden = outputs.last_hidden_state[0]
        v = {
            "mean": hidden.mean(0),
            "cls": hidden[0],
            "last": hidden[-1],
            "pooled": outputs.pooler_output[0],
        }[pooling]
        inner = torch.tanh(t["head/dense_weight"] @ v + t["head/dense_bias"])
        label = int((t["head/weight"] @ inner + t["head/bias"]).argmax())
        examples.append(Example(one.input, f"label-{label}"))
    assert artefact_accuracy(backbone.folder, artefact, None, examples) == 1.0


def test_an_artefact_that_gives_embeddings_has_no_score(tmp_path: Path) -> None:
    backbone = Backbone.from_folder(save_tiny_bert(tmp_path / "bert"))
    artefact = artefact_of(
        backbone, [PromptPart(input="encoder", num_tokens=1, has_positions=True)]
    )
    with pytest.raises(UsageError, match="gives embeddings has no outputs"):
        artefact_accuracy(backbone.folder, artefact, None, [Example("the food", "good")])
