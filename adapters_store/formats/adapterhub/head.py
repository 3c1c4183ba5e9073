"""Prediction heads of ``adapters``: classifiers become a ``head`` part, others are named.

Heads of the library's own models stand under ``heads.<name>``, in layers with a dropout before
each; those of the Hugging Face classes keep their modules' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from adapters_store.formats.adapterhub.draft import Draft, short
from adapters_store.formats.adapterhub.layout import LAYOUTS
from adapters_store.formats.adapterhub.recipe import Recipe, as_stored, zeros
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.prompt import PromptPart
from adapters_store.signature import TaskSignature

HEAD_CONFIG_FILE = "head_config.json"
HEAD_WEIGHTS_FILE = "model_head.safetensors"
HEAD_PICKLE_FILE = "pytorch_model_head.bin"

Pooling = Literal["cls", "last", "pooled"]
CLASSIFIERS = ("classification", "image_classification")
LANGUAGE_MODELS = ("masked_lm", "causal_lm", "seq2seq_lm")
_LANGUAGE_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM")


@dataclass(frozen=True, slots=True)
class Classifier:
    """A head's layers: stems of the tensors of the last, and of a layer with tanh before it."""

    pooling: Pooling
    last: str
    dense: str | None = None
    has_bias: bool = True


_ROBERTA = Classifier("cls", "classifier.out_proj", "classifier.dense")
STATIC: dict[str, Classifier] = {
    "BertForSequenceClassification": Classifier("pooled", "classifier"),
    "RobertaForSequenceClassification": _ROBERTA,
    "XLMRobertaForSequenceClassification": _ROBERTA,
    "GPT2ForSequenceClassification": Classifier("last", "score", has_bias=False),
    "LlamaForSequenceClassification": Classifier("last", "score", has_bias=False),
    "MistralForSequenceClassification": Classifier("last", "score", has_bias=False),
    "ViTForImageClassification": Classifier("cls", "classifier"),
}
"""Heads of Hugging Face classes by the class."""


def is_language_model(raw: Mapping[str, Any]) -> bool:
    """True where the head writes tokens, as the backbone's own does."""
    config = raw.get("config")
    if isinstance(config, dict):
        return config.get("head_type") in LANGUAGE_MODELS
    return str(raw.get("model_class")).endswith(_LANGUAGE_CLASSES)


def plan_head(raw: Mapping[str, Any], model_type: str, draft: Draft) -> None:
    """Add a classifier's part and labels; reject any other head by name."""
    draft.scope = HEAD_CONFIG_FILE
    values, config = raw, raw.get("config")
    if isinstance(config, dict):
        values = config
        found = _flexible(config, f"heads.{raw.get('name')}", model_type, draft)
    else:
        found = STATIC.get(str(raw.get("model_class")))
        if found is None:
            message = f"the head of {short(raw.get('model_class'))} is not one of {sorted(STATIC)}"
            draft.abandon("unsupported_option", message, f"{draft.scope}.model_class")
    if found is None:
        return
    if any(isinstance(part, PromptPart) for part in draft.parts):
        message = "`adapters` reads the head's vector from the first row, which is the prompt's"
        draft.abandon("unsupported_option", message, draft.scope)
        return
    num_labels = values.get("num_labels")
    if isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 2:
        message = (
            f"num_labels is {short(num_labels)}; expected 2 or more, one label is a regression"
        )
        draft.abandon("unsupported_option", message, f"{draft.scope}.num_labels")
        return
    if _add(found, num_labels, draft):
        draft.labels = _labels(values.get("label2id"), num_labels, draft)


def _flexible(
    config: Mapping[str, Any], stem: str, model_type: str, draft: Draft
) -> Classifier | None:
    """The layers of a head of the library's own models, None with a reason for other heads."""
    layers, activation = config.get("layers"), config.get("activation_function")
    pooling = LAYOUTS[model_type].pooling if model_type in LAYOUTS else None
    fault = ""
    if config.get("head_type") not in CLASSIFIERS:
        fault = f"head_type is {short(config.get('head_type'))}; expected one of {CLASSIFIERS}"
    elif config.get("multilabel"):
        fault = "multilabel is set; the primitive's labels exclude each other"
    elif layers not in (1, 2):
        fault = f"layers is {short(layers)}; expected 1 or 2"
    elif layers == 2 and activation != "tanh":
        fault = f"activation_function is {short(activation)} between two layers; expected 'tanh'"
    elif pooling is None:
        fault = f"a head of {model_type!r} reads the decoder at the text's end"
    if fault or pooling is None:
        draft.abandon("unsupported_option", fault, f"{draft.scope}.config")
        return None
    return Classifier(
        pooling="pooled" if config.get("use_pooler") and pooling == "cls" else pooling,
        last=f"{stem}.{4 if layers == 2 else 1}",
        dense=f"{stem}.1" if layers == 2 else None,
        has_bias=bool(config.get("bias", True)),
    )


def _labels(label2id: Any, num_labels: int, draft: Draft) -> tuple[str, ...]:
    """The labels in the order of the head's rows; numbers where the file names none."""
    labels = tuple(f"label_{index}" for index in range(num_labels))
    if label2id is not None:
        pairs = label2id.items() if isinstance(label2id, dict) else ()
        by_index = {index: label for label, index in pairs if isinstance(index, int)}
        is_whole = len(pairs) == len(by_index) == num_labels
        labels = tuple(by_index.get(index, "") if is_whole else "" for index in range(num_labels))
    try:
        TaskSignature(task="classification", labels=labels)
    except ValidationError as error:
        message = (
            f"label2id is {short(label2id)}; expected {num_labels} labels from 0 on: "
            f"{error.errors(include_url=False)[0]['msg']}"
        )
        draft.reject("unreadable", message, f"{draft.scope}.label2id")
    return labels


def _add(found: Classifier, num_labels: int, draft: Draft) -> bool:
    """Add the part; False where its matrix has another number of rows."""
    width = draft.shapes.hidden_size
    weight = draft.take(f"{found.last}.weight", (num_labels, width))
    if draft.shape(f"{found.last}.weight")[:1] != (num_labels,):
        draft.is_complete = False
        return False
    part = HeadPart(
        num_labels=num_labels,
        pooling=found.pooling,
        dense_size=None if found.dense is None else width,
    )
    bias: Recipe = zeros(num_labels)
    if found.has_bias:
        bias = as_stored(draft.take(f"{found.last}.bias", (num_labels,)))
    recipes = [as_stored(weight), bias]
    if found.dense is not None:
        recipes.append(as_stored(draft.take(f"{found.dense}.weight", (width, width))))
        recipes.append(as_stored(draft.take(f"{found.dense}.bias", (width,))))
    draft.add(part, recipes)
    return True
